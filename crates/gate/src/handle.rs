//! The identity of an inode on its volume: inode number and generation, as the file system itself encodes them.
//!
//! Opaque: nothing here looks inside. A handle says nothing about names. Invariant: a `FileHandle` has between 1 and
//! [`FileHandle::BYTES_MAX`] bytes, so that any one that exists can be offered to the kernel and stored.

use std::os::fd::AsFd;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// Identity of an inode on one volume. It survives renames, and is never used again for another inode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct FileHandle {
    handle_type: i32,
    bytes: Box<[u8]>,
}

/// Bytes that are no handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A file handle of {len} bytes is outside of 1 to {max}", max = FileHandle::BYTES_MAX)]
pub struct HandleError {
    /// How long the handle would be, in bytes, without its type; 0 also for an input shorter than a type.
    pub len: usize,
}

impl TryFrom<Vec<u8>> for FileHandle {
    type Error = HandleError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, HandleError> {
        Self::from_bytes(&bytes)
    }
}

impl From<FileHandle> for Vec<u8> {
    fn from(handle: FileHandle) -> Self {
        handle.to_bytes()
    }
}

impl FileHandle {
    /// Longest handle the kernel makes (`MAX_HANDLE_SZ`), in bytes, without its type.
    pub const BYTES_MAX: usize = sys::handle::HANDLE_BYTES_MAX;

    pub(crate) fn new(handle_type: i32, bytes: &[u8]) -> Result<Self, HandleError> {
        if bytes.is_empty() || bytes.len() > Self::BYTES_MAX {
            return Err(HandleError { len: bytes.len() });
        }
        Ok(Self { handle_type, bytes: bytes.into() })
    }

    /// The handle of an open inode.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let (handle_type, bytes) = sys::handle::handle_of(fd)?;
        Self::new(handle_type, &bytes).map_err(|_| Errno::OPNOTSUPP)
    }

    /// Form for storing: four bytes of type, little endian, then the handle.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.bytes.len());
        out.extend_from_slice(&self.handle_type.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// Input that is too short or too long for any handle.
    pub fn from_bytes(stored: &[u8]) -> Result<Self, HandleError> {
        let Some((handle_type, bytes)) = stored.split_first_chunk::<4>() else {
            return Err(HandleError { len: 0 });
        };
        Self::new(i32::from_le_bytes(*handle_type), bytes)
    }

    pub(crate) fn handle_type(&self) -> i32 {
        self.handle_type
    }

    pub(crate) fn raw(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileHandle({:x}:", self.handle_type)?;
        for byte in &self.bytes {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn stored_form_round_trips() {
        let handle = FileHandle::new(0x81, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert_eq!(FileHandle::from_bytes(&handle.to_bytes()).unwrap(), handle);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for len in [0, 3, 4, 4 + FileHandle::BYTES_MAX + 1] {
            assert!(FileHandle::from_bytes(&vec![7; len]).is_err(), "{len}");
        }
        assert!(FileHandle::from_bytes(&[7; 5]).is_ok());
        assert!(FileHandle::from_bytes(&[7; 4 + FileHandle::BYTES_MAX]).is_ok());
    }
}
