//! Deeds of people, told in words, and what is on a disk afterwards.

use isotherm_core::node::Kind;

use super::World;
use super::disk::Disk;

/// Does what is told, one deed after the other, separated by `;`: `write PATH BYTES`, `save PATH BYTES` (by rename), `rm PATH`,
/// `mv A B`, `mkdir PATH`, `ln -s PATH BYTES`, `chmod PATH BYTES`, `later` (the clock moves on, so that what follows is newer).
pub(crate) fn perform(disk: &mut Disk, deeds: &str) {
    for deed in deeds.split(';').map(str::trim).filter(|deed| !deed.is_empty()) {
        let words: Vec<&str> = deed.split_whitespace().collect();
        let bytes = |at: usize| words[at].parse::<u8>().unwrap();
        match words[0] {
            "later" => disk.clock += 1_000,
            "write" => match disk.resolve(words[1]) {
                Some(ino) => disk.write(ino, bytes(2)),
                None => {
                    let ino = disk.make(Kind::File, bytes(2));
                    disk.link(disk.parent_and_name(words[1]).unwrap(), ino);
                }
            },
            "save" => {
                let at = disk.parent_and_name(words[1]).unwrap();
                let ino = disk.make(Kind::File, bytes(2));
                disk.unlink(&at);
                disk.link(at, ino);
            }
            "rm" => disk.remove_tree(&disk.parent_and_name(words[1]).unwrap()),
            "mv" => {
                let (from, to) = (disk.parent_and_name(words[1]).unwrap(), disk.parent_and_name(words[2]).unwrap());
                assert!(disk.rename(&from, to), "{deed}");
            }
            "mkdir" => {
                let ino = disk.make(Kind::Directory, 0);
                disk.link(disk.parent_and_name(words[1]).unwrap(), ino);
            }
            "ln" => {
                let ino = disk.make(Kind::Symlink, bytes(3));
                disk.link(disk.parent_and_name(words[2]).unwrap(), ino);
            }
            "chmod" => {
                let ino = disk.resolve(words[1]).unwrap();
                disk.inodes.get_mut(&ino).unwrap().metadata.mode = 0o600 + u32::from(bytes(2));
                disk.touch_change(ino);
            }
            other => panic!("no such deed: {other}"),
        }
    }
}

/// What is on the first server's disk: `path=bytes`, `path/`, `path@target`.
pub(crate) fn shown(world: &World) -> String {
    shown_on(&world.servers[0].disk)
}

/// What is on a disk.
pub(crate) fn shown_on(disk: &Disk) -> String {
    let image = disk.image();
    let mut shown: Vec<String> = image
        .into_iter()
        .map(|(path, (kind, bytes, ..))| match kind {
            Kind::Directory => format!("{}/", &path[1..]),
            Kind::File => format!("{}={bytes}", &path[1..]),
            Kind::Symlink => format!("{}@{bytes}", &path[1..]),
        })
        .collect();
    shown.sort();
    shown.join(" ")
}
