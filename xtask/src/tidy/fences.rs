//! The fences between crates: which crate may depend on which, on what, and on how much.
//!
//! It deliberately does not look at `use` lines: a crate cannot use what its `Cargo.toml` does not name. Tests may link
//! more than the product does.
//!
//! Invariant: a crate that this file does not know is refused, so that a new crate is a decision.

use super::manifest::{Kind, dependencies};
use super::{File, Finding};

/// One crate's fence: the crates it may depend on, and how many direct dependencies it may have.
struct Fence {
    name: &'static str,
    may_use: &'static [&'static str],
    dependencies_max: usize,
}

const fn fence(name: &'static str, may_use: &'static [&'static str], dependencies_max: usize) -> Fence {
    Fence { name, may_use, dependencies_max }
}

/// The arrows of ARCHITECTURE.md. Numbers count all direct dependencies, our own crates too.
const FENCES: &[Fence] = &[
    fence("core", &[], 6),
    fence("store", &["core"], 8),
    fence("api", &["core"], 10),
    fence("gate", &["core"], 8),
    fence("agent", &["core", "store", "api", "gate"], 15),
    fence("service", &["core", "store", "api"], 20),
    fence("cli", &["core", "api", "gate", "agent", "service"], 20),
    fence("sim", &["core", "store", "api", "gate", "agent", "service"], 15),
];

/// All that core may use: none of them does IO, reads a clock or draws a random number by itself.
const CORE_MAY_USE: &[&str] = &["blake3", "fastcdc", "postcard", "serde", "thiserror", "zstd"];

/// Packages in the lock file, tests and tools included. Each one is code that we vouch for.
const LOCKED_MAX: usize = 300;

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let folder = file.path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml"));
        if let Some(folder) = folder {
            let rules = broken(folder, &file.text);
            findings.extend(rules.into_iter().map(|rule| Finding::new(&file.path, 0, rule)));
        }
        let locked = file.text.lines().filter(|line| *line == "[[package]]").count();
        if file.path == "Cargo.lock" && locked > LOCKED_MAX {
            let rule = format!("{locked} packages are locked, at most {LOCKED_MAX} are allowed");
            findings.push(Finding::new(&file.path, 0, rule));
        }
    }
    findings
}

fn broken(folder: &str, text: &str) -> Vec<String> {
    let Some(fence) = FENCES.iter().find(|fence| fence.name == folder) else {
        return vec![format!("Crate {folder:?} has no fence: say in xtask what it forbids, or make it a module")];
    };
    let mut rules = Vec::new();
    let names = dependencies(text, Kind::Product);
    if names.len() > fence.dependencies_max {
        let max = fence.dependencies_max;
        rules.push(format!("{} direct dependencies, at most {max} are allowed", names.len()));
    }
    for name in &names {
        let is_refused = match name.strip_prefix("isotherm-") {
            Some(own) => !fence.may_use.contains(&own),
            None if folder == "core" => !CORE_MAY_USE.contains(&name.as_str()),
            None => refused_elsewhere(folder, name),
        };
        if is_refused {
            rules.push(format!("Crate {folder} must not depend on {name}"));
        }
    }
    // A test of core that needs another crate of ours belongs to that crate.
    let test_names = dependencies(text, Kind::Test);
    if folder == "core" && test_names.iter().any(|name| name.starts_with("isotherm-")) {
        rules.push("Crate core must not depend on our other crates, not even for tests".to_owned());
    }
    if names.union(&test_names).any(|name| name == "isotherm-sim") {
        rules.push("Crate sim is never shipped: nothing may depend on it".to_owned());
    }
    rules
}

/// Dependencies that stand for what a crate forbids: system calls, SQL, and serving in what clients link.
fn refused_elsewhere(folder: &str, name: &str) -> bool {
    let homes: &[&str] = match name {
        "libc" | "nix" => &["gate"],
        "rusqlite" => &["service", "agent"],
        "axum" | "hyper" | "hyper-util" | "tower" => &["service"],
        "clap" => &["cli", "sim"],
        "anyhow" => &["cli"],
        _ => return false,
    };
    !homes.contains(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(names: &[&str]) -> String {
        let lines: Vec<String> = names.iter().map(|name| format!("{name}.workspace = true\n")).collect();
        format!("[dependencies]\n{}", lines.concat())
    }

    #[test]
    fn arrows_point_one_way() {
        for (folder, name, is_allowed) in [
            ("store", "isotherm-core", true),
            ("core", "isotherm-store", false),
            ("agent", "isotherm-gate", true),
            ("agent", "isotherm-service", false),
            ("service", "isotherm-gate", false),
            ("cli", "isotherm-service", true),
            ("cli", "isotherm-sim", false),
            ("core", "serde", true),
            ("core", "tokio", false),
            ("api", "axum", false),
            ("store", "libc", false),
            ("sim", "rusqlite", false),
        ] {
            let rules = broken(folder, &manifest(&[name]));
            assert_eq!(rules.is_empty(), is_allowed, "{folder} on {name}: {rules:?}");
        }
    }

    #[test]
    fn counts_and_unknown_crates_are_refused() {
        let nine: Vec<String> = (0..9).map(|number| format!("d{number}")).collect();
        let names: Vec<&str> = nine.iter().map(String::as_str).collect();
        assert_eq!(broken("store", &manifest(&names)), ["9 direct dependencies, at most 8 are allowed"]);
        assert!(broken("store", &manifest(&names[..8])).is_empty());
        assert!(broken("utils", "")[0].contains("has no fence"));
    }

    #[test]
    fn tests_may_link_more_but_core_stays_alone() {
        let text = "[dev-dependencies]\nisotherm-gate = { path = \"../gate\" }\n";
        assert!(broken("service", text).is_empty());
        assert_eq!(broken("core", text).len(), 1);
    }
}
