//! The fanotify group that is asked before content is touched: marks, questions, answers.
//!
//! Three rules of the kernel shape it. Descriptors of events are read-only, since others would break running programs and
//! read-only mounts. The queue has no bound, since what does not fit is let through. Marks that must not get lost are
//! pinned; only marks that say "no need to ask" may be evictable.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::sys;
use crate::sys::fanotify::FAN_PRE_ACCESS;
use crate::watch::parse::{ParseError, RawEvent, parse_events};

/// What is asked: opens, also of programs, and each touch of content.
const MASK: u64 = libc::FAN_OPEN_PERM | FAN_PRE_ACCESS;

/// The part of it in the kernel's masks that only groups like this one set: whatever has it is guarded.
pub(crate) const ASKS_BEFORE_CONTENT: i32 = FAN_PRE_ACCESS as i32;
/// What the mark of a file system still has in the kernel's masks when only single files are asked about: two events that no group
/// of this product asks for, and that nobody else has together.
pub(crate) const ALIVE_SIGN: i32 = (libc::FAN_OPEN_EXEC | libc::FAN_OPEN_EXEC_PERM) as i32;

/// Size of the buffer for one read, in bytes: one question about content, or two about opens. For each the kernel opens its file, and
/// that may wait for somebody's lease: not many should be kept by one.
const READ_BUFFER_BYTES: usize = 48;

/// How long after its last mark somebody may still come to a group, far above what the kernel needs between the two.
const LATE_COMERS: Duration = Duration::from_millis(100);
/// As many descriptors as a gate may hold.
const NUMBERS_MAX: u64 = 1 << 20;

/// Why the kernel cannot ask before content is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardUnavailable {
    /// The process lacks CAP_SYS_ADMIN.
    #[error("the process may not guard files (it needs CAP_SYS_ADMIN)")]
    NotPrivileged,
    /// The kernel is too old, or built without it.
    #[error("the kernel does not ask before content is touched (Linux 6.14 with CONFIG_FANOTIFY_ACCESS_PERMISSIONS is needed)")]
    Kernel,
    /// The file system does not take part.
    #[error("the file system does not let content be guarded (ext4, XFS and btrfs do)")]
    FileSystem,
    /// Anything else.
    #[error("{0}")]
    Other(ErrorKind),
}

/// Questions cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The gate's process is not there, or does not know the volume.
    #[error("The gate does not answer: {0}")]
    Gate(String),
    /// Reading failed.
    #[error("Cannot read questions of the kernel: {0}")]
    Read(ErrorKind),
    /// The kernel's records were not understood.
    #[error("Cannot read questions of the kernel: {0}")]
    Parse(#[from] ParseError),
}

/// What somebody is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Open the file.
    Open,
    /// Touch bytes: where they begin and how many, rounded to pages. Not to be trusted for appends, clones and shifts.
    Content(u64, u64),
}

/// An errno that the kernel takes as the reason of a refusal; there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// EPERM.
    NotAllowed,
    /// EIO: the content cannot be had.
    Io,
    /// EAGAIN: try again, for callers that do so by themselves.
    Again,
    /// EBUSY: the content did not come in time.
    Busy,
    /// ENOSPC: the content has no room.
    NoSpace,
    /// EDQUOT.
    Quota,
}

/// A group. Whoever holds a duplicate of its descriptor keeps it alive.
#[derive(Debug, Clone)]
pub struct Group {
    fd: Arc<OwnedFd>,
}

/// Somebody waits until this is answered. Dropping it refuses with EIO.
#[derive(Debug)]
pub struct Question {
    group: Group,
    file: OwnedFd,
    /// What is about to happen.
    pub touch: Touch,
    /// Thread that does it, 0 if unknown in this pid namespace.
    pub thread: i32,
    answered: bool,
}

impl Group {
    /// A new group without marks.
    ///
    /// # Errors
    /// [`GuardUnavailable`], with the reason.
    pub fn new() -> Result<Self, GuardUnavailable> {
        let fd = sys::fanotify::init(sys::fanotify::GUARD).map_err(|errno| match errno {
            Errno::PERM => GuardUnavailable::NotPrivileged,
            Errno::NOSYS | Errno::INVAL => GuardUnavailable::Kernel,
            other => GuardUnavailable::Other(other.into()),
        })?;
        Ok(Self::from_fd(fd))
    }

    /// A group that another process made. Questions that it read and did not answer have to be swept first.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Asks about each file of the file system of `fd`.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn guard_file_system(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, fd)
    }

    /// Asks only about marked files of the file system of `fd` from now on.
    ///
    /// A mark stays that asks nothing. Whoever waits at this group holds on to the next mark of the file system too, and a process
    /// whose mark that is, such as an agent that was killed, cannot end until he is answered. So the next mark is one of this group.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn release_file_system(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        let place = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM | libc::FAN_MARK_IGNORE_SURV;
        // The safety net knows by it that somebody guards the stubs.
        sys::fanotify::mark(&*self.fd, place, ALIVE_SIGN as u64, &fd).map_err(unavailable)?;
        self.mark(libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM, fd)
    }

    /// Asks about this file. Who has it open already is asked only if it was guarded then.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn guard_file(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        self.mark(libc::FAN_MARK_ADD, fd)
    }

    /// Does not ask about this file by itself any more. No error if it was not asked.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn release_file(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        let released = sys::fanotify::mark(&*self.fd, libc::FAN_MARK_REMOVE, MASK, fd);
        if released == Err(Errno::NOENT) { Ok(()) } else { released.map_err(unavailable) }
    }

    /// Where the whole file system is asked: not about this file, for as long as its inode stays in memory.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn spare_file(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_EVICTABLE, fd)
    }

    /// Takes back [`Self::spare_file`]. No error if it was not spared, or not any more.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn unspare_file(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        let taken = sys::fanotify::mark(&*self.fd, libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORE, MASK, fd);
        if taken == Err(Errno::NOENT) { Ok(()) } else { taken.map_err(unavailable) }
    }

    /// Asks about nothing that happens through the mount of `fd`: the private clone that the product works through.
    ///
    /// # Errors
    /// [`GuardUnavailable`].
    pub fn spare_mount(&self, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        self.mark(libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT | libc::FAN_MARK_IGNORE_SURV, fd)
    }

    /// Reads what is asked; empty if nothing is. The group's descriptor tells by poll when something is.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn read(&self) -> Result<Vec<Question>, GuardError> {
        let mut buffer = [0; READ_BUFFER_BYTES];
        let len = match retry_on_intr(|| rustix::io::read(&*self.fd, &mut buffer)) {
            Ok(len) => len,
            Err(Errno::AGAIN) => 0,
            Err(errno) => return Err(GuardError::Read(errno.into())),
        };
        Ok(parse_events(&buffer[..len])?.into_iter().filter_map(|event| self.question(&event)).collect())
    }

    /// Refuses what another process read and did not answer, so that its callers ask again; answers how many there were.
    ///
    /// The kernel finds a question by the number that its descriptor had in the process that read it. Before the first read:
    /// a new question may get the number of an old one, and then the old one is let through in its place.
    #[must_use]
    pub fn sweep(&self, numbers: std::ops::Range<i32>) -> usize {
        numbers.filter(|number| sys::fanotify::respond(&*self.fd, *number, Some(Errno::AGAIN)).is_ok()).count()
    }

    /// Whether it is the same group, by another descriptor; none where the kernel does not tell.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> Option<bool> {
        sys::handle::is_same_file(&*self.fd, &*other.fd)
    }

    /// Ends a group that nobody answers for any more: whoever waits is refused, so that he asks again. Answers how many did. If it
    /// only went, the kernel would let them through.
    #[must_use]
    pub fn abandon(&self) -> usize {
        for place in [libc::FAN_MARK_FILESYSTEM, libc::FAN_MARK_MOUNT, 0] {
            // No such marks is what is wanted.
            let _ = sys::fanotify::mark(&*self.fd, libc::FAN_MARK_FLUSH | place, 0, &*self.fd);
        }
        // Those first of whom nobody has heard: the numbers of all others are many.
        let mut refused = self.refuse_all();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(NUMBERS_MAX).min(NUMBERS_MAX);
        refused += self.sweep(0..i32::try_from(limit).unwrap_or(i32::MAX));
        // Also of those who had seen a mark just before it went, and ask only now.
        let until = Instant::now() + LATE_COMERS;
        while Instant::now() < until {
            refused += self.refuse_all();
            std::thread::sleep(LATE_COMERS / 10);
        }
        refused + self.refuse_all()
    }

    /// Refuses whoever has asked and was not read of; how many did.
    fn refuse_all(&self) -> usize {
        let mut refused = 0;
        while let Ok(questions) = self.read()
            && !questions.is_empty()
        {
            refused += questions.len();
            questions.into_iter().for_each(|question| question.refuse(Refusal::Again));
        }
        refused
    }

    fn question(&self, event: &RawEvent) -> Option<Question> {
        // Where it can make no descriptor the kernel has refused by itself.
        let file = sys::fanotify::take_event_fd(event.fd)?;
        let touch = match event.range {
            Some((offset, count)) if event.mask & FAN_PRE_ACCESS != 0 => Touch::Content(offset, count),
            None if event.mask & FAN_PRE_ACCESS != 0 => Touch::Content(0, 0),
            _ => Touch::Open,
        };
        Some(Question { group: self.clone(), file, touch, thread: event.pid, answered: false })
    }

    fn mark(&self, flags: u32, fd: impl AsFd) -> Result<(), GuardUnavailable> {
        sys::fanotify::mark(&*self.fd, flags, MASK, fd).map_err(unavailable)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Question {
    /// The file, as a read-only descriptor that is never asked about.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Lets it go on.
    pub fn allow(self) {
        self.answer(None);
    }

    /// Refuses it.
    pub fn refuse(self, refusal: Refusal) {
        self.answer(Some(refusal.errno()));
    }

    fn answer(mut self, refusal: Option<Errno>) {
        self.respond(refusal);
    }

    fn respond(&mut self, refusal: Option<Errno>) {
        self.answered = true;
        // It fails only where nobody waits any more: the caller was killed.
        let _ = sys::fanotify::respond(&self.group, self.file.as_raw_fd(), refusal);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.answered {
            self.respond(Some(Errno::IO));
        }
    }
}

impl Refusal {
    fn errno(self) -> Errno {
        match self {
            Self::NotAllowed => Errno::PERM,
            Self::Io => Errno::IO,
            Self::Again => Errno::AGAIN,
            Self::Busy => Errno::BUSY,
            Self::NoSpace => Errno::NOSPC,
            Self::Quota => Errno::DQUOT,
        }
    }
}

fn unavailable(errno: Errno) -> GuardUnavailable {
    match errno {
        Errno::PERM => GuardUnavailable::NotPrivileged,
        Errno::OPNOTSUPP | Errno::NODEV => GuardUnavailable::FileSystem,
        Errno::NOSYS | Errno::INVAL => GuardUnavailable::Kernel,
        other => GuardUnavailable::Other(other.into()),
    }
}
