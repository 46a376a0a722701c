//! The one error of the store, sorted by what the caller can do.
//!
//! It does not decide how often something is tried again. Each implementation maps its own errors here.
//!
//! Invariant: the text names the object.

use std::error::Error;
use std::fmt;
use std::io;

/// What an error means to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// There is such an object already, and it has other bytes.
    Exists,
    /// No room, no quota; somebody must make room before it can work.
    Full,
    /// It may work later: a network or a busy service failed.
    Unavailable,
    /// The bytes are not those that were written.
    Corrupt,
    /// Permissions forbid it, or the folder is in use by another process.
    Denied,
    /// Anything else.
    Other,
}

/// What failed, on which object.
#[derive(Debug)]
pub struct StoreError {
    /// What it means to the caller.
    pub kind: StoreErrorKind,
    /// The key of the object, or the folder of a listing; empty for the store as a whole.
    pub key: String,
    /// What is wrong, as the rest of a sentence about the object.
    pub what: String,
    /// The error below, if there was one.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind about an object; `what` continues the sentence "Object KEY ...".
    pub fn new(kind: StoreErrorKind, key: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { kind, key: key.to_string(), what: what.into(), source: None }
    }

    /// The same with the error that caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error for an object that is not there.
    pub fn not_found(key: impl fmt::Display) -> Self {
        Self::new(StoreErrorKind::NotFound, key, "is not there")
    }

    /// The error for a failed system call; `what` says what was tried.
    pub fn from_io(key: impl fmt::Display, what: &str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self::new(kind_of(&error), key, what).because(error)
    }

    /// Whether the same call may succeed later without anybody doing something about it.
    pub fn is_retryable(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }
}

/// The kind that an error of the operating system means.
pub(crate) fn kind_of(error: &io::Error) -> StoreErrorKind {
    use rustix::io::Errno;
    match error.kind() {
        io::ErrorKind::NotFound => return StoreErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return StoreErrorKind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => return StoreErrorKind::Denied,
        io::ErrorKind::TimedOut
        | io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::OutOfMemory
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable => return StoreErrorKind::Unavailable,
        _ => {}
    }
    match Errno::from_io_error(error) {
        // What openat2 answers for a symlink that it was told not to follow.
        Some(Errno::LOOP | Errno::XDEV) => StoreErrorKind::Denied,
        Some(Errno::MFILE | Errno::NFILE) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Other,
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "Store {}", self.what)?;
        } else {
            write!(f, "Object {} {}", self.key, self.what)?;
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
