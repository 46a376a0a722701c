//! Links between documents, and from code to the promises of `docs/semantics.md`.
//!
//! It deliberately fetches nothing: only links inside the project are checked.
//!
//! Invariant: a test cannot quote a promise that is not written, and two promises cannot have one name.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{File, Finding};

const PROMISES: &str = "docs/semantics.md";
/// What a test writes before the name of the promise that it checks.
const QUOTE: &str = "semantics.md#";

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let known = known_paths(files);
    let promises = files.iter().find(|file| file.path == PROMISES);
    let mut findings = promises.map(repeated).unwrap_or_default();
    let names: BTreeSet<&str> = promises.iter().flat_map(|file| headings(&file.text)).map(|(_, name)| name).collect();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let mut broken = |rule| findings.push(Finding::new(&file.path, number + 1, rule));
            if file.path.ends_with(".md") {
                let targets = links(line).filter(|target| !known.contains(&resolve(&file.path, target)));
                targets.for_each(|target| broken(format!("The link leads nowhere: {target}")));
            }
            // This folder speaks of quotes without meaning one.
            if !file.path.starts_with("xtask/") {
                let unknown = quotes(&file.path, line).filter(|name| !names.contains(name));
                unknown.for_each(|name| broken(format!("{PROMISES} has no promise {name:?}")));
            }
        }
    }
    findings
}

fn known_paths(files: &[File]) -> BTreeSet<PathBuf> {
    let paths = files.iter().flat_map(|file| Path::new(&file.path).ancestors());
    paths.map(Path::to_path_buf).collect()
}

/// The names of promises: headings of one word, with their line counted from 0.
fn headings(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(number, line)| Some((number, line.strip_prefix("#### ")?.trim()))).collect()
}

fn repeated(file: &File) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let twice = headings(&file.text).into_iter().filter(|(_, name)| !seen.insert(*name));
    twice.map(|(number, name)| Finding::new(PROMISES, number + 1, format!("The promise {name:?} is there twice"))).collect()
}

/// Names of promises that a line refers to; inside the document itself, links to a heading.
fn quotes<'a>(path: &str, line: &'a str) -> impl Iterator<Item = &'a str> {
    let mark = if path == PROMISES { "](#" } else { QUOTE };
    let names = line.match_indices(mark).map(move |(at, _)| {
        let rest = &line[at + mark.len()..];
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or("")
    });
    names.filter(|name| !name.is_empty())
}

/// Targets inside the project, without the part after `#`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

fn resolve(from: &str, target: &str) -> PathBuf {
    let mut path = Path::new(from).parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        check(&files.iter().map(file).collect::<Vec<_>>()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_must_lead_somewhere() {
        let text = "[a](docs/a.md) [b](docs) [c](https://example.org/x) [d](#here)\n[e](docs/b.md#x)";
        let found = findings(&[("README.md", text), ("docs/a.md", "[up](../README.md)")]);
        assert_eq!(found, ["README.md:2: The link leads nowhere: docs/b.md"]);
    }

    #[test]
    fn quoted_promises_must_exist_once() {
        let found = findings(&[
            (PROMISES, "#### one\n\n#### two\n\n#### one\nsee [two](#two) and [four](#four)\n"),
            ("crates/agent/tests/a.rs", "//! Checks `semantics.md#two` and\n//! `semantics.md#three`."),
        ]);
        assert_eq!(
            found,
            [
                "docs/semantics.md:5: The promise \"one\" is there twice",
                "docs/semantics.md:6: docs/semantics.md has no promise \"four\"",
                "crates/agent/tests/a.rs:2: docs/semantics.md has no promise \"three\"",
            ]
        );
    }
}
