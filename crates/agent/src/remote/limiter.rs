//! Keeps what administrators limit: who sends content to the service, or gets some from it, passes here first.
//!
//! Whoever has to wait does so before he asks the service for anything, and holds nothing meanwhile that others need. Demand, which is
//! what somebody waits for who opens a file, passes at once unless a limit is for it too; what it takes counts, so that the others wait
//! longer. **Invariant:** nobody waits for bytes that are not wanted any more, or for a limit that is gone.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isotherm_core::bandwidth::{Bucket, InForce, Limit, Millis, Moment, Rate};

use crate::clock::wall_moment;
use crate::volume::Errand;

/// Between two looks at whether what waits is still wanted, and for whom.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at the clock on the wall.
const CLOCK_MS: Millis = 500;
/// Content that is asked for or sent at once is what passes in this time: larger amounts would wait long and then come all together.
const PORTION_S: u64 = 2;

/// What passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// What is sent.
    Up,
    /// What comes and nobody waits for.
    Down,
    /// What comes and somebody waits for.
    Demand,
}

/// One of a server's agent, for all endpoints.
#[derive(Debug)]
pub struct Limiter {
    started: Instant,
    clock: fn() -> Moment,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    limits: Vec<Limit>,
    in_force: InForce,
    looked: Option<Millis>,
    tickets: u64,
    up: Line,
    down: Line,
    demand: Line,
}

/// A bucket, where there is a limit, and those who wait for it, the first at the front.
#[derive(Debug, Default)]
struct Line {
    bucket: Option<Bucket>,
    waiting: VecDeque<u64>,
}

impl Line {
    fn set_rate(&mut self, rate: Option<Rate>, now: Millis) {
        match (rate, &mut self.bucket) {
            (Some(rate), Some(bucket)) => bucket.set_rate(rate, now),
            (rate, bucket) => *bucket = rate.map(|rate| Bucket::new(rate, now)),
        }
    }

    fn note(&mut self, bytes: u64, now: Millis) {
        if let Some(bucket) = &mut self.bucket {
            bucket.note(bytes, now);
        }
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.give_back(bytes);
        }
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|waiting| *waiting != ticket);
    }

    /// Takes bytes for this ticket when its turn has come, or says in how long it may.
    fn take(&mut self, ticket: u64, bytes: u64, now: Millis) -> Result<(), Millis> {
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        if !self.waiting.contains(&ticket) {
            self.waiting.push_back(ticket);
        }
        // Who stands in front says when he goes.
        if self.waiting.front() == Some(&ticket) { bucket.take(bytes, now) } else { Err(Millis::MAX) }
    }
}

impl State {
    fn line(&mut self, kind: Kind) -> &mut Line {
        match kind {
            Kind::Up => &mut self.up,
            Kind::Down => &mut self.down,
            Kind::Demand => &mut self.demand,
        }
    }

    /// Whether a ticket passes, and what it has paid then; else when it may.
    fn pass(&mut self, ticket: u64, kind: Kind, bytes: u64, now: Millis) -> Result<u64, Millis> {
        let others = [Kind::Up, Kind::Down, Kind::Demand].into_iter().filter(|other| *other != kind);
        others.for_each(|other| self.line(other).leave(ticket));
        if kind == Kind::Down && !self.demand.waiting.is_empty() && self.down.bucket.is_some() {
            return Err(Millis::MAX);
        }
        self.line(kind).take(ticket, bytes, now)?;
        self.line(kind).leave(ticket);
        match kind {
            Kind::Up => {}
            Kind::Down => self.demand.note(bytes, now),
            // What passes without a limit counts as it comes.
            Kind::Demand if self.demand.bucket.is_none() => return Ok(0),
            Kind::Demand => self.down.note(bytes, now),
        }
        Ok(bytes)
    }

    fn look(&mut self, now: Millis, clock: fn() -> Moment) {
        if self.looked.is_some_and(|looked| now < looked + CLOCK_MS) {
            return;
        }
        self.looked = Some(now);
        // Without limits nobody asks for the time, which means reading the zone's file now and then.
        let in_force = if self.limits.is_empty() { InForce::default() } else { InForce::at(&self.limits, clock()) };
        if in_force != self.in_force {
            tracing::info!(up = ?in_force.up, down = ?in_force.down, demand = ?in_force.demand, "Other limits are in force");
            self.in_force = in_force;
            self.up.set_rate(in_force.up, now);
            self.down.set_rate(in_force.down, now);
            self.demand.set_rate(in_force.demand, now);
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::with_clock(wall_moment)
    }
}

impl Limiter {
    /// Without a limit, by this clock.
    fn with_clock(clock: fn() -> Moment) -> Self {
        Self { started: Instant::now(), clock, state: Mutex::default(), changed: Condvar::new() }
    }

    /// These limits count from now on, also for who waits.
    pub fn set(&self, limits: Vec<Limit>) {
        let mut state = self.state();
        if state.limits != limits {
            state.limits = limits;
            state.looked = None;
            self.changed.notify_all();
        }
    }

    /// The limits as they were set.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        self.state().limits.clone()
    }

    /// What is in force now.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        let mut state = self.state();
        state.look(self.now(), self.clock);
        state.in_force
    }

    /// Bytes that are sent at once at most; none where as many as usual are.
    #[must_use]
    pub fn portion_up(&self) -> Option<u64> {
        self.in_force().up.map(portion)
    }

    /// Bytes that are asked for at once at most; none where as many as usual are.
    #[must_use]
    pub fn portion_down(&self, is_awaited: bool) -> Option<u64> {
        let in_force = self.in_force();
        if is_awaited { in_force.demand } else { in_force.down }.map(portion)
    }

    /// Waits until so many bytes may be sent; false if they are not wanted any more.
    pub fn send(&self, bytes: u64, go_on: &dyn Fn() -> bool) -> bool {
        self.wait(bytes, &|| Kind::Up, go_on, &|| {}).is_some()
    }

    /// Waits until so many bytes may be asked for; none if they are not wanted any more. Meanwhile it is told again and again that this
    /// gets on: it does, although nothing comes.
    pub fn get(&self, bytes: u64, go_on: &dyn Fn() -> bool, errand: &Errand<'_>) -> Option<Turn<'_>> {
        let kind = || if (errand.is_awaited)() { Kind::Demand } else { Kind::Down };
        let (kind, paid) = self.wait(bytes, &kind, &|| go_on() && (errand.go_on)(), errand.heard)?;
        Some(Turn { limiter: self, kind, paid })
    }

    /// A turn for what is no content, which neither waits nor counts.
    #[must_use]
    pub fn uncounted(&self) -> Turn<'_> {
        Turn { limiter: self, kind: Kind::Down, paid: 0 }
    }

    fn wait(&self, bytes: u64, kind: &dyn Fn() -> Kind, go_on: &dyn Fn() -> bool, heard: &dyn Fn()) -> Option<(Kind, u64)> {
        let mut waiting = Ticket { limiter: self, number: None };
        loop {
            // Whoever is asked may hold locks of his own.
            let kind = kind();
            if !go_on() {
                return None;
            }
            let mut state = self.state();
            let now = self.now();
            state.look(now, self.clock);
            let number = *waiting.number.get_or_insert_with(|| {
                state.tickets += 1;
                state.tickets
            });
            match state.pass(number, kind, bytes, now) {
                Ok(paid) => {
                    waiting.number = None;
                    self.changed.notify_all();
                    return Some((kind, paid));
                }
                Err(wait) => {
                    let wait = LOOK.min(Duration::from_millis(wait));
                    drop(self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner));
                }
            }
            heard();
        }
    }

    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody in a line, which he leaves however it ends.
struct Ticket<'a> {
    limiter: &'a Limiter,
    number: Option<u64>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.limiter.state();
            [Kind::Up, Kind::Down, Kind::Demand].into_iter().for_each(|kind| state.line(kind).leave(number));
            self.limiter.changed.notify_all();
        }
    }
}

/// Somebody who may ask for content.
#[derive(Debug)]
pub struct Turn<'a> {
    limiter: &'a Limiter,
    kind: Kind,
    /// Bytes that were counted and have not come.
    paid: u64,
}

impl Turn<'_> {
    /// So many bytes have come.
    pub fn came(&mut self, bytes: u64) {
        let unpaid = bytes.saturating_sub(self.paid);
        self.paid = self.paid.saturating_sub(bytes);
        if unpaid > 0 && self.kind == Kind::Demand {
            let mut state = self.limiter.state();
            let now = self.limiter.now();
            state.down.note(unpaid, now);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.paid > 0 {
            let mut state = self.limiter.state();
            state.down.give_back(self.paid);
            state.demand.give_back(self.paid);
            self.limiter.changed.notify_all();
        }
    }
}

fn portion(rate: Rate) -> u64 {
    rate.bytes_per_s().saturating_mul(PORTION_S)
}

#[cfg(test)]
mod tests;
