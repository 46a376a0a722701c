//! Real file systems for tests: a sparse image, formatted and mounted over a loop device, gone when dropped.
//!
//! Not part of the product (feature `testing`). Invariant: dropping a volume unmounts it and frees the loop device,
//! also while a test panics. What a killed test leaves behind, the next test process removes.
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

pub use crate::sys::mapping::SharedMapping;
use crate::{StateLock, effective_root, lock_exclusive};

/// A file system that the product supports in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fs {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl Fs {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Name as in /proc/filesystems.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Smallest volume that its mkfs accepts, in MiB.
    fn size_mib_min(self) -> u64 {
        match self {
            Self::Ext4 => 8,
            Self::Xfs => 300,
            Self::Btrfs => 128,
        }
    }

    /// Makes a new file system of this kind in an image.
    ///
    /// # Errors
    /// What mkfs said.
    pub fn format(self, image: &Path) -> Result<(), String> {
        let mut tries = 0;
        loop {
            let made = run(Command::new(format!("mkfs.{}", self.name())).args(self.mkfs_options()).arg(image));
            match made {
                // It looks at all loop devices of the machine, and another test's may have been shut down.
                Err(why) if why.contains("cannot check mount status") && tries < MKFS_TRIES => {
                    tries += 1;
                    std::thread::sleep(MKFS_AGAIN); // tidy: wait for another test's device to go
                }
                made => return made.map(|_| ()),
            }
        }
    }

    fn mkfs_options(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["-q", "-F"],
            Self::Xfs => &["-q", "-f"],
            Self::Btrfs => &["-q", "-f"],
        }
    }
}

/// How often mkfs is tried again, and after how long.
const MKFS_TRIES: usize = 100;
const MKFS_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// A mounted volume of its own.
#[derive(Debug)]
pub struct LoopVolume {
    fs: Fs,
    mounted: PathBuf,
    // Held while the volume is in use; see `sweep`.
    _lock: StateLock,
    // Last, so that the image goes after the mount.
    folder: TempDir,
}

/// How the folders of volumes are named, inside the temporary folder of the machine.
const FOLDER_PREFIX: &str = "isotherm-volume-";

impl LoopVolume {
    /// Makes and mounts a volume of at least `size_mib` MiB (more where mkfs demands it; the image is sparse).
    /// `None`, with the reason on standard error, where this machine can't: skip the test then.
    pub fn new(fs: Fs, size_mib: u64) -> Option<Self> {
        match Self::make(fs, size_mib) {
            Ok(volume) => Some(volume),
            Err(reason) => {
                eprintln!("skipped on {}: {reason}", fs.name());
                None
            }
        }
    }

    fn make(fs: Fs, size_mib: u64) -> Result<Self, String> {
        if !effective_root() {
            return Err("needs root to mount".to_owned());
        }
        let text = |e: std::io::Error| e.to_string();
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().map_err(text)?;
        // Roots refuse symlinks in their path, and a temporary folder may be reached through one.
        let base = folder.path().canonicalize().map_err(text)?;
        let lock = lock_exclusive(&base.join("lock")).map_err(|e| e.to_string())?;
        let image = base.join("image");
        let size = size_mib.max(fs.size_mib_min()) << 20;
        File::create(&image).and_then(|file| file.set_len(size)).map_err(text)?;
        fs.format(&image)?;
        let mounted = base.join("mounted");
        std::fs::create_dir(&mounted).map_err(text)?;
        // The loop device frees itself when the file system goes.
        run(Command::new("mount").args(["-t", fs.name(), "-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Self { fs, mounted, _lock: lock, folder })
    }

    /// Its file system.
    pub fn fs(&self) -> Fs {
        self.fs
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// A folder outside of the volume that lives as long.
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for LoopVolume {
    fn drop(&mut self) {
        match unmount(&self.mounted, UnmountFlags::empty()) {
            // A test that unmounts by itself.
            Ok(()) | Err(Errno::INVAL) => {}
            // A failed test may still hold files open; then the mount goes with the last of them.
            Err(_) => {
                if let Err(errno) = unmount(&self.mounted, UnmountFlags::DETACH) {
                    eprintln!("cannot unmount {}: {errno}", self.mounted.display());
                }
            }
        }
    }
}

/// Runs `check` on a new volume of each file system, as far as this machine has it.
///
/// Checks of one process run one at a time: a program that another thread starts holds copies of all open descriptors
/// until its exec, and for that moment files look open, mounts look busy and closes do not happen.
pub fn on_each_fs(size_mib: u64, mut check: impl FnMut(&LoopVolume)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A check that failed before leaves nothing behind that matters here.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for fs in Fs::ALL {
        if let Some(volume) = LoopVolume::new(fs, size_mib) {
            check(&volume);
        }
    }
}

/// Removes volumes whose process ended without dropping them: those whose lock is free.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let ours = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(FOLDER_PREFIX.as_bytes()));
        let lock = folder.join("lock");
        // Without a lock file somebody is just beginning.
        if !ours || !lock.exists() {
            continue;
        }
        if let Ok(_stale) = lock_exclusive(&lock) {
            // Not mounted, or removed by somebody else meanwhile: both are what is wanted. What tests have mounted inside
            // comes first.
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
            for point in points.filter(|point| Path::new(point).starts_with(&folder)) {
                let _ = unmount(point, UnmountFlags::DETACH);
            }
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

/// Runs a program; its complaint as an error.
fn run(command: &mut Command) -> Result<Output, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
