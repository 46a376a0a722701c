//! A plain client of the service: it fetches contents and does nothing with them.
//!
//! Invariant: it is ended when it is dropped.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

pub(super) struct Getter {
    child: Child,
    asks: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Getter {
    /// Of one group; its connection stays open.
    pub(super) fn start(program: &Path, url: &str, group: &str) -> Result<Self> {
        let mut command = Command::new(program);
        let mut child = command.args([url, group]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let asks = child.stdin.take().context("No standard input")?;
        let hears = BufReader::new(child.stdout.take().context("No standard output")?);
        Ok(Self { child, asks, hears })
    }

    /// Milliseconds that the first and the last so many bytes of a file take, in whole chunks.
    pub(super) fn get(&mut self, path: &str, (first, last): (u64, u64)) -> Result<f64> {
        writeln!(self.asks, "{first} {last} {path}")?;
        let mut line = String::new();
        self.hears.read_line(&mut line)?;
        let (bytes, took) = line.trim().split_once(' ').with_context(|| format!("{path}: no answer"))?;
        if bytes.parse::<u64>()? < first.max(last) {
            bail!("{path}: {bytes} bytes came, too few");
        }
        Ok(took.parse::<f64>()? / 1e6)
    }
}

impl Drop for Getter {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
