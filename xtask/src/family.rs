//! The processes below one: what each of them waits for, what it said last, and their end.
//!
//! It deliberately reads nothing but `/proc`: what hangs is not asked. On another system it knows of the one process alone.
//!
//! Invariant: what has ended meanwhile is left out; nothing here fails because a process is no longer there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a process's own log that are told.
const LOG_LINES: usize = 3;
/// What is read of the end of a log, in bytes.
const LOG_TAIL: usize = 4_096;
/// Frames of the kernel's stack that are told of a thread that no signal reaches.
const FRAMES: usize = 8;
const COMMAND_MAX: usize = 120;

/// `pid` and all that it and its threads have started, parents first.
pub(crate) fn members(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        for thread in threads(parent) {
            let list = fs::read_to_string(thread.join("children")).unwrap_or_default();
            found.extend(list.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    found
}

/// Ends all of them by force; who has ended already needs no signal.
pub(crate) fn end(members: &[u32]) {
    let pids = members.iter().map(u32::to_string);
    let _ = Command::new("kill").arg("-KILL").args(pids).stderr(std::process::Stdio::null()).status();
}

/// What each of them does, a few lines per process: the threads by name with what they wait for in the kernel, the kernel's stack
/// of those that no signal reaches, and the last lines of the file that it logs to.
pub(crate) fn described(members: &[u32]) -> String {
    let mut text = String::new();
    for &pid in members {
        let root = process(pid);
        let Ok(command) = fs::read(root.join("cmdline")) else { continue };
        let command: String = String::from_utf8_lossy(&command).replace('\0', " ").chars().take(COMMAND_MAX).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "process {pid}: {}", command.trim_end());
        text.push_str(&waits(pid));
        for line in last_words(&root) {
            let _ = writeln!(text, "  | {line}");
        }
    }
    text
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn threads(pid: u32) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(process(pid).join("task")) else { return Vec::new() };
    list.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Equal threads are told once, with their number: a runtime has many that wait for work.
fn waits(pid: u32) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for thread in threads(pid) {
        let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
        let status = read("status");
        let Some(state) = status.lines().find_map(|line| line.strip_prefix("State:")) else { continue };
        let state = state.trim();
        let (name, place) = (read("comm"), read("wchan"));
        let mut kind = format!("  {} {state} {}", name.trim_end(), if place == "0" { "" } else { &place }).trim_end().to_owned();
        if state.starts_with('D') {
            for frame in read("stack").lines().take(FRAMES) {
                let _ = write!(kind, "\n      {}", frame.trim_start_matches("[<0>] "));
            }
        }
        *kinds.entry(kind).or_default() += 1;
    }
    let mut text = String::new();
    for (kind, count) in kinds {
        let times = if count > 1 { format!("  {count} times") } else { String::new() };
        let (first, stack) = kind.split_once('\n').map_or((kind.as_str(), ""), |(first, stack)| (first, stack));
        let _ = writeln!(text, "{first}{times}");
        if !stack.is_empty() {
            let _ = writeln!(text, "{stack}");
        }
    }
    text
}

/// The end of what it wrote to its standard error, where that is a file.
fn last_words(root: &Path) -> Vec<String> {
    let log = root.join("fd/2");
    if !fs::metadata(&log).is_ok_and(|meta| meta.is_file()) {
        return Vec::new();
    }
    let Ok(bytes) = fs::read(log) else { return Vec::new() };
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL)..]).into_owned();
    let lines: Vec<&str> = tail.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|&line| line.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use super::*;

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_thread_has_started_is_found_described_and_ended() {
        let place = std::env::temp_dir().join(format!("isotherm-xtask-family-{}", std::process::id()));
        let log = fs::File::create(&place).expect("a log");
        let mut child = std::thread::spawn(|| {
            let script = "echo first >&2; echo last words >&2; sleep 60; true";
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a shell")
        })
        .join()
        .expect("it starts");
        let told = |what: &str| described(&members(child.id())).contains(what);
        until("the shell is told of", || told(&format!("process {}: sh -c", child.id())));
        until("so is what it has started", || told(": sleep 60\n"));
        until("and what it said last", || told("  | last words\n"));
        until("and that it waits", || told(" S (sleeping)"));
        let all = members(child.id());
        end(&all);
        assert!(!child.wait().expect("it has ended").success());
        until("nothing is told of who has ended", || described(&all).is_empty());
        fs::remove_file(place).expect("the log is there");
    }

    #[test]
    fn children_of_threads_are_members() {
        let (told, hear) = std::sync::mpsc::channel();
        let (free, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().expect("it starts");
            told.send(child.id()).expect("who asked is there");
            let _ = wait.recv();
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
        });
        let child = hear.recv().expect("it starts");
        assert!(members(std::process::id()).contains(&child));
        drop(free);
        thread.join().expect("it ends");
    }
}
