//! What a campaign has done so far, in `bench/campaign/NAME.json`.
//!
//! It deliberately reads only what it writes itself, one field a line, and so needs no JSON library.
//!
//! Invariant: a file that is not as it was written is an error, never a campaign that begins anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::piece::Outcome;

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub(super) piece: u64,
    pub(super) commit: String,
    pub(super) what: String,
}

/// All that is kept.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Record {
    /// Rounds or seeds.
    pub(super) done: u64,
    pub(super) pieces: u64,
    pub(super) seconds: u64,
    /// Of the latest piece.
    pub(super) commit: String,
    pub(super) date: String,
    pub(super) numbers: BTreeMap<String, u64>,
    pub(super) failures: Vec<Failure>,
}

impl Record {
    /// What was kept, or nothing if there is nothing.
    pub(super) fn load(root: &Path, name: &str) -> Result<Self> {
        let path = path(root, name);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path)?;
        Self::parse(&text).with_context(|| format!("{} is not as it was written", path.display()))
    }

    pub(super) fn keep(&self, root: &Path, name: &str) -> Result<()> {
        let path = path(root, name);
        fs::create_dir_all(path.parent().context("A file has a folder")?)?;
        let aside = path.with_extension("new");
        fs::write(&aside, self.to_json(name))?;
        Ok(fs::rename(aside, path)?)
    }

    /// Adds a piece.
    pub(super) fn add(&mut self, count: u64, took: Duration, outcome: Outcome, commit: String, date: String) {
        for (name, number) in outcome.numbers {
            *self.numbers.entry(name).or_default() += number;
        }
        let piece = self.pieces;
        let failure = |what| Failure { piece, commit: commit.clone(), what };
        self.failures.extend(outcome.failures.into_iter().map(failure));
        self.done += count;
        self.pieces += 1;
        self.seconds += took.as_secs();
        self.commit = commit;
        self.date = date;
    }

    fn to_json(&self, name: &str) -> String {
        let mut out = format!("{{\n  \"name\": {},\n", quoted(name));
        let _ = writeln!(out, "  \"done\": {},\n  \"pieces\": {},\n  \"seconds\": {},", self.done, self.pieces, self.seconds);
        let _ = writeln!(out, "  \"commit\": {},\n  \"date\": {},", quoted(&self.commit), quoted(&self.date));
        let numbers: Vec<String> = self.numbers.iter().map(|(name, number)| format!("    {}: {number}", quoted(name))).collect();
        let _ = writeln!(out, "  \"numbers\": {{\n{}\n  }},", numbers.join(",\n"));
        let failure = |one: &Failure| {
            format!("    {{\"piece\": {}, \"commit\": {}, \"what\": {}}}", one.piece, quoted(&one.commit), quoted(&one.what))
        };
        let failures: Vec<String> = self.failures.iter().map(failure).collect();
        let _ = writeln!(out, "  \"failures\": [\n{}\n  ]\n}}", failures.join(",\n"));
        out
    }

    fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        for line in text.lines().map(|line| line.trim().trim_end_matches(',')) {
            if let Some(rest) = line.strip_prefix("{\"piece\": ") {
                record.failures.push(parse_failure(rest)?);
                continue;
            }
            let Some((name, value)) = line.split_once(": ") else { continue };
            let number = || value.parse().with_context(|| format!("No number: {line}"));
            match unquoted(name)?.as_str() {
                "name" => {}
                "done" => record.done = number()?,
                "pieces" => record.pieces = number()?,
                "seconds" => record.seconds = number()?,
                "commit" => record.commit = unquoted(value)?,
                "date" => record.date = unquoted(value)?,
                "numbers" | "failures" => {}
                name => {
                    record.numbers.insert(name.to_owned(), number()?);
                }
            }
        }
        Ok(record)
    }
}

fn parse_failure(rest: &str) -> Result<Failure> {
    let (piece, rest) = rest.split_once(", \"commit\": ").context("A failure without a commit")?;
    let (commit, what) = rest.split_once(", \"what\": ").context("A failure without a text")?;
    let what = unquoted(what.strip_suffix('}').context("A failure without an end")?)?;
    Ok(Failure { piece: piece.parse()?, commit: unquoted(commit)?, what })
}

fn path(root: &Path, name: &str) -> PathBuf {
    root.join("bench/campaign").join(format!("{name}.json"))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn unquoted(text: &str) -> Result<String> {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).with_context(|| format!("No text: {text}"))?;
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '\\' { rest.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(c)) => out.push(c),
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut record = Record::default();
        assert_eq!(Record::parse(&record.to_json("x")).unwrap(), record);
        let numbers = BTreeMap::from([("rounds".to_owned(), 3)]);
        let failures = vec!["test a: \"b\\c\", \"what\": {\nis lost}".to_owned(), "again".to_owned()];
        record.add(5, Duration::from_secs(7), Outcome { numbers, failures }, "abc".into(), "2026-11-25".into());
        assert_eq!((record.done, record.pieces, record.failures[0].piece), (5, 1, 0));
        assert_eq!(Record::parse(&record.to_json("x")).unwrap(), record);
    }

    #[test]
    fn a_changed_file_is_refused() {
        assert!(Record::parse("{\n  \"done\": many\n}").is_err());
        assert!(Record::parse("{\n  done: 3\n}").is_err());
    }
}
