//! `cargo xtask bench`: the numbers of the product, on data of its own, with the released binary.
//!
//! A service and two agents on this machine and one disk, everything durable when it is counted. Each round is a world
//! of its own; what is shown is the median of the rounds. Other products can be measured beside ours.
//!
//! Invariant: no test depends on a time that is measured here.

mod compare;
mod data;
mod ours;
mod rclone;
mod rows;
mod sync;
mod syncthing;
mod tiering;
mod world;
mod year;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::product;

/// Small files, if nothing else is asked for.
const FILES: usize = 20_000;

/// The largest of them, in KiB.
const LARGEST_KIB: usize = 32;

/// What to run.
struct Options {
    rounds: usize,
    small: usize,
    largest_kib: usize,
    large_mib: u64,
    mixed: bool,
    peers: bool,
    alone: bool,
    dir: PathBuf,
}

pub(crate) const HELP: &str = "\
cargo xtask bench sync [--rounds N] [--files N] [--kib N] [--large MIB] [--mixed] [--peers] [--alone] [--dir DIR]

  --rounds N   worlds that are measured, one after the other (3)
  --files N    small files in each (20000)
  --kib N      the largest of them; the smallest have 1 KiB (32)
  --large MIB  size of the large file (1024)
  --mixed      a tree of small and large files, symlinks, empty and deep folders too
  --peers      the same through Syncthing and rclone bisync, if they are there or root can install them
  --alone      without the rows that other products have too; they take as long again
  --dir DIR    where the worlds are; the disk that is measured (target/bench)

Writes a table to standard output, and it and JSON to bench/results/, in files named after the options.
";

/// Runs a benchmark.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let (what, rest) = arguments.split_first().context("Say what to measure: sync, tiering or year")?;
    match what.as_str() {
        "sync" => {}
        "tiering" => return tiering::run(root, rest),
        "year" => return year::run(root, rest),
        _ => bail!("Nothing is called {what:?} here\n\n{HELP}\n{}\n{}", tiering::HELP, year::HELP),
    }
    let options = parse(root, rest)?;
    let binary = product::released(root)?;
    let title = format!(
        "sync: {} small files of 1 to {} KiB, a large file of {} MiB, {} rounds",
        options.small, options.largest_kib, options.large_mib, options.rounds
    );
    let mut rows = rows::Rows::default();
    rows.note(format!("on {}", file_system(&options.dir)));
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        rows.note(format!("round {round} began at a load of {}", load()));
        let folder = options.dir.join(format!("{}-{round}", std::process::id()));
        let outcome = measure(&binary, &folder, &options, &mut rows);
        if let Err(error) = &outcome {
            rows.note(format!("round {round} broke off: {error:#}"));
        }
        // Before the folder is removed, which can take minutes.
        let kept = rows.keep(root, &options.result_name(), &title);
        std::fs::remove_dir_all(&folder).ok();
        outcome.and(kept).with_context(|| format!("Round {round}"))?;
    }
    rows.show(&title);
    Ok(())
}

fn measure(binary: &Path, folder: &Path, options: &Options, rows: &mut rows::Rows) -> Result<()> {
    let world = folder.join("world");
    sync::round(binary, &world, options, rows)?;
    std::fs::remove_dir_all(&world)?;
    if options.alone {
        return Ok(());
    }
    compare::round(binary, folder, options, rows)
}

/// What lies under the worlds.
fn file_system(dir: &Path) -> String {
    let there = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let said = std::process::Command::new("findmnt").args(["-no", "FSTYPE,OPTIONS", "-T"]).arg(there).output();
    said.map_or_else(
        |_| "an unknown file system".to_owned(),
        |said| String::from_utf8_lossy(&said.stdout).split_whitespace().collect::<Vec<_>>().join(", "),
    )
}

/// Processes that run or want to, over the last minute, and cores: what else the machine was busy with.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} on {cores} cores", text.split(' ').next().unwrap_or_default())
}

impl Options {
    /// Runs of different sizes and kinds are kept beside each other.
    fn result_name(&self) -> String {
        let mut name = "sync".to_owned();
        if self.small != FILES {
            name += &format!("-{}", self.small);
        }
        if self.largest_kib != LARGEST_KIB {
            name += &format!("-{}kib", self.largest_kib);
        }
        for (is_so, word) in [(self.mixed, "-mixed"), (self.peers, "-peers"), (self.alone, "-alone")] {
            name += if is_so { word } else { "" };
        }
        name
    }
}

fn parse(root: &Path, arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        rounds: 3,
        small: FILES,
        largest_kib: LARGEST_KIB,
        large_mib: 1_024,
        mixed: false,
        peers: false,
        alone: false,
        dir: root.join("target/bench"),
    };
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{flag} needs a value\n\n{HELP}"));
        match flag.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--files" => options.small = value()?.parse()?,
            "--kib" => options.largest_kib = value()?.parse()?,
            "--large" => options.large_mib = value()?.parse()?,
            "--dir" => options.dir = PathBuf::from(value()?),
            "--mixed" => options.mixed = true,
            "--peers" => options.peers = true,
            "--alone" => options.alone = true,
            other => bail!("Nothing is called {other:?} here\n\n{HELP}"),
        }
    }
    Ok(options)
}
