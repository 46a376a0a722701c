//! What a thread that waits for an answer is about to do, from the system call that it stands in.
//!
//! The kernel says that a file is opened and not what for. While the thread waits its call cannot change, so `/proc` tells.
//! **Invariant:** what is not known counts as writing, which waits for everything.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group::Touch;

/// What an access is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// It reads.
    Read,
    /// It writes, cuts, or it cannot be told.
    Write,
    /// It opens the file and empties it in the same call. Nothing of the content is wanted.
    Empty,
    /// A thread of the kernel itself (an NFS server's): it can be told to try again, and does so by itself.
    Kernel,
    /// It opens the file for reading, through the mount at which users see the volume: what it reads there is asked about. Through
    /// others, such as those of containers and layers, somebody could map it without being asked about (DESIGN 7.4).
    OpenToRead,
    /// It reads so many bytes from there on into its memory, through a descriptor that it has. Nothing else: no mapping, no clone.
    ReadRange(u64, u64),
}

impl Purpose {
    /// The same for an agent that knows no more than the first four.
    #[must_use]
    pub const fn in_general(self) -> Self {
        match self {
            Self::OpenToRead | Self::ReadRange(..) => Self::Read,
            other => other,
        }
    }
}

/// Flag of a kernel thread in the ninth field of `/proc/PID/stat`, `PF_KTHREAD` of `linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What a waiting thread is about to do that touches a file like this. `thread` is 0 where it lives in a pid namespace that cannot be
/// seen; `is_attached` tells whether it came through the mount at which users see the volume.
#[must_use]
pub fn purpose(thread: i32, touch: Touch, is_attached: impl FnOnce() -> bool) -> Purpose {
    if thread <= 0 {
        return Purpose::Write;
    }
    if fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| is_kernel_thread(&stat)) {
        return Purpose::Kernel;
    }
    let call = call_of(thread).map_or(Does::Otherwise(Purpose::Write), |call| of_call(&call));
    match (call, touch) {
        (Does::Open(Purpose::Read), Touch::Open) if is_attached() => Purpose::OpenToRead,
        (Does::Read, Touch::Content(offset, len)) if len > 0 => Purpose::ReadRange(offset, len),
        // Nothing is opened by reading: the number is another call's in a program of 32 bits.
        (Does::Read, Touch::Open) => Purpose::Write,
        (Does::Read, _) => Purpose::Read,
        (Does::Open(purpose) | Does::Otherwise(purpose), _) => purpose,
    }
}

/// A thread that has been put off by others before it could wait is `running` to `/proc`: what it is about to do shows in a moment.
const STILL_RUNS: Duration = Duration::from_micros(200);
const TRIES: usize = 20;

/// The call of a thread that waits, or is about to.
fn call_of(thread: i32) -> Option<String> {
    let mut call = None;
    for _ in 0..TRIES {
        call = fs::read_to_string(format!("/proc/{thread}/syscall")).ok();
        if call.as_ref().is_none_or(|call| call.trim_end() != "running") {
            break;
        }
        std::thread::sleep(STILL_RUNS);
    }
    call
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It opens a file.
    Open(Purpose),
    /// It reads into memory.
    Read,
    /// Anything else.
    Otherwise(Purpose),
}

/// The program that a thread belongs to, and who runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// As the kernel names it, at most 15 bytes; empty where it cannot be seen, as in another pid namespace.
    pub name: String,
    /// Number of the process.
    pub process: i32,
    /// Number of the user whose rights it has.
    pub user: u32,
}

/// Whose thread it is.
#[must_use]
pub fn program(thread: i32) -> Program {
    let read = |process: i32, what: &str| fs::read_to_string(format!("/proc/{process}/{what}")).unwrap_or_default();
    let status = if thread > 0 { read(thread, "status") } else { String::new() };
    let field = |name: &str, at: usize| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(at)?.parse::<i64>().ok()
    };
    let process = field("Tgid:", 0).and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
    // The second is the effective one.
    let user = field("Uid:", 1).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let name = if process > 0 { read(process, "comm").trim_end().to_owned() } else { String::new() };
    Program { name, process, user }
}

/// The system call that a thread stands in, to be compared with later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    thread: i32,
    line: String,
    user_ticks: Option<u64>,
}

impl Call {
    /// The call of a thread that waits for an answer.
    pub(super) fn of(thread: i32) -> Self {
        Self { thread, line: line_of(thread).unwrap_or_default(), user_ticks: user_ticks(thread) }
    }

    /// Whether the thread has left the call since, or is gone. A thread that runs or waits for a processor may still be in it;
    /// one that has used time outside of the kernel is not.
    pub(super) fn has_ended(&self) -> bool {
        match line_of(self.thread) {
            None => true,
            Some(line) if line.trim_end() == "running" => user_ticks(self.thread) != self.user_ticks,
            Some(line) => line != self.line,
        }
    }
}

fn line_of(thread: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{thread}/syscall")).ok()
}

/// Whether a thread is there at all.
pub(super) fn is_alive(thread: i32) -> bool {
    thread <= 0 || fs::exists(format!("/proc/{thread}")).unwrap_or(true)
}

/// Processor time outside of the kernel, the fourteenth field of `/proc/PID/stat`.
fn user_ticks(thread: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(11)?.parse().ok()
}

/// Fields are counted behind the program's name, which stands in brackets and may hold any character.
fn is_kernel_thread(stat: &str) -> bool {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let flags = fields.split_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// A line of `/proc/TID/syscall`: the number of the call and its arguments, or `running`.
fn of_call(line: &str) -> Does {
    let mut fields = line.split_whitespace();
    let Some(Ok(call)) = fields.next().map(str::parse::<i64>) else { return Does::Otherwise(Purpose::Write) };
    let arguments: Vec<u64> = fields.map_while(|field| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok()).collect();
    let argument = |at: usize| arguments.get(at).copied();
    match call {
        libc::SYS_openat | libc::SYS_open_by_handle_at => Does::Open(argument(2).map_or(Purpose::Write, of_flags)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Does::Open(argument(1).map_or(Purpose::Write, of_flags)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => Does::Open(Purpose::Empty),
        libc::SYS_mmap => Does::Otherwise(of_mapping(argument(2), argument(3))),
        libc::SYS_execve | libc::SYS_execveat => Does::Otherwise(Purpose::Read),
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_readv | libc::SYS_preadv | libc::SYS_preadv2 => Does::Read,
        _ => Does::Otherwise(Purpose::Write),
    }
}

fn of_flags(flags: u64) -> Purpose {
    let has = |bits: i32| flags & bits as u64 != 0;
    if has(libc::O_TRUNC) {
        Purpose::Empty
    } else if has(libc::O_WRONLY | libc::O_RDWR) {
        Purpose::Write
    } else {
        Purpose::Read
    }
}

fn of_mapping(protection: Option<u64>, flags: Option<u64>) -> Purpose {
    let (Some(protection), Some(flags)) = (protection, flags) else { return Purpose::Write };
    let is_shared = flags & libc::MAP_PRIVATE as u64 == 0;
    if is_shared && protection & libc::PROT_WRITE as u64 != 0 { Purpose::Write } else { Purpose::Read }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, arguments: [u64; 6]) -> Does {
        let arguments: String = arguments.iter().map(|argument| format!(" 0x{argument:x}")).collect();
        of_call(&format!("{number}{arguments} 0x7ffd 0x7f00\n"))
    }

    #[test]
    fn opens_are_told_apart_by_their_flags() {
        let open = |flags: i32| call(libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]);
        assert_eq!(open(libc::O_RDONLY | libc::O_CLOEXEC), Does::Open(Purpose::Read));
        assert_eq!(open(libc::O_RDWR), Does::Open(Purpose::Write));
        assert_eq!(open(libc::O_WRONLY | libc::O_APPEND), Does::Open(Purpose::Write));
        assert_eq!(open(libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC), Does::Open(Purpose::Empty));
        assert_eq!(call(libc::SYS_openat2, [0; 6]), Does::Otherwise(Purpose::Write));
    }

    #[test]
    fn what_cannot_be_told_counts_as_writing() {
        for line in ["running", "", "-1 0x0 0x0", "257", "257 0x0", "x y", "9 0x0 0x0 zz"] {
            assert!(matches!(of_call(line), Does::Open(Purpose::Write) | Does::Otherwise(Purpose::Write)), "{line}");
        }
        assert_eq!(purpose(0, Touch::Open, || true), Purpose::Write);
        assert_eq!(purpose(i32::MAX, Touch::Content(0, 1), || true), Purpose::Write);
    }

    #[test]
    fn a_private_mapping_reads_whatever_its_protection() {
        let map = |protection: i32, flags: i32| call(libc::SYS_mmap, [0, 0, protection as u64, flags as u64, 0, 0]);
        assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE), Does::Otherwise(Purpose::Read));
        assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED), Does::Otherwise(Purpose::Write));
        assert_eq!(map(libc::PROT_READ, libc::MAP_SHARED), Does::Otherwise(Purpose::Read));
    }

    #[test]
    fn kernel_threads_are_known_by_their_flag() {
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"));
        assert!(!is_kernel_thread("1 (a) S 2 (x)) S 0 1 1 0 -1 4194560 1 2"));
        assert_eq!(purpose(2, Touch::Open, || true), Purpose::Kernel, "thread 2 is the kernel's own");
    }
}
