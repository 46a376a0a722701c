//! Project tasks behind `cargo xtask`: check, test, and start the product.
//!
//! It deliberately holds no product logic and links no product crate, so that it builds in seconds and can still
//! report what is wrong when a product crate does not compile.
//!
//! Invariant: what CI checks is exactly what `cargo xtask test` checks on a developer's machine.

// A task runner talks to a person at a terminal: printing is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod campaign;
mod family;
mod packages;
mod product;
mod steps;
mod test;
mod tidy;
mod tools;
mod vm;
mod watched;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  test [--fast] [-p CRATE]...  everything CI checks: packages, formatting, tidy, clippy, documents, tests, simulation
                               --fast leaves out packages, documents, integration tests and simulation
                               -p limits all but tidy to some crates, and leaves out the simulation
  tidy                         the project's own rules: sizes, fences between crates, words, module headers
  docs                         rustdoc for all crates, warnings are errors
  packages                     the Debian packages that tests need: installs them when root, else says what is missing
  demo [ARGS]...               build the program and run `isotherm demo ARGS`
  sim [ARGS]...                build the simulation optimised and run it; without ARGS it shows its own help
  bench sync|tiering|year [ARGS]...
                               measures the released program on data of its own; bench/results keeps the numbers
  campaign [ARGS]...           what tests do in a small form, in the sizes of a release; goes on where it stopped
  vm [ARGS]...                 checks in a guest with a newer kernel: NFS, systemd, deaths of all holders; by hand, not in CI
  help                         this text

Exit codes: 0 done, 1 failed, 2 usage.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    match dispatch(command, rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nxtask {command} failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &str, rest: &[String]) -> Result<ExitCode> {
    let root = root()?;
    match command {
        "test" => match test::Options::parse(rest) {
            Ok(options) => test::run(&root, &options)?,
            Err(error) => return Ok(usage(&format!("{error:#}"))),
        },
        "demo" => product::demo(&root, rest)?,
        "sim" => product::simulate(&root, rest)?,
        "campaign" => campaign::run(&root, rest)?,
        "bench" => bench::run(&root, rest)?,
        "vm" => vm::run(&root, rest)?,
        "tidy" | "docs" | "packages" if !rest.is_empty() => {
            return Ok(usage(&format!("{command} takes no arguments, got {rest:?}")));
        }
        "tidy" => tidy::report(&root)?,
        "docs" => steps::run(vec![test::docs_step(&root, &[])])?,
        "packages" => println!("{}", packages::ensure(packages::FOR_TESTS)?),
        "help" | "--help" | "-h" => print!("{HELP}"),
        other => return Ok(usage(&format!("Unknown command {other:?}"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn usage(message: &str) -> ExitCode {
    eprintln!("{message}\n\n{HELP}");
    ExitCode::from(2)
}

/// The workspace's root: the parent of this crate's folder, so that tasks work from any directory.
fn root() -> Result<PathBuf> {
    // Cargo sets the variable for `cargo run`; the compiled-in value serves a binary that is started by hand.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = here.parent().map(Path::to_path_buf).context("Crate xtask has no parent folder")?;
    if !root.join("Cargo.lock").is_file() {
        bail!("{} is not the root of the workspace: no Cargo.lock", root.display());
    }
    Ok(root)
}
