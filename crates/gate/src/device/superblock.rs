//! Which file system a device holds, from its superblock. Reads, and writes nothing.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use crate::link::VolumeId;

/// What is on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Name of the file system, as the kernel knows it.
    pub kind: &'static str,
    /// Its id.
    pub id: VolumeId,
}

/// Why a device cannot be a guarded volume.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be opened or read.
    #[error("Cannot read '{path}': {source}", path = path.display())]
    Unreadable {
        /// The device.
        path: PathBuf,
        /// The kernel's words.
        source: std::io::Error,
    },
    /// It is a file or something else.
    #[error("'{0}' is not a block device")]
    NotADevice(String),
    /// It holds none of the three.
    #[error("'{0}' holds no ext4, XFS or btrfs")]
    OtherContent(String),
    /// No device holds the file system.
    #[error("No device holds the file system {id} (it was on '{path}')", path = path.display())]
    Missing {
        /// The file system.
        id: VolumeId,
        /// Where it was last.
        path: PathBuf,
    },
}

/// Where a superblock has its magic number, what that is, and where its id stands; in bytes from the device's beginning. From
/// the kernel's `ext4.h`, `xfs_format.h` and `btrfs_tree.h`.
const KINDS: [(&str, u64, &[u8], u64); 3] =
    [("ext4", 0x438, &[0x53, 0xef], 0x468), ("xfs", 0, b"XFSB", 32), ("btrfs", 0x1_0040, b"_BHRfS_M", 0x1_0020)];

impl Superblock {
    /// Reads the superblock of a device.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn read(path: &Path) -> Result<Self, DeviceError> {
        let unreadable = |source| DeviceError::Unreadable { path: path.to_owned(), source };
        let device = File::open(path).map_err(unreadable)?;
        if !device.metadata().map_err(unreadable)?.file_type().is_block_device() {
            return Err(DeviceError::NotADevice(path.display().to_string()));
        }
        let found = Self::found(|bytes, at| device.read_exact_at(bytes, at).is_ok());
        found.ok_or_else(|| DeviceError::OtherContent(path.display().to_string()))
    }

    /// The superblock of what is read: `read` fills all bytes from a position on, or says that it cannot.
    pub(crate) fn found(read: impl Fn(&mut [u8], u64) -> bool) -> Option<Self> {
        KINDS.into_iter().find_map(|(kind, magic_at, magic, id_at)| {
            let mut found = vec![0; magic.len()];
            let mut id = [0; 16];
            // A device that ends before is none of these.
            let is_it = read(&mut found, magic_at) && found == magic && read(&mut id, id_at);
            is_it.then_some(Self { kind, id: VolumeId(id) })
        })
    }
}

/// The device that holds a file system now: where it was, or wherever the machine has put it.
///
/// # Errors
/// [`DeviceError::Missing`].
pub fn find(id: VolumeId, was: &Path) -> Result<(PathBuf, Superblock), DeviceError> {
    let by_id = Path::new("/dev/disk/by-uuid").join(id.to_string());
    let candidates = [was.to_owned(), by_id];
    let found = candidates.into_iter().find_map(|path| {
        let superblock = Superblock::read(&path).ok().filter(|superblock| superblock.id == id)?;
        Some((path, superblock))
    });
    found.ok_or_else(|| DeviceError::Missing { id, path: was.to_owned() })
}
