//! Room for what somebody waits for, where the volume is full: contents that have been here for longest go.
//!
//! **Invariant:** nothing goes where all that may go would not be enough.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use isotherm_core::ids::EndpointId;
use isotherm_core::tiering::Reason;
use isotherm_core::trees::Handle;
use isotherm_gate::Space;

use super::perform::Performer;
use super::{Candidate, Happening, News, What, hand_over};
use crate::clock::wall_ms;

/// Bytes that are freed beyond what is needed, so that not every recall has to look for some: this part of the volume, and
/// this much at most.
const SPARE_PART: u64 = 64;
const SPARE_MAX: u64 = 4 << 30;

/// Files that go together: each takes two descriptors until it has gone, and who opens one waits for all.
const TOGETHER: usize = 256;
/// Looks for what may go before nothing more is hoped for.
const LOOKS: usize = 4;
/// Between two of them: what came a moment ago may go when the catalog knows of it.
const SETTLES_IN: Duration = Duration::from_millis(1_000);
/// Between two looks at whether it is one's turn.
const TURN_AGAIN: Duration = Duration::from_millis(20);
/// How long nobody looks again for as much after too little was found.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A file whose content may go.
#[derive(Clone, Debug)]
pub struct Cold {
    /// The endpoint that it belongs to.
    pub endpoint: EndpointId,
    /// The file, and what it would stand for.
    pub candidate: Candidate,
    /// What its content takes on the disk.
    pub bytes: u64,
    /// Why it goes.
    pub reason: Reason,
}

/// Knows what may go.
pub trait Room: Send + Sync + std::fmt::Debug {
    /// The files that have been here for longest, so many that their contents take `bytes` if there are that many, but none of
    /// `without`. `go_on` is asked now and then; none when it says no, and where nothing may go.
    fn coldest(&self, bytes: u64, without: &BTreeSet<Handle>, go_on: &dyn Fn() -> bool) -> Vec<Cold>;

    /// Whether there is less room than somebody asks for, also when so many bytes more are free.
    fn is_short(&self, freed: u64) -> bool;

    /// Notes durably that these may be stubs soon; false if that was not possible, or they are not to go any more.
    fn note(&self, cold: &[Cold]) -> bool;
}

/// Who makes room, one at a time.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    /// How often there was more room afterwards.
    times: u64,
    /// For how many bytes too little was found last, and when.
    too_little: Option<(u64, Instant)>,
}

impl Performer {
    /// How often room was made.
    pub(super) fn room_made(&self) -> u64 {
        self.turn.lock().times
    }

    /// Frees some room for a content of so many bytes that has found none; whether to try again. `seen` is what
    /// [`Self::room_made`] said before that; the first time it is asked also where there is room by now.
    pub(super) fn make_room(&self, bytes: u64, (seen, is_first): (u64, bool), progress: &dyn Fn()) -> bool {
        let Some(room) = &self.room else { return false };
        let mut made = self.turn.wait(progress);
        if made.times != seen {
            // Somebody who had his turn before may have made enough.
            return true;
        }
        if made.too_little.is_some_and(|(least, at)| bytes >= least && at.elapsed() < AGAIN_AFTER) {
            return false;
        }
        let Ok(space) = self.root.space() else { return false };
        // Policies may have made room since, or it is a quota that has none: which of both, the next try tells.
        let Some(goal_at_first) = goal(bytes, &space) else { return is_first };
        // Without the spare; an estimate says more than there is, so what is not enough by it never is.
        let enough = bytes.saturating_sub(space.free_for_root).max(1);
        let (mut freed, mut in_use) = (0, BTreeSet::new());
        for look in 0..LOOKS {
            // Others make room too, for policies.
            if look > 0 && self.root.space().is_ok_and(|space| goal(bytes, &space).is_none()) {
                freed = freed.max(enough);
                break;
            }
            let goal = goal_at_first;
            let go_on = || {
                progress();
                !self.ends.load(Ordering::Relaxed)
            };
            let cold = room.coldest(goal - freed, &in_use, &go_on);
            if freed + cold.iter().map(|cold| cold.bytes).sum::<u64>() < enough {
                in_use.clear();
                std::thread::sleep(SETTLES_IN);
                continue;
            }
            for part in cold.chunks(TOGETHER) {
                if freed >= goal || !go_on() {
                    break;
                }
                freed += self.give_up_cold(&**room, part, &mut in_use);
            }
            if freed >= goal || !go_on() {
                break;
            }
        }
        made.times += u64::from(freed > 0);
        made.too_little = (freed < enough).then(|| (bytes, Instant::now()));
        freed >= enough
    }

    /// How many bytes went. Files that did not are noted.
    fn give_up_cold(&self, room: &dyn super::Room, cold: &[Cold], in_use: &mut BTreeSet<Handle>) -> u64 {
        let candidates: Vec<Candidate> = cold.iter().map(|cold| cold.candidate.clone()).collect();
        if !room.note(cold) {
            return 0;
        }
        let results = hand_over(&self.inputs, &candidates, |mine| self.tier(mine));
        let (mut gone, mut happened, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (cold, result) in cold.iter().zip(results) {
            match result {
                Ok(()) => {
                    let record = &cold.candidate.record;
                    happened.push(Happening::new(record.node, What::TieredForRecall, wall_ms(), record.size));
                    gone.push(cold.candidate.file.clone());
                    bytes += cold.bytes;
                }
                Err(why) => {
                    tracing::debug!(file = ?cold.candidate.file, %why, "A cold file stays");
                    in_use.insert(cold.candidate.file.clone());
                }
            }
        }
        if gone.is_empty() {
            return 0;
        }
        tracing::info!(files = gone.len(), bytes, "Cold files were tiered, for the volume is full");
        self.tell(News::Happened(happened));
        self.tell(News::Went(gone));
        // What btrfs frees can be used when that is durable.
        if let Err(error) = self.root.sync() {
            tracing::warn!(%error, "What was freed may not be free yet");
        }
        bytes
    }
}

/// How much is to go for a content of so many bytes that has found no room; none where there is more than enough: then it is a quota
/// that has no room, and nothing that goes would help.
fn goal(bytes: u64, space: &Space) -> Option<u64> {
    let spare = (space.total / SPARE_PART).min(SPARE_MAX);
    let missing = bytes.saturating_add(spare).saturating_sub(space.free_for_root);
    // What is called free may be reserved for something else.
    let missing = if space.is_estimate { missing.max(bytes / 2 + spare) } else { missing };
    (missing > 0).then_some(missing)
}

impl Turn {
    /// Waits for the turn of others, who get on themselves.
    fn wait(&self, progress: &dyn Fn()) -> MutexGuard<'_, Made> {
        loop {
            match self.0.try_lock() {
                Ok(made) => return made,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    progress();
                    std::thread::sleep(TURN_AGAIN);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_goes_as_is_missing_and_a_little_more_but_nothing_for_a_quota() {
        let space = |free_for_root, is_estimate| Space { total: 6_400, free: 0, free_for_root, is_estimate };
        assert_eq!(goal(1_000, &space(0, false)), Some(1_100));
        assert_eq!(goal(1_000, &space(1_050, false)), Some(50));
        assert_eq!(goal(1_000, &space(5_000, false)), None);
        assert_eq!(goal(1_000, &space(5_000, true)), Some(600));
    }
}
