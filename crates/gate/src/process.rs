//! What the process may do, and how many descriptors and how much memory it may hold. Changes nothing but its own limits.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{GateError, Result};

/// Whether the process runs as root; without it there is neither change detection nor opening by handle.
pub fn effective_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Threads share this many heaps; the C library's own choice is eight for each core.
const HEAPS: i32 = 2;
/// Blocks of this many bytes and more are mapped, and go back to the machine as soon as they are freed. The C library's own
/// limit grows to 32 MiB with what is freed.
const MAPPED_FROM: i32 = 256 << 10;
/// Free memory at the end of a heap that goes back, in bytes.
const TRIMMED_FROM: i32 = 1 << 20;

/// Keeps the process's memory near what it uses: work moves between threads in buffers of megabytes, and with a heap for
/// each thread a process holds several times that for ever. To be called before there are threads; where the C library has no
/// such limits nothing happens.
///
/// Sending 60,000 files of 1 to 32 KiB, an agent took 294 MB without and 121 MB with this, at the same speed.
pub fn bound_heap() {
    crate::sys::heap::bound(HEAPS, MAPPED_FROM, TRIMMED_FROM);
}

/// Asks the kernel to end other processes first where memory runs out. Where it refuses nothing is lost.
pub(crate) fn be_spared_by_oom_killer() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!(%error, "The gate is not spared where memory runs out");
    }
}

/// Raises the limit of open descriptors as far as the process may, at most to `wanted`. Answers the limit in force.
pub fn raise_nofile(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    // A missing limit means "no limit".
    let soft = now.current.unwrap_or(u64::MAX);
    if soft >= wanted {
        return soft;
    }
    let hard = now.maximum.unwrap_or(u64::MAX);
    let above_hard = Rlimit { current: Some(wanted), maximum: Some(wanted.max(hard)) };
    let within_hard = Rlimit { current: Some(wanted.min(hard)), maximum: now.maximum };
    if hard < wanted && setrlimit(Resource::Nofile, above_hard).is_ok() || setrlimit(Resource::Nofile, within_hard).is_ok() {
        return getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    }
    soft
}

/// Whether `path` (not followed if a symlink) is the top of a mount.
///
/// # Errors
/// No such path, no right to look, or a kernel that does not tell (before Linux 5.8).
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let operation = "look for a mount at";
    let x = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
        .map_err(|e| GateError::from_errno(e, operation, path))?;
    if !x.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(GateError::new(crate::ErrorKind::Unsupported, operation, path));
    }
    Ok(x.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn mount_points_are_told_from_folders() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/proc/sys")).unwrap());
        assert!(is_mount_point(Path::new("/proc/no such thing")).is_err());
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_heap_takes_its_bounds() {
        assert!(crate::sys::heap::bound(HEAPS, MAPPED_FROM, TRIMMED_FROM));
    }

    #[test]
    fn nofile_is_never_lowered() {
        let before = raise_nofile(0);
        assert!(raise_nofile(before) >= before);
        assert_eq!(raise_nofile(1), before);
    }
}
