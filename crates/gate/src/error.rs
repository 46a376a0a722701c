//! The one error type of file operations: what kind of failure, in which operation, on which name.
//!
//! It does not decide what to do about it. Invariant: the text names the file with control characters escaped, so
//! that a hostile name cannot forge lines of a log.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

/// Result of a file operation.
pub type Result<T> = std::result::Result<T, GateError>;

/// Why an operation failed, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name is taken.
    Exists,
    /// No such name.
    NotFound,
    /// The inode of a handle or of an open descriptor is gone.
    Stale,
    /// A directory still has entries.
    NotEmpty,
    /// A directory was needed, something else is there.
    NotDirectory,
    /// A directory is there, something else was needed.
    IsDirectory,
    /// A symlink stands where none is followed.
    Symlink,
    /// Neither directory nor symlink, but no regular file either.
    NotRegular,
    /// A name that no directory entry can have: empty, `.`, `..`, with a slash or a zero byte, or too long.
    InvalidName,
    /// The file or its directory is marked immutable or append-only (`chattr +i`, `+a`).
    Immutable,
    /// The process lacks the right.
    Denied,
    /// The volume, or the owner's quota on it, is full.
    NoSpace,
    /// The file system has no room for this ACL although the volume is not full.
    AclTooLarge,
    /// The file system has no room for this extended attribute although the volume is not full.
    NoSpaceForXattr,
    /// A content or a value is larger than the caller's or the kernel's bound.
    TooLarge,
    /// The volume is read-only.
    ReadOnly,
    /// The place is on another device or mount than the root.
    CrossDevice,
    /// Somebody uses it in a way that excludes this operation.
    Busy,
    /// The file system or the kernel cannot do this.
    Unsupported,
    /// A stub record is on the file: its content is not all here.
    IsStub,
    /// The inode could not have as many links, or the process as many descriptors.
    TooMany,
    /// The folder is not one that this process alone can change.
    Untrusted,
    /// Any other error of the kernel, by its errno.
    Io(i32),
}

/// A file operation that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct GateError {
    kind: ErrorKind,
    operation: &'static str,
    name: Vec<u8>,
}

impl GateError {
    /// An error of `operation` on `name`.
    pub fn new(kind: ErrorKind, operation: &'static str, name: impl AsRef<OsStr>) -> Self {
        Self { kind, operation, name: name.as_ref().as_bytes().to_vec() }
    }

    pub(crate) fn from_errno(errno: Errno, operation: &'static str, name: impl AsRef<OsStr>) -> Self {
        Self::new(ErrorKind::from(errno), operation, name)
    }

    /// What kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done, as a few words.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The name, relative to the directory of the operation, as raw bytes.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cannot {} '{}': {}", self.operation, Escaped(&self.name), self.kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Exists => "the name is taken",
            Self::NotFound => "not found",
            Self::Stale => "the file is gone",
            Self::NotEmpty => "the directory is not empty",
            Self::NotDirectory => "not a directory",
            Self::IsDirectory => "is a directory",
            Self::Symlink => "a symlink is in the way",
            Self::NotRegular => "not a regular file",
            Self::InvalidName => "not a valid name",
            Self::Immutable => "it or its directory is marked immutable or append-only",
            Self::Denied => "permission denied",
            Self::NoSpace => "no space left",
            Self::AclTooLarge => "the file system has no room for this ACL",
            Self::NoSpaceForXattr => "the file system has no room for this extended attribute",
            Self::TooLarge => "too large",
            Self::ReadOnly => "the volume is read-only",
            Self::CrossDevice => "it is on another device",
            Self::Busy => "it is in use",
            Self::Unsupported => "not supported by this file system or kernel",
            Self::IsStub => "it is a stub, its content is not all local",
            Self::TooMany => "too many links or open files",
            Self::Untrusted => "it is not owned by this process alone",
            Self::Io(errno) => return write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        };
        f.write_str(text)
    }
}

impl From<Errno> for ErrorKind {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EXIST => Self::Exists,
            Errno::NOENT => Self::NotFound,
            Errno::STALE => Self::Stale,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::NOTDIR => Self::NotDirectory,
            Errno::ISDIR => Self::IsDirectory,
            Errno::LOOP => Self::Symlink,
            Errno::NAMETOOLONG | Errno::ILSEQ => Self::InvalidName,
            Errno::PERM | Errno::ACCESS => Self::Denied,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::FBIG => Self::TooLarge,
            Errno::ROFS => Self::ReadOnly,
            Errno::XDEV => Self::CrossDevice,
            Errno::BUSY | Errno::TXTBSY | Errno::AGAIN => Self::Busy,
            Errno::OPNOTSUPP | Errno::NOSYS => Self::Unsupported,
            Errno::MLINK | Errno::MFILE | Errno::NFILE => Self::TooMany,
            other => Self::Io(other.raw_os_error()),
        }
    }
}

/// Bytes of a name as text: control characters, backslashes and bytes that are not UTF-8 as escapes.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                // Bidirectional overrides are not "control" to Unicode, but they too make a name look like another.
                let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}');
                if c.is_control() || c == '\\' || c == '\'' || reorders {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_escapes_what_could_forge_a_log_line() {
        let error = GateError::new(ErrorKind::NotFound, "open", OsStr::from_bytes(b"a\n\xff\\'b\xe2\x80\xae"));
        assert_eq!(error.to_string(), r"Cannot open 'a\n\xff\\\'b\u{202e}': not found");
    }

    #[test]
    fn errno_kinds() {
        for (errno, kind) in [
            (Errno::EXIST, ErrorKind::Exists),
            (Errno::LOOP, ErrorKind::Symlink),
            (Errno::DQUOT, ErrorKind::NoSpace),
            (Errno::IO, ErrorKind::Io(libc::EIO)),
        ] {
            assert_eq!(ErrorKind::from(errno), kind);
        }
    }
}
