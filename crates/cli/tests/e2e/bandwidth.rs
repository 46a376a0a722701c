//! Limits of what a server sends and gets.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{Local, TimeDelta};

use crate::program::{isotherm, until};
use crate::texts::text;
use crate::world::{World, can_sync};

fn world() -> Option<(World, Vec<PathBuf>)> {
    if !can_sync("bandwidth") {
        return None;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    Some((world, folders))
}

/// Limits a server, and waits until its agent says what is in force.
fn limit(world: &World, server: &str, limits: &[&str], is_in_force: bool) {
    let mut arguments = vec!["server", "set", server];
    limits.iter().for_each(|limit| arguments.extend(["--limit", limit]));
    arguments.extend(limits.is_empty().then_some("--no-limits"));
    let changed = world.run(&arguments).expect(0).out;
    assert!(limits.iter().all(|limit| changed.contains(limit)), "{changed}");
    until("the agent has heard of it", || {
        let servers = world.run(&["server", "list", "--json"]).expect(0).json();
        let found = servers.as_array().unwrap().iter().find(|one| one["name"] == server).unwrap().clone();
        found["limits"] == serde_json::json!(limits) && (found["in_force"] != serde_json::json!({})) == is_in_force
    });
}

/// How long it took until all servers have a new file of so many kibibytes.
fn takes(world: &World, folders: &[PathBuf], name: &str, kib: usize) -> Duration {
    let bytes = text(kib as u64, kib << 10);
    let begun = Instant::now();
    fs::write(folders[0].join(name), &bytes).unwrap();
    world.wait();
    let took = begun.elapsed();
    assert!(fs::read(folders[1].join(name)).unwrap() == bytes);
    took
}

// semantics.md#bandwidth-limits
/// What a server sends, and what it gets, takes the time that its limit asks for, but for what a second of rest has saved.
#[test]
fn what_is_limited_takes_its_time_in_each_direction() {
    let Some((world, folders)) = world() else { return };
    let at_least = Duration::from_secs(512 / 64 - 1);
    limit(&world, "detroit", &["up=64KiB/s", "down=1GiB/s"], true);
    let status = world.run(&["status"]).out;
    assert!(status.contains("server detroit sends at most 64.0 KiB/s, gets at most 1.0 GiB/s"), "{status}");
    let listed = world.run(&["server", "list"]).expect(0).out;
    assert!(listed.contains("up=64KiB/s down=1GiB/s"), "{listed}");
    let took = takes(&world, &folders, "sent", 512);
    assert!(took >= at_least, "{took:?}");
    // Of two the strictest counts.
    limit(&world, "detroit", &[], false);
    limit(&world, "munich", &["both=64KiB/s", "down=2GiB/s"], true);
    let took = takes(&world, &folders, "got", 512);
    assert!(took >= at_least, "{took:?}");
    // Names stand behind no contents.
    (0..200).for_each(|at| fs::write(folders[0].join(format!("small-{at}")), text(at, 64 << 10)).unwrap());
    until("they are on their way", || (0..200).any(|at| folders[1].join(format!("small-{at}")).exists()));
    fs::rename(folders[0].join("got"), folders[0].join("renamed")).unwrap();
    fs::create_dir(folders[0].join("folder")).unwrap();
    until("names come", || folders[1].join("renamed").exists() && folders[1].join("folder").exists());
    assert!((0..200).any(|at| !folders[1].join(format!("small-{at}")).exists()), "contents wait");
    assert!(!world.run(&["status"]).out.contains("server detroit"), "nothing is in force there");
}

// semantics.md#bandwidth-limits
/// A limit of other hours is none now; when one goes, what waited for it goes on; a new start keeps it.
#[test]
fn limits_come_and_go_with_the_hours_and_the_administrator() {
    let Some((mut world, folders)) = world() else { return };
    // A quarter of an hour would be needed.
    let (kib, limited) = (16 << 10, "both=16KiB/s");
    let hour = |hours: i64| (Local::now() + TimeDelta::hours(hours)).format("%H:%M").to_string();
    limit(&world, "detroit", &[&format!("{limited},{}-{}", hour(2), hour(4))], false);
    takes(&world, &folders, "other-hours", kib);
    limit(&world, "detroit", &[&format!("{limited},{}-{}", hour(-2), hour(4))], true);
    let bytes = text(7, kib << 10);
    fs::write(folders[0].join("waits"), &bytes).unwrap();
    world.run(&["wait", "--synced", "--timeout", "3"]).expect(3);
    // A stop does not wait for what waits.
    assert_eq!(world.stop_agent("detroit", rustix::process::Signal::TERM), Some(0));
    world.start_agent("detroit");
    world.run(&["wait", "--synced", "--timeout", "3"]).expect(3);
    // Names and metadata wait for no limit.
    fs::create_dir(folders[0].join("folder")).unwrap();
    until("the folder is there", || folders[1].join("folder").exists());
    assert!(!folders[1].join("waits").exists());
    limit(&world, "detroit", &[], false);
    world.wait();
    assert!(fs::read(folders[1].join("waits")).unwrap() == bytes);
}

#[test]
fn what_makes_no_sense_is_named() {
    let world = World::new();
    for (rule, named) in [
        ("up=20", "'20' is no rate"),
        ("out=1MiB/s", "'out' is no direction"),
        ("up=1MiB/s,always", "'always' is neither"),
        ("up=1MiB/s,demand", "`demand` is about what comes"),
    ] {
        let refused = world.run(&["server", "set", "munich", "--limit", rule]).expect(2).err;
        assert!(refused.contains(named), "{refused}");
    }
    world.run(&["server", "set", "munich"]).expect(2);
    world.run(&["server", "set", "munich", "--no-limits", "--limit", "up=1MiB/s"]).expect(2);
    let unknown = world.run(&["server", "set", "munich", "--limit", "up=1MiB/s"]).expect(1).err;
    assert!(unknown.contains("munich"), "{unknown}");
    let nobody = isotherm(&["server", "set", "munich", "--no-limits", "--service", "http://127.0.0.1:9"]);
    assert_eq!(nobody.code, Some(5), "{nobody:?}");
}
