//! Safe Rust over the kernel interfaces that Isotherm stands on: file handles, descriptor-relative file
//! operations, metadata, content reading, staging, and change detection through fanotify.
//!
//! This crate knows nothing of nodes, shares or the network; it speaks of names, bytes and file handles. It
//! decides nothing: it answers what is there, performs one step, and says in a typed error why a step failed.
//!
//! **Invariants.** Every access to user files starts from the descriptor of an endpoint [`Root`] and never follows
//! a symlink, leaves the root's device or crosses a mount. Content is read through [`ContentReader`] alone, which
//! refuses stubs. `unsafe` and libc appear only in the private module `sys`.

pub mod device;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
mod handle;
pub mod link;
mod lock;
mod process;
pub mod safety_net;
pub mod serve;
mod stat;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
pub mod volume;
pub mod watch;

pub use error::{ErrorKind, GateError, Result};
pub use handle::{FileHandle, HandleError};
pub use lock::{LockError, StateLock, lock_exclusive};
pub use process::{bound_heap, effective_root, is_mount_point, raise_nofile};
pub use stat::{Kind, Stat};
pub use volume::{
    Account, ContentReader, Dir, Extent, Finish, FsKind, Inode, Isolation, Ledger, ListEntry, Liveness, MaskPool, Metadata,
    Owners, Root, STAGE_DIR, STUB_RECORD_XATTR, Shared, Snapshot, Space, StagedFile, Staging, StubFile, mask_byte,
};
pub use watch::{Batch, Change, ChangeKinds, UnavailableReason, Waker, Watch, WatchError, WatchUnavailable};
