#![allow(clippy::unwrap_used, missing_docs)]
//! What people do while something is on its way, to the share or to their disk, stands.

mod world;

use isotherm_core::name::Case;
use isotherm_core::node::Kind;
use world::World;
use world::deeds::{perform, shown};
use world::disk::{Ino, ROOT};
use world::people::{Do, act, agreed};

const ACTIONS: &[Do] = &[
    Do::Edit("g"),
    Do::Edit("n"),
    Do::Save("g"),
    Do::Touch("g"),
    Do::Chmod("g"),
    Do::Chmod("n"),
    Do::Delete("d/f"),
    Do::Delete("d"),
    Do::Delete("g"),
    Do::Delete("n"),
    Do::Move("d/f", "f"),
    Do::Move("f", "x/f"),
    Do::Move("d", "x/d"),
    Do::Move("g", "d/g"),
    Do::Move("g", "n"),
    Do::Move("n", "d/n"),
    Do::Swap("d/f", "g"),
    Do::Swap("d", "x"),
    Do::File("n"),
    Do::Directory("n"),
    Do::Symlink("n"),
    Do::File("n/inside"),
    Do::Link("g", "l"),
];

/// Looks, reads files, and makes a plan with all that is to be sent.
fn under_way(world: &mut World, number: usize) -> isotherm_core::plan::Plan {
    world.scan(number);
    world.learn(number);
    let first = world.planned(number, &|_| {}, &|_| false);
    world.perform(number, &isotherm_core::plan::Plan { reads: first.reads, ..Default::default() });
    world.planned(number, &|_| {}, &|_| false)
}

#[test]
fn what_is_done_before_the_answer_comes_stands() {
    let start = agreed(2, Case::Sensitive);
    for a in ACTIONS {
        let mut started = start.clone();
        act(&mut started, 1, *a, 10);
        for b in ACTIONS {
            let mut world = started.clone();
            let plan = under_way(&mut world, 1);
            act(&mut world, 1, *b, 11);
            world.scan(1);
            let done = world.servers[1].disk.image();
            world.perform(1, &plan);
            world.converge(1).unwrap_or_else(|what| panic!("{a:?}, then {b:?}: {what}"));
            assert_eq!(world.servers[0].disk.image(), done, "{a:?}, then {b:?}");
        }
    }
}

#[test]
fn what_is_done_before_a_step_is_performed_is_not_lost() {
    let start = agreed(2, Case::Sensitive);
    for a in ACTIONS {
        let mut started = start.clone();
        act(&mut started, 0, *a, 10);
        started.alone(0);
        for b in ACTIONS {
            let mut world = started.clone();
            let plan = under_way(&mut world, 1);
            act(&mut world, 1, *b, 11);
            world.attempt(1, &plan);
            world.converge(1).unwrap_or_else(|what| panic!("{a:?} arrives, but {b:?}: {what}"));
        }
    }
}

/// The second server's file is in conflict, and deleted there while what becomes of it is on its way to the share.
#[test]
fn what_is_in_conflict_and_deleted_before_the_answer_comes_stays_deleted() {
    for (name, both, first, second, after) in [
        ("it gave way to a directory", "", "mkdir x; write x/a 1", "write x 2", "x/ x/a=1"),
        ("the share's version keeps the name", "write x 1", "later; write x 2", "write x 3", "x=2"),
        ("it keeps the name", "write x 1", "write x 2", "later; write x 3", "x-s0=2"),
    ] {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, both);
        world.converge(0).unwrap();
        world.servers[1].disk.clock = world.servers[0].disk.clock;
        perform(&mut world.servers[0].disk, first);
        perform(&mut world.servers[1].disk, second);
        world.alone(0);
        let plan = loop {
            let plan = under_way(&mut world, 1);
            if !plan.intents.is_empty() {
                break plan;
            }
            world.perform(1, &plan);
        };
        let disk = &mut world.servers[1].disk;
        let is_file = |ino: &Ino| disk.inodes[ino].kind == Kind::File;
        let file = disk.names.iter().find(|((parent, _), ino)| *parent == ROOT && is_file(ino)).map(|(at, _)| at.clone());
        disk.remove_tree(&file.unwrap());
        world.scan(1);
        world.perform(1, &plan);
        world.converge(1).unwrap_or_else(|what| panic!("{name}: {what}"));
        assert_eq!(shown(&world), after, "{name}");
    }
}
