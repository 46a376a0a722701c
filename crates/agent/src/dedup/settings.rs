//! What an administrator set for a volume at this agent, as a file that outlives it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Name of the file in the volume's folder.
const FILE: &str = "settings.json";
/// What this release writes and reads.
const FORMAT: u32 = 1;
/// A file is left alone until it was not changed for so long: what is being worked on is soon different from its equals.
const DEDUP_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Whether equal contents share blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DedupSettings {
    /// They do.
    pub(crate) on: bool,
    /// Once they were not changed for so long.
    pub(crate) after: Duration,
}

impl Default for DedupSettings {
    fn default() -> Self {
        Self { on: false, after: DEDUP_AFTER }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    format: u32,
    dedup: bool,
    dedup_after_s: u64,
}

/// Reads them; those that nobody has set are the defaults.
pub(super) fn read(folder: &Path) -> DedupSettings {
    let path = folder.join(FILE);
    let written = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DedupSettings::default(),
        read => read.and_then(|bytes| Ok(serde_json::from_slice::<Written>(&bytes)?)),
    };
    match written {
        Ok(written) if written.format == FORMAT => {
            DedupSettings { on: written.dedup, after: Duration::from_secs(written.dedup_after_s) }
        }
        Ok(written) => {
            tracing::error!(path = %path.display(), format = written.format, "Settings of another release: equal contents share nothing");
            DedupSettings::default()
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "Settings cannot be read: equal contents share nothing");
            DedupSettings::default()
        }
    }
}

/// Writes them, durably, as a whole.
pub(super) fn write(folder: &Path, settings: DedupSettings) -> io::Result<()> {
    let (path, next) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
    let written = Written { format: FORMAT, dedup: settings.on, dedup_after_s: settings.after.as_secs() };
    let mut bytes = serde_json::to_vec_pretty(&written)?;
    bytes.push(b'\n');
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_set_is_kept_and_what_cannot_be_read_is_the_default() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), DedupSettings::default());
        let set = DedupSettings { on: true, after: Duration::from_secs(90) };
        write(folder.path(), set).unwrap();
        assert_eq!(read(folder.path()), set);
        for strange in [&b"{\"format\": 7, \"dedup\": true, \"dedup_after_s\": 1}"[..], b"{"] {
            fs::write(folder.path().join(FILE), strange).unwrap();
            assert_eq!(read(folder.path()), DedupSettings::default());
        }
    }
}
