//! What a failed system call means for a step: somebody was faster, or it cannot be done, and then what helps.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use isotherm_core::name::escape;
use isotherm_gate::{ErrorKind, GateError};

use crate::engine::{Away, StepResult};

/// Why a step was not done. Nothing was changed.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// Something else than expected is there.
    Surprise,
    /// The name is taken.
    Occupied,
    /// Somebody may write to the file.
    Busy,
    /// A step before was not done.
    Skipped,
    /// The content could not be fetched.
    Away(Away),
    /// It cannot be done.
    Failed { text: String, remedy: String },
}

impl From<Refusal> for StepResult {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Surprise => Self::Surprise,
            Refusal::Occupied => Self::Occupied,
            Refusal::Busy => Self::Busy,
            Refusal::Skipped => Self::Skipped,
            Refusal::Away(away) => Self::Away(away),
            Refusal::Failed { text, remedy } => Self::Failed { text, remedy },
        }
    }
}

/// The result of a step on `name` that failed with `error`.
pub(super) fn refused(name: &OsStr, error: &GateError) -> Refusal {
    let remedy = match error.kind() {
        ErrorKind::Exists => return Refusal::Occupied,
        ErrorKind::Busy => return Refusal::Busy,
        ErrorKind::NotFound
        | ErrorKind::Stale
        | ErrorKind::NotDirectory
        | ErrorKind::IsDirectory
        | ErrorKind::NotRegular
        | ErrorKind::NotEmpty
        | ErrorKind::Symlink => return Refusal::Surprise,
        ErrorKind::NoSpace => "Make room on the volume, or raise the quota; it is tried again by itself",
        ErrorKind::Immutable => "Remove the attribute from the file or its folder (chattr -i -a); it is tried again by itself",
        ErrorKind::ReadOnly => "Mount the volume writable; it is tried again by itself",
        ErrorKind::AclTooLarge => "Shorten the access control list, or use a file system with room for it (XFS, btrfs)",
        ErrorKind::NoSpaceForXattr => {
            "Remove or shorten extended attributes, or use a file system with room for them (XFS, btrfs)"
        }
        ErrorKind::Denied => "Run the agent as root; it is tried again by itself",
        ErrorKind::CrossDevice => {
            "Unmount what is mounted inside the endpoint, or make that an endpoint of its own; a folder may also belong to another project (`lsattr -p`)"
        }
        _ => "Check the volume; it is tried again by itself",
    };
    let name = escape(name.as_bytes());
    Refusal::Failed { text: format!("'{name}' cannot be written: {}", error.kind()), remedy: remedy.to_owned() }
}
