//! Programs from the registry of crates that tests run, and that no crate here is built with.
//!
//! Invariant: a tool is installed into the target folder, in one version, and only if it is not there.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::product::{cargo, target};
use crate::watched;

/// The file system exerciser. It is only run: its licence (APSL 2.0) says nothing about what it is run on.
const FSX: (&str, &str) = ("fsx", "0.3.2");

/// The variable that tells tests where `fsx` is.
pub(crate) const FSX_VARIABLE: &str = "ISOTHERM_FSX";

/// Where `fsx` is once it was installed.
pub(crate) fn fsx_path(root: &Path) -> PathBuf {
    folder(root).join("bin").join(FSX.0)
}

fn folder(root: &Path) -> PathBuf {
    target(root).join("tools").join(format!("{}-{}", FSX.0, FSX.1))
}

/// Makes sure that `fsx` is there; gives where.
pub(crate) fn fsx(root: &Path) -> Result<PathBuf> {
    let program = fsx_path(root);
    if !program.is_file() {
        let mut command = cargo(root);
        command.args(["install", FSX.0, "--locked", "--version", FSX.1, "--root"]).arg(folder(root));
        command.env("CARGO_TARGET_DIR", target(root).join("tools/build"));
        watched::run_plain(&mut command)?;
    }
    Ok(program)
}
