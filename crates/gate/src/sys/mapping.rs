//! A shared writable mapping of a file, for tests only: the way of writing that raises no event and no write call.
//!
//! Invariant: the mapping is removed exactly once, when dropped.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// A file mapped for shared writing. It outlives the descriptor it was made from.
#[derive(Debug)]
pub struct SharedMapping {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
}

impl SharedMapping {
    /// Maps the first `len` bytes of a file that is open for reading and writing.
    ///
    /// # Errors
    /// What mmap(2) answers.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        Self::with(file, len, true)
    }

    /// The same of a file that is open for reading, for reading.
    ///
    /// # Errors
    /// What mmap(2) answers.
    pub fn read_only(file: &File, len: usize) -> io::Result<Self> {
        Self::with(file, len, false)
    }

    fn with(file: &File, len: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at a place of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Self { start, len, writable })
    }

    /// A copy of all mapped bytes. The file must not have been cut meanwhile: the kernel ends who reads beyond its end.
    pub fn bytes(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len];
        // SAFETY: `start` is valid for `len` bytes while the mapping lives, and `copy` is memory of its own.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr(), copy.as_mut_ptr(), self.len) };
        copy
    }

    /// Stores one byte.
    ///
    /// # Panics
    /// If `offset` is outside of the mapping, or it is one for reading.
    pub fn store(&self, offset: usize, byte: u8) {
        assert!(self.writable, "A mapping for reading takes no bytes");
        assert!(offset < self.len, "Offset {offset} is outside of a mapping of {} bytes", self.len);
        // SAFETY: inside the mapping, which lives as long as `self`; volatile, because other processes see it.
        unsafe { self.start.as_ptr().add(offset).write_volatile(byte) }
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` and nobody else has a pointer into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
