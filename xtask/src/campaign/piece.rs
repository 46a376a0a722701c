//! Runs one piece of a campaign and reads what it says.
//!
//! Tests say their numbers in lines such as `CAMPAIGN rounds=1 files=20`; the simulation in its last lines.
//!
//! Invariant: a piece that found nothing wrong has said how much it did.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::list::{Campaign, Work};
use crate::product::{self, cargo};
use crate::{tools, watched};

/// Lines of a failure that are kept with the result.
const LINES_MAX: usize = 12;

/// What a piece has found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) numbers: BTreeMap<String, u64>,
    /// What failed, one text for each.
    pub(super) failures: Vec<String>,
}

/// The programs that pieces run, built once: nobody's edits get into a campaign that runs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    simulation: Option<PathBuf>,
    tests: BTreeMap<&'static str, PathBuf>,
}

impl Programs {
    pub(super) fn build(root: &Path, wanted: &[&Campaign]) -> Result<Self> {
        let mut programs = Self::default();
        if wanted.iter().any(|one| matches!(one.work, Work::Seeds(_))) {
            programs.simulation = Some(product::simulation(root)?);
        }
        for one in wanted {
            if let Work::Tests(program, _) = one.work
                && !programs.tests.contains_key(program)
            {
                programs.tests.insert(program, tests(root, program)?);
            }
        }
        Ok(programs)
    }

    /// Runs the piece with this number: `count` rounds, or seeds from `from` on.
    pub(super) fn run(&self, root: &Path, campaign: &Campaign, piece: u64, from: u64, count: u64) -> Result<Outcome> {
        let (mut command, what) = match campaign.work {
            Work::Seeds(more) => {
                let mut command = Command::new(self.simulation.as_ref().context("The simulation was not built")?);
                command.args(["run", "--from", &from.to_string(), "--count", &count.to_string()]).args(more);
                (command, format!("seeds {from} to {}", from + count - 1))
            }
            Work::Tests(program, tests) => {
                let test = tests[piece as usize % tests.len()];
                let mut command = Command::new(self.tests.get(program).context("The tests were not built")?);
                command.args(["--exact", test, "--nocapture"]).current_dir(root.join("crates/cli"));
                command.env("ISOTHERM_CAMPAIGN", "1").env("ISOTHERM_ROUNDS", count.to_string());
                command.env("ISOTHERM_SEED", piece.to_string()).env(tools::FSX_VARIABLE, tools::fsx_path(root));
                (command, format!("{test} with ISOTHERM_SEED={piece} ISOTHERM_ROUNDS={count} ISOTHERM_CAMPAIGN=1"))
            }
        };
        let mut lines = Vec::new();
        let ended = watched::run(&mut command, |line| {
            lines.push(line.to_owned());
            false
        });
        let mut outcome = read(&lines);
        if let Err(error) = ended {
            if outcome.failures.is_empty() {
                outcome.failures.push(format!("{error:#}"));
            }
            let log = product::target(root).join("campaign").join(format!("{}-{piece}.log", campaign.name));
            fs::create_dir_all(log.parent().context("A file has a folder")?)?;
            fs::write(&log, lines.join("\n"))?;
        } else if outcome.numbers.is_empty() {
            bail!("{what} could not run here:\n{}", lines.join("\n"));
        }
        outcome.failures.iter_mut().for_each(|failure| *failure = format!("{what}: {failure}"));
        Ok(outcome)
    }
}

/// Builds tests; gives their program.
fn tests(root: &Path, program: &str) -> Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["test", "-p", "isotherm-cli", "--test", program, "--no-run", "--message-format=json-render-diagnostics"]);
    let mut found = None;
    watched::run(&mut command, |line| {
        let path = line.split_once("\"executable\":\"").and_then(|(_, rest)| rest.split('"').next());
        if let Some(path) = path.filter(|_| line.contains(&format!("\"name\":\"{program}\""))) {
            found = Some(PathBuf::from(path));
        }
        !line.starts_with('{')
    })?;
    found.context("Cargo did not say where the tests are")
}

fn read(lines: &[String]) -> Outcome {
    let mut outcome = Outcome::default();
    for (number, line) in lines.iter().enumerate() {
        if let Some(words) = line.strip_prefix("CAMPAIGN ") {
            for (name, value) in words.split(' ').filter_map(|word| word.split_once('=')) {
                *outcome.numbers.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0);
            }
        } else if line.starts_with("seeds ") && line.contains(" conflict copies") {
            let counts = line.split_once(": ").map_or("", |(_, counts)| counts).split(", ");
            for (value, name) in counts.filter_map(|count| count.split_once(' ')) {
                *outcome.numbers.entry(name.replace(' ', "_")).or_default() += value.parse().unwrap_or(0);
            }
        } else if line.starts_with("seed ") {
            outcome.failures.push(line.clone());
        } else if line.contains("' panicked at ") || (line.starts_with("thread '") && line.contains("panicked at ")) {
            let rest = lines[number..].iter().take_while(|line| *line != "stack backtrace:").take(LINES_MAX);
            outcome.failures.push(rest.cloned().collect::<Vec<_>>().join("\n"));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Outcome {
        read(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_of_tests_and_of_the_simulation_are_added_up() {
        let outcome = of("running 1 test\nCAMPAIGN rounds=1 files=20\nCAMPAIGN rounds=1 files=5\ntest a ... ok");
        assert_eq!(outcome.numbers, BTreeMap::from([("rounds".into(), 2), ("files".into(), 25)]));
        let outcome = of("seeds 0..500: 70 events, 3 crashes, 12 conflict copies, 4 tiered\n500 passed, 0 failed");
        let expected = [("events", 70), ("crashes", 3), ("conflict_copies", 12), ("tiered", 4)]
            .map(|(name, number)| (name.to_owned(), number));
        assert_eq!(outcome.numbers, BTreeMap::from(expected));
        assert!(outcome.failures.is_empty());
    }

    #[test]
    fn failures_are_kept_with_what_they_say() {
        assert_eq!(
            of("seed 7: lost a file\nseeds 0..9: 1 events, 1 crashes, 0 conflict copies").failures,
            ["seed 7: lost a file"]
        );
        let panic = "CAMPAIGN rounds=1\nthread 'power::a' (9) panicked at power.rs:1:1:\na is lost\nstack backtrace:\n 0: x";
        assert_eq!(of(panic).failures, ["thread 'power::a' (9) panicked at power.rs:1:1:\na is lost"]);
    }
}
