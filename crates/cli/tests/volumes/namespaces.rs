//! Two network namespaces and a line between them, which can be cut and made narrow; gone when dropped.
//!
//! **Invariant:** nothing of the machine's own network is changed; what a killed test leaves behind, the next one removes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::noted;

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";
const PREFIX: &str = "isotherm-";
/// Addresses of the two ends; nobody else is in these namespaces.
pub(crate) const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// The line; its ends are the two namespaces.
#[derive(Debug)]
pub(crate) struct Line {
    names: [String; 2],
}

impl Line {
    /// `None`, with the reason on standard error, where this machine has none.
    pub(crate) fn new() -> Option<Self> {
        sweep();
        let names = ["a", "b"].map(|end| format!("{PREFIX}{}-{}{end}", std::process::id(), noted()));
        let line = Self { names };
        match line.make() {
            Ok(()) => Some(line),
            Err(reason) => {
                eprintln!("SKIPPED namespaces: {reason}");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let [a, b] = &self.names;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["-n", a, "link", "add", "line", "type", "veth", "peer", "name", "line", "netns", b])?;
        for (name, address) in self.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "line"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "line", "up"])?;
        }
        Ok(())
    }

    /// The file of a namespace.
    pub(crate) fn namespace(&self, end: usize) -> PathBuf {
        Path::new(FOLDER).join(&self.names[end])
    }

    /// Takes the line down or up again, without telling anybody.
    pub(crate) fn set_up(&self, is_up: bool) {
        ip(&["-n", &self.names[0], "link", "set", "line", if is_up { "up" } else { "down" }]).unwrap();
    }

    /// Loses and delays packets in both directions, until [`Line::clear`]; gives how that is done on this machine.
    pub(crate) fn spoil(&self) -> &'static str {
        self.clear();
        let with = |discipline: &[&str]| {
            self.names.iter().all(|name| {
                let start = ["-n", name, "qdisc", "add", "dev", "line", "root"];
                tool("tc", &[&start, discipline].concat()).is_ok()
            })
        };
        if with(&["netem", "loss", "5%", "delay", "40ms", "20ms"]) {
            return "netem";
        }
        self.clear();
        // A narrow line with hardly a queue drops what comes in a burst.
        if with(&["tbf", "rate", "20mbit", "burst", "8k", "limit", "16k"]) { "tbf" } else { "nothing" }
    }

    pub(crate) fn clear(&self) {
        for name in &self.names {
            // There may be nothing to remove.
            let _ = tool("tc", &["-n", name, "qdisc", "del", "dev", "line", "root"]);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for name in &self.names {
            // The line goes with its ends. A machine without namespaces has none to delete.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

/// Removes namespaces of processes that have ended.
fn sweep() {
    let Ok(all) = std::fs::read_dir(FOLDER) else { return };
    for name in all.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    tool("ip", arguments)
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
