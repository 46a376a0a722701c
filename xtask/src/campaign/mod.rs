//! `cargo xtask campaign`: the tests that CI runs in a small form, in the sizes of a release.
//!
//! Work is done in pieces, and what is done is written to `bench/campaign` after each of them, so that a campaign that is
//! broken off goes on where it was.
//!
//! Invariant: a failure is kept with what reproduces it, and the campaign goes on.

mod list;
mod piece;
mod record;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{packages, tools};
use list::{CAMPAIGNS, Campaign};
use piece::Programs;
use record::Record;

pub(crate) const HELP: &str = "\
cargo xtask campaign [--only NAME]... [--rounds N] [--again]

  --only NAME  one campaign of: seeds, apart, tiers, kills, power, network, full, errors, lost, stub-kills, stub-fsx, stub-power, dedup, films, films-power; repeat it for more (all)
  --rounds N   of each at most so many rounds or seeds in this call (what is left)
  --again      forgets what was done before

Goes on where it stopped. Results are in bench/campaign/NAME.json, the output of failed pieces in target/campaign.
";

#[derive(Debug, Default, PartialEq)]
struct Options {
    only: Vec<String>,
    rounds: Option<u64>,
    again: bool,
}

/// Runs campaigns; the error says how many failures there are.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    packages::ensure(packages::FOR_TESTS)?;
    tools::fsx(root)?;
    let is_wanted = |one: &&Campaign| options.only.is_empty() || options.only.iter().any(|name| name == one.name);
    let wanted: Vec<&Campaign> = CAMPAIGNS.iter().filter(is_wanted).collect();
    let programs = Programs::build(root, &wanted)?;
    let mut records = Vec::new();
    for campaign in wanted {
        let mut record = if options.again { Record::default() } else { Record::load(root, campaign.name)? };
        let end = options.rounds.map_or(campaign.wanted, |rounds| campaign.wanted.min(record.done + rounds));
        go_on(root, campaign, &programs, &mut record, end)?;
        records.push((campaign, record));
    }
    print!("{}", table(&records));
    let failures: usize = records.iter().map(|(_, record)| record.failures.len()).sum();
    if failures > 0 { bail!("{failures} failures") } else { Ok(()) }
}

/// Does pieces until so many rounds are done.
fn go_on(root: &Path, campaign: &Campaign, programs: &Programs, record: &mut Record, end: u64) -> Result<()> {
    let (started, before) = (Instant::now(), record.done);
    while record.done < end {
        let count = campaign.piece.min(end - record.done);
        let begun = Instant::now();
        let outcome = programs.run(root, campaign, record.pieces, record.done, count)?;
        record.add(count, begun.elapsed(), outcome, commit(root)?, today()?);
        record.keep(root, campaign.name)?;
        let done = record.done - before;
        let left = started.elapsed().mul_f64((end - record.done) as f64 / done as f64);
        let per_minute = done as f64 / started.elapsed().as_secs_f64() * 60.0;
        eprintln!(
            "{}: {} of {} {}, {} failures, {per_minute:.1} a minute, {} left",
            campaign.name,
            record.done,
            campaign.wanted,
            campaign.unit,
            record.failures.len(),
            show(left)
        );
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value\n\n{HELP}"));
        match argument.as_str() {
            "--again" => options.again = true,
            "--rounds" => options.rounds = Some(value()?.parse().with_context(|| format!("--rounds needs a number\n\n{HELP}"))?),
            "--only" => {
                let name = value()?;
                if !CAMPAIGNS.iter().any(|one| one.name == name) {
                    bail!("No campaign is called {name:?}\n\n{HELP}");
                }
                options.only.push(name.clone());
            }
            other => bail!("Nothing is called {other:?} here\n\n{HELP}"),
        }
    }
    Ok(options)
}

fn table(records: &[(&Campaign, Record)]) -> String {
    let mut out = format!("\n{:<8} {:>16} {:>9} {:>9}  numbers\n", "", "done", "failures", "time");
    for (campaign, record) in records {
        let numbers: Vec<String> = record.numbers.iter().map(|(name, number)| format!("{name} {number}")).collect();
        let done = format!("{} of {}", record.done, campaign.wanted);
        let time = show(Duration::from_secs(record.seconds));
        let failures = record.failures.len();
        out.push_str(&format!("{:<8} {done:>16} {failures:>9} {time:>9}  {}\n", campaign.name, numbers.join(", ")));
    }
    for (campaign, record) in records {
        for failure in &record.failures {
            out.push_str(&format!("{}, piece {}: {}\n", campaign.name, failure.piece, failure.what));
        }
    }
    out
}

fn show(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    if minutes >= 60 {
        format!("{}h {:02}m", minutes / 60, minutes % 60)
    } else {
        format!("{minutes}m {:02}s", time.as_secs() % 60)
    }
}

pub(crate) fn commit(root: &Path) -> Result<String> {
    said(std::process::Command::new("git").arg("-C").arg(root).args(["rev-parse", "--short=12", "HEAD"]))
}

pub(crate) fn today() -> Result<String> {
    said(std::process::Command::new("date").args(["-u", "+%F"]))
}

fn said(command: &mut std::process::Command) -> Result<String> {
    let output = command.output().with_context(|| format!("Cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_or_refused() {
        assert_eq!(read("").unwrap(), Options::default());
        let options = read("--only power --rounds 7 --only lost --again").unwrap();
        assert_eq!(options, Options { only: vec!["power".into(), "lost".into()], rounds: Some(7), again: true });
        for wrong in ["--only everything", "--rounds", "--rounds many", "--slow"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_campaign_has_pieces_that_end() {
        for campaign in CAMPAIGNS {
            assert!(campaign.piece > 0 && campaign.wanted >= campaign.piece, "{}", campaign.name);
            assert!(HELP.contains(campaign.name), "{}", campaign.name);
        }
    }
}
