#![allow(clippy::unwrap_used, missing_docs)]
//! What an administrator decides: whose tree stands where nothing common is known, and deletes that wait.

mod world;

use isotherm_core::ids::Version;
use isotherm_core::name::Case;
use isotherm_core::namespace::Records;
use isotherm_core::plan::Authority;
use world::World;
use world::deeds::{perform, shown, shown_on};

/// The first server has brought `first` to the share, then the second comes with `second` and is told to rule over what the
/// share held then. `meanwhile` is done on the first before the second has read the share.
fn initial_upload(authority: Authority, first: &str, meanwhile: &str, second: &str) -> String {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, first);
    world.alone(0);
    world.servers[1].rules.authority = authority;
    world.servers[1].rules.authority_until = Some(world.records.share().unwrap().head);
    perform(&mut world.servers[0].disk, meanwhile);
    world.alone(0);
    perform(&mut world.servers[1].disk, second);
    world.converge(1).unwrap();
    shown(&world)
}

#[test]
fn a_server_that_rules_makes_the_share_what_it_has() {
    let rules = |first, second| initial_upload(Authority::Server, first, "", second);
    assert_eq!(rules("write a 1", "write a 2"), "a=2", "its content stands");
    assert_eq!(rules("write a 1; later; chmod a 1", "write a 1; chmod a 2"), "a=1", "no copy for metadata");
    assert_eq!(rules("write a 1; write b 2", "write a 1"), "a=1", "what it does not have goes");
    assert_eq!(rules("mkdir d; mkdir d/e; write d/e/a 1", "write b 2"), "b=2", "whole directories too");
    assert_eq!(rules("mkdir d; write d/a 1; write d/b 2", "mkdir d; write d/a 1"), "d/ d/a=1");
    assert_eq!(rules("ln -s l 1", "ln -s l 2"), "l@2");
    assert_eq!(rules("write n 1", "mkdir n"), "n/", "whatever it is there");
    assert_eq!(rules("mkdir n; mkdir n/d; write n/d/a 1", "write n 2"), "n=2");
}

#[test]
fn without_authority_both_sides_are_kept() {
    let merged = |first, second| initial_upload(Authority::Merge, first, "", second);
    assert_eq!(merged("write a 1", "write a 2"), "a-s0=1 a=2");
    assert_eq!(merged("write a 1; write b 2", "write a 1"), "a=1 b=2");
}

#[test]
fn a_server_rules_only_over_what_the_share_held_when_it_was_told_so() {
    let since = |first, meanwhile, second| initial_upload(Authority::Server, first, meanwhile, second);
    assert_eq!(since("write a 1", "write b 2", "write a 1"), "a=1 b=2", "made since");
    assert_eq!(since("write a 1; write b 2", "write b 3", "write a 1"), "a=1 b=3", "written since");
    assert_eq!(since("write a 1", "write a 3", "write a 2"), "a-s1=2 a=3", "both are kept");
    assert_eq!(since("mkdir d; write d/a 1", "write d/b 2", "write c 3"), "c=3 d/ d/b=2", "its directory stays with it");
    assert_eq!(since("mkdir n; write n/a 1", "write n/b 2", "write n 3"), "n-s1=3 n/ n/b=2");
    assert_eq!(since("mkdir d; mkdir d/e; write d/a 1", "write d/e/b 2", "write c 3"), "c=3 d/ d/e/ d/e/b=2");
}

/// The mode that a server shows.
fn mode(world: &World, number: usize, path: &str) -> u32 {
    let disk = &world.servers[number].disk;
    disk.inodes[&disk.resolve(path).unwrap()].metadata.mode - 0o600
}

#[test]
fn metadata_of_the_ruling_server_stands_and_otherwise_that_of_the_share() {
    for (authority, until, expected) in [
        (Authority::Server, None, 1),
        (Authority::Server, Some(0), 1),
        (Authority::Server, Some(100), 2),
        (Authority::Merge, Some(100), 1),
    ] {
        let mut world = World::new(2, Case::Sensitive);
        perform(&mut world.servers[0].disk, "mkdir d; chmod d 1");
        world.alone(0);
        perform(&mut world.servers[1].disk, "mkdir d; chmod d 2");
        world.servers[1].rules.authority = authority;
        world.servers[1].rules.authority_until = until.map(Version);
        world.converge(1).unwrap();
        assert_eq!([0, 1].map(|number| mode(&world, number, "d")), [expected; 2], "{authority:?} until {until:?}");
    }
}

/// Rounds in which both servers work, whether or not everything is done after them.
fn work(world: &mut World) {
    for _ in 0..10 {
        for number in 0..2 {
            world.scan(number);
            world.learn(number);
            world.round(number, &|_| {});
        }
    }
}

#[test]
fn held_deletes_of_a_server_do_not_reach_the_share_and_nothing_else_waits_for_them() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1; write b 2; write c 3; mkdir d");
    world.converge(0).unwrap();
    world.servers[0].rules.hold_local_deletes = true;
    perform(&mut world.servers[0].disk, "rm a; rm d; write b 4; mv c e");
    work(&mut world);
    assert_eq!(shown_on(&world.servers[0].disk), "b=4 e=3");
    assert_eq!(shown_on(&world.servers[1].disk), "a=1 b=4 d/ e=3");
    world.servers[0].rules.hold_local_deletes = false;
    world.converge(0).unwrap();
    assert_eq!(shown(&world), "b=4 e=3");
}

#[test]
fn a_name_whose_old_holder_is_a_held_delete_waits_for_it() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1; write b 2");
    world.converge(0).unwrap();
    world.servers[0].rules.hold_local_deletes = true;
    perform(&mut world.servers[0].disk, "rm a; mv b a");
    work(&mut world);
    assert_eq!(shown_on(&world.servers[1].disk), "a=1 b=2");
    world.servers[0].rules.hold_local_deletes = false;
    world.converge(0).unwrap();
    assert_eq!(shown(&world), "a=2");
}

#[test]
fn held_deletes_of_the_share_are_not_made_here() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1; mkdir d; write d/b 2");
    world.converge(0).unwrap();
    world.servers[1].rules.hold_remote_deletes = true;
    perform(&mut world.servers[0].disk, "rm a; rm d");
    work(&mut world);
    assert_eq!(shown_on(&world.servers[1].disk), "a=1 d/ d/b=2");
    world.servers[1].rules.hold_remote_deletes = false;
    world.converge(0).unwrap();
    assert_eq!(shown(&world), "");
}

#[test]
fn a_server_that_rules_and_holds_its_deletes_takes_nothing_from_the_share() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1; write b 2");
    world.alone(0);
    world.servers[1].rules.authority = Authority::Server;
    world.servers[1].rules.authority_until = Some(world.records.share().unwrap().head);
    world.servers[1].rules.hold_local_deletes = true;
    perform(&mut world.servers[1].disk, "write a 3");
    work(&mut world);
    assert_eq!(shown_on(&world.servers[0].disk), "a=3 b=2");
    assert_eq!(shown_on(&world.servers[1].disk), "a=3");
}

#[test]
fn a_file_made_anew_under_the_name_of_a_held_delete_is_a_new_version_of_it() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "write a 1");
    world.converge(0).unwrap();
    world.servers[0].rules.hold_local_deletes = true;
    perform(&mut world.servers[0].disk, "rm a");
    work(&mut world);
    perform(&mut world.servers[0].disk, "write a 2");
    work(&mut world);
    assert_eq!([0, 1].map(|number| shown_on(&world.servers[number].disk)), ["a=2", "a=2"]);
    let live: Vec<usize> = world.records.nodes().map(|node| world.records.revisions(node.id).len()).collect();
    assert_eq!(live, [2], "one node, two versions");
}

/// Two servers with the same files: nothing is to be done, whoever rules.
#[test]
fn a_server_that_rules_deletes_nothing_that_it_has_itself() {
    let mut world = World::new(2, Case::Sensitive);
    let deeds = "mkdir d; write d/a 1; write b 2; mkdir e; ln -s l 3";
    perform(&mut world.servers[0].disk, deeds);
    world.alone(0);
    let head = world.records.share().unwrap().head;
    world.servers[1].rules.authority = Authority::Server;
    world.servers[1].rules.authority_until = Some(head);
    perform(&mut world.servers[1].disk, deeds);
    world.servers[1].disk.inodes = world.servers[0].disk.inodes.clone();
    world.converge(1).unwrap();
    assert_eq!(world.records.share().unwrap().head, head);
}

#[test]
fn what_a_server_that_rules_has_otherwise_is_a_new_version_and_no_other_file() {
    let mut world = World::new(2, Case::Sensitive);
    perform(&mut world.servers[0].disk, "mkdir d; write d/a 1; write d/b 2");
    world.alone(0);
    let known: Vec<_> = world.records.nodes().map(|node| node.id).collect();
    world.servers[1].rules.authority = Authority::Server;
    world.servers[1].rules.authority_until = Some(world.records.share().unwrap().head);
    perform(&mut world.servers[1].disk, "mkdir d; write d/a 3");
    world.converge(1).unwrap();
    assert_eq!(shown(&world), "d/ d/a=3");
    assert_eq!(world.records.nodes().map(|node| node.id).collect::<Vec<_>>(), known);
    let mut versions: Vec<usize> = known.iter().map(|node| world.records.revisions(*node).len()).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 2], "the directory; a new content; a delete");
}
