//! `cargo xtask vm`: checks of the released program in a guest, for what a machine that builds often lacks: a newer kernel,
//! the kernel's own NFS server, systemd as process 1, security modules.
//!
//! It is run by hand and is no part of what CI checks. What the guest does is in `xtask/vm`.
//!
//! **Invariant:** this machine is not changed, but for packages that are missing and `target/vm`.

mod image;
mod machine;
mod mirror;
mod report;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{campaign, packages, product};
use machine::Machine;

pub(crate) const HELP: &str = "\
cargo xtask vm [--only CHECK]... [--mirror URL] [--again]

  --only CHECK  one check; repeat it for more (all). What the guest needs first is done in any case
  --mirror URL  mirror of Debian's archive (the one that this machine's apt uses)
  --again       makes the guest's disk anew, with the newest packages

Results are in bench/results/vm.json if all checks ran, the guest's console in target/vm/console.log.
";

#[derive(Debug, Default, PartialEq)]
struct Options {
    only: Vec<String>,
    mirror: Option<String>,
    again: bool,
}

/// Runs the checks; the error names those that failed.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    if !cfg!(target_arch = "x86_64") {
        bail!("The guest is made for x86-64 machines only");
    }
    packages::ensure(packages::FOR_GUESTS)?;
    let folder = product::target(root).join("vm");
    let image = image::ensure(root, &folder, options.mirror.as_deref(), options.again).context("The guest's disk")?;
    let program = product::released(root)?;
    let machine = Machine { image: &image, folder: &folder, only: &options.only };
    machine.load(root, &program)?;
    let report = machine.run()?;
    print!("{}", report.table());
    if options.only.is_empty() {
        report.keep(root, &campaign::commit(root)?, &campaign::today()?)?;
    }
    let failed = report.failed();
    if failed.is_empty() { Ok(()) } else { bail!("Failed: {}", failed.join(", ")) }
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().with_context(|| format!("{argument} needs a value\n\n{HELP}"));
        match argument.as_str() {
            "--only" => options.only.push(value()?),
            "--mirror" => options.mirror = Some(value()?),
            "--again" => options.again = true,
            other => bail!("Nothing is called {other:?} here\n\n{HELP}"),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        let read = |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(read("").unwrap(), Options::default());
        let options = read("--only nfs4-read --mirror http://a.example/debian --only all-dead --again").unwrap();
        let only = vec!["nfs4-read".to_owned(), "all-dead".to_owned()];
        assert_eq!(options, Options { only, mirror: Some("http://a.example/debian".to_owned()), again: true });
        for wrong in ["--only", "--mirror", "all-dead"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
