//! The demo as a process: what a newcomer sees first.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Running, isotherm, until};
use crate::world::can_sync;

/// Starts the demo and gives the folders of its sites.
fn start(dir: &str) -> (Running, Vec<PathBuf>) {
    let demo = Running::start(&["demo", "--dir", dir, "--json", "--plain"]);
    let ready: Value = serde_json::from_str(&demo.line()).unwrap();
    assert_eq!(ready["event"], "ready", "the first event");
    assert!(ready["service"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
    let sites = ready["sites"].as_array().unwrap();
    let names: Vec<&str> = sites.iter().map(|site| site["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["detroit", "munich"]);
    let folders = sites.iter().map(|site| PathBuf::from(site["path"].as_str().unwrap())).collect();
    (demo, folders)
}

fn stop(demo: Running) {
    demo.signal(Signal::INT);
    let (code, lines) = demo.ended();
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some(r#"{"event":"stopped"}"#));
}

#[test]
fn a_file_saved_at_one_site_appears_at_the_other_also_after_a_restart() {
    if !can_sync("demo::a_file_saved_at_one_site_appears_at_the_other_also_after_a_restart") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let dir = dir.to_str().unwrap();
    let (demo, sites) = start(dir);
    // The sample drawings travel first.
    until("the samples arrive", || {
        sites[1].join("Hall A/Details/crane rail.svg").exists() && sites[1].join("README.txt").exists()
    });
    fs::write(sites[0].join("hello.txt"), "hello").unwrap();
    let arrived = demo.event(|event| event["event"] == "change" && event["site"] == "munich" && event["path"] == "hello.txt");
    assert_eq!(arrived["direction"], "down", "{arrived}");
    assert!(arrived["delay_ms"].is_u64(), "{arrived}");
    assert_eq!(fs::read_to_string(sites[1].join("hello.txt")).unwrap(), "hello");
    let second = isotherm(&["demo", "--dir", dir, "--json"]).expect(4);
    assert!(second.err.contains("in use"), "{second:?}");
    stop(demo);

    // Meanwhile people go on working, and the demo goes on where it was.
    fs::write(sites[1].join("while away.txt"), "from munich").unwrap();
    fs::remove_file(sites[0].join("hello.txt")).unwrap();
    let (demo, again) = start(dir);
    assert_eq!(again, sites);
    until("what was written meanwhile arrives", || sites[0].join("while away.txt").exists());
    until("what was deleted meanwhile goes", || !sites[1].join("hello.txt").exists());
    let status = demo.event(|event| {
        event["event"] == "status" && event["sites"].as_array().unwrap().iter().all(|site| site["synced"] == true)
    });
    assert_eq!(status["sites"][0]["files"], status["sites"][1]["files"], "{status}");
    stop(demo);
}

/// An account without any privilege.
const NOBODY: u32 = 65_534;

#[test]
fn without_root_the_demo_syncs_by_scanning_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    fs::create_dir(&dir).unwrap();
    // The build folder may be closed to other users.
    let copy = folder.path().join("isotherm");
    fs::copy(env!("CARGO_BIN_EXE_isotherm"), &copy).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.args(["demo", "--dir", dir.to_str().unwrap(), "--json"]);
    if isotherm_gate::effective_root() {
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let demo = Running::spawn(command);
    let why = demo.event(|event| event["event"] == "untiered")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("root") || !isotherm_gate::effective_root(), "{why}");
    let (detroit, munich) = (dir.join("detroit"), dir.join("munich"));
    until("the samples arrive", || munich.join("Hall A/Details/crane rail.svg").exists());
    let status = demo.event(|event| event["event"] == "status" && event["sites"][1]["files"].as_u64() > Some(0));
    assert_eq!(status["sites"][0]["watching"], false, "{status}");
    fs::rename(munich.join("Hall A"), munich.join("Hall C")).unwrap();
    fs::remove_file(detroit.join("README.txt")).unwrap();
    until("a renamed directory arrives", || detroit.join("Hall C/Details/crane rail.svg").exists());
    until("a removed file goes", || !munich.join("README.txt").exists() && !detroit.join("Hall A").exists());
    let status = demo.event(|event| {
        event["event"] == "status" && event["sites"].as_array().unwrap().iter().all(|site| site["synced"] == true)
    });
    assert_eq!(status["sites"][0]["problems"], 0, "{status}");
    stop(demo);
}

#[test]
fn text_is_plain_lines_where_there_is_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Running::start(&["demo", "--plain", "--dir", folder.path().to_str().unwrap()]);
    assert!(demo.line().starts_with("Service at http://127.0.0.1:"));
    assert!(demo.line().contains("detroit"));
    demo.signal(Signal::TERM);
    let (code, lines) = demo.ended();
    assert_eq!(code, Some(0));
    assert!(lines.last().unwrap().starts_with("Stopped."), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
}
