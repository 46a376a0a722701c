//! A restored copy of a server runs beside the newer one: the older run is refused, and changes nothing any more.

use std::fs;
use std::path::Path;

use crate::program::Running;
use crate::world::{World, agent_arguments, can_sync};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_older_run_of_a_server_is_refused() {
    if !can_sync("fenced::the_older_run_of_a_server_is_refused") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let folder = world.share("plans", &["detroit"]).remove(0);
    fs::write(folder.join("one.txt"), "one").unwrap();
    world.wait();
    let copied = world.path("state-copy");
    copy(&world.state("detroit"), &copied);
    let newer = Running::start(&agent_arguments(&copied, &world.url, "detroit"));
    assert_eq!(world.agent_ended("detroit"), Some(4), "refused");
    // The newer one goes on alone.
    fs::write(folder.join("two.txt"), "two").unwrap();
    world.wait();
    let listed = world.run(&["group", "show", "plans", "--json"]).expect(0).json();
    assert_eq!(listed["group"]["usage"], 6, "{listed}");
    drop(newer);
}

/// A server that burned down: its name is free once its endpoints are deleted.
#[test]
fn the_name_of_a_lost_server_can_be_used_again() {
    if !can_sync("fenced::the_name_of_a_lost_server_can_be_used_again") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let folder = world.share("plans", &["detroit"]).remove(0);
    fs::write(folder.join("one.txt"), "one").unwrap();
    world.wait();
    world.stop_agent("detroit", rustix::process::Signal::KILL);
    fs::remove_dir_all(world.state("detroit")).unwrap();
    world.run(&["server", "delete", "nobody"]).expect(1);
    world.run(&["server", "delete", "detroit"]).expect(4);
    let endpoints = world.run(&["endpoint", "list", "--json"]).expect(0).json();
    let endpoint = endpoints[0]["endpoint"]["id"].as_str().or(endpoints[0]["id"].as_str()).unwrap().to_owned();
    world.run(&["endpoint", "delete", "--forget", &endpoint]).expect(0);
    world.run(&["server", "delete", "detroit"]).expect(0);
    // Only what the agent knew was lost: the folder is as it was, and still says that it belongs to the former endpoint.
    world.start_agent("detroit");
    let path = folder.to_str().unwrap();
    world.run(&["endpoint", "create", "--group", "plans", "--server", "detroit", "--path", path]).expect(0);
    world.wait();
    assert_eq!(fs::read_to_string(folder.join("one.txt")).unwrap(), "one");
    assert!(world.run(&["conflicts"]).expect(0).out.contains("No conflicts"));
    // The whole disk was: the rebuilt server gets its files back.
    world.stop_agent("detroit", rustix::process::Signal::KILL);
    fs::remove_dir_all(world.state("detroit")).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let endpoints = world.run(&["endpoint", "list", "--json"]).expect(0).json();
    let endpoint = endpoints[0]["endpoint"]["id"].as_str().or(endpoints[0]["id"].as_str()).unwrap().to_owned();
    world.run(&["endpoint", "delete", "--forget", &endpoint]).expect(0);
    world.run(&["server", "delete", "detroit"]).expect(0);
    world.start_agent("detroit");
    world.run(&["endpoint", "create", "--group", "plans", "--server", "detroit", "--path", path]).expect(0);
    world.wait();
    assert_eq!(fs::read_to_string(folder.join("one.txt")).unwrap(), "one");
}
