#![allow(clippy::unwrap_used, missing_docs)]
//! Times, link groups and contents of one moment: what travels, and what waits.

mod world;

use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::name::Case;
use isotherm_core::namespace::{Change, Records};
use isotherm_core::node::{Content, FileContent, Place};
use isotherm_core::plan::{Action, Authority, Plan};
use isotherm_core::trees::{LocalContent, Record, Trees, TreesMut};
use world::World;
use world::deeds::{perform, shown};
use world::disk::{handle, manifest, name};

fn agreed(deeds: &str) -> World {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, deeds);
    world.converge(0).unwrap();
    world.servers[1].disk.clock = world.servers[0].disk.clock;
    world
}

fn time(world: &World, number: usize, path: &str) -> i64 {
    let disk = &world.servers[number].disk;
    disk.inodes[&disk.resolve(path).unwrap()].modified
}

fn node(world: &World, number: usize, text: &str) -> NodeId {
    world.servers[number].trees.local_at(&Place { parent: NodeId::ROOT, name: name(text) }).unwrap()
}

fn change(world: &mut World, number: usize, node: NodeId, how: impl Fn(&mut Record)) {
    let mut record = world.servers[number].trees.record(node).unwrap();
    how(&mut record);
    world.servers[number].trees.put(record);
}

fn plan(world: &mut World, number: usize) -> Plan {
    world.planned(number, &|_| {}, &|_| false)
}

// semantics.md#times
#[test]
fn a_new_time_of_the_same_bytes_travels_and_of_two_the_share_has_the_word() {
    for (first, second, whose) in [("write a 1", "", 0), ("", "later; write a 1", 1), ("write a 1", "later; write a 1", 0)] {
        let mut world = agreed("write a 1");
        perform(&mut world.servers[0].disk, first);
        perform(&mut world.servers[1].disk, second);
        let expected = time(&world, whose, "a");
        world.alone(0);
        world.converge(1).unwrap();
        assert_eq!([0, 1].map(|number| time(&world, number, "a")), [expected; 2], "{first:?} against {second:?}");
        assert_eq!(shown(&world), "a=1");
    }
}

#[test]
fn a_server_that_rules_keeps_its_time_where_nothing_common_is_known_and_only_there() {
    for (deeds, whose) in [("", 1), ("write a 1", 0)] {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, "write a 1");
        if deeds.is_empty() {
            world.alone(0);
            perform(&mut world.servers[1].disk, "later; write a 1");
        } else {
            world.converge(0).unwrap();
            perform(&mut world.servers[0].disk, "later; write a 1");
            world.alone(0);
        }
        world.servers[1].rules.authority = Authority::Server;
        world.servers[1].rules.authority_until = Some(world.records.share().unwrap().head);
        let expected = time(&world, whose, "a");
        world.converge(1).unwrap();
        assert_eq!([0, 1].map(|number| time(&world, number, "a")), [expected; 2]);
    }
}

/// The file never rests, and was read once.
fn read_in_passing(world: &mut World, text: &str, bytes: u8) -> NodeId {
    let node = node(world, 1, text);
    world.records.add_content(manifest(bytes));
    let content = FileContent { manifest: manifest(bytes), size: 1, modified: Timestamp(9), link: None };
    change(world, 1, node, |record| {
        record.local.as_mut().unwrap().content = LocalContent::Passing(Content::File(content.clone()));
    });
    node
}

// semantics.md#restless-files
#[test]
fn a_content_of_one_moment_goes_to_the_share_and_nothing_else_follows_from_it() {
    let mut world = agreed("write a 1");
    let a = read_in_passing(&mut world, "a", 2);
    let now = plan(&mut world, 1);
    assert!(matches!(&now.intents[0].changes[..], [Change::Update { node, metadata: None, content: Some(_) }] if *node == a));
    assert_eq!((now.intents.len(), now.nodes()), (1, [a].into()));
    assert_eq!(now, Plan { intents: now.intents.clone(), ..Plan::default() });
}

#[test]
fn a_content_of_one_moment_waits_where_something_stands_against_it() {
    let nothing = Plan::default();
    let mut world = agreed("write a 1");
    read_in_passing(&mut world, "a", 1);
    assert_eq!(plan(&mut world, 1), nothing, "the share has these bytes");
    read_in_passing(&mut world, "a", 2);
    perform(&mut world.servers[0].disk, "write a 3");
    world.alone(0);
    world.learn(1);
    assert_eq!(plan(&mut world, 1), nothing, "the share has others by now");
    perform(&mut world.servers[0].disk, "rm a");
    world.alone(0);
    world.learn(1);
    assert_eq!(plan(&mut world, 1), nothing, "it is deleted there");
    let a = node(&world, 1, "a");
    change(&mut world, 1, a, |record| record.synced = None);
    assert_eq!(plan(&mut world, 1), nothing, "the same without a base");
}

#[test]
fn a_new_file_that_never_rests_goes_to_the_share_unless_its_name_is_taken_there() {
    for taken in [false, true] {
        let mut world = agreed("");
        perform(&mut world.servers[1].disk, "write n 1");
        world.scan(1);
        let n = read_in_passing(&mut world, "n", 2);
        if taken {
            perform(&mut world.servers[0].disk, "write n 3");
            world.alone(0);
            world.learn(1);
        }
        let about: Vec<Change> = plan(&mut world, 1).intents.into_iter().flat_map(|intent| intent.changes).collect();
        assert_eq!(about.iter().map(Change::node).collect::<Vec<_>>(), if taken { vec![] } else { vec![n] });
        change(&mut world, 1, n, |record| record.local.as_mut().unwrap().place.parent = NodeId::PARKED);
        assert_eq!(plan(&mut world, 1).intents, Vec::new(), "it is parked");
    }
}

// semantics.md#edit-against-delete
#[test]
fn a_file_without_a_base_comes_back_when_the_share_has_deleted_it() {
    let mut world = agreed("write a 1");
    let a = node(&world, 1, "a");
    change(&mut world, 1, a, |record| record.synced = None);
    perform(&mut world.servers[0].disk, "rm a");
    world.alone(0);
    world.converge(1).unwrap();
    assert_eq!((shown(&world), node(&world, 0, "a")), ("a=1".to_owned(), a));
}

/// Row 15.
#[test]
fn bytes_that_the_share_once_had_are_old_and_no_edit() {
    let mut world = World::new(2, Case::Sensitive);
    for deeds in ["write a 1", "write a 2", "write a 3"] {
        perform(&mut world.servers[0].disk, deeds);
        world.alone(0);
    }
    perform(&mut world.servers[1].disk, "later; write a 1");
    world.converge(1).unwrap();
    assert_eq!(shown(&world), "a=3");
}

/// `one` and `two` are one inode on both servers, but on the second a crash left each an inode of its own.
fn half_linked() -> (World, [NodeId; 2]) {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write one 1");
    let disk = &mut world.servers[0].disk;
    let inode = disk.resolve("one").unwrap();
    disk.link((world::disk::ROOT, name("two")), inode);
    world.converge(0).unwrap();
    let nodes = ["one", "two"].map(|text| node(&world, 1, text));
    let disk = &mut world.servers[1].disk;
    let inode = disk.inodes[&disk.resolve("two").unwrap()].clone();
    let at = (world::disk::ROOT, name("two"));
    disk.unlink(&at);
    let made = disk.make(inode.kind, inode.bytes);
    disk.inodes.get_mut(&made).unwrap().modified = inode.modified;
    disk.link(at, made);
    let prints = ["one", "two"].map(|text| {
        let inode = disk.resolve(text).unwrap();
        (handle(inode), disk.print(inode))
    });
    for (node, (handle, print)) in nodes.into_iter().zip(prints) {
        change(&mut world, 1, node, |record| {
            let local = record.local.as_mut().unwrap();
            (local.handle, local.print) = (handle.clone(), print);
            record.synced = None;
        });
    }
    (world, nodes)
}

#[test]
fn names_of_one_inode_that_a_crash_left_apart_are_joined_to_the_smallest() {
    let (mut world, nodes) = half_linked();
    let (smaller, greater) = (nodes[0].min(nodes[1]), nodes[0].max(nodes[1]));
    let [step] = &plan(&mut world, 1).steps[..] else { panic!("one of them is replaced") };
    let Action::Replace { link_to: Some(target), .. } = &step.action else { panic!("{step:?}") };
    let kept = world.servers[1].trees.record(smaller).unwrap().local.unwrap().handle;
    assert_eq!((step.node, &target.handle), (greater, &kept));
    world.converge(1).unwrap();
    let disk = &world.servers[1].disk;
    assert_eq!(disk.resolve("one"), disk.resolve("two"));
}

#[test]
fn names_are_not_joined_to_one_that_is_being_worked_on() {
    let (mut world, nodes) = half_linked();
    let smaller = nodes[0].min(nodes[1]);
    assert_eq!(world.planned(1, &|_| {}, &|record| record.node == smaller).steps, Vec::new());
}

#[test]
fn a_conflict_copy_is_a_file_of_its_own_also_of_a_name_of_a_linked_file() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write one 1");
    let disk = &mut world.servers[0].disk;
    let inode = disk.resolve("one").unwrap();
    disk.link((world::disk::ROOT, name("two")), inode);
    world.converge(0).unwrap();
    world.servers[1].disk.clock = world.servers[0].disk.clock;
    perform(&mut world.servers[0].disk, "write one 2");
    perform(&mut world.servers[1].disk, "later; write two 3");
    world.converge(0).unwrap();
    for server in &world.servers {
        let disk = &server.disk;
        assert_eq!(disk.resolve("one"), disk.resolve("two"));
        let copies: Vec<_> = disk.names.keys().filter(|(_, name)| name.to_string().contains("-s")).collect();
        assert!(!copies.is_empty(), "{}", shown(&world));
        assert!(copies.iter().all(|at| disk.links(disk.names[*at]) == 1), "{}", shown(&world));
    }
}
