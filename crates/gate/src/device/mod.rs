//! Block devices that become guarded volumes: what is on them, mounting them unseen, and attaching them where users see them.

mod mounted;
mod superblock;

pub use mounted::{MountError, Mounted, is_attached};
pub use superblock::{DeviceError, Superblock, find};
