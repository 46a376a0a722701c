#![allow(clippy::unwrap_used, missing_docs)]
//! The conflict rules as a table: what both servers had, what each did, and what both have afterwards.

mod world;

use isotherm_core::name::Case;
use world::World;
use world::deeds::{perform, shown};

/// The deeds are those of [`world::deeds`].
struct Row {
    name: &'static str,
    both: &'static str,
    first: &'static str,
    second: &'static str,
    after: &'static str,
}

const TABLE: &[Row] = &[
    Row { name: "equal contents merge silently", both: "write a 1", first: "write a 2", second: "write a 2", after: "a=2" },
    Row {
        name: "the newer write keeps the name, the other becomes a copy named after its server",
        both: "write a.txt 1",
        first: "write a.txt 2",
        second: "later; write a.txt 3",
        after: "a-s0.txt=2 a.txt=3",
    },
    Row {
        name: "the same the other way round",
        both: "write a.txt 1",
        first: "later; write a.txt 2",
        second: "write a.txt 3",
        after: "a-s1.txt=3 a.txt=2",
    },
    Row { name: "two new files of one name", both: "", first: "write a 2", second: "later; write a 3", after: "a-s0=2 a=3" },
    Row { name: "two new files of one name and content", both: "", first: "write a 2", second: "later; write a 2", after: "a=2" },
    Row { name: "an edit beats a delete", both: "write a 1", first: "rm a", second: "write a 2", after: "a=2" },
    Row { name: "a rename beats a delete", both: "write a 1", first: "rm a", second: "mv a b", after: "b=1" },
    Row { name: "a chmod does not beat a delete", both: "write a 1", first: "rm a", second: "chmod a 7", after: "" },
    Row {
        name: "a directory delete does not take along what its author had not seen",
        both: "mkdir d; write d/old 1",
        first: "rm d",
        second: "write d/new 2",
        after: "d/ d/new=2",
    },
    Row {
        name: "an edit inside keeps a deleted directory, and nothing else in it",
        both: "mkdir d; write d/a 1; write d/b 2",
        first: "rm d",
        second: "write d/a 3",
        after: "d/ d/a=3",
    },
    Row {
        name: "two new directories of one name merge",
        both: "",
        first: "mkdir d; write d/a 1",
        second: "mkdir d; write d/b 2",
        after: "d/ d/a=1 d/b=2",
    },
    Row {
        name: "a file gives way to a directory that came first",
        both: "",
        first: "mkdir x; write x/a 1",
        second: "write x 2",
        after: "x-s1=2 x/ x/a=1",
    },
    Row {
        name: "a file that came first gives way to a directory",
        both: "",
        first: "write x 2",
        second: "mkdir x; write x/a 1",
        after: "x-s0=2 x/ x/a=1",
    },
    Row {
        name: "of two moves the share's stands",
        both: "write a 1; mkdir d",
        first: "mv a b",
        second: "mv a d/a",
        after: "b=1 d/",
    },
    Row {
        name: "moves that would make a ring: the second is undone",
        both: "mkdir a; mkdir b",
        first: "mv a b/a",
        second: "mv b a/b",
        after: "b/ b/a/",
    },
    Row { name: "a rename and an edit go together", both: "write a 1", first: "mv a b", second: "write a 2", after: "b=2" },
    Row {
        name: "a new file gives way to a file that was moved onto its name first",
        both: "write a 1",
        first: "write b 2",
        second: "mv a b",
        after: "b-s0=2 b=1",
    },
    Row {
        name: "a swap of names is a swap elsewhere",
        both: "write a 1; write b 2",
        first: "mv a t; mv b a; mv t b",
        second: "",
        after: "a=2 b=1",
    },
    Row {
        name: "case 16: a file saved by rename stays the same node",
        both: "write a 1",
        first: "save a 2",
        second: "mv a b",
        after: "b=2",
    },
    Row {
        name: "a file that becomes a directory",
        both: "write a 1",
        first: "rm a; mkdir a; write a/x 2",
        second: "",
        after: "a/ a/x=2",
    },
    Row { name: "two symlinks of one name", both: "", first: "ln -s l 1", second: "ln -s l 2", after: "l-s1@2 l@1" },
];

#[test]
fn the_table_of_conflicts_holds() {
    for row in TABLE {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, row.both);
        world.converge(0).unwrap();
        world.servers[1].disk.clock = world.servers[0].disk.clock;
        perform(&mut world.servers[0].disk, row.first);
        perform(&mut world.servers[1].disk, row.second);
        world.converge(0).unwrap_or_else(|what| panic!("{}: {what}", row.name));
        assert_eq!(shown(&world), row.after, "{}", row.name);
    }
}

#[test]
fn case_23_names_that_differ_in_case_only_never_merge_and_nothing_is_deleted() {
    let mut world = World::new(2, Case::Insensitive);
    perform(&mut world.servers[0].disk, "write Plan.dwg 1; later; write PLAN.dwg 2");
    world.converge(0).unwrap();
    assert_eq!(world.servers[0].disk.image().len(), 2, "{}", shown(&world));
    perform(&mut world.servers[1].disk, "mv Plan.dwg plan.DWG");
    // One of the two has a conflict name by now; the rename of the other in case only is a rename.
    let before = shown(&world);
    if world.servers[1].disk.resolve("plan.DWG").is_some() {
        world.converge(1).unwrap();
        assert_ne!(shown(&world), before);
    }
}

#[test]
fn case_26_a_snapshot_without_a_node_deletes_it_where_it_is_unchanged_and_only_there() {
    // The planner's half: a tombstone on an unchanged local file removes it, on an edited one brings it back.
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1; write b 2");
    world.converge(0).unwrap();
    perform(&mut world.servers[0].disk, "rm a; rm b");
    perform(&mut world.servers[1].disk, "write b 3");
    world.converge(0).unwrap();
    assert_eq!(shown(&world), "b=3");
}

/// How a round arranges the nodes it plans for.
type Order = fn(&mut Vec<isotherm_core::ids::NodeId>);

#[test]
fn the_order_of_the_nodes_does_not_matter_and_one_by_one_ends_as_all_at_once() {
    let deeds = "mkdir d; write d/a 1; write d/b 2; mkdir d/e; write d/e/c 3; write x 4; ln -s l 5";
    let changes = ("mv d/e e; write e/c 6; rm d/a; mv x d/x", "write d/b 7; mkdir n; mv x n/x; write n/y 8");
    let mut results = Vec::new();
    let orders: [Order; 3] = [|_| {}, |nodes| nodes.reverse(), |nodes| nodes.truncate(1)];
    for order in orders {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, deeds);
        world.converge(0).unwrap();
        perform(&mut world.servers[0].disk, changes.0);
        perform(&mut world.servers[1].disk, changes.1);
        for _ in 0..200 {
            for number in 0..2 {
                world.scan(number);
                world.learn(number);
                world.round(number, &order);
            }
        }
        world.converge(0).unwrap();
        results.push(shown(&world));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:#?}");
}
