//! `cargo xtask bench sync`: the numbers of the product, on data of its own, with the released binary.
//!
//! A service and two agents on this machine and one disk, everything durable when it is counted. Each round is a world
//! of its own; what is shown is the median of the rounds.
//!
//! Invariant: no test depends on a time that is measured here.

mod data;
mod rows;
mod sync;
mod world;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::product;

/// What to run.
struct Options {
    rounds: usize,
    small: usize,
    large_mib: u64,
    dir: PathBuf,
}

pub(crate) const HELP: &str = "\
cargo xtask bench sync [--rounds N] [--files N] [--large MIB] [--dir DIR]

  --rounds N   worlds that are measured, one after the other (3)
  --files N    small files of 1 to 32 KiB in each (20000)
  --large MIB  size of the large file (1024)
  --dir DIR    where the worlds are; the disk that is measured (target/bench)

Writes a table to standard output, and it and JSON to bench/results/.
";

/// Runs a benchmark.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let (what, rest) = arguments.split_first().context("Say what to measure: sync")?;
    if what != "sync" {
        bail!("Nothing is called {what:?} here\n\n{HELP}");
    }
    let options = parse(root, rest)?;
    let binary = product::released(root)?;
    let mut rows = rows::Rows::default();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let folder = options.dir.join(format!("{}-{round}", std::process::id()));
        let outcome = sync::round(&binary, &folder, options.small, options.large_mib, &mut rows);
        std::fs::remove_dir_all(&folder).ok();
        outcome.with_context(|| format!("Round {round}"))?;
    }
    let title =
        format!("sync: {} small files, a large file of {} MiB, {} rounds", options.small, options.large_mib, options.rounds);
    rows.keep(root, "sync", &title)
}

fn parse(root: &Path, arguments: &[String]) -> Result<Options> {
    let mut options = Options { rounds: 3, small: 20_000, large_mib: 1_024, dir: root.join("target/bench") };
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{flag} needs a value\n\n{HELP}"))?;
        match flag.as_str() {
            "--rounds" => options.rounds = value.parse()?,
            "--files" => options.small = value.parse()?,
            "--large" => options.large_mib = value.parse()?,
            "--dir" => options.dir = PathBuf::from(value),
            other => bail!("Nothing is called {other:?} here\n\n{HELP}"),
        }
    }
    Ok(options)
}
