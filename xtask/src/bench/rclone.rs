//! rclone bisync between two local folders: it works when it is called, and only then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::compare::Product;
use crate::packages;

struct Rclone {
    folder: PathBuf,
    /// Its first run has to be called differently.
    has_run: bool,
    sent: u64,
}

pub(super) fn start(folder: &Path) -> Result<Box<dyn Product>> {
    packages::ensure(packages::RCLONE)?;
    let rclone = Rclone { folder: folder.to_owned(), has_run: false, sent: 0 };
    for side in rclone.folders() {
        fs::create_dir_all(side)?;
    }
    Ok(Box::new(rclone))
}

impl Product for Rclone {
    fn version(&self) -> Result<String> {
        let output = Command::new("rclone").arg("version").env("RCLONE_CONFIG", self.folder.join("none")).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = said.lines().next().unwrap_or_default().trim_start_matches("rclone ").to_owned();
        Ok(format!("{version}; between two local folders, first run with --resync, otherwise its defaults; no network"))
    }

    fn folders(&self) -> [PathBuf; 2] {
        ["first", "second"].map(|side| self.folder.join(side))
    }

    /// Each is a run over the whole tree.
    fn changes(&self) -> usize {
        5
    }

    fn carry(&mut self, _: &mut dyn FnMut() -> Result<bool>) -> Result<()> {
        let [first, second] = self.folders();
        let mut command = Command::new("rclone");
        command.env("RCLONE_CONFIG", self.folder.join("none")).arg("bisync").arg(first).arg(second);
        command.arg("--workdir").arg(self.folder.join("work"));
        command.args(["--use-json-log", "--stats", "1h", "--stats-log-level", "NOTICE"]);
        if !self.has_run {
            command.arg("--resync");
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("rclone bisync: {}", said.lines().last().unwrap_or_default());
        }
        self.has_run = true;
        self.sent += transferred(&said).context("rclone bisync did not say what it transferred")?;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// What it copied, by its own count.
    fn sent(&self) -> Result<u64> {
        Ok(self.sent)
    }

    fn memory_kib(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// The bytes of the last statistics in its log.
fn transferred(log: &str) -> Option<u64> {
    let (_, rest) = log.rsplit_once("\"stats\":{\"bytes\":")?;
    rest.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_statistics_count() {
        let log = "{\"stats\":{\"bytes\":15,\"checks\":0}}\n{\"msg\":\"x\",\"stats\":{\"bytes\":170,\"checks\":1}}\n";
        assert_eq!(transferred(log), Some(170));
        assert_eq!(transferred("{}"), None);
    }
}
