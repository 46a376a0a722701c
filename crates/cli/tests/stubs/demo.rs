//! The demo with volumes of its own: what a newcomer sees of tiering, and that nothing of it is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use isotherm_gate::safety_net::SafetyNet;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::office::blocks;
use crate::program::{Running, isotherm, until};

/// Starts the demo small, and gives the folders of its sites; `None` where nothing can be tiered.
fn start(dir: &Path) -> Option<(Running, Vec<PathBuf>)> {
    let demo = Running::start(&["demo", "--dir", dir.to_str().unwrap(), "--json", "--drawings", "48MiB"]);
    let ready: Value = serde_json::from_str(&demo.line()).unwrap();
    let folders = ready["sites"].as_array().unwrap().iter().map(|site| PathBuf::from(site["path"].as_str().unwrap())).collect();
    let first = demo.event(|event| event["event"] == "untiered" || event["event"] == "volumes");
    if first["event"] == "untiered" {
        println!("skipped: {}", first["why"]);
        return None;
    }
    Some((demo, folders))
}

fn stop(demo: Running, signal: Signal) {
    demo.signal(signal);
    let (code, lines) = demo.ended();
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some(r#"{"event":"stopped"}"#));
}

/// Mounts and loop devices that lie below a folder.
fn left(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let devices = Command::new("losetup").args(["--noheadings", "--output", "NAME,BACK-FILE"]).output().unwrap();
    let all = mounts + &String::from_utf8_lossy(&devices.stdout);
    all.lines().filter(|line| line.contains(dir)).map(str::to_owned).collect()
}

/// Processes of the demo's gate and keeper.
fn gates(dir: &Path) -> Vec<Pid> {
    let run = dir.join("data/gate/run");
    let is_it = |id: &i32| {
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        words.contains(&&b"gate"[..]) && words.contains(&run.as_os_str().as_encoded_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(is_it).filter_map(Pid::from_raw).collect()
}

/// Takes away what a test that failed leaves.
struct Cleared(PathBuf);

impl Drop for Cleared {
    fn drop(&mut self) {
        let left = left(&self.0);
        gates(&self.0).into_iter().for_each(|gate| kill_process(gate, Signal::KILL).unwrap_or_default());
        for site in ["detroit", "munich"] {
            // None, as a rule.
            let _ = unmount(self.0.join(site), UnmountFlags::DETACH);
        }
        for line in left.iter().filter(|line| line.starts_with("/dev/loop")) {
            let _ = Command::new("losetup").args(["--detach", line.split_whitespace().next().unwrap_or_default()]).output();
        }
        let _ = SafetyNet::of(&self.0.join("data/gate/run")).spread(&[]);
    }
}

/// The drawings at a site, by their paths below it.
fn drawings(site: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![site.join("Projects")], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { found.push(path.strip_prefix(site).unwrap().to_owned()) }
        }
    }
    found
}

// semantics.md#what-is-tiered
/// Drawings that one site makes are tiered at the other; whoever opens one gets the same bytes, and is named; of a large one comes what is
/// read; when the demo ends, or was killed
/// and has been started again, no mount and no loop device is left.
#[test]
fn the_demo_tiers_on_volumes_of_its_own_and_leaves_none() {
    if isotherm_gate::guard::Group::new().is_err() {
        println!("skipped: the kernel does not ask before content is touched, or not this user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("demo");
    let _cleared = Cleared(dir.clone());
    let Some((demo, sites)) = start(&dir) else { return };
    let is_sheet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "dwg");
    let tiered = || drawings(&sites[1]).into_iter().find(|path| is_sheet(path) && blocks(&sites[1].join(path)) == 0);
    // Only then: of what happens while many arrive the screen shows the newest.
    until("all drawings are at both sites", || {
        let there: Vec<usize> = sites.iter().map(|site| drawings(site).len()).collect();
        dir.join("data/drawings/made").exists() && there[0] > 0 && there[0] == there[1]
    });
    until("a drawing is tiered at the other site", || tiered().is_some());
    let path = tiered().unwrap();
    let content = fs::read(sites[0].join(&path)).unwrap();
    let cat = Command::new("cat").arg(sites[1].join(&path)).output().unwrap();
    assert!(cat.status.success() && !content.is_empty() && cat.stdout == content, "{}", path.display());
    let recall = demo.event(|event| event["event"] == "recall" && event["site"] == "munich");
    assert_eq!((&recall["program"], recall["path"].as_str()), (&"cat".into(), path.to_str()), "{recall}");
    let (shown, state) = (sites[1].join(&path), dir.join("data/munich"));
    let why = isotherm(&["why", shown.to_str().unwrap(), "--state", state.to_str().unwrap()]).expect(0);
    assert!(why.out.contains("opened it and waited"), "{why:?}");
    let large = "Projects/2019/point cloud.las";
    let (from, to) = (sites[0].join(large), sites[1].join(large));
    assert!(blocks(&to) == 0, "the coldest is tiered");
    let head = Command::new("head").args(["-c", "100000"]).arg(&to).output().unwrap();
    assert!(head.status.success() && head.stdout == fs::read(&from).unwrap()[..100_000], "{}", to.display());
    until("a part of it is here", || {
        let shown =
            isotherm(&["file", "show", to.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]).expect(0).json();
        shown["resident"].as_u64().is_some_and(|bytes| bytes > 0 && bytes < shown["size"].as_u64().unwrap())
    });
    stop(demo, Signal::INT);
    assert_eq!((left(&dir), gates(&dir)), (Vec::new(), Vec::new()));
    assert!(drawings(&sites[1]).is_empty(), "what is on the volumes cannot be mistaken for something else");

    // It goes on where it was, and is killed; what is left goes with the next start.
    let (demo, _) = start(&dir).unwrap();
    demo.signal(Signal::KILL);
    assert_ne!(demo.ended().0, Some(0));
    assert!(!left(&dir).is_empty() && !gates(&dir).is_empty(), "who waits is not let through");
    let (demo, _) = start(&dir).unwrap();
    for site in &sites {
        assert!(fs::read(site.join(&path)).unwrap() == content, "{}", site.display());
    }
    let why = isotherm(&["why", shown.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]).expect(0).json();
    assert!(why["happened"].as_array().unwrap().iter().any(|one| one["program"] == "cat"), "{why}");
    // As whoever closes the window does.
    stop(demo, Signal::HUP);
    assert_eq!((left(&dir), gates(&dir)), (Vec::new(), Vec::new()));
}
