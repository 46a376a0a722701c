//! Builds the product's programs and becomes them.
//!
//! It deliberately does not look at their arguments: everything after the command's name is passed on.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;

/// Builds `isotherm` and runs `isotherm demo` with the arguments; returns only on failure.
pub(crate) fn demo(root: &Path, arguments: &[String]) -> Result<()> {
    packages::ensure(packages::FOR_BUILD)?;
    // The profile the tests use: built once, it serves both commands of the README.
    build(root, &["build", "-p", "isotherm-cli"])?;
    become_program(&target(root).join("debug/isotherm"), &["demo"], arguments)
}

/// Builds the released program; gives its path.
pub(crate) fn released(root: &Path) -> Result<PathBuf> {
    packages::ensure(packages::FOR_BUILD)?;
    build(root, &["build", "--release", "-p", "isotherm-cli"])?;
    Ok(target(root).join("release/isotherm"))
}

/// Builds the example that fetches contents from a service; gives its path.
pub(crate) fn getter(root: &Path) -> Result<PathBuf> {
    packages::ensure(packages::FOR_BUILD)?;
    // Not together with the program, which would be built with what only tests need.
    build(root, &["build", "--release", "-p", "isotherm-api", "--example", "get"])?;
    Ok(target(root).join("release/examples/get"))
}

/// Builds the simulation optimised and runs it with the arguments; returns only on failure.
pub(crate) fn simulate(root: &Path, arguments: &[String]) -> Result<()> {
    let program = simulation(root)?;
    let help = ["--help"];
    let first: &[&str] = if arguments.is_empty() { &help } else { &[] };
    become_program(&program, first, arguments)
}

/// Builds the simulation optimised; gives its path.
pub(crate) fn simulation(root: &Path) -> Result<PathBuf> {
    packages::ensure(packages::FOR_BUILD)?;
    build(root, &["build", "--release", "-p", "isotherm-sim"])?;
    Ok(target(root).join("release/isotherm-sim"))
}

/// Builds with the terminal passed through, so that cargo shows its progress.
fn build(root: &Path, arguments: &[&str]) -> Result<()> {
    let status = cargo(root).args(arguments).status().context("Cannot start cargo")?;
    if !status.success() {
        bail!("cargo {} did not succeed", arguments.join(" "));
    }
    Ok(())
}

/// A cargo of the same toolchain as the one that started this task.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Set for this crate by the cargo that runs us; build scripts must not take them for theirs.
    command.env_remove("CARGO_MANIFEST_DIR").current_dir(root);
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// Replaces this process, so that signals and the exit code are the program's own.
fn become_program(program: &Path, first: &[&str], arguments: &[String]) -> Result<()> {
    let error = Command::new(program).args(first).args(arguments).exec();
    Err(error).with_context(|| format!("Cannot start {}", program.display()))
}
