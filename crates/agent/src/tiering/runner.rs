//! Who lets contents go by themselves, for each guarded volume.
//!
//! It looks at the free space several times a second, which costs one system call, and at the files only when some have to go.
//! **Invariants:** nothing goes while the share is not known; what goes is asked for in batches, and before each it is asked again
//! whether it has to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm_core::tiering::{Plan, Policy, Reason, Volume};
use isotherm_core::trees::Handle;
use isotherm_gate::ErrorKind;

use super::cold::{Ground, cold_files};
use super::filler::fill;
use super::frees::planned;
use super::uses::listen;
use crate::clock::wall_ms;
use crate::dedup;
use crate::guarded::GuardedVolume;
use crate::recall::{Cold, NotTiered};

/// Between two looks at the free space, at most.
const LOOK: Duration = Duration::from_millis(250);
/// At least.
const LOOK_MIN: Duration = Duration::from_millis(5);
/// Bytes a second that no disk of today takes: before half of what is free could be filled, it is looked at again.
const FILLS_BY_SECOND: u64 = 4 << 30;
/// Between two looks at what has become old, or a quarter of the shortest age.
const AGES: Duration = Duration::from_secs(300);
/// After a plan that found too little, and so many times as long as it took: what has just come may go when it is safe in the share.
const AGAIN: (Duration, u32) = (Duration::from_secs(5), 20);
/// The same where the volume runs low.
const AGAIN_LOW: (Duration, u32) = (Duration::from_secs(1), 4);
/// Between two times at which uses are kept.
const KEEP: Duration = Duration::from_secs(30);
/// The same of what happened to contents.
const KEEP_HISTORY: Duration = Duration::from_secs(1);
/// Files and bytes that go together: each file takes two descriptors until it has gone, and who opens one waits for all.
const TOGETHER: usize = 256;
const TOGETHER_BYTES: u64 = 64 << 20;
/// For how long a file is left alone that did not go: because it is in use, and because something is not known yet.
const STUCK: Duration = Duration::from_secs(600);
const STUCK_SHORTLY: Duration = Duration::from_secs(5);
/// How many of these are remembered.
const STUCK_MAX: usize = 100_000;
/// Files in one plan.
const PLANNED: usize = 20_000;

/// Its threads: one that lets go, one that notes what is used, one that has come what should be here, and one that keeps what happened,
/// and one that has equal contents share blocks.
#[derive(Debug)]
pub(crate) struct Runner {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What is asked for and how it stands.
#[derive(Debug, Clone)]
pub(crate) struct Situation {
    /// Endpoints whose contents may go.
    pub(crate) grounds: Vec<Ground>,
    /// The volume.
    pub(crate) volume: Volume,
}

impl Runner {
    pub(crate) fn start(volume: Weak<GuardedVolume>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let turn = Turn { ends: Arc::clone(&ends), ..Turn::default() };
        let (heard, until) = (Weak::clone(&volume), Arc::clone(&ends));
        let (filled, meanwhile) = (Weak::clone(&volume), Arc::clone(&ends));
        let (noted, so_long) = (Weak::clone(&volume), Arc::clone(&ends));
        let (shared, as_long) = (Weak::clone(&volume), Arc::clone(&ends));
        let threads = vec![
            std::thread::spawn(move || turn.run(&volume)),
            std::thread::spawn(move || listen(&heard, &until)),
            std::thread::spawn(move || fill(&filled, &meanwhile)),
            std::thread::spawn(move || keep_history(&noted, &so_long)),
            std::thread::spawn(move || dedup::run(&shared, &as_long)),
        ];
        Self { ends, threads }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The last user of a volume may be one of them.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("Tiering ended with a panic");
            }
        }
    }
}

/// Keeps what happened to contents, until it is to end: nobody who waits for one waits for that.
fn keep_history(volume: &Weak<GuardedVolume>, ends: &AtomicBool) {
    let mut kept = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        if kept.elapsed() >= KEEP_HISTORY {
            let Some(volume) = volume.upgrade() else { return };
            volume.history().write();
            kept = Instant::now();
        }
    }
}

#[derive(Debug, Default)]
struct Turn {
    ends: Arc<AtomicBool>,
    /// Not before this time for space again.
    again: Option<Instant>,
    /// Policies for which ages were looked at, and when.
    aged: Option<(Vec<Policy>, Instant)>,
    /// Contents that did not go, and until when they are left alone: else the coldest, which is always open, would keep all others.
    stuck: BTreeMap<Handle, Instant>,
    /// How long it took to look at all files last.
    took: Duration,
    kept: Option<Instant>,
    was_low: bool,
}

impl Turn {
    fn run(mut self, volume: &Weak<GuardedVolume>) {
        while !self.ends.load(Ordering::Relaxed)
            && let Some(volume) = volume.upgrade()
        {
            let pause = self.look(&volume);
            drop(volume);
            std::thread::sleep(pause);
        }
    }

    /// Does what is to be done now; how long to wait then.
    fn look(&mut self, volume: &Arc<GuardedVolume>) -> Duration {
        if self.kept.is_none_or(|at| at.elapsed() >= KEEP) {
            self.kept = Some(Instant::now());
            volume.heat().write();
        }
        let Some(situation) = volume.situation() else { return LOOK };
        self.tell_low(&situation.volume, volume);
        // Before anything that somebody may use as a whole.
        if situation.volume.needed() > 0 && volume.give_up_parts() {
            return LOOK;
        }
        let needs_space = situation.volume.needed() > 0 && self.again.is_none_or(|at| Instant::now() >= at);
        if needs_space || self.is_age_due(&situation.grounds) {
            self.tier(volume, &situation);
        }
        let filled_in = Duration::from_secs_f64(situation.volume.free as f64 / FILLS_BY_SECOND as f64);
        (filled_in / 2).clamp(LOOK_MIN, LOOK)
    }

    fn is_age_due(&mut self, grounds: &[Ground]) -> bool {
        let asking: Vec<Policy> =
            grounds.iter().map(|ground| ground.policy.clone()).filter(|policy| policy.older_than_s.is_some()).collect();
        let shortest = asking.iter().filter_map(|policy| policy.older_than_s).min().map(Duration::from_secs);
        let every = shortest.map_or(AGES, |age| AGES.min(age / 4)).max(self.took * AGAIN.1);
        let is_done = self.aged.as_ref().is_some_and(|(policies, at)| *policies == asking && at.elapsed() < every);
        if is_done || asking.is_empty() {
            return false;
        }
        self.aged = Some((asking, Instant::now()));
        true
    }

    fn tell_low(&mut self, space: &Volume, volume: &GuardedVolume) {
        let is_low = space.is_low();
        if is_low != self.was_low {
            self.was_low = is_low;
            // What had to stay a moment ago may go now.
            self.again = None;
            let (path, free) = (volume.path().display(), space.free);
            if is_low {
                tracing::warn!(%path, free, "A volume runs low: contents that came a moment ago go too");
            } else {
                tracing::info!(%path, free, "A volume has room again");
            }
        }
    }

    fn tier(&mut self, volume: &Arc<GuardedVolume>, situation: &Situation) {
        let ends = Arc::clone(&self.ends);
        let go_on = || !ends.load(Ordering::Relaxed);
        let begun = Instant::now();
        self.stuck.retain(|_, until| Instant::now() < *until);
        let stuck: BTreeSet<Handle> = self.stuck.keys().cloned().collect();
        let plan = |more| {
            let plan = Plan::new(situation.volume, wall_ms(), PLANNED).with_more(more);
            cold_files((volume.root(), &situation.grounds), volume.heat(), plan, &stuck, &go_on)
        };
        let (cold, in_vain) = planned((volume.root(), volume.dedup()), situation.volume.needed(), plan);
        in_vain.iter().for_each(|cold| self.leave_alone(cold, &NotTiered::Shared));
        self.took = begun.elapsed();
        let (mut files, mut bytes, mut refused) = (0, 0, None);
        for part in parts(&cold) {
            let part = still_needed(volume, part);
            if part.is_empty() || !go_on() {
                continue;
            }
            for (cold, result) in part.iter().zip(volume.give_up(&part, &situation.grounds)) {
                match result {
                    Some(Ok(())) => {
                        files += 1;
                        bytes += cold.bytes;
                    }
                    Some(Err(why)) => {
                        self.leave_alone(cold, &why);
                        refused = refused.or(if let NotTiered::Volume(error) = why { Some(error) } else { None });
                    }
                    None => {}
                }
            }
        }
        if let Some(error) = refused {
            tracing::warn!(path = %volume.path().display(), %error, "The volume refuses to let contents go");
        }
        if files > 0 {
            tracing::info!(path = %volume.path().display(), files, bytes, "Cold contents went");
        }
        // Somebody may need more at once; otherwise not everything is looked at again in a moment.
        let is_low = volume.situation().is_some_and(|situation| situation.volume.is_low());
        let (least, times) = if is_low { AGAIN_LOW } else { AGAIN };
        let pause = least.max(self.took * times);
        let others_may_go = files > 0 || self.stuck.len() > stuck.len();
        self.again = (!others_may_go).then(|| Instant::now() + pause);
    }
}

impl Turn {
    fn leave_alone(&mut self, cold: &Cold, why: &NotTiered) {
        tracing::debug!(file = ?cold.candidate.file, %why, "A cold file stays");
        let span = match why {
            // The catalog will know in a moment.
            NotTiered::Changed | NotTiered::IsStub | NotTiered::Held => STUCK_SHORTLY,
            // As soon as anything is free they may go.
            NotTiered::Volume(error) if error.kind() == ErrorKind::NoSpace => STUCK_SHORTLY,
            NotTiered::InUse | NotTiered::Shared | NotTiered::Volume(_) => STUCK,
        };
        if self.stuck.len() < STUCK_MAX {
            self.stuck.insert(cold.candidate.file.clone(), Instant::now() + span);
        }
    }
}

/// A plan in pieces.
fn parts(mut cold: &[Cold]) -> impl Iterator<Item = &[Cold]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = cold.iter().take(TOGETHER).take_while(|cold| {
            let is_first = bytes == 0;
            bytes += cold.bytes.max(1);
            is_first || bytes <= TOGETHER_BYTES
        });
        let (part, rest) = cold.split_at(fits.count());
        cold = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// What of a part of a plan still has to go: for space only while there is too little.
fn still_needed(volume: &GuardedVolume, part: &[Cold]) -> Vec<Cold> {
    let Some(situation) = volume.situation() else { return Vec::new() };
    let space = situation.volume;
    let mut missing = space.levels().enough.saturating_sub(space.free);
    let mut wanted = Vec::new();
    for cold in part {
        if cold.reason == Reason::Age || missing > 0 {
            missing = missing.saturating_sub(cold.bytes);
            wanted.push(cold.clone());
        }
    }
    wanted
}
