//! A backup of a running service, put back after its disk was lost: the servers offer again what it lacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::program::until;
use crate::world::{World, can_sync};

/// Every file below a folder with its content.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if name.starts_with(".isotherm") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn case_10_a_backup_is_put_back_and_nothing_of_the_servers_is_lost() {
    if !can_sync("backup::case_10_a_backup_is_put_back_and_nothing_of_the_servers_is_lost") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    let (detroit, munich) = (&folders[0], &folders[1]);
    fs::create_dir(detroit.join("house")).unwrap();
    for number in 0..50 {
        fs::write(detroit.join(format!("house/d{number}.dwg")), format!("drawing {number}")).unwrap();
    }
    world.wait();
    let (data, backup) = (world.data(), world.path("backup"));
    let arguments = ["service", "backup", "--data", data.to_str().unwrap(), "--to", backup.to_str().unwrap()];
    let said = world.run(&arguments).expect(0).out;
    assert!(said.contains(" with ") && said.contains("copied"), "{said}");

    // Barriers and runs of agents that the backup does not know.
    (0..5).for_each(|_| world.wait());
    world.stop_agent("detroit", Signal::TERM);
    world.start_agent("detroit");
    // After the backup: edits, new files, a new directory, a rename, on both sides.
    fs::write(detroit.join("house/d9.dwg"), "drawing 9, revised").unwrap();
    fs::write(munich.join("house/d11.dwg"), "drawing 11, revised").unwrap();
    fs::create_dir(munich.join("garden")).unwrap();
    for number in 0..20 {
        fs::write(munich.join(format!("garden/g{number}.dwg")), format!("plant {number}")).unwrap();
    }
    fs::rename(detroit.join("house/d7.dwg"), detroit.join("house/seven.dwg")).unwrap();
    world.wait();
    let before = files(detroit);
    assert_eq!(before, files(munich));

    // The disk of the service is lost, and the backup is all there is.
    world.serve_again(&backup, &[]);
    fs::remove_dir_all(&data).unwrap();
    world.wait();
    // What is waited for is waited for, although agents have reported higher barriers before.
    fs::write(detroit.join("waited-for"), "1").unwrap();
    world.wait();
    assert_eq!(fs::read_to_string(munich.join("waited-for")).unwrap(), "1");
    fs::remove_file(munich.join("waited-for")).unwrap();
    world.wait();
    let after = files(detroit);
    assert_eq!(after, files(munich));
    for (name, content) in &before {
        assert_eq!(after.get(name), Some(content), "{name}");
    }
    // Deletes and renames since the backup are not known any more; whatever is there twice is there under names of users.
    let more: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(more.iter().all(|name| *name == "house/d7.dwg"), "{more:?}");
    assert!(world.run(&["conflicts"]).expect(0).out.contains("No conflicts"));
    world.run(&["service", "check", "--deep"]).expect(0);
    let again = world.run(&["service", "backup", "--data", world.path("nothing").to_str().unwrap(), "--to", "x"]);
    assert!(again.expect(1).err.contains("no data folder"));
}

/// Nothing in the folder tells that it was put back: the servers tell, also one that was away until others had given out
/// more versions than it knew.
#[test]
fn case_10_a_snapshot_that_was_put_back_in_place_is_found_out() {
    if !can_sync("backup::case_10_a_snapshot_that_was_put_back_in_place_is_found_out") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    let (detroit, munich) = (&folders[0], &folders[1]);
    fs::write(detroit.join("one.txt"), "one").unwrap();
    fs::write(detroit.join("two.txt"), "two").unwrap();
    world.wait();
    let (data, snapshot) = (world.data(), world.path("snapshot"));
    let backup = ["service", "backup", "--data", data.to_str().unwrap(), "--to", snapshot.to_str().unwrap()];
    world.run(&backup).expect(0);
    let life = |world: &World| world.run(&["group", "show", "plans", "--json"]).expect(0).json()["group"]["incarnation"].clone();
    let first = life(&world);
    world.serve_again(&data, &[]);
    world.wait();
    assert_eq!(life(&world), first, "a run that changes nothing begins nothing");

    for number in 0..5 {
        fs::write(detroit.join(format!("late{number}.txt")), format!("late {number}")).unwrap();
    }
    fs::write(munich.join("one.txt"), "one, revised").unwrap();
    world.wait();
    let known = head(&world);
    assert_ne!(life(&world), first, "each run that changes something is a life");
    world.stop_agent("detroit", Signal::TERM);
    fs::write(detroit.join("two.txt"), "two, revised while away").unwrap();

    put_back(&mut world, &snapshot);
    for number in 0..30 {
        fs::write(munich.join(format!("new{number}.txt")), format!("new {number}")).unwrap();
    }
    until("munich has overtaken detroit", || head(&world) > known);
    world.start_agent("detroit");
    world.wait();
    let found = files(detroit);
    assert_eq!(found, files(munich));
    assert_eq!(found.len(), 37, "{found:?}");
    assert_eq!(found["one.txt"], "one, revised");
    assert_eq!(found["two.txt"], "two, revised while away");
    assert!(world.run(&["conflicts"]).expect(0).out.contains("No conflicts"));
}

/// The service ends, and its folder becomes again what it was.
fn put_back(world: &mut World, snapshot: &Path) {
    let data = world.data();
    let empty = world.path("empty");
    world.serve_again(&empty, &[]);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(snapshot, &data).unwrap();
    world.serve_again(&data, &[]);
}

fn head(world: &World) -> u64 {
    world.run(&["group", "show", "plans", "--json"]).expect(0).json()["group"]["head"].as_u64().unwrap()
}
