//! Lanes: who fetches contents, and whose turn it is.
//!
//! A content that somebody waits for goes before all that are only wanted, and these never take all hands: else whoever brings back
//! a tree would keep everybody from his files. Where a limit makes those wait that are only wanted, they wait with hands of their own, since
//! that may take hours. **Invariant:** what was given is taken once, until the lane is closed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isotherm_core::stub::{StubRecord, Units};
use isotherm_core::trees::Handle;

/// A content to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) file: Handle,
    pub(super) record: StubRecord,
    pub(super) what: Portion,
    /// It goes on while this says so.
    pub(super) wanted: Wanted,
    /// Somebody waits for it who could be told that there is no room.
    pub(super) is_awaited: bool,
}

/// Whether a fetch is still wanted. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Wanted {}

/// What of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Portion {
    /// All but what is here already.
    Rest(Units),
    /// These, for somebody who reads them.
    Units(Units),
}

/// Small contents that one hand fetches together, where nobody waits for any of them, and their bytes; and what is small.
const TOGETHER: usize = 16;
const TOGETHER_BYTES: u64 = 4 << 20;
const SMALL: u64 = 1 << 20;

/// Between two looks at whether a limit has begun, while somebody waits for a hand.
const LOOK: Duration = Duration::from_millis(200);

/// Whether a limit makes those wait whom nobody waits for.
type IsLimited = dyn Fn() -> bool + Send + Sync;

/// One lane.
pub(super) struct Lane {
    state: Mutex<State>,
    changed: Condvar,
    /// Hands that may be busy.
    hands: usize,
    is_limited: Box<IsLimited>,
    /// Hands that may be busy with what nobody waits for.
    unawaited_max: usize,
    /// Something got on since this was asked last.
    got_on: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    awaited: VecDeque<Fetch>,
    wanted: VecDeque<Fetch>,
    /// Hands that are busy with what somebody waits for.
    busy: usize,
    /// Hands that are busy with what nobody waits for.
    unawaited: usize,
    is_closed: bool,
}

impl Lane {
    /// Of so many hands.
    pub(super) fn new(hands: usize, is_limited: Box<IsLimited>) -> Self {
        let unawaited_max = (hands * 3 / 4).max(1);
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { state, changed, hands, is_limited, unawaited_max, got_on: AtomicBool::new(false) }
    }

    /// How many are to serve it: its hands, and others in place of those that wait because of a limit.
    pub(super) fn threads(&self) -> usize {
        self.hands + self.unawaited_max
    }

    pub(super) fn give(&self, fetch: Fetch) {
        let mut state = self.state();
        if fetch.is_awaited {
            state.awaited.push_back(fetch)
        } else {
            state.wanted.push_back(fetch)
        }
        // Whether there is a hand for it does not depend on which it is.
        self.changed.notify_one();
    }

    /// Somebody waits for this one now; nothing where it was taken, or is none of this lane's.
    pub(super) fn promote(&self, file: &Handle) {
        let mut state = self.state();
        while let Some(at) = state.wanted.iter().position(|fetch| fetch.file == *file)
            && let Some(fetch) = state.wanted.remove(at)
        {
            state.awaited.push_back(Fetch { is_awaited: true, ..fetch });
            self.changed.notify_all();
        }
    }

    /// Waits for the next one, or for several small ones that nobody waits for, works on it, and says whether there may be more.
    pub(super) fn serve(&self, work: impl FnOnce(Vec<Fetch>)) -> bool {
        let mut state = self.state();
        let fetches = loop {
            if state.is_closed {
                return false;
            }
            if let Some(fetch) = self.next(&mut state) {
                break self.with_more(fetch, &mut state);
            }
            state = if state.awaited.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0
            };
        };
        if !state.awaited.is_empty() || !state.wanted.is_empty() {
            self.changed.notify_one();
        }
        let is_awaited = fetches.iter().any(|fetch| fetch.is_awaited);
        *state.working(is_awaited) += 1;
        drop(state);
        self.note_progress();
        work(fetches);
        // This one looks for more itself.
        *self.state().working(is_awaited) -= 1;
        true
    }

    /// Small ones that nobody waits for come with others, as many as leave something for the other hands.
    fn with_more(&self, first: Fetch, state: &mut State) -> Vec<Fetch> {
        let is_small = |fetch: &Fetch| {
            matches!(&fetch.what, Portion::Rest(present) if present.is_empty()) && fetch.record.size <= SMALL && !fetch.is_awaited
        };
        // Where a limit makes them wait, whoever opens one would wait for those before it.
        let most = if (self.is_limited)() { 1 } else { TOGETHER.min(1 + state.wanted.len() / self.unawaited_max) };
        let (mut bytes, mut all) = (first.record.size, vec![first]);
        while all.len() < most
            && is_small(&all[0])
            && let Some(next) = state.wanted.front().filter(|next| is_small(next) && bytes + next.record.size <= TOGETHER_BYTES)
        {
            bytes += next.record.size;
            all.extend(state.wanted.pop_front());
        }
        all
    }

    /// The next one for which there is a hand.
    fn next(&self, state: &mut State) -> Option<Fetch> {
        if state.awaited.is_empty() && state.wanted.is_empty() {
            return None;
        }
        let waiting = if (self.is_limited)() { state.unawaited } else { 0 };
        if state.busy + state.unawaited - waiting >= self.hands {
            return None;
        }
        let may_want = state.unawaited < self.unawaited_max;
        state.awaited.pop_front().or_else(|| may_want.then(|| state.wanted.pop_front()).flatten())
    }

    /// Something that is being fetched got on.
    pub(super) fn note_progress(&self) {
        self.got_on.store(true, Ordering::Relaxed);
    }

    /// What has not been taken, if anything of the lane got on since this was asked last: it gets on too, since its turn comes.
    pub(super) fn moving(&self) -> Vec<Handle> {
        if !self.got_on.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let state = self.state();
        state.awaited.iter().chain(&state.wanted).map(|fetch| fetch.file.clone()).collect()
    }

    /// Nobody takes anything any more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn working(&mut self, is_awaited: bool) -> &mut usize {
        if is_awaited { &mut self.busy } else { &mut self.unawaited }
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use isotherm_core::ids::{NodeId, Version};
    use isotherm_core::stub::{Bound, ContentPrefix};

    use super::*;

    fn fetch(number: u8, is_awaited: bool) -> Fetch {
        let file = Handle(vec![number; 12].into());
        let manifest = isotherm_core::content::ManifestId::of(b"");
        let (content, bound) = (ContentPrefix::of(&manifest), Bound::to(&file));
        let record = StubRecord { node: NodeId::ROOT, version: Version::default(), content, size: SMALL + 1, bound };
        Fetch { file, record, what: Portion::Rest(Units::none()), wanted: Wanted::new(), is_awaited }
    }

    fn next(lane: &Lane) -> u8 {
        let mut number = 0;
        assert!(lane.serve(|fetches| number = fetches[0].file.0[0]));
        number
    }

    fn lane(is_limited: bool) -> Lane {
        Lane::new(4, Box::new(move || is_limited))
    }

    #[test]
    fn who_waits_goes_first_also_if_he_came_later() {
        let lane = lane(false);
        [fetch(1, false), fetch(2, false), fetch(3, true)].into_iter().for_each(|fetch| lane.give(fetch));
        lane.promote(&fetch(2, false).file);
        assert_eq!([next(&lane), next(&lane), next(&lane)], [3, 2, 1]);
        lane.close();
        assert!(!lane.serve(|_| panic!("there is nothing")));
    }

    #[test]
    fn what_nobody_waits_for_leaves_a_hand_free() {
        let lane = lane(false);
        (1..=4).for_each(|number| lane.give(fetch(number, false)));
        // Three of four hands are busy.
        lane.serve(|_| {
            lane.serve(|_| {
                lane.serve(|_| {
                    lane.give(fetch(9, true));
                    assert_eq!(next(&lane), 9);
                    assert_eq!(lane.state().unawaited, 3);
                });
            });
        });
        assert_eq!(next(&lane), 4);
    }

    #[test]
    fn what_waits_because_of_a_limit_takes_no_hand_from_those_who_are_waited_for() {
        for (is_limited, hands) in [(false, 1), (true, 4)] {
            let lane = lane(is_limited);
            (1..=4).for_each(|number| lane.give(fetch(number, false)));
            lane.serve(|_| {
                lane.serve(|_| {
                    lane.serve(|_| {
                        (11..=15).for_each(|number| lane.give(fetch(number, true)));
                        let mut busy = 0;
                        loop {
                            let mut state = lane.state();
                            let Some(next) = lane.next(&mut state) else { break };
                            assert!(next.is_awaited);
                            busy += 1;
                            state.busy = busy;
                        }
                        assert_eq!(busy, hands);
                        lane.state().busy = 0;
                    });
                });
            });
        }
        assert_eq!(lane(true).threads(), 4 + 3);
    }

    #[test]
    fn small_ones_come_together_unless_somebody_waits_for_them() {
        let lane = lane(false);
        let small = |number| {
            let fetch = fetch(number, false);
            Fetch { record: StubRecord { size: SMALL, ..fetch.record }, ..fetch }
        };
        let mut all: Vec<Fetch> = (1..=9).map(small).collect();
        all[2] = fetch(3, false);
        all.push(fetch(20, true));
        all.into_iter().for_each(|fetch| lane.give(fetch));
        let mut taken = Vec::new();
        while !lane.state().wanted.is_empty() {
            lane.serve(|fetches| taken.push(fetches.iter().map(|fetch| fetch.file.0[0]).collect::<Vec<u8>>()));
        }
        // Of nine, three hands take three or fewer each time.
        assert_eq!(taken, [vec![20], vec![1, 2], vec![3], vec![4, 5], vec![6, 7], vec![8], vec![9]]);
    }

    #[test]
    fn those_in_the_queue_get_on_with_the_others() {
        let lane = lane(false);
        lane.give(fetch(1, true));
        lane.give(fetch(2, false));
        assert_eq!(lane.moving(), []);
        lane.note_progress();
        assert_eq!(lane.moving().len(), 2);
        assert_eq!(lane.moving(), []);
    }
}
