//! The folder of an endpoint: the descriptor that every access starts from, and what its volume can do.
//!
//! It does not watch and does not create anything. Invariant: everything reached through a `Root` lies on its device.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Dir, Inode, StubFile, open_beneath};
use crate::error::{ErrorKind, GateError, Result};
use crate::stat::{device, statx_fd};
use crate::{FileHandle, sys};

/// File systems that matter to the product, told by their magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FsKind {
    /// ext4 (also ext2 and ext3, which the kernel does not tell apart).
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// Files in memory.
    Tmpfs,
    /// Any other, by `f_type` of statfs(2).
    Other(u64),
}

/// Whether work goes through a mount of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A detached clone of the mount: its writes can be told from those of users, and it follows no symlink.
    PrivateClone,
    /// The mount that users see, because the clone was refused for this reason.
    Attached(ErrorKind),
}

/// What became of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The handle is stale: the inode does not exist any more.
    Gone,
    /// It exists without a name, because somebody has it open.
    Unlinked,
    /// It has a name somewhere on its volume.
    Linked,
}

/// Room on a volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the volume.
    pub total: u64,
    /// Free for ordinary users (without the file system's reserve).
    pub free: u64,
    /// Free for root, who may use the reserve.
    pub free_for_root: u64,
    /// These are more than contents may get: btrfs keeps some of it for what it has to note.
    pub is_estimate: bool,
}

/// That of a volume that does not tell.
const BLOCK: u64 = 4_096;

/// Where each has to be flushed by itself, one flush of the whole volume is cheaper for more files than that.
const FLUSHED_ONE_BY_ONE: usize = 32;

/// From how many files on a file more in the journal costs less than a flush of the device for each.
const FLUSHED_TOGETHER: usize = 3;

/// The inode of an ext4's journal, as `mke2fs` makes it.
const JOURNAL_INODE: u32 = 8;

/// Whether one journal holds all changes of metadata in the order in which they were made: then what is durable of the last is
/// durable of all. XFS always has one, ext4 may have none, and btrfs makes a log of its own for each file.
fn journals_in_order(fs: FsKind, dev: u64) -> bool {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let journal_of = || {
        let device = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        let name = device.file_name()?;
        // One on another device has another name: its flush need not be that of the contents' device.
        let inner = format!("{}-{JOURNAL_INODE}", name.to_str()?.replace('/', "!"));
        Path::new("/proc/fs/jbd2").join(inner).exists().then_some(())?;
        std::fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task")).ok()
    };
    match fs {
        // Its flush is not that of files on a device of their own.
        FsKind::Xfs => !has_realtime_device(major, minor),
        FsKind::Ext4 => journal_of().is_some_and(|task| task.trim().parse::<u32>().is_ok()),
        _ => false,
    }
}

/// Whether an XFS has a device beside, on which contents of some files are; also where that cannot be told.
fn has_realtime_device(major: u32, minor: u32) -> bool {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return true };
    let device = format!("{major}:{minor}");
    let of_it = mounts.lines().filter(|line| line.split(' ').nth(2) == Some(device.as_str()));
    of_it.filter_map(|line| line.rsplit(' ').next()).any(|options| options.split(',').any(|option| option.starts_with("rtdev=")))
}

/// An open endpoint root.
#[derive(Debug)]
pub struct Root {
    dir: Dir,
    handle: FileHandle,
    fs: FsKind,
    isolation: Isolation,
    reflink: OnceLock<bool>,
    journal: OnceLock<bool>,
    block: OnceLock<u64>,
}

impl Root {
    /// Opens the folder `path`, which may not contain a symlink anywhere.
    ///
    /// While a `Root` works through a private clone it does not keep the visible mount busy, but the file system
    /// stays in use after an unmount until the `Root` is dropped.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `Symlink`, `Denied`, or `Unsupported` where the file system has no handles.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |errno| GateError::from_errno(errno, "open endpoint root", path);
        let attached = open_path(path).map_err(fail)?;
        let (fd, isolation) = match private_clone(&attached) {
            Ok(clone) => (clone, Isolation::PrivateClone),
            Err(errno) => (attached, Isolation::Attached(errno.into())),
        };
        let fs = FsKind::of(&fd).map_err(fail)?;
        let handle = FileHandle::of(&fd).map_err(fail)?;
        let dev = device(&statx_fd(&fd).map_err(fail)?);
        let dir = Dir::new(fd, dev, path.as_os_str());
        Ok(Self { dir, handle, fs, isolation, reflink: OnceLock::new(), journal: OnceLock::new(), block: OnceLock::new() })
    }

    /// The root itself as a directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Identity of the root directory.
    pub fn handle(&self) -> &FileHandle {
        &self.handle
    }

    /// Device number of the volume.
    pub fn dev(&self) -> u64 {
        self.dir.dev()
    }

    /// The volume's file system.
    pub fn fs(&self) -> FsKind {
        self.fs
    }

    /// Whether work goes through a mount of our own.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether `path` still leads to this very folder; false when something else is mounted there or it is gone.
    pub fn is_still_at(&self, path: &Path) -> bool {
        let Ok(fd) = open_path(path) else { return false };
        let same_dev = statx_fd(&fd).is_ok_and(|x| device(&x) == self.dev());
        same_dev && FileHandle::of(&fd).is_ok_and(|handle| handle == self.handle)
    }

    /// Opens the directory of a handle, wherever it has been moved; see [`Self::contains`].
    ///
    /// # Errors
    /// `Stale` if it is gone, `NotDirectory`, `CrossDevice`, `Denied` without the privilege to open by handle.
    pub fn open_dir(&self, handle: &FileHandle) -> Result<Dir> {
        let operation = "open directory by handle";
        let name = format!("{handle:?}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.open_handle(handle, flags).map_err(|e| GateError::from_errno(e, operation, &name))?;
        Dir::checked(fd, self.dev(), operation, OsStr::new(&name))
    }

    /// A reference to the inode of a handle, of any kind.
    ///
    /// # Errors
    /// As [`Self::open_dir`].
    pub fn inode(&self, handle: &FileHandle) -> Result<Inode> {
        let operation = "open by handle";
        let name = format!("{handle:?}");
        let fail = |errno| GateError::from_errno(errno, operation, &name);
        let fd = self.open_handle(handle, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC).map_err(fail)?;
        if device(&statx_fd(&fd).map_err(fail)?) != self.dev() {
            return Err(GateError::new(ErrorKind::CrossDevice, operation, &name));
        }
        Ok(Inode::new(fd, OsStr::new(&name)))
    }

    /// A descriptor of the inode of a handle that marks can be put on; nothing is read through it.
    ///
    /// # Errors
    /// As [`Self::open_dir`].
    pub fn open_for_mark(&self, handle: &FileHandle) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let opened = self.open_handle(handle, flags);
        opened.map_err(|errno| GateError::from_errno(errno, "open by handle", format!("{handle:?}")))
    }

    /// What became of the inode of a handle.
    ///
    /// # Errors
    /// Anything that leaves the question open, such as a missing privilege.
    pub fn is_alive(&self, handle: &FileHandle) -> Result<Liveness> {
        let inode = match self.inode(handle) {
            Ok(inode) => inode,
            Err(error) if error.kind() == ErrorKind::Stale => return Ok(Liveness::Gone),
            Err(error) => return Err(error),
        };
        Ok(if inode.stat()?.nlink == 0 { Liveness::Unlinked } else { Liveness::Linked })
    }

    /// Whether `dir` is the root or lies below it.
    ///
    /// # Errors
    /// Failure to climb, other than by leaving the root.
    pub fn contains(&self, dir: &Dir) -> Result<bool> {
        let fail = |errno| GateError::from_errno(errno, "find the parents of", dir.name());
        let mut current: Option<OwnedFd> = None;
        loop {
            let fd = current.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
            let here = statx_fd(fd).map_err(fail)?;
            if device(&here) != self.dev() {
                return Ok(false);
            }
            if FileHandle::of(fd).map_err(fail)? == self.handle {
                return Ok(true);
            }
            // A directory without links has no parents; one outside of a private clone has none that it may reach.
            let parent = match rustix::fs::openat(fd, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(parent) => parent,
                Err(Errno::NOENT) => return Ok(false),
                Err(errno) => return Err(fail(errno)),
            };
            let above = statx_fd(&parent).map_err(fail)?;
            if above.stx_ino == here.stx_ino && device(&above) == device(&here) {
                return Ok(false);
            }
            current = Some(parent);
        }
    }

    /// Room on the volume now.
    ///
    /// # Errors
    /// Failure of the volume itself.
    pub fn space(&self) -> Result<Space> {
        let s = rustix::fs::fstatvfs(self.dir.as_fd()).map_err(|e| self.fail(e, "measure free space of"))?;
        let kind = FsKind::of(self.dir.as_fd()).map_err(|e| self.fail(e, "measure free space of"))?;
        let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
        Ok(Space {
            total: bytes(s.f_blocks),
            free: bytes(s.f_bavail),
            free_for_root: bytes(s.f_bfree),
            is_estimate: kind == FsKind::Btrfs,
        })
    }

    /// Bytes free for ordinary users.
    ///
    /// # Errors
    /// As [`Self::space`].
    pub fn free_bytes(&self) -> Result<u64> {
        Ok(self.space()?.free)
    }

    /// Whether two files of this volume can share blocks. Tried once with two unnamed files.
    pub fn supports_reflink(&self) -> bool {
        *self.reflink.get_or_init(|| probe_reflink(self.dir.as_fd()).unwrap_or(false))
    }

    /// Bytes of a block of the volume, which is what files share at once.
    pub fn block(&self) -> u64 {
        *self.block.get_or_init(|| rustix::fs::fstatvfs(&self.dir).map_or(BLOCK, |found| found.f_bsize.max(1)))
    }

    /// Makes everything written to the volume so far durable.
    ///
    /// # Errors
    /// Also a write error since the last call that nobody was told of.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(self.dir.as_fd()).map_err(|e| self.fail(e, "sync volume of"))
    }

    /// Makes the records of these files durable, which were written in this order. Not with what else was written to the volume: a
    /// disk that is being filled takes seconds for that, and whoever opens one of the files would wait.
    ///
    /// # Errors
    /// A failure of the volume; nothing is known to be durable then.
    pub fn sync_records(&self, files: &[&StubFile]) -> Result<()> {
        let Some(last) = files.last() else { return Ok(()) };
        if *self.journal.get_or_init(|| journals_in_order(self.fs, self.dev())) {
            // What was changed before is before it in the journal.
            return last.flush();
        }
        if files.len() > FLUSHED_ONE_BY_ONE {
            return self.sync();
        }
        files.iter().try_for_each(|file| file.flush())
    }

    /// Makes contents, lengths and records of these files durable, with one flush of the device for all where the volume's journal allows
    /// that, and nothing of what else was written to the volume. One answer for each: a failure, of which the kernel tells once, or that of
    /// the journal.
    pub fn sync_files(&self, files: &[&StubFile]) -> Vec<Result<()>> {
        let is_ordered = *self.journal.get_or_init(|| journals_in_order(self.fs, self.dev()));
        if files.len() < FLUSHED_TOGETHER || !is_ordered {
            return files.iter().map(|file| file.flush()).collect();
        }
        // All bytes reach the device, and with them what changes of the metadata once they are there.
        let begun = files.iter().map(|file| sys::writeback::begin(file.as_fd()));
        let begun: Vec<std::result::Result<(), Errno>> = begun.collect();
        let ended = files.iter().zip(begun).map(|(file, begun)| begun.and(sys::writeback::end(file.as_fd())));
        let written: Vec<Result<()>> =
            files.iter().zip(ended).map(|(file, ended)| ended.map_err(|errno| file.fail(errno, "flush"))).collect();
        // A file that is made after that is behind it all in the journal, and its flush is the device's. A full volume has no room for it.
        match self.staging().and_then(|staging| staging.unnamed()) {
            Err(_) => files.iter().zip(written).map(|(file, written)| written.and_then(|()| file.flush())).collect(),
            Ok(last) => {
                let flushed = rustix::fs::fsync(&last).map_err(|errno| self.fail(errno, "flush files of"));
                written.into_iter().map(|written| written.and(flushed.clone())).collect()
            }
        }
    }

    pub(crate) fn open_handle(&self, handle: &FileHandle, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        sys::handle::open_handle(self.dir.as_fd(), handle.handle_type(), handle.raw(), flags.bits() as i32)
    }

    fn fail(&self, errno: Errno, operation: &'static str) -> GateError {
        GateError::from_errno(errno, operation, self.dir.name())
    }
}

impl FsKind {
    fn of(fd: impl AsFd) -> std::result::Result<Self, Errno> {
        // The field is signed or not by architecture; magic numbers have 32 bits.
        let magic = rustix::fs::fstatfs(fd)?.f_type as u64 & 0xffff_ffff;
        Ok(match magic {
            0xef53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683e => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            other => Self::Other(other),
        })
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext4 => f.write_str("ext4"),
            Self::Xfs => f.write_str("xfs"),
            Self::Btrfs => f.write_str("btrfs"),
            Self::Tmpfs => f.write_str("tmpfs"),
            Self::Other(magic) => write!(f, "other ({magic:#x})"),
        }
    }
}

fn open_path(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
}

/// A detached mount of the folder, without the mounts below it.
fn private_clone(attached: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(attached, "", flags)?;
    // Kernels before 5.12 lack this call. What it adds is a second fence: this crate follows no symlink anyway.
    let _ = sys::mount::harden(&clone);
    // The tree descriptor is `O_PATH`; opening by handle and marks need a real one.
    open_beneath(&clone, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

fn probe_reflink(dir: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    let unnamed = || open_beneath(dir, OsStr::new("."), OFlags::RDWR | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR);
    let (source, target) = (unnamed()?, unnamed()?);
    rustix::io::pwrite(&source, &[1; 4096], 0)?;
    Ok(rustix::fs::ioctl_ficlone(&target, &source).is_ok())
}
