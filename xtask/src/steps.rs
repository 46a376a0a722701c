//! Runs a list of steps and says what each did, how long it took and what was not reached.
//!
//! It deliberately knows nothing of cargo or of what a step does. Times are shown, never judged.
//!
//! Invariant: steps run in order, the first failure stops the rest, and the table is printed in every case.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// What a step that succeeded has to say.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// A few words for the table.
    pub(crate) note: String,
    /// Lines of tests that could not run here, each with its reason.
    pub(crate) skipped: Vec<String>,
    /// Tests that passed, where the step ran tests.
    pub(crate) passed: u64,
}

impl Outcome {
    /// An outcome with nothing but a note.
    pub(crate) fn note(note: impl Into<String>) -> Self {
        Self { note: note.into(), ..Self::default() }
    }
}

/// One named piece of work.
pub(crate) struct Step {
    name: &'static str,
    work: Box<dyn FnOnce() -> Result<Outcome>>,
}

impl Step {
    /// A step that is called `name` in headers and in the table.
    pub(crate) fn new(name: &'static str, work: impl FnOnce() -> Result<Outcome> + 'static) -> Self {
        Self { name, work: Box::new(work) }
    }
}

struct Row {
    name: &'static str,
    result: &'static str,
    took: Option<Duration>,
    note: String,
}

/// Runs all steps; the error names the step that failed.
pub(crate) fn run(steps: Vec<Step>) -> Result<()> {
    let total = steps.len();
    let started = Instant::now();
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    let mut passed = 0;
    let mut failure = None;
    for (index, step) in steps.into_iter().enumerate() {
        if failure.is_some() {
            rows.push(Row { name: step.name, result: "not run", took: None, note: String::new() });
            continue;
        }
        println!("\n== {}/{total} {}", index + 1, step.name);
        let step_started = Instant::now();
        let outcome = (step.work)();
        let took = step_started.elapsed();
        let (result, note) = match outcome {
            Ok(outcome) => {
                skipped.extend(outcome.skipped);
                passed += outcome.passed;
                ("ok", outcome.note)
            }
            Err(error) => {
                let note = "see above".to_owned();
                failure = Some(anyhow!("Step {:?}: {error:#}", step.name));
                ("FAILED", note)
            }
        };
        println!("== {} {result}, {}", step.name, show(took));
        rows.push(Row { name: step.name, result, took: Some(took), note });
    }
    print_summary(&rows, &skipped, started.elapsed());
    match failure {
        Some(error) => Err(error),
        None => {
            if passed > 0 {
                println!("{passed} passed, 0 failed, {} skipped", skipped.len());
            }
            Ok(())
        }
    }
}

fn print_summary(rows: &[Row], skipped: &[String], took: Duration) {
    if !skipped.is_empty() {
        println!("\nTests that could not run here:");
        for line in skipped {
            println!("  {line}");
        }
    }
    println!("\n{:<14} {:<8} {:>9}  note", "step", "result", "time");
    for row in rows {
        let time = row.took.map(show).unwrap_or_default();
        println!("{:<14} {:<8} {:>9}  {}", row.name, row.result, time, row.note);
    }
    println!("{:<14} {:<8} {:>9}", "total", "", show(took));
}

fn show(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds >= 60 { format!("{}m {:02}s", seconds / 60, seconds % 60) } else { format!("{:.1}s", took.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn first_failure_stops_the_rest_and_is_named() {
        let reached = Rc::new(Cell::new(0));
        let step = |name, result: bool| {
            let reached = Rc::clone(&reached);
            Step::new(name, move || {
                reached.set(reached.get() + 1);
                if result { Ok(Outcome::default()) } else { Err(anyhow!("Broken thing")) }
            })
        };
        let error = run(vec![step("one", true), step("two", false), step("three", true)]).expect_err("the second step fails");
        assert_eq!(reached.get(), 2);
        assert_eq!(error.to_string(), "Step \"two\": Broken thing");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(show(Duration::from_millis(1_240)), "1.2s");
        assert_eq!(show(Duration::from_secs(125)), "2m 05s");
    }
}
