//! Room for what somebody waits for, where the volume is full: contents that were unused for longer go.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isotherm_core::trees::Handle;

use super::perform::Performer;
use super::{Candidate, News, hand_over};

/// Bytes that are freed beyond what is needed, so that not every recall has to look for some: this part of the volume, and
/// this much at most.
const SPARE_PART: u64 = 64;
const SPARE_MAX: u64 = 4 << 30;

/// Looks for what may go before nothing more is hoped for.
const LOOKS: usize = 4;
/// Between two of them: what came a moment ago may go when the catalog knows of it.
const SETTLES_IN: Duration = Duration::from_millis(1_000);
/// How long nobody looks again after nothing was found.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Knows what may go.
pub trait Room: Send + Sync + std::fmt::Debug {
    /// The files that were unused for longest, so many that their contents take `bytes` if there are that many, noted as ones that may
    /// be stubs soon; without those that could not go a moment ago. None where nothing may go.
    fn coldest(&self, bytes: u64, without: &BTreeSet<Handle>) -> Vec<Candidate>;
}

/// Who makes room, one at a time.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    /// How often there was more room afterwards.
    times: u64,
    /// When nothing was found last.
    found_nothing: Option<Instant>,
}

impl Performer {
    /// How often room was made.
    pub(super) fn room_made(&self) -> u64 {
        self.turn.lock().times
    }

    /// Frees some room for a content of so many bytes that has found none; whether there is more than before. `seen` is what
    /// [`Self::room_made`] said before that.
    pub(super) fn make_room(&self, bytes: u64, seen: u64) -> bool {
        let Some(room) = &self.room else { return false };
        let mut made = self.turn.lock();
        if made.times != seen {
            // Somebody who had his turn before may have made enough.
            return true;
        }
        if made.found_nothing.is_some_and(|at| at.elapsed() < AGAIN_AFTER) {
            return false;
        }
        let Ok(space) = self.root.space() else { return false };
        let spare = (space.total / SPARE_PART).min(SPARE_MAX);
        // What a file system calls free need not be free for contents (btrfs), so some goes whatever it says.
        let goal = bytes.saturating_sub(space.free_for_root).max(bytes / 2).saturating_add(spare);
        let (mut freed, mut in_use) = (0, BTreeSet::new());
        for _ in 0..LOOKS {
            if freed >= goal || self.ends.load(Ordering::Relaxed) {
                break;
            }
            let candidates = room.coldest(goal - freed, &in_use);
            let more = self.give_up_cold(&candidates, &mut in_use);
            freed += more;
            if more == 0 {
                in_use.clear();
                std::thread::sleep(SETTLES_IN);
            }
        }
        made.times += u64::from(freed > 0);
        made.found_nothing = (freed == 0).then(Instant::now);
        freed > 0
    }

    /// How many bytes went. Files that did not are noted.
    fn give_up_cold(&self, candidates: &[Candidate], in_use: &mut BTreeSet<Handle>) -> u64 {
        let results = hand_over(&self.inputs, candidates, |mine| self.tier(mine));
        let (mut gone, mut bytes) = (Vec::new(), 0);
        for (candidate, result) in candidates.iter().zip(results) {
            match result {
                Ok(()) => {
                    gone.push(candidate.file.clone());
                    bytes += candidate.print.size;
                }
                Err(why) => {
                    tracing::debug!(file = ?candidate.file, %why, "A cold file stays");
                    in_use.insert(candidate.file.clone());
                }
            }
        }
        if gone.is_empty() {
            return 0;
        }
        tracing::info!(files = gone.len(), bytes, "Cold files were tiered, for the volume is full");
        (self.tell)(News::Touched(gone));
        // What btrfs frees can be used when that is durable.
        if let Err(error) = self.root.sync() {
            tracing::warn!(%error, "What was freed may not be free yet");
        }
        bytes
    }
}

impl Turn {
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
