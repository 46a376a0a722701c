#![allow(clippy::unwrap_used, missing_docs)]
//! Hard links, one action after the other: when all is quiet, the same names are one inode on every server (row 24).

mod world;

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::name::Case;
use isotherm_core::node::Kind;
use world::World;
use world::disk::{Disk, ROOT, name};

#[derive(Clone, Copy, Debug)]
enum Do {
    Link(&'static str, &'static str),
    Delete(&'static str),
    Move(&'static str, &'static str),
    Edit(&'static str),
    Save(&'static str),
    Copy(&'static str, &'static str),
    Touch(&'static str),
    Chmod(&'static str),
}

const ACTIONS: &[Do] = &[
    Do::Link("one", "three"),
    Do::Link("two", "four"),
    Do::Link("other", "three"),
    Do::Delete("one"),
    Do::Delete("two"),
    Do::Delete("other"),
    Do::Move("one", "d/one"),
    Do::Move("two", "other"),
    Do::Edit("two"),
    Do::Save("one"),
    Do::Copy("one", "three"),
];

/// What two people do at the same time, beside these.
const MORE: &[Do] =
    &[Do::Touch("one"), Do::Touch("two"), Do::Chmod("one"), Do::Chmod("two"), Do::Chmod("other"), Do::Edit("one")];

fn act(disk: &mut Disk, action: Do, fresh: u8) {
    match action {
        Do::Touch(path) => {
            if let Some(ino) = disk.resolve(path) {
                disk.write(ino, disk.inodes[&ino].bytes);
            }
        }
        Do::Chmod(path) => {
            if let Some(ino) = disk.resolve(path) {
                disk.inodes.get_mut(&ino).unwrap().metadata.mode = 0o600 + u32::from(fresh);
                disk.touch_change(ino);
            }
        }
        Do::Link(from, to) => {
            let (Some(ino), Some(at)) = (disk.resolve(from), disk.parent_and_name(to)) else { return };
            if !disk.names.contains_key(&at) {
                disk.link(at, ino);
            }
        }
        Do::Delete(path) => {
            if disk.resolve(path).is_some() {
                disk.unlink(&disk.parent_and_name(path).unwrap());
            }
        }
        Do::Move(from, to) => {
            if let (Some(from), Some(to)) = (disk.parent_and_name(from), disk.parent_and_name(to)) {
                disk.rename(&from, to);
            }
        }
        Do::Edit(path) => {
            if let Some(ino) = disk.resolve(path) {
                disk.write(ino, fresh);
            }
        }
        Do::Save(path) => {
            if disk.resolve(path).is_some() {
                let at = disk.parent_and_name(path).unwrap();
                disk.unlink(&at);
                let new = disk.make(Kind::File, fresh);
                disk.link(at, new);
            }
        }
        Do::Copy(from, to) => {
            let (Some(ino), Some(at)) = (disk.resolve(from), disk.parent_and_name(to)) else { return };
            if !disk.names.contains_key(&at) {
                let bytes = disk.inodes[&ino].bytes;
                let new = disk.make(Kind::File, bytes);
                disk.link(at, new);
            }
        }
    }
}

/// Names that are one inode, as sets of names.
fn groups(disk: &Disk) -> BTreeSet<BTreeSet<String>> {
    let mut groups: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for ((directory, name), ino) in &disk.names {
        if disk.inodes[ino].kind == Kind::File {
            groups.entry(*ino).or_default().insert(format!("{directory:?}/{name}"));
        }
    }
    groups
        .into_values()
        .map(|names| names.into_iter().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect())
        .collect()
}

fn start() -> World {
    let mut world = World::new(2, Case::Sensitive);
    let disk = &mut world.servers[0].disk;
    let directory = disk.make(Kind::Directory, 0);
    disk.link((ROOT, name("d")), directory);
    let linked = disk.make(Kind::File, 1);
    disk.link((ROOT, name("one")), linked);
    disk.link((ROOT, name("two")), linked);
    let other = disk.make(Kind::File, 2);
    disk.link((ROOT, name("other")), other);
    world.converge(0).unwrap();
    world
}

/// One more action in a story, with what it came to.
fn go_on(world: &World, told: &[(usize, Do)], number: usize, action: Do) -> (World, Vec<(usize, Do)>) {
    let mut world = world.clone();
    world.owed.clear();
    let told = [told, &[(number, action)]].concat();
    act(&mut world.servers[number].disk, action, 10 + u8::try_from(told.len()).unwrap());
    if let Err(what) = world.converge(number) {
        panic!("{told:?}: {what}");
    }
    let [first, second] = [0, 1].map(|number| groups(&world.servers[number].disk));
    assert_eq!(first, second, "{told:?}");
    (world, told)
}

// semantics.md#hard-links, semantics.md#facets
#[test]
fn a_renamed_name_follows_an_edit_through_another_name() {
    for (first, to) in [(0, "moved"), (1, "moved"), (0, "d/moved"), (1, "d/moved")] {
        let mut world = start();
        act(&mut world.servers[0].disk, Do::Move("one", to), 10);
        act(&mut world.servers[1].disk, Do::Edit("two"), 11);
        world.owed.clear();
        world.converge(first).unwrap();
        for server in &world.servers {
            let disk = &server.disk;
            assert_eq!((disk.resolve("one"), disk.resolve(to)), (None, disk.resolve("two")), "{to}, {first} first");
            assert_eq!(disk.inodes[&disk.resolve(to).unwrap()].bytes, 11);
        }
    }
}

// semantics.md#hard-links
#[test]
fn case_24_names_of_one_inode_stay_names_of_one_inode() {
    let start = start();
    assert_eq!(groups(&start.servers[1].disk), groups(&start.servers[0].disk));
    for a in ACTIONS {
        let (world, told) = go_on(&start, &[], 0, *a);
        for (second, b) in ACTIONS.iter().flat_map(|action| [(0, action), (1, action)]) {
            let (world, told) = go_on(&world, &told, second, *b);
            for (third, c) in ACTIONS.iter().flat_map(|action| [(0, action), (1, action)]) {
                go_on(&world, &told, third, *c);
            }
        }
    }
}

// semantics.md#hard-links
#[test]
fn names_of_one_inode_agree_whatever_two_people_do_at_the_same_time() {
    let all: Vec<Do> = ACTIONS.iter().chain(MORE).copied().collect();
    at_the_same_time(&start(), &all);
}

// semantics.md#hard-links
#[test]
fn time_and_mode_of_three_names_agree_whatever_two_people_do_at_the_same_time() {
    let (three_names, _) = go_on(&start(), &[], 1, Do::Link("one", "three"));
    at_the_same_time(
        &three_names,
        &[Do::Touch("one"), Do::Touch("three"), Do::Chmod("two"), Do::Chmod("three"), Do::Move("one", "d/one")],
    );
}

fn at_the_same_time(start: &World, all: &[Do]) {
    for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
        for first in [0, 1] {
            let mut world = start.clone();
            act(&mut world.servers[0].disk, a, 10);
            act(&mut world.servers[1].disk, b, 11);
            world.owed.clear();
            world.converge(first).unwrap_or_else(|what| panic!("{a:?} and {b:?}, server {first} first: {what}"));
            let [here, there] = [0, 1].map(|number| groups(&world.servers[number].disk));
            assert_eq!(here, there, "{a:?} and {b:?}, server {first} first");
        }
    }
}

// semantics.md#hard-links
#[test]
fn time_and_mode_are_the_inodes_and_what_was_set_last_through_any_name_stands() {
    for (action, other) in [("one", "two"), ("two", "one")].into_iter().flat_map(|(a, b)| [(Do::Chmod(a), b), (Do::Touch(a), b)])
    {
        for number in [0, 1] {
            let mut world = start();
            act(&mut world.servers[number].disk, action, 10);
            let inode = |world: &World, number: usize| {
                let disk = &world.servers[number].disk;
                let inode = &disk.inodes[&disk.resolve(other).unwrap()];
                (inode.modified, inode.metadata.mode)
            };
            let expected = inode(&world, number);
            world.converge(number).unwrap();
            assert_eq!([0, 1].map(|number| inode(&world, number)), [expected; 2], "{action:?} on {number}");
        }
    }
}
