//! `cargo xtask bench year`: what stays of a file server's contents over a simulated year, beside LRU.
//!
//! The year is a test of crate `core`, which reads no environment: it is compiled for each number of files, and its lines are read. It
//! says of each seed which part of the uses found the file here, and for how many bytes people waited.
//!
//! Invariant: a year in which the test fails has no numbers.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::rows::Rows;
use crate::{packages, product, watched};

pub(super) const HELP: &str = "\
cargo xtask bench year [--files N]... [--seed N]

  --files N  files of the server; repeat it for more years (10000, 100000 and 1000000, which takes some ten minutes)
  --seed N   the first of three seeds (1)

Writes a table to standard output, and it and JSON to bench/results/year.
";

/// What a line says.
#[derive(Debug, PartialEq)]
struct Year<'a> {
    order: &'a str,
    hits: f64,
    gib: f64,
}

pub(super) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let (mut sizes, mut seed) = (Vec::<u64>::new(), 1_u64);
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{flag} needs a value\n\n{HELP}"));
        match flag.as_str() {
            "--files" => sizes.push(value()?.parse()?),
            "--seed" => seed = value()?.parse()?,
            other => bail!("Nothing is called {other:?} here\n\n{HELP}"),
        }
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    packages::ensure(packages::FOR_BUILD)?;
    let title = format!("year: of {sizes:?} files, seeds {seed} to {}", seed + 2);
    let mut rows = Rows::default();
    for files in sizes {
        let lines = years(root, files, seed)?;
        let years: Vec<Year<'_>> = lines.iter().filter_map(|line| read(line)).collect();
        for Year { order, hits, .. } in &years {
            rows.add(format!("uses that found the file here, of {files}: {order}"), "%", "", *hits);
        }
        for Year { order, gib, .. } in &years {
            rows.add(format!("waited for, with {files} files: {order}"), "GiB", "", *gib);
        }
        if years.is_empty() {
            bail!("The test said nothing");
        }
        rows.keep(root, "year", &title)?;
    }
    rows.show(&title);
    Ok(())
}

/// What the test says of years with so many files.
fn years(root: &Path, files: u64, seed: u64) -> Result<Vec<String>> {
    let mut command = product::cargo(root);
    command.args(["test", "--release", "-p", "isotherm-core", "--test", "year", "--", "--nocapture"]);
    command.env("ISOTHERM_FILES", files.to_string()).env("ISOTHERM_SEED", seed.to_string());
    let mut lines = Vec::new();
    watched::run(&mut command, |line| {
        lines.push(line.to_owned());
        true
    })?;
    Ok(lines)
}

/// Of `seed 1, LRU: 65.1 % of uses found the file here, 307.9 GiB waited for`.
fn read(line: &str) -> Option<Year<'_>> {
    let (order, rest) = line.strip_prefix("seed ")?.split_once(", ")?.1.split_once(": ")?;
    let (hits, rest) = rest.split_once(" % of uses found the file here, ")?;
    let gib = rest.strip_suffix(" GiB waited for")?;
    Some(Year { order, hits: hits.parse().ok()?, gib: gib.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_years_are_read_and_others_are_not() {
        let line = "seed 1, LRU that knows backups: 68.73 % of uses found the file here, 27652.3 GiB waited for";
        assert_eq!(read(line), Some(Year { order: "LRU that knows backups", hits: 68.73, gib: 27_652.3 }));
        assert_eq!(read("running 1 test"), None);
        assert_eq!(read("seed 1, LRU"), None);
    }
}
