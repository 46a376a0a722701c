//! The project's own rules, checked on the text of its files.
//!
//! It deliberately parses no Rust properly: it looks at words and braces after comments and strings were blanked, which
//! is enough for these rules and needs no dependency. What clippy can check is left to clippy.
//!
//! Invariant: a rule has no list of exceptions by file name; where an exception is allowed, the rule's text says so.

mod docs;
mod fences;
mod functions;
mod habits;
mod links;
mod manifest;
mod source;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use source::Source;

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1; 0 when the whole file is meant.
    line: usize,
    rule: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule: rule.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.path, self.rule),
            line => write!(out, "{}:{line}: {}", self.path, self.rule),
        }
    }
}

/// A text file of the project; the path is relative to the root, with `/`.
#[derive(Debug)]
pub(crate) struct File {
    path: String,
    text: String,
}

/// Checks all files under `root` and prints what it finds; any finding is an error.
pub(crate) fn report(root: &Path) -> Result<()> {
    let files = read_all(root)?;
    let findings = check(&files);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} tidy rules are broken", findings.len());
    }
    println!("tidy: {} files keep the rules", files.len());
    Ok(())
}

fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if file.path.ends_with(".rs") {
            let source = Source::new(&file.path, &file.text);
            findings.extend(functions::check(&source));
            findings.extend(habits::check(&source));
            findings.extend(words::check(&source));
        }
        findings.extend(habits::check_any_text(file));
    }
    findings.extend(fences::check(files));
    findings.extend(docs::check(files));
    findings.extend(links::check(files));
    findings.sort();
    findings
}

/// What git does not keep: made by builds, and by fuzzing.
const MADE: &[&str] = &["target", "fuzz/target", "fuzz/artifacts", "fuzz/coverage"];

/// All text files but those of git and the build. Files that are not UTF-8 are data of tests and no concern here.
fn read_all(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        let entries = full.read_dir().with_context(|| format!("Cannot list {}", full.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("Cannot list {}", full.display()))?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().with_context(|| format!("Cannot stat {}", path.display()))?;
            // In a worktree of git the latter is a file.
            let is_ours = !MADE.iter().any(|made| path == Path::new(made)) && path != Path::new(".git");
            if kind.is_dir() && is_ours {
                folders.push(path);
            } else if kind.is_file() && is_ours {
                let bytes = std::fs::read(root.join(&path)).with_context(|| format!("Cannot read {}", path.display()))?;
                if let Ok(text) = String::from_utf8(bytes) {
                    files.push(File { path: path.to_string_lossy().into_owned(), text });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_file_and_line() {
        assert_eq!(Finding::new("a.rs", 3, "Rule").to_string(), "a.rs:3: Rule");
        assert_eq!(Finding::new("a.rs", 0, "Rule").to_string(), "a.rs: Rule");
    }
}
