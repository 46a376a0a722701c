//! Mounts that nobody sees until they are attached.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use super::Superblock;
use crate::stat::{device, statx_fd};

/// Why a volume was not mounted, attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel refuses to mount it.
    #[error("Cannot mount '{device}': {errno}{said}", device = device.display())]
    Mount {
        /// The device.
        device: PathBuf,
        /// Why.
        errno: Errno,
        /// What the file system said beside it.
        said: String,
    },
    /// The folder is not there, or a symlink is on the way.
    #[error("Cannot use the folder '{path}': {errno}", path = path.display())]
    Folder {
        /// Where it was to be seen.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Something is mounted there already.
    #[error("Something else is mounted at '{0}'")]
    Taken(String),
    /// Programs have files of it open, or stand in it.
    #[error("The volume at '{0}' is in use")]
    InUse(String),
}

/// A mounted volume, for work on it that nobody sees.
#[derive(Debug)]
pub struct Mounted {
    /// Top of a mount that is attached nowhere.
    top: OwnedFd,
    /// The mount that is to be attached.
    outer: Option<OwnedFd>,
}

impl Mounted {
    /// Mounts a device, attached nowhere.
    ///
    /// # Errors
    /// [`MountError::Mount`].
    pub fn new(device: &Path, superblock: &Superblock, options: &str) -> Result<Self, MountError> {
        let (flags, others) = split(options);
        let context = fsopen(superblock.kind, FsOpenFlags::FSOPEN_CLOEXEC);
        let context = context.map_err(|errno| MountError::Mount { device: device.to_owned(), errno, said: String::new() })?;
        let configured = fsconfig_set_string(&context, "source", device)
            .and_then(|()| others.iter().try_for_each(|option| set(&context, option)))
            .and_then(|()| fsconfig_create(&context))
            .and_then(|()| fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags));
        let failed = |errno| MountError::Mount { device: device.to_owned(), errno, said: said(&context) };
        let outer = configured.map_err(failed)?;
        let top = clone_of(&outer).map_err(failed)?;
        Ok(Self { top, outer: Some(outer) })
    }

    /// A volume that is attached already, where an earlier gate left it.
    ///
    /// # Errors
    /// [`MountError::Folder`].
    pub fn of_attached(path: &Path) -> Result<Self, MountError> {
        let folder = |errno| MountError::Folder { path: path.to_owned(), errno };
        let opened = open_folder(path, OFlags::RDONLY).map_err(folder)?;
        Ok(Self { top: clone_of(&opened).map_err(folder)?, outer: None })
    }

    /// A volume of which an earlier gate left this descriptor.
    #[must_use]
    pub fn from_top(top: OwnedFd) -> Self {
        Self { top, outer: None }
    }

    /// The top of the mount: for marks, and for making it durable.
    #[must_use]
    pub fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// Lets users see it at this folder.
    ///
    /// # Errors
    /// [`MountError::Folder`], [`MountError::Taken`].
    pub fn attach(&mut self, path: &Path) -> Result<(), MountError> {
        let folder = |errno| MountError::Folder { path: path.to_owned(), errno };
        let Some(outer) = &self.outer else { return Ok(()) };
        let at = open_folder(path, OFlags::PATH).map_err(folder)?;
        if crate::is_mount_point(path).unwrap_or(false) {
            return Err(MountError::Taken(path.display().to_string()));
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(outer, "", at, "", flags).map_err(folder)?;
        self.outer = None;
        Ok(())
    }

    /// Takes it away from where users see it.
    ///
    /// # Errors
    /// [`MountError::InUse`], [`MountError::Folder`].
    pub fn detach(&self, path: &Path) -> Result<(), MountError> {
        match unmount(path, UnmountFlags::NOFOLLOW) {
            // It is not there any more: what was asked for.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(Errno::BUSY) => Err(MountError::InUse(path.display().to_string())),
            Err(errno) => Err(MountError::Folder { path: path.to_owned(), errno }),
        }
    }

    /// Another descriptor of its top, for what takes long.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn another_top(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.top, 0)
    }

    /// The kernel's number of the mount at which a folder shows this very volume.
    #[must_use]
    pub fn number_at(&self, path: &Path) -> Option<u64> {
        attached_mount(&self.top, path)
    }

    /// Whether a folder shows this very volume.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        is_attached(&self.top, path)
    }
}

/// The kernel's number of the mount that is seen at a folder, if it is one of the file system of `top`.
fn attached_mount(top: impl AsFd, path: &Path) -> Option<u64> {
    if is_attached(&top, path) { crate::stat::mount_number(open_folder(path, OFlags::PATH).ok()?) } else { None }
}

/// Whether a folder is the top of a mount of the file system of `top`.
pub fn is_attached(top: impl AsFd, path: &Path) -> bool {
    let Ok(there) = open_folder(path, OFlags::PATH) else { return false };
    let same = |a: &rustix::fs::Statx, b: &rustix::fs::Statx| device(a) == device(b) && a.stx_ino == b.stx_ino;
    matches!((statx_fd(top), statx_fd(&there)), (Ok(a), Ok(b)) if same(&a, &b)) && crate::is_mount_point(path).unwrap_or(false)
}

fn open_folder(path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
}

/// A mount of the same file system that is attached nowhere.
fn clone_of(mount: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(mount, "", flags)?;
    // The tree's own descriptor is `O_PATH`, and marks need a real one.
    rustix::fs::openat(&tree, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Options that belong to the mount, and those that the file system takes.
fn split(options: &str) -> (MountAttrFlags, Vec<String>) {
    let mut flags = MountAttrFlags::empty();
    let mut others = Vec::new();
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "nosuid" => flags |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => flags |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => flags |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "nodiratime" => flags |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            "strictatime" => flags |= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            // What is so anyway, and what only a mount at start cares for.
            "defaults" | "rw" | "relatime" | "suid" | "dev" | "exec" | "auto" | "noauto" | "nofail" => {}
            other => others.push(other.to_owned()),
        }
    }
    (flags, others)
}

fn set(context: &OwnedFd, option: &str) -> Result<(), Errno> {
    match option.split_once('=') {
        Some((key, value)) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, option),
    }
}

/// What the file system wrote into the context: the reason in its own words.
fn said(context: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut line = [0; 512];
    while let Ok(len) = rustix::io::read(context, &mut line) {
        if len == 0 {
            break;
        }
        lines.push(String::from_utf8_lossy(&line[..len]).trim().to_owned());
    }
    if lines.is_empty() { String::new() } else { format!(" ({})", lines.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_mount_and_file_system_are_told_apart() {
        let (flags, others) = split("defaults,noatime, nosuid,data=ordered,nouuid,nofail");
        assert_eq!(flags, MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(others, ["data=ordered", "nouuid"]);
    }
}
