//! How many threads read the kernel's questions: one, but more while somebody's lease keeps it.
//!
//! To hand out a question the kernel opens its file, which waits for whoever has a lease on that, for up to 45 seconds
//! (`fs.lease-break-time`). Everybody may take leases on his own files. **Invariant:** there is always one more reader than are kept,
//! up to a bound.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A read that takes so long is kept by somebody.
const KEPT_AFTER: Duration = Duration::from_millis(200);
/// Readers of one volume.
const READERS_MAX: usize = 64;

/// The readers of a volume.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    count: usize,
    /// Who reads now, and since when.
    reading: BTreeMap<u64, Instant>,
}

impl Readers {
    /// The number of one more reader, if one is needed: all others are kept.
    pub(super) fn one_more(&self) -> Option<u64> {
        let mut state = self.state();
        let kept = state.reading.values().filter(|since| since.elapsed() >= KEPT_AFTER).count();
        (kept == state.count && state.count < READERS_MAX).then(|| {
            state.count += 1;
            state.last += 1;
            state.last
        })
    }

    /// Whether anybody reads now.
    pub(super) fn is_any_reading(&self) -> bool {
        !self.state().reading.is_empty()
    }

    pub(super) fn begins(&self, reader: u64) {
        self.state().reading.insert(reader, Instant::now());
    }

    /// It has read; false if it is not needed any more.
    pub(super) fn ends(&self, reader: u64) -> bool {
        let mut state = self.state();
        state.reading.remove(&reader);
        let is_needed = state.count - state.reading.len() <= 1;
        state.count -= usize::from(!is_needed);
        is_needed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_comes_for_each_that_is_kept_and_goes_again() {
        let readers = Readers::default();
        assert_eq!((readers.one_more(), readers.one_more()), (Some(1), None));
        readers.begins(1);
        assert_eq!(readers.one_more(), None, "not at once");
        readers.state().reading.insert(1, Instant::now().checked_sub(KEPT_AFTER).unwrap_or_else(Instant::now));
        assert_eq!((readers.one_more(), readers.one_more()), (Some(2), None));
        readers.begins(2);
        assert!(readers.ends(2), "the other one is kept");
        assert!(!readers.ends(1));
        assert!(!readers.is_any_reading());
        assert_eq!(readers.one_more(), None);
    }
}
