//! Signals of a thread.

/// No signal is handed to the calling thread from now on, but those that cannot be kept away. Answers whether it could be done.
pub(crate) fn keep_away() -> bool {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset writes a whole set to where the pointer says, and pthread_sigmask only reads it; without a place for the old
    // set it writes nothing.
    unsafe {
        libc::sigfillset(all.as_mut_ptr()) == 0
            && libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) == 0
    }
}

#[cfg(test)]
mod tests {
    /// As the kernel shows it: all but those that it never keeps away, and two of the C library's own.
    #[test]
    fn no_signal_reaches_a_thread_that_wants_none() {
        let blocked = std::thread::spawn(|| {
            assert!(super::keep_away());
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).map(str::trim).map(str::to_owned);
            line.and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or(0)
        });
        let blocked = blocked.join().unwrap_or(0);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGIO, libc::SIGUSR1] {
            assert!(blocked & (1 << (signal - 1)) != 0, "{signal} in {blocked:x}");
        }
    }
}
