//! The agent's process, as the gate knows it: what it does itself it must never be asked about.
//!
//! It works through mounts that are spared, but a gate that has just begun does not know these mounts yet. If it asked the agent
//! about the agent's own work, each would wait for the other.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process that is known to be the agent. **Invariant:** its number has not been given to another one while it is alive here.
#[derive(Debug)]
pub struct AgentProcess {
    number: i32,
    handle: OwnedFd,
}

impl AgentProcess {
    /// The process of this number; the caller makes sure afterwards that it still is the one he means. None if there is none.
    #[must_use]
    pub fn of(number: i32) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
        Some(Self { number, handle })
    }

    /// Whether a thread is one of its own.
    #[must_use]
    pub fn has(&self, thread: i32) -> bool {
        // In this order: a number that another process has by now belongs to an agent that has ended before.
        thread > 0 && std::fs::exists(format!("/proc/{}/task/{thread}", self.number)).unwrap_or(false) && self.is_alive()
    }

    fn is_alive(&self) -> bool {
        let mut asked = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ended| ended == 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use super::*;

    fn this_thread() -> i32 {
        std::fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn a_process_has_its_threads_until_it_ends() {
        let own = AgentProcess::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let thread = std::thread::spawn(this_thread).join().unwrap();
        assert!(own.has(this_thread()));
        assert!(!own.has(thread), "it has ended");
        assert!(!own.has(0) && !own.has(1));
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let other = AgentProcess::of(number).unwrap();
        assert!(other.has(number) && !own.has(number));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!other.has(number));
        assert!(AgentProcess::of(0).is_none());
    }
}
