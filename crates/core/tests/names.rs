#![allow(clippy::unwrap_used, missing_docs)]
//! Two nodes, one name: what the share has by then keeps it, whatever comes from another server.

mod world;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Case;
use isotherm_core::node::{Kind, Place};
use isotherm_core::plan::{Plan, Trouble};
use isotherm_core::trees::Trees;
use world::World;
use world::deeds::{perform, shown};
use world::disk::{STAGING, name};

/// What both had, what the first has brought to the share, what is done on the second then, and what both have in the end.
struct Row {
    case: Case,
    both: &'static str,
    share: &'static str,
    second: &'static str,
    after: &'static str,
}

const SENSITIVE: Row = Row { case: Case::Sensitive, both: "", share: "", second: "", after: "" };
const INSENSITIVE: Row = Row { case: Case::Insensitive, ..SENSITIVE };

const TABLE: &[Row] = &[
    Row { both: "write a 1", share: "write b 2", second: "mv a b", after: "b-s1=1 b=2", ..SENSITIVE },
    Row {
        both: "mkdir d; write d/x 1",
        share: "mkdir e; write e/y 2",
        second: "mv d e",
        after: "e-s1/ e-s1/x=1 e/ e/y=2",
        ..SENSITIVE
    },
    Row { share: "mkdir e; write e/y 2", second: "mkdir e; write e/x 1", after: "e/ e/x=1 e/y=2", ..SENSITIVE },
    Row { share: "write n 2", second: "mkdir n; write n/x 1", after: "n-s0=2 n/ n/x=1", ..SENSITIVE },
    Row { share: "mkdir n", second: "write n 1", after: "n-s1=1 n/", ..SENSITIVE },
    Row { share: "ln -s n 2", second: "write n 1", after: "n-s1=1 n@2", ..SENSITIVE },
    Row { both: "write a 1", share: "rm a; mkdir a", second: "write a 2", after: "a-s1=2 a/", ..SENSITIVE },
    Row { both: "write a 1", share: "write a 3", second: "rm a; ln -s a 2", after: "a-s1@2 a=3", ..SENSITIVE },
    Row { both: "write a 1", share: "mv a b", second: "rm a; ln -s a 2", after: "a@2 b=1", ..SENSITIVE },
    Row { both: "write a 1; write b 2", share: "write n 3", second: "mv a n; mv b a", after: "a=2 n-s1=1 n=3", ..SENSITIVE },
    Row { both: "write a 1", share: "write a 2", second: "write a 3", after: "a-s1=3 a=2", ..SENSITIVE },
    Row { both: "write a 1", share: "write a 2; write a-s1 4", second: "write a 3", after: "a-s1-1=3 a-s1=4 a=2", ..SENSITIVE },
    Row {
        both: "write a 1",
        share: "write a 2",
        second: "later; write a 3; write a-s0 4",
        after: "a-s0-1=2 a-s0=4 a=3",
        ..SENSITIVE
    },
    Row { both: "write a 1", share: "write a 2", second: "write a 3; write a-s1 4", after: "a-s1-1=3 a-s1=4 a=2", ..SENSITIVE },
    Row { share: "write X 1", second: "write x 2", after: "X=1 x-s1=2", ..INSENSITIVE },
    Row { share: "write X 1", second: "write x 1", after: "X=1 x-s1=1", ..INSENSITIVE },
    Row { share: "write X 1", second: "write x 2; write X 3", after: "X-s0=1 X=3 x-s1=2", ..INSENSITIVE },
    Row {
        share: "mkdir X",
        second: "mkdir x; write x/a 1; mkdir X; write X/b 2",
        after: "X-s1/ X-s1/b=2 X/ X/a=1",
        ..INSENSITIVE
    },
    Row { both: "write x 1", second: "mv x X", after: "X=1", ..INSENSITIVE },
    Row { both: "write x 1", second: "mv x X; write x 2", after: "X=1 x-s1=2", ..INSENSITIVE },
    Row { both: "write x 1; write y 2", second: "mv x Y; mv y X", after: "X=2 Y=1", ..INSENSITIVE },
    Row { both: "write x 1; write y 2", share: "mv x z", second: "mv y X", after: "X=2 z=1", ..INSENSITIVE },
];

// semantics.md#same-new-name, semantics.md#case-collision
#[test]
fn what_the_share_has_keeps_its_name() {
    for row in TABLE {
        let mut world = World::new(2, row.case);
        perform(&mut world.servers[0].disk, row.both);
        world.converge(0).unwrap();
        world.servers[1].disk.clock = world.servers[0].disk.clock;
        perform(&mut world.servers[0].disk, row.share);
        world.alone(0);
        perform(&mut world.servers[1].disk, row.second);
        let told = format!("{:?}, the share has {:?}, then {:?}", row.both, row.share, row.second);
        world.converge(1).unwrap_or_else(|what| panic!("{told}: {what}"));
        assert_eq!(shown(&world), row.after, "{told}");
    }
}

/// The second server's node of a name in its folder.
fn node(world: &World, text: &str) -> NodeId {
    world.servers[1].trees.local_at(&Place { parent: NodeId::ROOT, name: name(text) }).unwrap()
}

#[test]
fn a_file_that_has_a_history_keeps_it_when_it_gives_way() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1");
    world.converge(0).unwrap();
    let a = node(&world, "a");
    perform(&mut world.servers[0].disk, "write b 2");
    world.alone(0);
    perform(&mut world.servers[1].disk, "mv a b");
    world.converge(1).unwrap();
    assert_eq!(node(&world, "b-s1"), a);
}

/// Both have two directories; the share gets `first`, the second server has done `second` and has looked.
fn directories(both: &str, first: &str, second: &str) -> World {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, both);
    world.converge(0).unwrap();
    perform(&mut world.servers[0].disk, first);
    world.alone(0);
    perform(&mut world.servers[1].disk, second);
    world.scan(1);
    world.learn(1);
    world
}

// semantics.md#no-cycles
#[test]
fn a_move_that_would_make_a_ring_is_undone_and_told() {
    let mut world = directories("mkdir a; mkdir b", "mv a b/a", "");
    let [a, b] = ["a", "b"].map(|text| node(&world, text));
    perform(&mut world.servers[1].disk, "mv b a/b");
    world.scan(1);
    let plan = world.planned(1, &|_| {}, &|_| false);
    assert_eq!((plan.troubles, plan.intents), (vec![(b, Trouble::MoveUndone)], vec![]));
    let waits = world.planned(1, &|_| {}, &|record| record.node == a);
    assert_eq!(waits, Plan::default(), "what is being worked on may leave the ring");
}

// semantics.md#no-cycles
#[test]
fn directories_that_changed_places_make_no_ring() {
    let mut world = directories("mkdir d; mkdir d/e", "", "mv d/e e; mv d e/d");
    let e = node(&world, "e");
    assert_eq!(world.planned(1, &|_| {}, &|record| record.node == e), Plan::default(), "the outer one waits for the inner one");
    let plan = world.planned(1, &|_| {}, &|_| false);
    assert_eq!((plan.troubles.len(), plan.intents.len(), plan.steps.len()), (0, 2, 0));
}

#[test]
fn what_lies_aside_and_nobody_knows_comes_back_under_a_name_that_says_so() {
    let mut world = World::new(2, Case::Sensitive);
    let disk = &mut world.servers[0].disk;
    let inode = disk.make(Kind::File, 1);
    disk.link((STAGING, name("parked-by-nobody")), inode);
    world.converge(0).unwrap();
    assert_eq!(shown(&world), "rescued-s0=1");
}
