//! How the safety stop counts deletes: which nodes are old enough, and when there are too many.
//!
//! Applications make and remove files all the time (lock files, saves through a second file), so what was made within the
//! window does not add up over it. What is deleted within the same few seconds does, however young it is: files that are
//! new to the share may be old to those who own them.

use std::collections::VecDeque;

use isotherm_core::ids::{Cursor, Incarnation, NodeId, Version};
use isotherm_core::trees::{Record, State};

use super::{Catalog, Limits, Millis};

/// Time between two marks. What was made in the first such part of the window counts as old.
const MARK_EVERY_MS: Millis = 60_000;
/// Nodes that are read at a time while old ones are counted.
const COUNTED_AT_ONCE: usize = 1_000;

/// Where the share stood at a moment of the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: Millis,
    life: Incarnation,
    /// The head of the share: what was made later is younger than the mark.
    version: Version,
    /// How many nodes there were.
    nodes: u64,
}

impl Mark {
    fn is_old(&self, record: &Record) -> bool {
        // What the share never named cannot be told to be young.
        record.remote.as_ref().is_none_or(|node| node.versions.created <= self.version)
    }
}

/// Marks of the window, in memory only: after a start nothing is known to be young but what is made from then on.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<Mark>);

impl Marks {
    /// Notes that the share was read to its head just now.
    pub(super) fn note(&mut self, cursor: Cursor, nodes: u64, window: Millis, now: Millis) {
        self.0.retain(|mark| mark.life == cursor.incarnation && mark.at + window >= now);
        if self.0.back().is_none_or(|mark| mark.at + MARK_EVERY_MS <= now) {
            self.0.push_back(Mark { at: now, life: cursor.incarnation, version: cursor.version, nodes });
        }
    }

    /// The oldest mark of the window: whatever was made after it is young for sure. A mark from before the window says
    /// nothing where the service was away since.
    pub(super) fn first(&self, cursor: Option<Cursor>, window: Millis, now: Millis) -> Option<Mark> {
        let life = cursor?.incarnation;
        self.0.iter().find(|mark| mark.life == life && mark.at + window >= now).copied()
    }
}

/// What deletes of one side are judged by.
pub(super) struct Case<'a> {
    /// How many wait.
    pub(super) waiting: u64,
    /// Nodes of the endpoint.
    pub(super) nodes: u64,
    /// How many an administrator has confirmed.
    pub(super) confirmed: u64,
    pub(super) mark: Option<Mark>,
    pub(super) limits: &'a Limits,
    pub(super) now: Millis,
}

impl Case<'_> {
    fn share_of(&self, nodes: u64) -> u64 {
        if self.limits.deletes_percent >= 100 {
            // All may go, also one after the other.
            return u64::MAX;
        }
        self.limits.deletes_free.max(nodes.max(1) * self.limits.deletes_percent / 100)
    }
}

/// Deletes that one side made.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// When deletes of old nodes were carried out, within the window.
    recent: VecDeque<Millis>,
    /// When any were, within the last seconds.
    just_now: VecDeque<Millis>,
    /// How many were waiting when this was last judged, and until when more are expected to follow.
    waiting: u64,
    pub(super) growing_until: Millis,
    /// They are held back: how many would have been allowed when that began. What is added to the share later does not
    /// set them free.
    pub(super) held: Option<u64>,
    counted: Option<Counted>,
}

/// How many of those that wait are old, as it was last counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    waiting: u64,
    since: Version,
    old: u64,
    /// Counting ended here; there may be more.
    cut: bool,
}

impl Side {
    pub(super) fn is_held(&self, now: Millis) -> bool {
        self.held.is_some() || now < self.growing_until
    }

    /// A delete has been carried out; it is not among those that wait any more. So each counts once, however often it was
    /// tried.
    pub(super) fn carried_out(&mut self, before: Option<&Record>, mark: Option<Mark>, now: Millis) {
        let is_old = mark.is_none_or(|mark| before.is_none_or(|record| mark.is_old(record)));
        self.just_now.push_back(now);
        if is_old {
            self.recent.push_back(now);
        }
        if let Some(counted) = &mut self.counted {
            counted.waiting = counted.waiting.saturating_sub(1);
            counted.old = counted.old.saturating_sub(u64::from(is_old));
        }
    }

    /// Deletes of old nodes within the window that were carried out.
    pub(super) fn recent(&self) -> u64 {
        self.recent.len() as u64
    }

    /// Those that an earlier run carried out count as made now.
    pub(super) fn recall(&mut self, recent: u64, held: Option<u64>) {
        self.recent.extend(std::iter::repeat_n(0, usize::try_from(recent).unwrap_or(0)));
        self.held = held;
    }

    /// A confirmation covers what waits and whatever counts together with it.
    pub(super) fn to_confirm(&self, waiting: u64) -> u64 {
        waiting + self.recent.len().max(self.just_now.len()) as u64
    }

    pub(super) fn forget(&mut self) {
        self.recent.clear();
        self.just_now.clear();
    }

    /// Decides whether what waits is held back. `count` counts the old ones among it, up to a number.
    pub(super) fn judge(&mut self, case: &Case<'_>, count: impl FnOnce(Mark, u64) -> u64) {
        let (limits, now, waiting) = (case.limits, case.now, case.waiting);
        expire(&mut self.recent, limits.deletes_window_ms, now);
        expire(&mut self.just_now, limits.deletes_together_ms, now);
        // Deletes trickle in; they are judged together.
        if waiting > self.waiting && waiting > limits.deletes_settle_from {
            self.growing_until = now + limits.deletes_settle_ms;
        }
        self.waiting = waiting;
        let (recent, just_now) = (self.recent.len() as u64, self.just_now.len() as u64);
        let cap = |allowed: u64| self.held.map_or(allowed, |held| held.min(allowed));
        let there_were = case.nodes + recent;
        let allowed = cap(case.share_of(there_were));
        // Many new files do not make it all right to delete many old ones.
        let allowed_old = cap(case.share_of(case.mark.map_or(there_were, |mark| mark.nodes.min(there_were))));
        let at_once = waiting + just_now > allowed.max(case.confirmed);
        let most = allowed_old.max(case.confirmed).saturating_sub(recent);
        let old = if waiting > most { self.old(case, most, count) } else { 0 };
        self.held = match (waiting > 0 && at_once, old > most) {
            (_, true) => Some(allowed_old),
            (true, false) => Some(allowed),
            (false, false) => None,
        };
    }

    /// How many of those that wait are old, or more than `most`. Counted again only when something else waits than before.
    fn old(&mut self, case: &Case<'_>, most: u64, count: impl FnOnce(Mark, u64) -> u64) -> u64 {
        let Some(mark) = case.mark else { return case.waiting };
        let is_known =
            |known: &Counted| known.waiting == case.waiting && known.since == mark.version && (!known.cut || known.old > most);
        if let Some(known) = self.counted.filter(is_known) {
            return known.old;
        }
        let old = count(mark, most);
        self.counted = Some(Counted { waiting: case.waiting, since: mark.version, old, cut: old > most });
        old
    }
}

fn expire(times: &mut VecDeque<Millis>, within: Millis, now: Millis) {
    while times.front().is_some_and(|at| at + within < now) {
        times.pop_front();
    }
}

/// Counts the nodes in this state that are older than the mark; ends once there are more than `most`.
pub(super) fn count_old(catalog: &impl Catalog, state: State, mark: Mark, most: u64) -> u64 {
    let (mut old, mut after) = (0, None);
    loop {
        let nodes: Vec<NodeId> = catalog.unsettled(after, COUNTED_AT_ONCE);
        let records = nodes.iter().filter_map(|node| catalog.record(*node));
        old += records.filter(|record| record.state() == state && mark.is_old(record)).count() as u64;
        after = nodes.last().copied();
        if old > most || nodes.len() < COUNTED_AT_ONCE {
            return old;
        }
    }
}
