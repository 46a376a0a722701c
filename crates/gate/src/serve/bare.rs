//! Stubs that somebody opened while nobody guarded their volume.
//!
//! The kernel never asks about what is done through such a descriptor, and who keeps it goes on reading holes: the kernel's NFS
//! server does, as long as its clients read. So their content is brought, which he sees as well. **Invariant:** nobody is kept
//! waiting for this.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::guarded::{Guarded, tell};
use crate::guard::Told;
use crate::volume::{has_record, listed};
use crate::{FileHandle, sys};

/// Between two looks: a client of NFS that has to give a file back first is asked for it by the first try.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long it is tried.
const TRIES_FOR: Duration = Duration::from_secs(120);

impl Guarded {
    /// Wants the content of all stubs that somebody has open, on a thread of its own, if the volume was without guard.
    pub(super) fn want_open_stubs(self: &Arc<Self>) {
        if self.was_bare.swap(false, Ordering::Relaxed) {
            let volume = Arc::clone(self);
            std::thread::spawn(move || volume.want_them());
        }
    }

    fn want_them(&self) {
        let Some(mut stubs) = listed(self.mounted().top()) else { return };
        let begun = Instant::now();
        while !self.has_ended() && begun.elapsed() < TRIES_FOR {
            stubs.retain(|stub| self.is_open_stub(stub));
            if stubs.is_empty() {
                return;
            }
            tracing::warn!(
                count = stubs.len(),
                "Tiered files are open since nobody guarded the volume: their content is brought"
            );
            stubs.iter().for_each(|stub| self.post().hold(stub));
            tell(self.agent().as_ref(), stubs.iter().cloned().map(Told::Wanted).collect());
            std::thread::sleep(AGAIN);
        }
    }

    /// What cannot be looked at is nobody's, but for a file with somebody's lease.
    fn is_open_stub(&self, stub: &FileHandle) -> bool {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME | libc::O_CLOEXEC;
        match sys::handle::open_handle(self.mounted().top(), stub.handle_type(), stub.raw(), flags) {
            // The lease goes with the descriptor, before anybody notices.
            Ok(file) => has_record(&file).unwrap_or(false) && !sys::lease::take_write_lease(&file).unwrap_or(true),
            Err(errno) => errno == Errno::AGAIN,
        }
    }
}
