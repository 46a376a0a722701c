#![allow(clippy::unwrap_used, missing_docs)]
//! Plans in words: what a server sends after people did something, what another then does, and in which order. Nothing
//! moves that does not have to, nothing steps aside without need, and what goes together is sent together.

mod world;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Case;
use isotherm_core::namespace::Change;
use isotherm_core::node::Place;
use isotherm_core::plan::{Action, Plan, Spot};
use isotherm_core::trees::{MemoryTrees, Record, Trees};
use world::World;
use world::deeds::perform;

/// What both had, what is done on the first; what that sends, plan by plan, a group in brackets; what the second does then.
struct Row {
    both: &'static str,
    first: &'static str,
    sent: &'static str,
    done: &'static str,
}

const TABLE: &[Row] = &[
    Row { both: "write a 1; write b 2", first: "mv b c; mv a b", sent: "mv b c; mv a b", done: "mv b c; mv a b" },
    Row {
        both: "write a 1; write b 2",
        first: "mv a t; mv b a; mv t b",
        sent: "[mv b a, mv a b]",
        done: "mv b aside; mv a b | mv aside a",
    },
    Row {
        both: "write a 1; write b 2; write c 3",
        first: "mv a t; mv b a; mv c b; mv t c",
        sent: "[mv b a, mv a c, mv c b]",
        done: "mv b aside; mv c b; mv a c | mv aside a",
    },
    Row { both: "write a 1; write b 2", first: "rm b; mv a b", sent: "[mv a b, rm b]", done: "rm b; mv a b" },
    Row {
        both: "mkdir d; write d/a 1; write b 2",
        first: "rm d/a; mv b d/a",
        sent: "[mv b d/a, rm d/a]",
        done: "rm d/a; mv b d/a",
    },
    Row {
        both: "mkdir d; write d/a 1",
        first: "mv d/a t; rm d; mv t d",
        sent: "[mv d/a d, rm d]",
        done: "mv d/a aside | rm d; mv aside d",
    },
    Row { both: "mkdir d; mkdir d/e", first: "mv d/e e; mv d e/d", sent: "mv d/e e; mv d d/e/d", done: "mv d/e e; mv d d/e/d" },
    Row { both: "mkdir a; mkdir b", first: "mv a t; mv b a; mv t a/b", sent: "[mv b a, mv a b/b]", done: "mv a b/b; mv b a" },
    Row {
        both: "write a 1; mkdir d",
        first: "mv d t; mv a d; mv t a",
        sent: "[mv d a, mv a d]",
        done: "mv d aside; mv a d | mv aside a",
    },
    Row {
        both: "mkdir d; write d/a 1",
        first: "mv d e; mkdir d; mv e/a d/a",
        sent: "[make d, mv d e]; mv d/a d/a",
        done: "mv d e; make d; mv d/a d/a",
    },
    Row {
        both: "mkdir d; write d/a 1",
        first: "rm d; write d 2",
        sent: "rm d/a | [make d, rm d]",
        done: "rm d/a | rm d; make d",
    },
    Row {
        both: "",
        first: "mkdir d; mkdir d/e; write d/e/f 1",
        sent: "make d; make d/e | make d/e/f",
        done: "make d; make d/e; make d/e/f",
    },
    Row {
        both: "mkdir d; mkdir d/e; write d/e/f 1",
        first: "rm d",
        sent: "rm d/e/f | rm d/e | rm d",
        done: "rm d/e/f | rm d/e | rm d",
    },
    Row {
        both: "write a 1",
        first: "write a 2; mv a b; chmod b 7",
        sent: "mv a b; chmod a | write b",
        done: "mv a b | chmod b | write b",
    },
    Row {
        both: "write a 1; mkdir d",
        first: "mv a d/a; mkdir a; mv d a/d",
        sent: "[make a, mv a d/a]; mv d a/d",
        done: "mv a d/a; make a; mv d a/d",
    },
    Row { both: "mkdir d; write d/d 1", first: "mv d/d t; rm d; mkdir d; mv t d/t", sent: "mv d/d d/t", done: "mv d/d d/t" },
    Row {
        both: "mkdir d; write d/x 1; write y 2",
        first: "mv d/x t; rm d; mv y d; mv t y",
        sent: "[mv y d, mv d/x y, rm d]",
        done: "mv y aside; mv d/x y | rm d; mv aside d",
    },
    Row {
        both: "mkdir a; write a/x 1; mkdir b",
        first: "mv a t; mv b a; mv t/x a/x; mv t a/t",
        sent: "[mv b a, mv a b/t]; mv a/x b/x",
        done: "mv a b/t; mv b a; mv a/x b/x",
    },
    Row {
        both: "mkdir d; mkdir d/e; write d/e/x 1",
        first: "mv d/e t; rm d; mv t d",
        sent: "[mv d/e d, rm d]",
        done: "mv d/e aside | rm d; mv aside d",
    },
    Row {
        both: "mkdir a; mkdir a/a",
        first: "mv a/a t; mv a t/a; mv t a",
        sent: "[mv a/a a, mv a a/a/a]",
        done: "mv a/a aside; mv a a/a/a | mv aside a",
    },
    Row {
        both: "mkdir a; mkdir b; mkdir c",
        first: "mv a t; mv b a; mv c a/c; mv t a/c/b",
        sent: "[mv b a, mv a c/b]; mv c b/c",
        done: "mv a c/b; mv b a; mv c b/c",
    },
    Row { both: "write a 1; mkdir d", first: "mv a d/x; mv d a", sent: "[mv d a, mv a d/x]", done: "mv a d/x; mv d a" },
    Row {
        both: "mkdir d; write d/x 1; write d/y 2; write a 3; write b 4",
        first: "mv d/x t; mv d/y u; rm d; mv a d; mv t a; mv b c; mv u b",
        sent: "[mv d/y b, mv b c] | [mv d/x a, mv a d, rm d]",
        done: "mv b c; mv d/y b; mv d/x aside | rm d; mv a d; mv aside a",
    },
    Row {
        both: "write a 1; mkdir d; write d/a 2",
        first: "mv a t; mv d/a a; mv t d/a",
        sent: "[mv a d/a, mv d/a a]",
        done: "mv a aside; mv d/a a | mv aside d/a",
    },
    Row {
        both: "mkdir d; mkdir d/d; write d/d/d 1",
        first: "mv d/d/d t; rm d; mv t d",
        sent: "[mv d/d/d d, rm d/d, rm d]",
        done: "mv d/d/d aside | rm d/d | rm d; mv aside d",
    },
    Row {
        both: "mkdir a; mkdir b; write a/x 1; write b/y 2",
        first: "mv a/x t; rm a; mv b a; mv t a/x",
        sent: "[mv b a, mv a/x b/x, rm a]",
        done: "mv a/x b/x | rm a; mv b a",
    },
];

/// Where a node is before a plan, in the share or on this server.
type Where = fn(&Record) -> Option<Place>;

const THERE: Where = |record| record.live().map(|node| node.place.clone()).or_else(|| HERE(record));
const HERE: Where = |record| record.here().map(|local| local.place.clone());

/// A place in words; its directory is called by the path that it has before the plan.
fn path(trees: &MemoryTrees, place: &Place, side: Where) -> String {
    match place.parent {
        NodeId::ROOT => place.name.to_string(),
        NodeId::PARKED => "aside".to_owned(),
        parent => {
            let above = trees.record(parent).and_then(|record| side(&record).or(record.remote.map(|node| node.place))).unwrap();
            format!("{}/{}", path(trees, &above, side), place.name)
        }
    }
}

fn sent(trees: &MemoryTrees, plan: &Plan) -> String {
    let to = |place: &Place| path(trees, place, THERE);
    let remote = |node: NodeId| to(&trees.record(node).unwrap().remote.unwrap().place);
    let change = |change: &Change| match change {
        Change::Create { place, .. } => format!("make {}", to(place)),
        Change::Update { node, content, .. } => {
            format!("{} {}", if content.is_some() { "write" } else { "chmod" }, remote(*node))
        }
        Change::Move { node, place } => format!("mv {} {}", remote(*node), to(&place.value)),
        Change::Delete { node, .. } => format!("rm {}", remote(*node)),
    };
    let intent = |changes: &Vec<Change>| {
        let words: Vec<String> = changes.iter().map(change).collect();
        if words.len() > 1 { format!("[{}]", words.join(", ")) } else { words.concat() }
    };
    plan.intents.iter().map(|group| intent(&group.changes)).collect::<Vec<_>>().join("; ")
}

fn done(trees: &MemoryTrees, plan: &Plan) -> String {
    let spot = |spot: &Spot| path(trees, &spot.place(), HERE);
    let step = |action: &Action| match action {
        Action::Create { at, .. } => format!("make {}", spot(at)),
        Action::Replace { expected, .. } => format!("write {}", spot(&expected.spot)),
        Action::SetMetadata { expected, .. } => format!("chmod {}", spot(&expected.spot)),
        Action::Move { expected, to, .. } => format!("mv {} {}", spot(&expected.spot), spot(to)),
        Action::Remove { expected, .. } => format!("rm {}", spot(&expected.spot)),
    };
    plan.steps.iter().map(|it| step(&it.action)).collect::<Vec<_>>().join("; ")
}

/// What a server's plans say until it has nothing to do, one after the other.
fn told(world: &mut World, number: usize, order: fn(&mut Vec<NodeId>), words: fn(&MemoryTrees, &Plan) -> String) -> String {
    let mut told = Vec::new();
    loop {
        world.scan(number);
        world.learn(number);
        let plan = world.planned(number, &order, &|_| false);
        told.push(words(&world.servers[number].trees, &plan));
        world.perform(number, &plan);
        if plan.is_empty() {
            told.retain(|words| !words.is_empty());
            return told.join(" | ");
        }
    }
}

#[test]
fn plans_say_what_has_to_be_done_in_an_order_that_works_and_no_more() {
    for row in TABLE {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, row.both);
        world.converge(0).unwrap();
        perform(&mut world.servers[0].disk, row.first);
        let what = (told(&mut world, 0, |_| {}, sent), told(&mut world, 1, |_| {}, done));
        assert_eq!((&*what.0, &*what.1), (row.sent, row.done), "{}", row.first);
    }
}

#[test]
fn whichever_node_is_planned_first_the_end_is_the_same() {
    for row in TABLE {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, row.both);
        world.converge(0).unwrap();
        perform(&mut world.servers[0].disk, row.first);
        let expected = world.servers[0].disk.image();
        for number in [0, 1] {
            told(&mut world, number, |nodes| nodes.reverse(), done);
        }
        world.converge(0).unwrap_or_else(|what| panic!("{}: {what}", row.first));
        assert_eq!(world.servers[1].disk.image(), expected, "{}", row.first);
    }
}
