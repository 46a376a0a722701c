//! People at the servers: what they do on their disks, and what nobody may lose after it.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::name::Case;
use isotherm_core::node::Kind;

use super::World;
use super::disk::{self, Disk, Ino, ROOT};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    Edit(&'static str),
    Save(&'static str),
    Touch(&'static str),
    Chmod(&'static str),
    Delete(&'static str),
    Move(&'static str, &'static str),
    Swap(&'static str, &'static str),
    File(&'static str),
    Directory(&'static str),
    Symlink(&'static str),
    Link(&'static str, &'static str),
}

/// Performs an action where it is possible, and keeps account of what nobody may lose.
pub(crate) fn act(world: &mut World, number: usize, action: Do, fresh: u8) {
    let disk = &mut world.servers[number].disk;
    let owed = &mut world.owed;
    match action {
        Do::Edit(path) | Do::Save(path) => {
            let Some(ino) = disk.resolve(path).filter(|ino| disk.inodes[ino].kind == Kind::File) else { return };
            let was_owed = owed.remove(&disk.inodes[&ino].bytes);
            owed.insert(fresh);
            if matches!(action, Do::Edit(_)) {
                disk.write(ino, fresh);
            } else {
                let at = disk.parent_and_name(path).unwrap();
                let new = disk.make(Kind::File, fresh);
                // Another name still holds the old bytes, unless somebody elsewhere gave them up before.
                let is_kept = disk.links(ino) > 1 && was_owed;
                disk.unlink(&at);
                if is_kept {
                    owed.insert(disk.inodes[&ino].bytes);
                }
                disk.link(at, new);
            }
        }
        Do::Touch(path) => {
            let Some(ino) = disk.resolve(path).filter(|ino| disk.inodes[ino].kind == Kind::File) else { return };
            let bytes = disk.inodes[&ino].bytes;
            disk.write(ino, bytes);
        }
        Do::Chmod(path) => {
            let Some(ino) = disk.resolve(path) else { return };
            disk.inodes.get_mut(&ino).unwrap().metadata.mode = 0o600 + u32::from(fresh % 8);
            disk.touch_change(ino);
        }
        Do::Delete(path) => {
            let Some(at) = disk.parent_and_name(path).filter(|at| disk.names.contains_key(at)) else { return };
            let ino = disk.names[&at];
            forget(disk, ino, owed);
            disk.remove_tree(&at);
        }
        Do::Move(from, to) => rename(disk, from, to, owed),
        Do::Swap(a, b) => {
            let aside = "aside";
            if disk.resolve(a).is_some() && disk.resolve(b).is_some() && disk.resolve(aside).is_none() {
                rename(disk, a, aside, owed);
                rename(disk, b, a, owed);
                rename(disk, aside, b, owed);
            }
        }
        Do::File(path) => make(disk, path, Kind::File, fresh, owed),
        Do::Directory(path) => make(disk, path, Kind::Directory, 0, owed),
        Do::Symlink(path) => make(disk, path, Kind::Symlink, fresh, owed),
        Do::Link(from, to) => {
            let (Some(ino), Some(at)) = (disk.resolve(from), disk.parent_and_name(to)) else { return };
            if disk.inodes[&ino].kind == Kind::File && !disk.names.contains_key(&at) {
                disk.link(at, ino);
            }
        }
    }
}

type Owed = BTreeSet<u8>;

/// Gives up what has no name but these.
fn forget(disk: &Disk, ino: Ino, owed: &mut Owed) {
    let mut names = BTreeMap::new();
    count(disk, ino, &mut names);
    for (ino, names) in names {
        if disk.inodes[&ino].kind == Kind::File && disk.links(ino) == names {
            owed.remove(&disk.inodes[&ino].bytes);
        }
    }
}

fn count(disk: &Disk, ino: Ino, names: &mut BTreeMap<Ino, u32>) {
    *names.entry(ino).or_default() += 1;
    let inside = disk.names.iter().filter(|((parent, _), _)| *parent == ino);
    inside.for_each(|(_, ino)| count(disk, *ino, names));
}

fn rename(disk: &mut Disk, from: &str, to: &str, owed: &mut Owed) {
    let (Some(from), Some(to)) = (disk.parent_and_name(from), disk.parent_and_name(to)) else { return };
    let replaced = disk.names.get(&to).map(|ino| (*ino, disk.inodes[ino].clone(), disk.links(*ino)));
    if disk.rename(&from, to)
        && let Some((_, inode, 1)) = replaced
        && inode.kind == Kind::File
    {
        owed.remove(&inode.bytes);
    }
}

fn make(disk: &mut Disk, path: &str, kind: Kind, bytes: u8, owed: &mut Owed) {
    let Some(at) = disk.parent_and_name(path).filter(|at| !disk.names.contains_key(at)) else { return };
    let ino = disk.make(kind, bytes);
    disk.link(at, ino);
    if kind == Kind::File {
        owed.insert(bytes);
    }
}

/// Servers that agree on `d/f`, `g` and the empty directory `x`.
pub(crate) fn agreed(count: u8, case: Case) -> World {
    let mut world = World::new(count, case);
    let disk = &mut world.servers[0].disk;
    let directory = disk.make(Kind::Directory, 0);
    disk.link((ROOT, disk::name("d")), directory);
    let empty = disk.make(Kind::Directory, 0);
    disk.link((ROOT, disk::name("x")), empty);
    for (path, bytes) in [("d/f", 1), ("g", 2)] {
        make(&mut world.servers[0].disk, path, Kind::File, bytes, &mut world.owed);
    }
    world.converge(0).unwrap();
    world
}
