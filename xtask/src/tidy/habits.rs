//! Habits: what must not stay in code, and which crate may do what.
//!
//! It deliberately repeats clippy only where clippy can be silenced by one attribute.
//!
//! Invariant: each rule's message says what to do instead.

use super::source::{Source, has_word};
use super::{File, Finding};

/// Allows a sleep in a test when a reason follows on the same line.
const WAIT_MARK: &str = "// tidy: wait";

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.code_lines() {
        let broken = [
            leftover_macro(line),
            unsafe_outside_gate(source, line),
            ignored_test(line),
            sql_elsewhere(source, line),
            printing_elsewhere(source, number, line),
            sleeping_test(source, number, line),
        ];
        findings.extend(broken.into_iter().flatten().map(|rule| Finding::new(source.path, number + 1, rule)));
    }
    for (number, line) in source.comments.lines().enumerate() {
        if ["TODO", "FIXME", "XXX", "HACK"].iter().any(|mark| has_word(line, mark)) {
            findings.push(Finding::new(source.path, number + 1, "A leftover mark: do it now or describe the limit"));
        }
        if line.contains("```ignore") || line.contains("```rust,ignore") {
            findings.push(Finding::new(source.path, number + 1, "An ignored example: make it run, or mark it `text`"));
        }
    }
    findings
}

/// Rules for every text file: nothing of one machine gets into the project.
pub(crate) fn check_any_text(file: &File) -> Vec<Finding> {
    // Written in pieces, because this file is checked like all others.
    let homes = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let names_home = homes.iter().any(|home| {
            line.match_indices(home).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '*' | '~' | '/'))
            })
        });
        if names_home {
            findings.push(Finding::new(&file.path, number + 1, "A path of one machine: name it relative to the project"));
        }
    }
    findings
}

fn leftover_macro(line: &str) -> Option<&'static str> {
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let is_there = macros.iter().any(|name| has_word(line, name.trim_end_matches('!')) && line.contains(name));
    is_there.then_some("A leftover macro: write the code, or return an error that says what is not supported")
}

fn unsafe_outside_gate(source: &Source<'_>, line: &str) -> Option<&'static str> {
    let is_allowed = source.crate_name() == Some("gate");
    (!is_allowed && has_word(line, "unsafe")).then_some("Unsafe code outside crate gate: give gate a safe function")
}

fn ignored_test(line: &str) -> Option<&'static str> {
    let is_attribute = line.contains("#[ignore") || (line.contains("cfg_attr") && has_word(line, "ignore"));
    is_attribute.then_some("An ignored test: run it, or print `SKIPPED <test>: <reason>` where it cannot run")
}

fn sql_elsewhere(source: &Source<'_>, line: &str) -> Option<&'static str> {
    let is_allowed = match source.crate_name() {
        Some("service") => true,
        Some("agent") => source.path.contains("catalog"),
        _ => false,
    };
    (!is_allowed && has_word(line, "rusqlite")).then_some("SQL is for crate service and the agent's catalog only")
}

fn printing_elsewhere(source: &Source<'_>, number: usize, line: &str) -> Option<&'static str> {
    let is_allowed = !source.path.starts_with("crates/")
        || source.crate_name() == Some("cli")
        || source.path == "crates/sim/src/main.rs"
        || source.is_test(number);
    let prints =
        ["println", "eprintln", "print", "eprint"].iter().any(|name| has_word(line, name) && line.contains(&format!("{name}!")));
    (!is_allowed && prints).then_some("Only the command line prints: return the text, or trace it")
}

fn sleeping_test(source: &Source<'_>, number: usize, line: &str) -> Option<&'static str> {
    let sleeps = line.contains("thread::sleep") || line.contains("time::sleep");
    if !sleeps || !source.is_test(number) {
        return None;
    }
    let is_explained = |line: &str| line.split_once(WAIT_MARK).is_some_and(|(_, reason)| reason.split_whitespace().count() >= 2);
    let mut near = source.text.lines().skip(number.saturating_sub(1)).take(2);
    (!near.any(is_explained)).then_some("A test sleeps: wait for the event, or add `// tidy: wait` and the reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text)).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn each_rule_sees_its_mistake() {
        for (path, text, word) in [
            ("crates/core/src/a.rs", "fn f() { todo!() }", "leftover macro"),
            ("crates/core/src/a.rs", "fn f() { dbg!(1); }", "leftover macro"),
            ("crates/core/src/a.rs", "// FIXME later", "leftover mark"),
            ("crates/agent/src/a.rs", "unsafe { f() }", "Unsafe"),
            ("crates/agent/tests/a.rs", "#[ignore = \"slow\"]", "ignored test"),
            ("crates/agent/src/a.rs", "//! ```ignore", "ignored example"),
            ("crates/agent/src/engine.rs", "use rusqlite::Connection;", "SQL"),
            ("crates/agent/src/engine.rs", "println!(\"x\");", "prints"),
            ("crates/sim/src/world.rs", "eprintln!(\"x\");", "prints"),
            ("crates/agent/tests/a.rs", "std::thread::sleep(second);", "sleeps"),
            ("crates/agent/tests/a.rs", "thread::sleep(s); // tidy: wait", "sleeps"),
        ] {
            let rules = broken(path, text);
            assert_eq!(rules.len(), 1, "{path}: {text}: {rules:?}");
            assert!(rules[0].contains(word), "{rules:?}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        for (path, text) in [
            ("crates/core/src/a.rs", "let todo = \"todo!()\"; // a note"),
            ("crates/gate/src/a.rs", "unsafe { f() }"),
            ("crates/agent/src/catalog/open.rs", "use rusqlite::Connection;"),
            ("crates/service/src/records.rs", "use rusqlite::Connection;"),
            ("crates/cli/src/main.rs", "println!(\"x\");"),
            ("crates/agent/tests/a.rs", "println!(\"SKIPPED a: needs root\");"),
            ("crates/agent/src/a.rs", "thread::sleep(pause);"),
            ("crates/agent/tests/a.rs", "// tidy: wait the kernel has no event for this\nthread::sleep(s);"),
        ] {
            assert_eq!(broken(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn paths_of_one_machine_are_found_in_any_file() {
        let found = |text: &str| check_any_text(&File { path: "README.md".into(), text: text.into() }).len();
        assert_eq!(found(concat!("see /wo", "rk/main")), 1);
        assert_eq!(found(concat!("`/ro", "ot/.cargo`")), 1);
        assert_eq!(found("https://example.org/work/a and src/work/b and ~/root/x"), 0);
    }
}
