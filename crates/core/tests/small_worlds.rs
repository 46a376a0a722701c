#![allow(clippy::unwrap_used, missing_docs)]
//! Exhaustive small worlds: every combination of a few user actions on two or three servers that had agreed on a
//! small tree. Afterwards all servers must be equal, settled, and hold every content that nobody who saw it gave up.

mod world;

use isotherm_core::name::Case;
use world::World;
use world::people::{Do, act, agreed};

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
