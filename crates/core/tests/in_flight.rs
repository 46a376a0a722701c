#![allow(clippy::unwrap_used, missing_docs)]
//! What people do while something is on its way, to the share or to their disk, stands.

mod world;

use isotherm_core::name::Case;
use world::World;
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
