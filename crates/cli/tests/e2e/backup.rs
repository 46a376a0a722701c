//! A backup of a running service, put back after its disk was lost: the servers offer again what it lacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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

/// A snapshot that was put back in place has the same inodes: the administrator says so.
#[test]
fn a_service_that_is_told_of_a_restore_begins_a_new_life_without_copies() {
    if !can_sync("backup::a_service_that_is_told_of_a_restore_begins_a_new_life_without_copies") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let folder = world.share("plans", &["detroit"]).remove(0);
    fs::write(folder.join("one.txt"), "one").unwrap();
    world.wait();
    let life = |world: &World| world.run(&["group", "show", "plans", "--json"]).expect(0).json()["group"]["incarnation"].clone();
    let before = life(&world);
    world.serve_again(&world.data(), &[]);
    world.wait();
    assert_eq!(life(&world), before, "a restart is no restore");
    world.serve_again(&world.data(), &["--restored"]);
    fs::write(folder.join("one.txt"), "two").unwrap();
    world.wait();
    assert_ne!(life(&world), before);
    assert_eq!(files(&folder).into_values().collect::<Vec<_>>(), ["two"]);
}
