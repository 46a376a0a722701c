#![allow(clippy::unwrap_used, missing_docs)]
//! Exhaustive small worlds: every combination of a few user actions on two or three servers that had agreed on a
//! small tree. Afterwards all servers must be equal, settled, and hold every content that nobody who saw it gave up.

mod world;

use isotherm_core::name::Case;
use isotherm_core::node::Kind;
use world::World;
use world::disk::{Disk, Ino, ROOT};

#[derive(Clone, Copy, Debug)]
enum Do {
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

const ACTIONS: &[Do] = &[
    Do::Edit("d/f"),
    Do::Edit("g"),
    Do::Save("g"),
    Do::Touch("g"),
    Do::Chmod("g"),
    Do::Chmod("d"),
    Do::Delete("d/f"),
    Do::Delete("d"),
    Do::Delete("g"),
    Do::Move("d/f", "f"),
    Do::Move("d", "e"),
    Do::Move("g", "d/g"),
    Do::Move("g", "h"),
    Do::Move("d", "x/d"),
    Do::Move("x", "d/x"),
    Do::Move("g", "d/f"),
    Do::Swap("d/f", "g"),
    Do::Swap("d", "x"),
    Do::File("n"),
    Do::File("d/n"),
    Do::Directory("n"),
    Do::Symlink("n"),
    Do::File("n/inside"),
    Do::Link("g", "l"),
];

/// Performs an action where it is possible, and keeps account of what nobody may lose.
fn act(world: &mut World, number: usize, action: Do, fresh: u8) {
    let disk = &mut world.servers[number].disk;
    let owed = &mut world.owed;
    match action {
        Do::Edit(path) | Do::Save(path) => {
            let Some(ino) = disk.resolve(path).filter(|ino| disk.inodes[ino].kind == Kind::File) else { return };
            owed.remove(&disk.inodes[&ino].bytes);
            owed.insert(fresh);
            if matches!(action, Do::Edit(_)) {
                disk.write(ino, fresh);
            } else {
                let at = disk.parent_and_name(path).unwrap();
                let new = disk.make(Kind::File, fresh);
                let seen = disk.links(ino) > 1;
                disk.unlink(&at);
                if seen {
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

type Owed = std::collections::BTreeSet<u8>;

fn forget(disk: &Disk, ino: Ino, owed: &mut Owed) {
    if disk.inodes[&ino].kind == Kind::File && disk.links(ino) == 1 {
        owed.remove(&disk.inodes[&ino].bytes);
    }
    let inside: Vec<Ino> = disk.names.iter().filter(|((parent, _), _)| *parent == ino).map(|(_, ino)| *ino).collect();
    inside.into_iter().for_each(|ino| forget(disk, ino, owed));
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
fn agreed(count: u8, case: Case) -> World {
    let mut world = World::new(count, case);
    let disk = &mut world.servers[0].disk;
    let directory = disk.make(Kind::Directory, 0);
    disk.link((ROOT, world::disk::name("d")), directory);
    let empty = disk.make(Kind::Directory, 0);
    disk.link((ROOT, world::disk::name("x")), empty);
    for (path, bytes) in [("d/f", 1), ("g", 2)] {
        make(&mut world.servers[0].disk, path, Kind::File, bytes, &mut world.owed);
    }
    world.converge(0).unwrap();
    world
}

fn check(world: &mut World, story: &[(usize, Do)], first: usize) {
    let base = 10;
    for (at, (number, action)) in story.iter().enumerate() {
        act(world, *number, *action, base + u8::try_from(at).unwrap());
    }
    if let Err(what) = world.converge(first) {
        panic!("{story:?}, server {first} first: {what}");
    }
}

#[test]
fn one_action_on_each_of_two_servers() {
    for case in [Case::Sensitive, Case::Insensitive] {
        let start = agreed(2, case);
        for a in ACTIONS {
            for b in ACTIONS {
                for first in [0, 1] {
                    check(&mut start.clone(), &[(0, *a), (1, *b)], first);
                }
            }
        }
    }
}

#[test]
fn two_actions_against_one() {
    let start = agreed(2, Case::Sensitive);
    for (i, a) in ACTIONS.iter().enumerate() {
        for b in ACTIONS {
            for (j, c) in ACTIONS.iter().enumerate() {
                check(&mut start.clone(), &[(0, *a), (0, *b), (1, *c)], (i + j) % 2);
            }
        }
    }
}

#[test]
fn one_action_on_each_of_three_servers() {
    let start = agreed(3, Case::Sensitive);
    for (i, a) in ACTIONS.iter().enumerate() {
        for (j, b) in ACTIONS.iter().enumerate() {
            for c in &ACTIONS[..=j] {
                check(&mut start.clone(), &[(0, *a), (1, *b), (2, *c)], (i + j) % 3);
            }
        }
    }
}
