//! Damage in the service's folder is found by a check and repaired by the servers, without anybody touching a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::until;
use crate::world::{World, can_sync};

fn packs(data: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(data.join("objects/packs")).unwrap();
    folders.flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

/// Turns one bit in the first record of each pack.
fn damage(data: &Path) {
    for pack in packs(data) {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[10] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
}

/// Bytes that do not compress, several chunks of them.
fn drawing() -> Vec<u8> {
    (0..5_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[test]
fn damaged_packs_are_repaired_by_the_servers() {
    if !can_sync("repair::damaged_packs_are_repaired_by_the_servers") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    fs::write(folders[0].join("house.dwg"), drawing()).unwrap();
    fs::write(folders[0].join("notes.txt"), "first thoughts").unwrap();
    world.wait();
    let (check, deep) = (["service", "check", "--deep"], ["service", "check", "--deep", "--json"]);
    assert!(world.run(&check).expect(0).out.starts_with("Everything is there"));
    damage(&world.data());
    let found = world.run(&check).expect(3).out;
    assert!(found.contains("is damaged") && found.contains("send it again by themselves"), "{found}");
    assert!(found.contains("house.dwg (group plans)") && found.contains("notes.txt (group plans)"), "{found}");

    let mut repaired = 0;
    until("the servers have repaired it", || {
        let status = world.run(&deep);
        repaired += status.json()["repaired"].as_u64().unwrap();
        status.code == Some(0)
    });
    assert_eq!(repaired, 2);
    assert!(world.run(&check).expect(0).out.starts_with("Everything is there"));
    // Nothing happened to the files: no version, no conflict.
    for file in ["house.dwg", "notes.txt"] {
        assert_eq!(world.run(&["versions", file, "--json"]).expect(0).json().as_array().unwrap().len(), 1);
    }
    assert!(world.run(&["conflicts"]).expect(0).out.contains("No conflicts"));
    world.start_agent("oslo");
    let oslo = world.path("plans-oslo");
    fs::create_dir(&oslo).unwrap();
    world.run(&["endpoint", "create", "--group", "plans", "--server", "oslo", "--path", oslo.to_str().unwrap()]).expect(0);
    world.wait();
    assert!(fs::read(oslo.join("house.dwg")).unwrap() == drawing());

    // A version that no server has any more cannot come back, and is all that is left.
    fs::write(folders[1].join("notes.txt"), "second thoughts").unwrap();
    world.wait();
    damage(&world.data());
    world.run(&check).expect(3);
    let mut status = serde_json::Value::Null;
    until("only the old version is left", || {
        status = world.run(&deep).expect(3).json();
        status["hurt_count"] == 1
    });
    assert!(world.run(&["status"]).expect(0).out.contains("Everything that the servers know of"), "no live file is damaged");
    // While nobody can send it again, a damaged file is not called safe.
    for site in ["detroit", "munich", "oslo"] {
        world.stop_agent(site, rustix::process::Signal::TERM);
    }
    damage(&world.data());
    world.run(&check).expect(3);
    let shown = world.run(&["status"]).expect(3).out;
    assert!(shown.contains("damaged in the service") && !shown.contains("Everything that"), "{shown}");
    assert_eq!((&status["hurt"][0]["path"], &status["hurt"][0]["old"]), (&"notes.txt".into(), &true.into()), "{status}");
}
