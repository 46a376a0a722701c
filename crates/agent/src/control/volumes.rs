//! Guarded volumes as this agent works on them, and what is set for them.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use isotherm_api::path::ShownPath;
use isotherm_gate::FsKind;
use serde::{Deserialize, Serialize};

use crate::dedup::DedupSettings;
use crate::guarded::{GuardedVolume, GuardedVolumes};

/// A guarded volume with endpoints of this agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Where users see it.
    pub path: ShownPath,
    /// Whether equal contents share blocks.
    pub dedup: bool,
    /// Contents that were not changed for so long do, in seconds.
    pub dedup_after_s: u64,
    /// Files that have blocks of others.
    pub shared_files: u64,
    /// How many bytes these are, as far as is known: what was changed since is found out within an hour. On btrfs they save less where
    /// they are only a part of what was written at once.
    pub shared_bytes: u64,
    /// Files of this volume can share blocks.
    pub can_share: bool,
}

/// All of this agent.
pub(super) fn list(guarded: &GuardedVolumes) -> Vec<VolumeView> {
    guarded.all().iter().map(view).collect()
}

/// Sets what is given; the others stay.
pub(super) fn set(
    guarded: &GuardedVolumes,
    path: &[u8],
    (dedup, after_s): (Option<bool>, Option<u64>),
) -> Result<VolumeView, String> {
    let shown = String::from_utf8_lossy(path);
    let volume = guarded.all().into_iter().find(|volume| volume.path().as_os_str().as_bytes() == path);
    let volume = volume.ok_or_else(|| format!("No guarded volume with an endpoint of this agent is at '{shown}'"))?;
    if dedup == Some(true) && !volume.root().supports_reflink() {
        let what = match volume.root().fs() {
            FsKind::Xfs => "this XFS was made without reflink=1",
            FsKind::Ext4 => "ext4 has no such thing",
            _ => "its file system does not do that",
        };
        return Err(format!("Files on '{shown}' cannot share blocks: {what}; XFS with reflink=1 and btrfs can"));
    }
    let now = volume.dedup().settings();
    let settings = DedupSettings { on: dedup.unwrap_or(now.on), after: after_s.map_or(now.after, Duration::from_secs) };
    volume.dedup().set(settings).map_err(|error| format!("The settings of '{shown}' were not kept: {error}"))?;
    Ok(view(&volume))
}

fn view(volume: &Arc<GuardedVolume>) -> VolumeView {
    let (settings, (shared_files, shared_bytes)) = (volume.dedup().settings(), volume.dedup().store.shared());
    VolumeView {
        path: ShownPath::new(volume.path().as_os_str().as_bytes()),
        dedup: settings.on,
        dedup_after_s: settings.after.as_secs(),
        shared_files,
        shared_bytes,
        can_share: volume.root().supports_reflink(),
    }
}
