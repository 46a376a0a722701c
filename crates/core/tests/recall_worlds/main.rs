//! Small worlds of one file: people who read, write and empty it, the agent that tiers and recalls it, and mishaps. All orders in
//! which their steps can come are tried.
#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use world::{Broken, World, player, reader, rewriter, writer};

fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Tries all orders; gives how many worlds there were, or the steps to one that is wrong and what is wrong with it.
fn explore(start: World) -> Result<usize, String> {
    let mut known: BTreeSet<u64> = [digest(&start)].into();
    let mut paths: Vec<(World, Vec<String>)> = vec![(start, Vec::new())];
    while let Some((world, path)) = paths.pop() {
        let wrong = |text: String| format!("{text}\n  {}\n{world:#?}", path.join("\n  "));
        let steps = world.steps().map_err(wrong)?;
        if steps.is_empty() {
            world.is_at_rest().map_err(wrong)?;
        }
        for (step, next) in steps {
            if known.insert(digest(&next)) {
                let mut path = path.clone();
                path.push(step);
                paths.push((next, path));
            }
        }
    }
    Ok(known.len())
}

#[track_caller]
fn holds(world: World) {
    match explore(world) {
        Ok(worlds) => assert!(worlds > 1_000, "{worlds} worlds"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[track_caller]
fn is_found(world: World, broken: Broken, what: &str) {
    let wrong = explore(World { broken, ..world }).unwrap_err();
    assert!(wrong.lines().next().is_some_and(|line| line.contains(what)), "{wrong}");
}

#[test]
fn whoever_waits_gets_the_content_in_whatever_order_things_happen() {
    for people in [vec![reader(), reader(), writer()], vec![reader(), writer(), writer()]] {
        holds(World { kills: 1, failures: 1, cuts: true, ..World::new(true, &people) });
    }
}

#[test]
fn a_program_that_streams_reads_a_small_file_before_it_is_durable() {
    let small = |stub, people: &[_]| World { is_small: true, kills: 1, failures: 1, cuts: true, ..World::new(stub, people) };
    for people in [[player(), player()], [player(), reader()], [player(), writer()], [player(), rewriter()]] {
        holds(small(true, &people));
    }
    holds(World { kills: 2, failures: 2, ..small(true, &[player(), player()]) });
    holds(World { kills: 0, failures: 0, ..small(true, &[player(), reader(), writer()]) });
    holds(World { tiers: 2, ..small(false, &[player(), player()]) });
    holds(World { tiers: 1, failures: 0, ..small(false, &[player(), writer()]) });
    is_found(small(true, &[player(), reader()]), Broken::GiveUpFound, "reads Some(Hole)");
}

#[test]
fn a_file_that_is_emptied_and_written_anew_is_never_filled() {
    for people in [vec![rewriter(), reader()], vec![rewriter(), rewriter()], vec![rewriter(), writer()]] {
        holds(World { kills: 1, failures: 1, cuts: true, ..World::new(true, &people) });
    }
    holds(World { cuts: true, ..World::new(true, &[rewriter(), reader(), writer()]) });
}

#[test]
fn tiering_and_use_at_once_lose_nothing() {
    for people in [vec![reader(), writer()], vec![reader(), rewriter()], vec![writer(), writer()]] {
        holds(World { tiers: 2, kills: 1, cuts: true, ..World::new(false, &people) });
    }
    holds(World { tiers: 2, kills: 1, cuts: true, failures: 1, ..World::new(false, &[reader(), rewriter()]) });
    holds(World { tiers: 1, kills: 1, cuts: true, ..World::new(false, &[reader(), writer(), rewriter()]) });
}

#[test]
fn case_13_whoever_streams_sees_content_and_nobody_else_sees_a_mask() {
    for people in [vec![player(), reader()], vec![player(), player()], vec![player(), writer()]] {
        holds(World { kills: 1, failures: 1, cuts: true, ..World::new(true, &people) });
    }
    holds(World { cuts: true, ..World::new(true, &[player(), reader(), writer()]) });
}

#[test]
fn case_19_a_file_that_is_streamed_is_emptied_when_it_is_whole() {
    holds(World { kills: 1, failures: 1, cuts: true, ..World::new(true, &[player(), rewriter()]) });
    holds(World { cuts: true, ..World::new(true, &[player(), player(), rewriter()]) });
}

#[test]
fn case_20_streaming_survives_power_cuts_and_ends_of_the_agent() {
    holds(World { kills: 2, cuts: true, ..World::new(true, &[player(), player()]) });
    holds(World { tiers: 1, kills: 1, cuts: true, ..World::new(false, &[player(), reader()]) });
    holds(World { tiers: 1, kills: 1, cuts: true, ..World::new(true, &[player(), player()]) });
}

#[test]
fn each_rule_of_streaming_is_needed() {
    let streamed = || World { kills: 1, failures: 1, cuts: true, ..World::new(true, &[player(), player()]) };
    is_found(streamed(), Broken::MaskAll, "reads Some(Mask)");
    is_found(streamed(), Broken::MaskRecord, "a power cut leaves a mask");
    is_found(streamed(), Broken::PartLease, "reads Some(Hole)");
    is_found(streamed(), Broken::PartFlush, "a power cut leaves [");
    is_found(streamed(), Broken::PartRecord, "a power cut leaves [");
    let with_others = World { failures: 1, kills: 1, ..World::new(true, &[player(), reader()]) };
    is_found(with_others, Broken::StreamGiveUp, "reads Some(Hole)");
}

#[test]
fn each_rule_of_the_order_is_needed() {
    let tiered = || World { tiers: 1, cuts: true, ..World::new(false, &[reader(), writer()]) };
    is_found(tiered(), Broken::Lease, "reads Some(Hole)");
    is_found(tiered(), Broken::Record, "a power cut leaves [Hole, Hole]");
    is_found(tiered(), Broken::Mark, "reads Some(Hole)");
    let given_up = World { tiers: 1, kills: 1, failures: 1, cuts: true, ..World::new(false, &[reader()]) };
    is_found(given_up, Broken::GiveUp, "a power cut leaves [Hole, Hole]");
    is_found(World { cuts: true, ..World::new(true, &[reader()]) }, Broken::Fill, "a power cut leaves [Hole, Hole]");
    let emptied = World { kills: 1, ..World::new(true, &[rewriter(), reader()]) };
    is_found(emptied, Broken::LetThrough, "");
}
