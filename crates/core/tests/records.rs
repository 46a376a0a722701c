#![allow(clippy::unwrap_used, missing_docs)]
//! What the records of one node say: what it owes, what has to travel, where it stands, and under which names it is found.

mod world;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Case;
use isotherm_core::node::{Content, Place};
use isotherm_core::trees::{Local, LocalContent, MemoryTrees, Record, State, Synced, Trees, TreesMut, path};
use world::World;
use world::deeds::perform;
use world::disk::{handle, manifest, name};

/// One server that agrees with the share on `both`.
fn agreed(both: &str) -> MemoryTrees {
    let mut world = World::new(1, Case::Sensitive);
    perform(&mut world.servers[0].disk, both);
    world.converge(0).unwrap();
    world.servers.remove(0).trees
}

fn place(parent: NodeId, text: &str) -> Place {
    Place { parent, name: name(text) }
}

fn at(trees: &MemoryTrees, text: &str) -> NodeId {
    trees.local_at(&place(NodeId::ROOT, text)).unwrap()
}

/// The record of a file of one byte that both sides have, changed in some way.
fn file(how: impl Fn(&mut Record)) -> Record {
    let trees = agreed("write a 1");
    let mut record = trees.record(at(&trees, "a")).unwrap();
    how(&mut record);
    record
}

fn here(record: &mut Record) -> &mut Local {
    record.local.as_mut().unwrap()
}

fn bytes(content: &mut Content, number: u8) {
    let Content::File(file) = content else { panic!("{content:?}") };
    file.manifest = manifest(number);
    file.size = 1;
}

fn there(record: &mut Record, number: u8) {
    bytes(&mut record.remote.as_mut().unwrap().content, number);
}

fn unread(record: &mut Record) {
    here(record).content = LocalContent::Unread;
}

fn written(record: &mut Record, number: u8) {
    let LocalContent::Known(content) = &mut here(record).content else { panic!() };
    bytes(content, number);
}

fn delete_there(record: &mut Record) {
    record.remote.as_mut().unwrap().deleted = true;
}

#[test]
fn a_server_owes_what_the_share_cannot_have_yet() {
    type How = fn(&mut Record);
    let cases: [(&str, bool, How); 14] = [
        ("nothing differs", false, |_| {}),
        ("the share has moved on", false, |it| there(it, 2)),
        ("written", true, |it| written(it, 2)),
        ("perhaps written", true, unread),
        ("moved", true, |it| here(it).place.name = name("b")),
        ("another mode", true, |it| here(it).metadata.mode = 0),
        ("lost", true, |it| here(it).lost = true),
        ("deleted here", true, |it| it.local = None),
        ("deleted there", false, delete_there),
        ("new here", true, |it| (it.remote, it.synced) = (None, None)),
        ("on both sides, not yet agreed", false, |it| it.synced = None),
        ("on both sides, with other bytes", true, |it| {
            it.synced = None;
            written(it, 2);
        }),
        ("on both sides, under another name", true, |it| {
            it.synced = None;
            here(it).place.name = name("b");
        }),
        ("on both sides, with another mode", true, |it| {
            it.synced = None;
            here(it).metadata.mode = 0;
        }),
    ];
    for (what, owes, how) in cases {
        assert_eq!(file(how).owes(), owes, "{what}");
    }
    assert!(!file(|it| (it.local, it.synced) = (None, None)).owes(), "not here yet");
    assert!(!Record::new(NodeId([1; 16])).owes());
}

#[test]
fn bytes_travel_up_and_down_until_both_sides_agree() {
    type How = fn(&mut Record);
    let cases: [(&str, (u64, u64), How); 11] = [
        ("nothing differs", (0, 0), |_| {}),
        ("written", (1, 0), |it| written(it, 2)),
        ("perhaps written", (1, 0), unread),
        ("written there", (0, 1), |it| there(it, 2)),
        ("written on both sides", (1, 1), |it| {
            there(it, 2);
            written(it, 3);
        }),
        ("written alike on both sides", (0, 0), |it| {
            there(it, 2);
            written(it, 2);
        }),
        ("new there", (0, 1), |it| (it.local, it.synced) = (None, None)),
        ("deleted here", (0, 0), |it| it.local = None),
        ("new here", (1, 0), |it| (it.remote, it.synced) = (None, None)),
        ("other bytes, and no base", (1, 1), |it| {
            it.synced = None;
            written(it, 3);
        }),
        ("deleted there", (0, 0), |it| {
            delete_there(it);
        }),
    ];
    for (what, expected, how) in cases {
        assert_eq!(file(how).bytes_to_move(), expected, "{what}");
    }
    let trees = agreed("mkdir d; ln -s l 1");
    for text in ["d", "l"] {
        let mut record = trees.record(at(&trees, text)).unwrap();
        (record.remote, record.synced) = (None, None);
        assert_eq!(record.bytes_to_move(), (0, 0), "only files have bytes");
    }
}

#[test]
fn a_node_is_settled_when_all_three_observations_agree() {
    type How = fn(&mut Record);
    let cases: [(State, How); 11] = [
        (State::Settled, |_| {}),
        (State::Open, unread),
        (State::Open, |it| here(it).lost = true),
        (State::Open, |it| there(it, 2)),
        (State::Open, |it| it.remote.as_mut().unwrap().place.name = name("b")),
        (State::Open, |it| it.remote.as_mut().unwrap().metadata.mode = 0),
        (State::Open, |it| (it.local, it.synced) = (None, None)),
        (State::DeletedHere, |it| it.local = None),
        (State::DeletedThere, delete_there),
        (State::Open, |it| {
            delete_there(it);
            (it.local, it.synced) = (None, None);
        }),
        (State::Gone, |it| (it.local, it.synced, it.remote) = (None, None, None)),
    ];
    for (number, (state, how)) in cases.into_iter().enumerate() {
        assert_eq!(file(how).state(), state, "{number}");
    }
}

#[test]
fn a_content_may_go_here_if_the_share_has_or_had_it() {
    let record = file(|it| {
        there(it, 2);
        written(it, 3);
    });
    assert_eq!([1, 2, 3].map(|number| record.is_safe(&manifest(number))), [true, true, false]);
    let deleted = file(delete_there);
    assert!(deleted.is_safe(&manifest(1)), "deleted there, and kept as a version");
}

#[test]
fn a_base_is_what_the_share_says_only_of_a_live_node() {
    let record = file(|_| {});
    let node = record.remote.clone().unwrap();
    assert!(Synced::of(&node).is(&node));
    for how in [delete_there, |it: &mut Record| there(it, 2), |it: &mut Record| it.remote.as_mut().unwrap().metadata.mode = 0] {
        assert!(!Synced::of(&node).is(&file(how).remote.unwrap()));
    }
}

#[test]
fn a_path_is_the_one_here_or_else_the_one_in_the_share() {
    let mut trees = agreed("mkdir d; mkdir d/e; write d/e/f 1");
    let d = at(&trees, "d");
    let e = trees.local_at(&place(d, "e")).unwrap();
    let f = trees.local_at(&place(e, "f")).unwrap();
    assert_eq!((path(&trees, f), path(&trees, NodeId::ROOT)), (b"d/e/f".to_vec(), Vec::new()));
    let mut record = trees.record(e).unwrap();
    record.local = None;
    record.remote.as_mut().unwrap().place = place(NodeId::ROOT, "there");
    trees.put(record.clone());
    assert_eq!(path(&trees, f), b"there/f");
    record.remote.as_mut().unwrap().place.parent = e;
    trees.put(record);
    assert_eq!(path(&trees, f), b"there/f", "a ring ends where it began");
}

#[test]
fn trees_find_nodes_by_name_inode_and_group_on_either_side() {
    let mut trees = agreed("mkdir d; write d/a 1; write d/b 2; write c 3");
    let d = at(&trees, "d");
    let [a, b] = ["a", "b"].map(|text| trees.local_at(&place(d, text)).unwrap());
    let c = at(&trees, "c");
    let sorted = |mut nodes: Vec<NodeId>| {
        nodes.sort();
        nodes
    };
    let both = sorted(vec![a, b]);
    assert_eq!((sorted(trees.local_children(d, 9)), trees.local_children(d, 1).len()), (both.clone(), 1));
    assert_eq!((sorted(trees.remote_children(d, 9)), trees.remote_children(d, 1).len()), (both, 1));
    assert_eq!(sorted(trees.remote_children(NodeId::ROOT, 9)), sorted(vec![c, d]));
    assert_eq!(trees.remote_at(d, b"a"), Some(a));
    assert_eq!(trees.by_handle(&trees.record(a).unwrap().local.unwrap().handle), vec![a]);
    assert_eq!(trees.local_names(d), vec![(name("a"), a), (name("b"), b)]);
    assert_eq!(trees.unsettled(None, 9), Vec::new());
    for node in [a, b, c] {
        let mut record = trees.record(node).unwrap();
        unread(&mut record);
        trees.put(record);
    }
    let open = trees.unsettled(None, 9);
    assert_eq!(open, sorted(vec![a, b, c]));
    assert_eq!((trees.unsettled(Some(open[0]), 1), trees.unsettled(Some(open[2]), 9)), (vec![open[1]], vec![]));
    // What moved, was deleted or forgotten is not found where it was.
    let mut record = trees.record(a).unwrap();
    here(&mut record).place = place(NodeId::ROOT, "x");
    here(&mut record).handle = handle(77);
    delete_there(&mut record);
    trees.put(record.clone());
    assert_eq!((trees.local_children(d, 9), trees.remote_children(d, 9)), (vec![b], vec![b]));
    assert_eq!((trees.local_at(&place(d, "a")), trees.remote_at(d, b"a")), (None, None));
    assert_eq!((at(&trees, "x"), trees.by_handle(&handle(77))), (a, vec![a]));
    (record.local, record.synced, record.remote) = (None, None, None);
    trees.put(record);
    assert_eq!((trees.record(a), trees.by_handle(&handle(77))), (None, Vec::new()));
}

#[test]
fn a_lost_file_has_no_name_and_is_still_below_its_directory() {
    let mut trees = agreed("mkdir d; write d/a 1");
    let d = at(&trees, "d");
    let a = trees.local_at(&place(d, "a")).unwrap();
    let mut record = trees.record(a).unwrap();
    here(&mut record).lost = true;
    trees.put(record);
    assert_eq!((trees.local_at(&place(d, "a")), trees.local_children(d, 9)), (None, vec![a]));
    assert_eq!((trees.local_names(d), trees.local_states(d).len()), (Vec::new(), 0));
}
