//! What `cargo xtask test` consists of.
//!
//! It deliberately uses plain `cargo test`: no other runner has to be installed. No step is left out because something
//! is missing; `--fast` and `-p` leave steps out because the caller asked for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Error, Result, bail};

use crate::product::{self, cargo};
use crate::steps::{self, Outcome, Step};
use crate::{packages, tidy, tools, watched};

/// Worlds of the simulation that every run checks: seeds 0 to this, next to all recorded bad seeds.
const SIMULATED_SEEDS: &str = "500";
/// Worlds in which nobody touches what others made, the same way.
const SIMULATED_APART: &str = "300";

/// Worlds in which files give up their content, the same way.
const SIMULATED_TIERS: &str = "300";

/// How many tests run at the same time, as libtest reads it.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// What the caller asked for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    fast: bool,
    crates: Vec<String>,
}

impl Options {
    /// Reads the arguments after `test`; crate names may leave out `isotherm-`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--fast" => options.fast = true,
                "-p" => {
                    let Some(name) = rest.next() else { bail!("-p needs the name of a crate") };
                    options.crates.push(full_name(name));
                }
                other => bail!("test does not know {other:?}"),
            }
        }
        Ok(options)
    }
}

fn full_name(name: &str) -> String {
    if name == "xtask" || name.starts_with("isotherm-") { name.to_owned() } else { format!("isotherm-{name}") }
}

/// Runs the steps; the error names the one that failed.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    steps::run(plan(root, options))
}

fn plan(root: &Path, options: &Options) -> Vec<Step> {
    let mut steps = Vec::new();
    if !options.fast {
        let root = root.to_owned();
        steps.push(Step::new("packages", move || {
            tools::fsx(&root)?;
            packages::ensure(packages::FOR_TESTS).map(Outcome::note)
        }));
    }
    steps.push(format_step(root, &options.crates));
    steps.push(tidy_step(root));
    steps.push(clippy_step(root, &options.crates));
    if !options.fast {
        steps.push(docs_step(root, &options.crates));
    }
    steps.push(tests_step(root, options));
    if !options.fast && options.crates.is_empty() {
        steps.push(simulation_step(root));
    }
    steps
}

fn format_step(root: &Path, crates: &[String]) -> Step {
    let mut command = cargo(root);
    command.arg("fmt");
    if crates.is_empty() {
        command.arg("--all");
    }
    for name in crates {
        command.args(["-p", name]);
    }
    command.arg("--check");
    Step::new("format", move || {
        watched::run_plain(&mut command)?;
        Ok(Outcome::default())
    })
}

fn tidy_step(root: &Path) -> Step {
    let root: PathBuf = root.to_owned();
    Step::new("tidy", move || {
        tidy::report(&root)?;
        Ok(Outcome::default())
    })
}

fn clippy_step(root: &Path, crates: &[String]) -> Step {
    let mut command = cargo(root);
    command.arg("clippy");
    select(&mut command, crates);
    command.args(["--all-targets", "--", "-D", "warnings"]);
    Step::new("clippy", move || {
        watched::run_plain(&mut command)?;
        Ok(Outcome::default())
    })
}

/// Documents of private items too: their links break as easily as those of public ones.
pub(crate) fn docs_step(root: &Path, crates: &[String]) -> Step {
    let mut command = cargo(root);
    command.env("RUSTDOCFLAGS", "-D warnings").arg("doc");
    select(&mut command, crates);
    command.args(["--no-deps", "--document-private-items"]);
    Step::new("documents", move || {
        watched::run_plain(&mut command)?;
        Ok(Outcome::default())
    })
}

/// Tests at the same time: twice as many as processors, for most of what they do is to wait for disks and for other processes.
fn test_threads() -> usize {
    2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

fn tests_step(root: &Path, options: &Options) -> Step {
    let mut command = cargo(root);
    command.arg("test");
    select(&mut command, &options.crates);
    if options.fast {
        command.args(["--lib", "--bins"]);
    }
    command.env(tools::FSX_VARIABLE, tools::fsx_path(root));
    if std::env::var_os(TEST_THREADS).is_none() {
        command.env(TEST_THREADS, test_threads().to_string());
    }
    // libtest hides what passing tests print, and with it the reasons why a test could not run here.
    command.args(["--", "--show-output"]);
    Step::new("tests", move || {
        let mut output = TestOutput::default();
        watched::run(&mut command, |line| output.show(line)).map_err(|error| output.explain(error))?;
        if output.passed == 0 {
            bail!("No test was run");
        }
        let note = format!("{} passed, {} could not run here", output.passed, output.skipped.len());
        Ok(Outcome { note, skipped: output.skipped, passed: output.passed })
    })
}

/// With the program that the tests were built with: cargo would build it anew for itself, since fewer crates ask for fewer features.
fn simulation_step(root: &Path) -> Step {
    let program = product::target(root).join("debug/isotherm-sim");
    let simulate = |more: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root).args(["run", "--from", "0", "--count"]).args(more);
        command
    };
    let mut commands =
        [simulate(&[SIMULATED_SEEDS]), simulate(&[SIMULATED_APART, "--apart"]), simulate(&[SIMULATED_TIERS, "--tiers"])];
    Step::new("simulation", move || {
        commands.iter_mut().try_for_each(watched::run_plain)?;
        Ok(Outcome::note(format!("{SIMULATED_SEEDS}, {SIMULATED_APART} and {SIMULATED_TIERS} seeds")))
    })
}

fn select(command: &mut Command, crates: &[String]) {
    lock(command);
    if crates.is_empty() {
        command.arg("--workspace");
    }
    for name in crates {
        command.args(["-p", name]);
    }
}

/// In CI the lock file is part of what is checked.
fn lock(command: &mut Command) {
    if std::env::var_os("CI").is_some() {
        command.arg("--locked");
    }
}

/// Reads the output of `cargo test -- --show-output`: hides what passing tests print, keeps the counts, and collects
/// the lines `SKIPPED <test>: <reason>`.
#[derive(Debug, Default)]
struct TestOutput {
    in_successes: bool,
    passed: u64,
    skipped: Vec<String>,
    /// Tests that have run for over a minute, as libtest says then, and have not ended.
    under_way: Vec<String>,
}

impl TestOutput {
    fn show(&mut self, line: &str) -> bool {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed += passed(counts);
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some(reason) = line.strip_prefix("SKIPPED ") {
            let reason = reason.to_owned();
            if !self.skipped.contains(&reason) {
                self.skipped.push(reason);
            }
        } else if let Some(said) = line.strip_prefix("test ") {
            if let Some((name, _)) = said.split_once(" has been running for over") {
                self.under_way.push(name.to_owned());
            } else if let Some((name, _)) = said.split_once(" ... ") {
                self.under_way.retain(|other| other != name);
            }
        }
        !self.in_successes
    }

    /// With the tests that had been at work for long when all ended.
    fn explain(&self, error: Error) -> Error {
        if self.under_way.is_empty() {
            return error;
        }
        error.context(format!("At work for more than a minute: {}", self.under_way.join(", ")))
    }
}

/// The number before " passed" in a line such as `ok. 3 passed; 0 failed; 0 ignored`.
fn passed(counts: &str) -> u64 {
    counts
        .split_once(" passed")
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_or_refused() {
        assert_eq!(parse("").unwrap(), Options::default());
        let options = parse("--fast -p core -p xtask -p isotherm-api").unwrap();
        assert!(options.fast);
        assert_eq!(options.crates, ["isotherm-core", "xtask", "isotherm-api"]);
        assert_eq!(parse("-p").unwrap_err().to_string(), "-p needs the name of a crate");
        assert_eq!(parse("--slow").unwrap_err().to_string(), "test does not know \"--slow\"");
    }

    #[test]
    fn the_plan_leaves_out_only_what_was_asked() {
        let count = |text| plan(Path::new("."), &parse(text).unwrap()).len();
        assert_eq!([count(""), count("-p core"), count("--fast")], [7, 6, 4]);
    }

    #[test]
    fn output_of_passing_tests_is_hidden_but_for_the_reasons() {
        let text = "running 2 tests\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\
            SKIPPED a: needs root\nSKIPPED a: needs root\n\nsuccesses:\n    a\n\n\
            test result: ok. 12 passed; 0 failed; 0 ignored\ntest result: FAILED. 3 passed; 1 failed";
        let mut output = TestOutput::default();
        let shown: Vec<&str> = text.lines().filter(|line| output.show(line)).collect();
        assert_eq!(output.skipped, ["a: needs root"]);
        assert_eq!(output.passed, 15);
        assert!(!shown.contains(&"noise"));
        assert!(shown.iter().any(|line| line.starts_with("test result: ok")));
    }

    #[test]
    fn tests_that_do_not_end_are_named() {
        let text = "test slow::a has been running for over 60 seconds\ntest b has been running for over 60 seconds\n\
            test b ... ok\ntest c ... ok";
        let mut output = TestOutput::default();
        assert!(text.lines().all(|line| output.show(line)));
        let explained = output.explain(anyhow!("Silence"));
        assert_eq!(format!("{explained:#}"), "At work for more than a minute: slow::a: Silence");
        assert_eq!(format!("{:#}", TestOutput::default().explain(anyhow!("Silence"))), "Silence");
    }

    #[test]
    fn what_a_failing_test_printed_stays() {
        let text = "successes:\nnoise\nfailures:\n---- b stdout ----\nimportant";
        let mut output = TestOutput::default();
        let shown: Vec<&str> = text.lines().filter(|line| output.show(line)).collect();
        assert_eq!(shown, ["failures:", "---- b stdout ----", "important"]);
    }
}
