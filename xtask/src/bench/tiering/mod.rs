//! `cargo xtask bench tiering`: what a guard costs those who work with files that are here, and how fast contents come and go.
//!
//! Each round makes, for each file system, a guarded volume and one like it that nobody guards, on loop devices. Work on files that are
//! here is done on both in turn, and what is shown is the ratio of pairs; so a busy machine slows both.

mod get;
mod namespace;
mod native;
mod office;
mod peers;
mod stubs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::rows::Rows;
use super::{file_system, load};
use crate::{packages, product};
use office::Office;

pub(super) const HELP: &str = "\
cargo xtask bench tiering [--rounds N] [--files N] [--fs ext4|xfs]... [--native] [--namespace] [--opened] [--peers] [--pairs N]
                    [--dir DIR]

  --rounds N   worlds that are measured, one after the other (3)
  --files N    files that come as stubs in each (20000)
  --fs NAME    one file system; repeat it for more (ext4 and xfs)
  --native     only what is done with files that are here
  --namespace  only what many files cost: as whole ones that are planned for, as stubs that come, and when a gate arms; for a million
               there have to be 14 GiB
  --opened     only what somebody waits for who opens a file that is not here
  --peers      the same work on files that are here with JuiceFS, an rclone mount and a FUSE passthrough, if root can get them
  --pairs N    pairs of runs of each work with files that are here (9)
  --dir DIR    where images and service are; the disk that is measured (target/bench)

Needs root. Writes a table to standard output, and it and JSON to bench/results/tiering.
";

/// Files that come as stubs, if nothing else is asked for.
const FILES: usize = 20_000;

/// What to run.
struct Options {
    rounds: usize,
    files: usize,
    file_systems: Vec<String>,
    only: Option<Only>,
    peers: bool,
    pairs: usize,
    dir: PathBuf,
}

/// A part of what can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Native,
    Namespace,
    Opened,
}

/// How a volume is guarded, in the order in which it is measured.
const GUARDS: [&str; 2] = ["inode", "filesystem"];

pub(super) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let options = parse(root, arguments)?;
    if !packages::is_root() {
        bail!("A guarded volume needs root");
    }
    packages::ensure(packages::FOR_TESTS)?;
    let binary = product::released(root)?;
    let title = format!("tiering: {} stubs, {} rounds", options.files, options.rounds);
    let mut rows = Rows::default();
    rows.note(format!("images on {}", file_system(&options.dir)));
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        rows.note(format!("round {round} began at a load of {}", load()));
        for fs in &options.file_systems {
            for guard in GUARDS {
                let folder = options.dir.join(format!("tiering-{}-{round}-{fs}-{guard}", std::process::id()));
                let outcome = measure((root, &binary, &folder), (fs, guard), &options, &mut rows);
                if let Err(error) = &outcome {
                    rows.note(format!("round {round}, {fs}, {guard} broke off: {error:#}"));
                }
                let kept = rows.keep(root, &options.result_name(), &title);
                std::fs::remove_dir_all(&folder).ok();
                outcome.and(kept).with_context(|| format!("Round {round}, {fs}, {guard}"))?;
            }
        }
    }
    rows.show(&title);
    Ok(())
}

fn measure(
    (root, binary, folder): (&Path, &Path, &Path),
    (fs, guard): (&str, &str),
    options: &Options,
    rows: &mut Rows,
) -> Result<()> {
    let is_first = guard == GUARDS[0];
    // How contents come and go does not depend on how files are asked about.
    if !is_first && matches!(options.only, Some(Only::Namespace | Only::Opened)) {
        return Ok(());
    }
    let mut office = Office::open(binary, folder, fs, guard)?;
    match options.only {
        Some(Only::Namespace) => return namespace::guarded_first(&mut office, options.files, rows),
        Some(Only::Opened) => return stubs::opened(&office, &product::getter(root)?, rows),
        Some(Only::Native) | None => native::measure(&office, options.pairs, rows)?,
    }
    // Nobody asks about their files.
    if is_first && options.peers {
        peers::measure(root, &office, options.pairs, rows)?;
    }
    if is_first && options.only.is_none() {
        stubs::measure(&mut office, &product::getter(root)?, options.files, rows)?;
    }
    Ok(())
}

impl Options {
    fn result_name(&self) -> String {
        let mut name = match self.only {
            None => "tiering",
            Some(Only::Native) => "tiering-native",
            Some(Only::Namespace) => "tiering-namespace",
            Some(Only::Opened) => "tiering-opened",
        }
        .to_owned();
        if self.files != FILES {
            name += &format!("-{}", self.files);
        }
        name + if self.peers { "-peers" } else { "" }
    }
}

fn parse(root: &Path, arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        rounds: 3,
        files: FILES,
        file_systems: Vec::new(),
        only: None,
        peers: false,
        pairs: 9,
        dir: root.join("target/bench"),
    };
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{flag} needs a value\n\n{HELP}"));
        match flag.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--files" => options.files = value()?.parse()?,
            "--fs" => options.file_systems.push(value()?.clone()),
            "--native" => options.only = Some(Only::Native),
            "--namespace" => options.only = Some(Only::Namespace),
            "--opened" => options.only = Some(Only::Opened),
            "--peers" => options.peers = true,
            "--pairs" => options.pairs = value()?.parse::<usize>()?.max(1),
            "--dir" => options.dir = PathBuf::from(value()?),
            other => bail!("Nothing is called {other:?} here\n\n{HELP}"),
        }
    }
    if options.file_systems.is_empty() {
        options.file_systems = ["ext4", "xfs"].map(str::to_owned).to_vec();
    }
    match options.file_systems.iter().find(|fs| !["ext4", "xfs", "btrfs"].contains(&fs.as_str())) {
        Some(other) => bail!("No file system {other:?} here\n\n{HELP}"),
        None => Ok(options),
    }
}
