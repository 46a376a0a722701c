#![allow(clippy::unwrap_used, missing_docs)]
//! What is being worked on is left alone by a plan, whatever else happens around it.

mod world;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Case;
use isotherm_core::plan::{Fact, Plan};
use world::people::{Do, act, agreed};

const ACTIONS: &[Do] = &[
    Do::Edit("g"),
    Do::Chmod("g"),
    Do::Delete("d/f"),
    Do::Delete("d"),
    Do::Delete("g"),
    Do::Move("d/f", "f"),
    Do::Move("d", "x/d"),
    Do::Move("x", "d/x"),
    Do::Move("g", "d/g"),
    Do::Move("g", "n"),
    Do::Swap("d/f", "g"),
    Do::Swap("d", "x"),
    Do::File("n"),
    Do::Directory("n"),
    Do::File("d/n"),
    Do::Link("g", "l"),
];

/// Whether a plan does something to a node, or takes it for another.
fn touches(plan: &Plan, node: NodeId) -> bool {
    let rebound = plan.intents.iter().filter_map(|intent| intent.rebind).any(|(from, to)| from == node || to == node);
    let decided = plan.facts.iter().any(|fact| match fact {
        Fact::Agree(about) | Fact::Forget(about) => *about == node,
        Fact::ForgetBase(about) => *about == node,
        Fact::Rebind(from, to) => *from == node || *to == node,
    });
    rebound || decided || plan.nodes().contains(&node)
}

#[test]
fn a_plan_leaves_alone_what_is_being_worked_on() {
    for case in [Case::Sensitive, Case::Insensitive] {
        let start = agreed(2, case);
        for (a, b) in ACTIONS.iter().flat_map(|a| ACTIONS.iter().map(move |b| (a, b))) {
            let mut world = start.clone();
            act(&mut world, 0, *a, 10);
            act(&mut world, 1, *b, 11);
            world.alone(0);
            world.scan(1);
            world.learn(1);
            for node in world.servers[1].trees.unsettled(None, usize::MAX) {
                let mut world = world.clone();
                let plan = world.planned(1, &|_| {}, &|record| record.node == node);
                assert!(!touches(&plan, node), "{a:?} against {b:?}, {node} is being worked on: {plan:#?}");
                world.perform(1, &plan);
                world.converge(1).unwrap_or_else(|what| panic!("{a:?} against {b:?}, {node} waited: {what}"));
            }
        }
    }
}
