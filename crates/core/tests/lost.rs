#![allow(clippy::unwrap_used, missing_docs)]
//! A file whose name no longer holds it: when that is a delete, when a save, and when nothing is known yet.

mod world;

use std::collections::BTreeSet;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Case;
use isotherm_core::node::Place;
use isotherm_core::observe::{Liveness, Observed, displace, lose, resolve_lost};
use isotherm_core::trees::{LocalContent, MemoryTrees, Record, Trees, TreesMut};
use world::World;
use world::deeds::perform;
use world::disk::{ROOT, name};

/// One server that agrees with the share on `both`, and then looked at what `since` left.
fn seen(both: &str, since: &str) -> World {
    let mut world = World::new(1, Case::Sensitive);
    perform(&mut world.servers[0].disk, both);
    world.converge(0).unwrap();
    perform(&mut world.servers[0].disk, since);
    world.scan(0);
    world
}

fn place(text: &str) -> Place {
    Place { parent: NodeId::ROOT, name: name(text) }
}

fn at(trees: &MemoryTrees, text: &str) -> NodeId {
    trees.local_at(&place(text)).unwrap()
}

fn local(trees: &MemoryTrees, node: NodeId) -> Option<isotherm_core::trees::Local> {
    trees.record(node).unwrap().local
}

#[test]
fn a_lost_file_is_nowhere_and_stays_so_while_its_inode_may_be_elsewhere() {
    let mut trees = seen("write a 1", "").servers.remove(0).trees;
    let a = at(&trees, "a");
    lose(&mut trees, a);
    assert_eq!((trees.local_at(&place("a")), trees.record(a).unwrap().is_lost()), (None, true));
    let unknown = Observed { lost: [a].into(), ..Observed::default() };
    assert_eq!(resolve_lost(&mut trees, a, Liveness::Linked(1), false), unknown);
    assert!(trees.record(a).unwrap().is_lost());
    // Everything was listed since: it lives outside of the folder.
    assert_eq!(resolve_lost(&mut trees, a, Liveness::Tiered(1), true), unknown, "outside, and without its content (row 12)");
    assert_eq!(resolve_lost(&mut trees, a, Liveness::Linked(1), true).changed, [a].into());
    assert_eq!(local(&trees, a), None);
    assert_eq!(resolve_lost(&mut trees, a, Liveness::Gone, true), Observed::default(), "it is not lost any more");
}

#[test]
fn a_lost_directory_takes_what_was_below_it_along() {
    let mut trees = seen("mkdir d; write d/a 1; mkdir d/e; write d/e/b 2; write c 3", "").servers.remove(0).trees;
    let d = at(&trees, "d");
    let below: BTreeSet<NodeId> = trees.local_children(d, 10).into_iter().collect();
    lose(&mut trees, d);
    let observed = resolve_lost(&mut trees, d, Liveness::Gone, false);
    assert_eq!(observed.lost, below, "each is looked for in its turn");
    assert_eq!(observed.changed, below.into_iter().chain([d]).collect());
    let lost = trees.records().filter(|record| record.is_lost()).count();
    assert_eq!((lost, trees.local_at(&place("c")).is_some()), (2, true));
}

#[test]
fn a_name_that_all_others_account_for_is_gone_without_a_search() {
    let mut world = seen("write a 1", "");
    let disk = &mut world.servers[0].disk;
    let inode = disk.resolve("a").unwrap();
    disk.link((ROOT, name("b")), inode);
    disk.link((ROOT, name("c")), inode);
    world.converge(0).unwrap();
    let mut trees = world.servers.remove(0).trees;
    let nodes = ["a", "b", "c"].map(|text| at(&trees, text));
    lose(&mut trees, nodes[0]);
    assert_eq!(resolve_lost(&mut trees, nodes[0], Liveness::Linked(3), false).lost, [nodes[0]].into(), "one name is somewhere");
    assert_eq!(resolve_lost(&mut trees, nodes[0], Liveness::Tiered(3), true).lost, [nodes[0]].into());
    assert_eq!(resolve_lost(&mut trees, nodes[0], Liveness::Tiered(2), false).lost, BTreeSet::new());
    assert_eq!(nodes.map(|node| local(&trees, node).is_some()), [false, true, true]);
}

#[test]
fn a_file_saved_by_rename_takes_over_the_node_only_of_a_file_that_is_gone() {
    for (since, liveness, is_saved) in [
        ("save a 2", Liveness::Gone, true),
        ("save a 2", Liveness::Linked(1), false),
        ("rm a; ln -s a 2", Liveness::Gone, false),
        ("rm a; mkdir a", Liveness::Gone, false),
    ] {
        let mut world = seen("write a 1", "");
        let a = at(&world.servers[0].trees, "a");
        lose(&mut world.servers[0].trees, a);
        perform(&mut world.servers[0].disk, since);
        // The look finds another inode under the name; what became of the old one is found out after it.
        let mut trees = world.looked(0);
        let fresh = at(&trees, "a");
        let observed = resolve_lost(&mut trees, a, liveness, true);
        assert_eq!(at(&trees, "a"), if is_saved { a } else { fresh }, "{since}, {liveness:?}");
        let changed = if is_saved { [a, fresh].into() } else { [a].into() };
        assert_eq!(observed, Observed { changed, ..Observed::default() });
    }
}

#[test]
fn a_directory_is_never_saved_by_rename() {
    let mut world = seen("mkdir d", "");
    let d = at(&world.servers[0].trees, "d");
    lose(&mut world.servers[0].trees, d);
    perform(&mut world.servers[0].disk, "rm d; mkdir d");
    let mut trees = world.looked(0);
    resolve_lost(&mut trees, d, Liveness::Gone, true);
    assert_ne!(at(&trees, "d"), d);
}

#[test]
fn a_node_of_the_share_is_not_taken_for_a_save_of_another() {
    let mut world = seen("write a 1; write b 2", "");
    let [a, b] = ["a", "b"].map(|text| at(&world.servers[0].trees, text));
    perform(&mut world.servers[0].disk, "mv b a");
    let mut trees = world.looked(0);
    resolve_lost(&mut trees, a, Liveness::Gone, true);
    assert_eq!((at(&trees, "a"), local(&trees, a)), (b, None));
}

#[test]
fn whoever_has_a_name_by_the_records_has_left_it_when_another_gets_it() {
    let mut trees = seen("write a 1; write b 2", "").servers.remove(0).trees;
    let [a, b] = ["a", "b"].map(|text| at(&trees, text));
    assert_eq!(displace(&mut trees, &place("c"), a), None);
    assert_eq!(displace(&mut trees, &place("a"), a), None, "it has the name itself");
    assert_eq!(displace(&mut trees, &place("a"), b), Some(a));
    assert!(trees.record(a).unwrap().is_lost());
}

/// A name of a linked file moved while nobody watched, and its new name was seen first.
#[test]
fn a_name_of_several_that_moved_is_followed_to_where_nobody_else_knows_it() {
    for kept in [true, false] {
        let mut world = seen("mkdir d; write a 1", "");
        let disk = &mut world.servers[0].disk;
        let inode = disk.resolve("a").unwrap();
        disk.link((ROOT, name("b")), inode);
        world.converge(0).unwrap();
        let trees = &mut world.servers[0].trees;
        let a = at(trees, "a");
        // The look that found `moved` did not yet speak of `a`.
        let mut fresh = Record::new(NodeId([9; 16]));
        fresh.local = local(trees, a);
        let moved = fresh.local.as_mut().unwrap();
        moved.place = Place { parent: if kept { NodeId::ROOT } else { NodeId([8; 16]) }, name: name("moved") };
        moved.content = LocalContent::Unread;
        trees.put(fresh);
        lose(trees, a);
        resolve_lost(trees, a, Liveness::Linked(2), true);
        assert_eq!(local(trees, a).map(|local| local.place), kept.then(|| place("moved")), "only where it is reached");
    }
}
