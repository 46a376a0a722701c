//! What the guest's checks said, line by line, and what is kept of it.
//!
//! **Invariant:** a check that began and said no more is a failed one.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// By this the lines of the checks are known.
const MARK: &str = "ISOTHERM ";

/// One check.
#[derive(Debug, PartialEq)]
struct Check {
    name: String,
    result: String,
    seconds: f64,
    text: String,
}

/// All that was said.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What emulates the machine.
    pub(super) emulator: String,
    kernel: Option<String>,
    facts: Vec<(String, String)>,
    checks: Vec<Check>,
    /// The check that works now.
    now: Option<String>,
    has_ended: bool,
}

impl Report {
    pub(super) fn new(emulator: &str) -> Self {
        Self { emulator: emulator.to_owned(), ..Self::default() }
    }

    /// Takes a line; says whether it is worth showing.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix(MARK) else { return true };
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "begin" => self.kernel = Some(rest.to_owned()),
            "now" => self.now = Some(rest.to_owned()),
            "fact" => {
                let (name, text) = rest.split_once(": ").unwrap_or((rest, ""));
                self.facts.push((name.to_owned(), text.trim().to_owned()));
            }
            "ok" | "failed" | "skipped" => {
                self.now = None;
                let mut parts = rest.splitn(3, ' ');
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (name, seconds, text) = (part(), part(), part());
                let seconds = seconds.parse().unwrap_or_default();
                self.checks.push(Check { name, result: word.to_owned(), seconds, text: text.trim().to_owned() });
            }
            "end" => self.has_ended = true,
            _ => {}
        }
        true
    }

    pub(super) fn has_begun(&self) -> bool {
        self.kernel.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Names of the checks that failed.
    pub(super) fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| check.result == "failed").map(|check| check.name.as_str());
        failed.chain(self.now.as_deref()).collect()
    }

    /// The table for the screen.
    pub(super) fn table(&self) -> String {
        let mut out = format!("\nLinux {} ({})\n", self.kernel.as_deref().unwrap_or("unknown"), self.emulator);
        for (name, text) in &self.facts {
            let _ = writeln!(out, "{name}: {text}");
        }
        let _ = writeln!(out, "\n{:<16} {:<8} {:>8}  what it found", "check", "result", "seconds");
        for check in &self.checks {
            let _ = writeln!(out, "{:<16} {:<8} {:>8.1}  {}", check.name, check.result, check.seconds, check.text);
        }
        if let Some(name) = &self.now {
            let _ = writeln!(out, "{name:<16} {:<8} {:>8}  the guest said no more", "failed", "");
        }
        out
    }

    /// Keeps it in `bench/results`.
    pub(super) fn keep(&self, root: &Path, commit: &str, date: &str) -> Result<()> {
        let folder = root.join("bench/results");
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("vm.json"), self.json(commit, date))?)
    }

    fn json(&self, commit: &str, date: &str) -> String {
        let kernel = self.kernel.as_deref().unwrap_or_default();
        let emulator = &self.emulator;
        let mut out = format!(
            "{{\n  \"title\": \"vm: checks in a guest\",\n  \"commit\": {commit:?},\n  \"date\": {date:?},\n  \
             \"kernel\": {kernel:?},\n  \"emulator\": {emulator:?},\n"
        );
        let fact = |(name, text): &(String, String)| format!("    {{\"name\": {name:?}, \"text\": {text:?}}}");
        let facts: Vec<String> = self.facts.iter().map(fact).collect();
        let _ = writeln!(out, "  \"facts\": [\n{}\n  ],", facts.join(",\n"));
        let checks: Vec<String> = self.checks.iter().map(Check::json).collect();
        let _ = writeln!(out, "  \"checks\": [\n{}\n  ]\n}}", checks.join(",\n"));
        out
    }
}

impl Check {
    fn json(&self) -> String {
        let Self { name, result, seconds, text } = self;
        format!("    {{\"name\": {name:?}, \"result\": {result:?}, \"seconds\": {seconds:.1}, \"text\": {text:?}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Report {
        let mut report = Report::new("tcg");
        lines.lines().for_each(|line| {
            report.take(line);
        });
        report
    }

    #[test]
    fn lines_become_checks_and_facts() {
        let report = read(
            "noise\nISOTHERM begin 7.3\nISOTHERM fact modules: a,b: c\nISOTHERM now one\nISOTHERM ok one 1.5 all is well\n\
             ISOTHERM now two\nISOTHERM log why: x\nISOTHERM failed two 60.0 not \"done\"\nISOTHERM now three\n\
             ISOTHERM skipped three 0.1 \nISOTHERM end\n",
        );
        assert!(report.has_begun() && report.has_ended());
        assert_eq!(report.failed(), ["two"]);
        assert_eq!(report.facts, [("modules".to_owned(), "a,b: c".to_owned())]);
        let one = Check { name: "one".into(), result: "ok".into(), seconds: 1.5, text: "all is well".into() };
        assert_eq!(report.checks[0], one);
        let json = report.json("abc", "2026-01-01");
        assert!(json.contains(r#"{"name": "two", "result": "failed", "seconds": 60.0, "text": "not \"done\""}"#), "{json}");
        assert!(json.contains(r#""kernel": "7.3""#), "{json}");
    }

    #[test]
    fn a_guest_that_falls_silent_has_failed() {
        let report = read("ISOTHERM begin 7.3\nISOTHERM now one\n");
        assert_eq!((report.has_ended(), report.failed()), (false, vec!["one"]));
        assert!(report.table().contains("the guest said no more"));
        assert!(!read("qemu: no kvm\n").has_begun());
    }
}
