//! What a failed system call means for a step: somebody was faster, or it cannot be done, and then what helps.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use isotherm_core::name::escape;
use isotherm_gate::{ErrorKind, GateError};

use crate::engine::StepResult;

/// The result of a step on `name` that failed with `error`.
pub(super) fn refused(name: &OsStr, error: &GateError) -> StepResult {
    let remedy = match error.kind() {
        ErrorKind::Exists => return StepResult::Occupied,
        ErrorKind::Busy => return StepResult::Busy,
        ErrorKind::NotFound
        | ErrorKind::Stale
        | ErrorKind::NotDirectory
        | ErrorKind::IsDirectory
        | ErrorKind::NotRegular
        | ErrorKind::NotEmpty
        | ErrorKind::Symlink => return StepResult::Surprise,
        ErrorKind::NoSpace => "Make room on the volume, or raise the quota; it is tried again by itself",
        ErrorKind::Immutable => "Remove the attribute from the file or its folder (chattr -i -a); it is tried again by itself",
        ErrorKind::ReadOnly => "Mount the volume writable; it is tried again by itself",
        ErrorKind::AclTooLarge => "Shorten the access control list, or use a file system with room for it (XFS, btrfs)",
        ErrorKind::NoSpaceForXattr => {
            "Remove or shorten extended attributes, or use a file system with room for them (XFS, btrfs)"
        }
        ErrorKind::Denied => "Run the agent as root; it is tried again by itself",
        ErrorKind::CrossDevice => "Unmount what is mounted inside the endpoint, or make it an endpoint of its own",
        _ => "Check the volume; it is tried again by itself",
    };
    let name = escape(name.as_bytes());
    StepResult::Failed { text: format!("'{name}' cannot be written: {}", error.kind()), remedy: remedy.to_owned() }
}
