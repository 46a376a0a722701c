//! Service, agents and administrator's commands together, as processes on real folders.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use crate::program::{isotherm, until};
use crate::world::{World, agent_arguments, can_sync};

#[test]
fn what_is_written_on_one_server_is_on_the_other_after_the_wait() {
    if !can_sync("sync::what_is_written_on_one_server_is_on_the_other_after_the_wait") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    fs::create_dir_all(folders[0].join("hall/details")).unwrap();
    fs::write(folders[0].join("hall/details/crane.svg"), vec![b'x'; 300_000]).unwrap();
    fs::write(folders[0].join("note.txt"), "first sketch\n").unwrap();
    world.wait();
    assert_eq!(fs::read(folders[1].join("hall/details/crane.svg")).unwrap(), vec![b'x'; 300_000]);
    assert_eq!(fs::read_to_string(folders[1].join("note.txt")).unwrap(), "first sketch\n");
    fs::write(folders[1].join("note.txt"), "second sketch\n").unwrap();
    fs::remove_dir_all(folders[1].join("hall")).unwrap();
    world.wait();
    assert_eq!(fs::read_to_string(folders[0].join("note.txt")).unwrap(), "second sketch\n");
    assert!(!folders[0].join("hall").exists());

    let status = world.run(&["status"]).expect(0).out;
    assert!(status.contains("detroit") && status.contains("in sync"), "{status}");
    assert!(world.run(&["problems"]).expect(0).out.contains("No problems"));
    assert!(world.run(&["conflicts"]).expect(0).out.contains("No conflicts"));
    let doctor = world.run(&["doctor", "--json", "--path", folders[0].to_str().unwrap()]).json();
    assert!(doctor.as_array().unwrap().iter().any(|finding| finding["check"] == "service" && finding["verdict"] == "good"));
    assert_eq!(world.stop_agent("munich", Signal::TERM), Some(0));
    assert_eq!(world.stop_agent("detroit", Signal::INT), Some(0));
}

#[test]
fn two_edits_of_one_file_are_a_conflict_that_is_listed() {
    if !can_sync("sync::two_edits_of_one_file_are_a_conflict_that_is_listed") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    fs::write(folders[0].join("plan.txt"), "base").unwrap();
    world.wait();
    assert_eq!(world.stop_agent("munich", Signal::TERM), Some(0));
    fs::write(folders[1].join("plan.txt"), "from munich").unwrap();
    fs::write(folders[0].join("plan.txt"), "from detroit").unwrap();
    until("detroit has told the service", || {
        let status = world.run(&["status", "--json"]).json();
        let ends = status["groups"][0]["endpoints"].as_array().unwrap().clone();
        ends.iter()
            .any(|one| one["endpoint"]["server"] == "detroit" && one["report"]["agreed"] == true && one["report"]["version"] != 1)
    });
    world.start_agent("munich");
    world.wait();
    let found = world.run(&["conflicts", "--json"]).expect(3).json();
    let copy = found[0]["path"].as_str().unwrap().to_owned();
    assert!(copy.starts_with("plan-") && copy.ends_with(".txt"), "{found}");
    assert_eq!(found[0]["kept"]["path"], "plan.txt", "{found}");
    let texts = |folder: &std::path::Path| {
        let mut texts = [fs::read_to_string(folder.join("plan.txt")).unwrap(), fs::read_to_string(folder.join(&copy)).unwrap()];
        texts.sort();
        texts
    };
    for folder in &folders {
        assert_eq!(texts(folder), ["from detroit", "from munich"]);
    }
    // Dealt with: the copy is removed.
    fs::remove_file(folders[0].join(&copy)).unwrap();
    world.wait();
    assert!(!folders[1].join(&copy).exists());
    world.run(&["conflicts"]).expect(0);
}

#[test]
fn a_second_agent_on_the_same_state_is_refused() {
    if !can_sync("sync::a_second_agent_on_the_same_state_is_refused") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let second = isotherm(&agent_arguments(&world.state("detroit"), &world.url, "detroit")).expect(4);
    assert!(second.err.starts_with("isotherm: agent run: "), "{second:?}");
    // The first one is not disturbed.
    world.share("plans", &["detroit"]);
}

#[test]
fn what_is_not_in_sync_is_listed_when_the_time_is_up() {
    if !can_sync("sync::what_is_not_in_sync_is_listed_when_the_time_is_up") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let folders = world.share("plans", &["detroit"]);
    assert_eq!(world.stop_agent("detroit", Signal::KILL), None);
    fs::write(folders[0].join("late.txt"), "x").unwrap();
    let waited = world.run(&["wait", "--synced", "--timeout", "1"]).expect(3);
    assert!(waited.out.starts_with("Not in sync:") && waited.out.contains("detroit"), "{waited:?}");
    let json = world.run(&["wait", "--synced", "--timeout", "0", "--json"]).expect(3).out;
    let result: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&result["event"], &result["synced"], &result["missing"][0]["server"]),
        (&"result".into(), &false.into(), &"detroit".into())
    );
    world.start_agent("detroit");
    world.wait();
}

#[test]
fn names_that_are_not_text_are_exact_in_json_and_escaped_in_text() {
    if !can_sync("sync::names_that_are_not_text_are_exact_in_json_and_escaped_in_text") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    let folders = world.share("plans", &["detroit"]);
    let name = OsStr::from_bytes(b"a\n\x1b\xff.txt");
    fs::write(folders[0].join(name), "x").unwrap();
    // A socket cannot be synced: a problem with a path.
    let socket = OsStr::from_bytes(b"s\x1b\xfe");
    let listener = UnixListener::bind(folders[0].join(socket)).unwrap();
    until("the problem is reported", || world.run(&["problems"]).code == Some(3));
    world.wait();
    let problems = world.run(&["problems", "--json"]).expect(3).json();
    assert_eq!(
        (&problems["problems"][0]["path_b64"], &problems["problems"][0]["path"]),
        (&"cxv+".into(), &"s\u{1b}\u{fffd}".into())
    );
    assert!(world.run(&["problems"]).expect(3).out.contains("s\\x1b\\xfe  (detroit"));
    assert_eq!(world.run(&["status"]).code, Some(3));
    drop(listener);

    let state = world.state("detroit");
    let path = folders[0].join(name);
    let show = |json: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_isotherm"));
        command.args(["file", "show"]).arg(&path).arg("--state").arg(&state);
        if json {
            command.arg("--json");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown: serde_json::Value = serde_json::from_str(&show(true)).unwrap();
    assert_eq!(shown["path_b64"], "YQob/y50eHQ=", "{shown}");
    let text = show(false);
    assert!(text.contains("a\\x0a\\x1b\\xff.txt") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn endpoints_pause_go_on_and_go() {
    if !can_sync("sync::endpoints_pause_go_on_and_go") {
        return;
    }
    let mut world = World::new();
    world.start_agent("detroit");
    world.start_agent("munich");
    let folders = world.share("plans", &["detroit", "munich"]);
    let ends = world.run(&["endpoint", "list", "--json"]).expect(0).json();
    let munich = ends.as_array().unwrap().iter().find(|one| one["endpoint"]["server"] == "munich").unwrap();
    let id = &munich["endpoint"]["id"].as_str().unwrap()[..12];
    world.run(&["endpoint", "pause", id]).expect(0);
    until("it is paused", || world.run(&["endpoint", "show", id]).out.contains("paused"));
    fs::write(folders[0].join("a.txt"), "a").unwrap();
    // A paused endpoint does not count.
    world.wait();
    assert!(!folders[1].join("a.txt").exists());
    world.run(&["endpoint", "confirm-deletes", id]).expect(4);
    world.run(&["endpoint", "resume", id]).expect(0);
    world.wait();
    assert!(folders[1].join("a.txt").exists());
    world.run(&["endpoint", "delete", id]).expect(0);
    until("it is gone", || world.run(&["endpoint", "list", "--json"]).json().as_array().unwrap().len() == 1);
    assert!(folders[1].join("a.txt").exists(), "its files stay");
}
