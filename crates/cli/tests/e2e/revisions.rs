//! What was deleted, replaced or encrypted comes back through the real program, on both servers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::world::{World, can_sync};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

fn version_at(world: &World, path: &str, from_newest: usize) -> String {
    let versions = world.run(&["versions", path, "--json"]).expect(0).json();
    versions[from_newest]["version"].to_string()
}

#[test]
fn old_versions_deleted_folders_and_the_work_of_one_server() {
    if !can_sync("revisions::old_versions_deleted_folders_and_the_work_of_one_server") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    let (detroit, munich) = (&folders[0], &folders[1]);
    fs::create_dir(detroit.join("house")).unwrap();
    for number in 0..5 {
        fs::write(detroit.join(format!("house/d{number}.dwg")), format!("drawing {number}")).unwrap();
    }
    fs::write(detroit.join("plan.txt"), "one").unwrap();
    world.wait();

    // Saved by rename as editors do, and still one file with a history.
    for text in ["two", "three"] {
        fs::write(detroit.join("plan.tmp"), text).unwrap();
        fs::rename(detroit.join("plan.tmp"), detroit.join("plan.txt")).unwrap();
        world.wait();
    }
    let first = version_at(&world, "plan.txt", 2);
    world.run(&["restore", "plan.txt", "--version", &first, "--to", "plan-old.txt"]).expect(0);
    world.run(&["restore", "plan.txt", "--version", &first]).expect(0);
    world.wait();
    for folder in &folders {
        assert_eq!(fs::read_to_string(folder.join("plan.txt")).unwrap(), "one");
        assert_eq!(fs::read_to_string(folder.join("plan-old.txt")).unwrap(), "one");
    }

    fs::remove_dir_all(munich.join("house")).unwrap();
    world.wait();
    assert!(!detroit.join("house").exists());
    let would = world.run(&["undelete", "house", "--dry-run"]).expect(0).out;
    assert!(would.contains("Would be 6 undeleted") && !detroit.join("house").exists(), "{would}");
    world.run(&["undelete", "house"]).expect(0);
    world.wait();
    assert_eq!(fs::read_to_string(detroit.join("house/d3.dwg")).unwrap(), "drawing 3");

    // The second more that is reached back below must not be before the group was made.
    std::thread::sleep(std::time::Duration::from_secs(2)); // tidy: wait for the clock
    let began = std::time::SystemTime::now();
    for name in names(&munich.join("house")) {
        let path = munich.join("house").join(&name);
        fs::write(&path, "noise").unwrap();
        fs::rename(&path, munich.join("house").join(format!("{name}.locked"))).unwrap();
    }
    fs::write(munich.join("README-PAY.txt"), "pay").unwrap();
    world.wait();
    assert!(detroit.join("house/d0.dwg.locked").exists());
    // A second more than needed may reach back to deletes of munich: the restore lies between, so they stay undone.
    let age = format!("{}s", began.elapsed().unwrap().as_secs() + 1);
    let report = world.run(&["undo", "--server", "munich", "--from", &age, "--json"]).expect(0).json();
    assert_eq!((report["reverted"].as_u64(), report["deleted"].as_u64()), (Some(5), Some(1)), "{report}");
    world.wait();
    for folder in &folders {
        assert_eq!(names(folder), ["house", "plan-old.txt", "plan.txt"]);
        assert_eq!(names(&folder.join("house")), ["d0.dwg", "d1.dwg", "d2.dwg", "d3.dwg", "d4.dwg"]);
        assert_eq!(fs::read_to_string(folder.join("house/d3.dwg")).unwrap(), "drawing 3");
    }
    world.run(&["service", "check", "--deep"]).expect(0);
    world.run(&["restore", "nothing/here", "--as-of", "1h"]).expect(1);
    world.run(&["restore", "plan.txt"]).expect(2);
    world.run(&["restore", "plan.txt", "--as-of", "yesterday"]).expect(2);
}

/// Names are bytes: what the shell gives and what this program prints mean the same file.
#[test]
fn names_that_are_not_text_and_paths_that_are_none() {
    if !can_sync("revisions::names_that_are_not_text_and_paths_that_are_none") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let folders = world.share("plans", &["detroit"]);
    let raw = OsStr::from_bytes(b"pl\xe4n.txt");
    let file = folders[0].join(raw);
    fs::write(&file, "one").unwrap();
    world.wait();
    fs::rename(&file, folders[0].join("plan.txt")).unwrap();
    world.wait();
    for path in [raw, OsStr::new("pl\\xe4n.txt"), OsStr::new("plan.txt")] {
        let found = world.run(&[OsStr::new("versions"), path]).expect(0).out;
        assert!(found.contains("pl\\xe4n.txt") && found.contains("plan.txt"), "{found}");
    }
    fs::remove_file(folders[0].join("plan.txt")).unwrap();
    world.wait();
    // It had another name when it was deleted, so this brings back what it was.
    let would = world.run(&["restore", "pl\\xe4n.txt", "--version", &version_at(&world, "plan.txt", 2), "--dry-run"]).expect(0);
    assert!(would.out.contains("undelete  plan.txt  -> pl\\xe4n.txt"), "{}", would.out);
    world.run(&[OsStr::new("undelete"), raw]).expect(0);
    world.wait();
    assert_eq!(fs::read_to_string(folders[0].join("plan.txt")).unwrap(), "one");

    for (command, code, says) in [
        (&["versions", ""][..], 2, "the path is empty"),
        (&["versions", "/"], 2, "has no versions of its own"),
        (&["undelete", "/"], 2, "cannot have been deleted"),
        (&["restore", "", "--as-of", "1s", "--exact"], 2, "the path is empty"),
        (&["versions", "no/such.txt"], 1, "Paths are those of the share"),
        (&["undo", "--server", "nobody", "--from", "0s"], 1, "isotherm server list"),
    ] {
        let ended = world.run(command).expect(code);
        assert!(ended.err.contains(says), "{command:?}: {ended:?}");
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { bytes_below(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

/// Bytes that no compression makes fewer.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn what_the_share_has_is_sent_by_nobody_again() {
    if !can_sync("revisions::what_the_share_has_is_sent_by_nobody_again") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    let (detroit, munich) = (&folders[0], &folders[1]);
    let bytes = noise(8 << 20);
    fs::write(detroit.join("model"), &bytes).unwrap();
    world.wait();
    let stored = || bytes_below(&world.data().join("objects"));
    let first = stored();
    assert!(first >= bytes.len() as u64);
    let still = |what: &str| {
        world.wait();
        let more = stored() - first;
        assert!(more < 64 << 10, "{what}: {more} bytes more are stored");
    };
    fs::copy(detroit.join("model"), detroit.join("copy")).unwrap();
    still("a copy");
    fs::create_dir(munich.join("deep")).unwrap();
    fs::rename(munich.join("model"), munich.join("deep/moved")).unwrap();
    still("a move at the other server");
    fs::write(munich.join("the same"), &bytes).unwrap();
    still("the same file made at the other server");
    fs::write(detroit.join("copy"), "small").unwrap();
    still("another content");
    world.run(&["restore", "copy", "--version", &version_at(&world, "copy", 1)]).expect(0);
    still("a restored version");
    fs::remove_file(detroit.join("copy")).unwrap();
    still("a deletion");
    world.run(&["undelete", "copy"]).expect(0);
    still("an undeleted file");
    for folder in &folders {
        for name in ["copy", "deep/moved", "the same"] {
            assert!(fs::read(folder.join(name)).unwrap() == bytes, "{name} in {}", folder.display());
        }
    }
}
