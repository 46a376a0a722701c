//! One endpoint at work: a thread that owns the engine, and the threads that perform what it asks for.
//!
//! `wait -> handle -> perform`, as long as it runs. The engine decides; this module carries effects to whoever performs
//! them and events back. **Invariants:** the engine is told of one thing at a time; whatever goes wrong with folder or
//! catalog stops this endpoint with a reason and a remedy, is tried again by itself, and never stops another endpoint.

mod guarding;
mod open;
mod published;
mod repair;
mod workers;

pub(crate) use open::CATALOG;
pub(crate) use published::Published;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm_api::sync::{Assignment, EndpointState, OnStubs};
use isotherm_core::ids::{EndpointId, ServerId};
use isotherm_core::tiering::Policy;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::catalog::SqlCatalog;
use crate::engine::{CatalogFailure, Changed, Command, Event, Millis};
use crate::guarded::GuardedVolumes;
use crate::remote::Attachment;
use open::Opened;

/// Time after which a stopped endpoint is tried again.
const AGAIN: Duration = Duration::from_secs(3);
/// Time between two looks at the marker.
const CHECK: Duration = Duration::from_secs(5);
/// Time between two nonces (row 15).
const RENEW: Duration = Duration::from_secs(3_600);
/// Shortest time between two pictures for reports, unless there is agreement or none any more: somebody may wait for that.
const PUBLISH: Duration = Duration::from_millis(200);
/// Contents of so many portions that a limit lets pass come together: each such part is made durable once.
const APART: u64 = 8;
/// Longest wait without looking at the clock.
const IDLE: Duration = Duration::from_secs(1);
/// Events that are taken from the queue at a time, so that reports of changes are folded.
const TURN: usize = 256;

/// What an endpoint needs to know; another one of these means a new start.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) assignment: Assignment,
    /// Folder for the endpoint's catalog.
    pub(crate) state: PathBuf,
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) runtime: Handle,
    /// Names of the group's servers.
    pub(crate) servers: BTreeMap<ServerId, String>,
    /// The guarded volumes of this machine.
    pub(crate) guarded: Arc<GuardedVolumes>,
    /// Whom to tell that there is another picture.
    pub(crate) shown: Arc<Notify>,
}

/// Something for the endpoint's thread.
#[derive(Debug)]
pub(crate) enum Input {
    Event(Event),
    /// Confirm the present deletes, unless that was done for this number before.
    Confirmed(u64),
    /// What administrators say of tiering now.
    Tiering(bool, Policy),
    Stop,
}

/// Why a run of an endpoint ended.
pub(crate) enum End {
    Stopped,
    Failed { reason: String, remedy: String },
}

impl From<CatalogFailure> for End {
    fn from(failure: CatalogFailure) -> Self {
        Self::Failed { reason: failure.text, remedy: failure.remedy }
    }
}

/// A running endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) spec: Spec,
    inputs: Sender<Input>,
    published: Arc<Mutex<Published>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Starts the endpoint's thread.
    pub(crate) fn start(spec: Spec) -> Self {
        let (inputs, queue) = channel();
        let published = Arc::new(Mutex::new(Published::new(&spec.assignment)));
        let mut thread = Thread { spec: spec.clone(), inputs: inputs.clone(), queue, published: Arc::clone(&published) };
        let thread = std::thread::spawn(move || thread.run());
        Self { spec, inputs, published, thread: Some(thread) }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.spec.assignment.endpoint
    }

    /// Its latest picture.
    pub(crate) fn published(&self) -> Published {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tell(&self, input: Input) {
        // An endpoint whose thread has ended says so in its picture.
        let _ = self.inputs.send(input);
    }

    /// Takes over what can change without a new start; false if a new start is needed.
    pub(crate) fn take(&mut self, spec: &Spec) -> bool {
        let (old, new) = (&self.spec.assignment, &spec.assignment);
        let fixed = |assignment: &Assignment| Assignment {
            paused: false,
            barrier: 0,
            confirmed_deletes: 0,
            deleting: false,
            on_stubs: OnStubs::default(),
            tiering: false,
            policy: Policy::default(),
            ..assignment.clone()
        };
        if fixed(old) != fixed(new) || !Arc::ptr_eq(&self.spec.attachment, &spec.attachment) {
            return false;
        }
        let command = |command| self.tell(Input::Event(Event::Command(command)));
        if old.paused != new.paused {
            command(if new.paused { Command::Pause } else { Command::Resume });
        }
        if old.barrier != new.barrier {
            command(Command::Barrier(new.barrier));
        }
        if self.spec.servers != spec.servers {
            command(Command::Servers(spec.servers.clone()));
        }
        if old.confirmed_deletes != new.confirmed_deletes {
            self.tell(Input::Confirmed(new.confirmed_deletes));
        }
        if (old.tiering, &old.policy) != (new.tiering, &new.policy) {
            self.tell(Input::Tiering(new.tiering, new.policy.clone()));
        }
        self.spec = spec.clone();
        true
    }

    /// Stops it and waits until nothing of it is at work any more.
    pub(crate) fn stop(&mut self) {
        self.tell(Input::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(endpoint = %self.id(), "Endpoint ended with a panic");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The endpoint's thread.
struct Thread {
    spec: Spec,
    inputs: Sender<Input>,
    queue: Receiver<Input>,
    published: Arc<Mutex<Published>>,
}

impl Thread {
    fn run(&mut self) {
        loop {
            match self.run_once() {
                End::Stopped => return,
                End::Failed { reason, remedy } => {
                    tracing::error!(endpoint = %self.spec.assignment.endpoint, reason, remedy, "Endpoint is stopped");
                    self.publish(|published| published.report.state = EndpointState::Stopped { reason, remedy });
                }
            }
            if !self.pause_before_next() {
                return;
            }
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Published)) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut published);
        published.revision += 1;
    }

    /// Waits before the next try, and keeps what is to be known by then; false: stop.
    fn pause_before_next(&mut self) -> bool {
        let until = Instant::now() + AGAIN;
        loop {
            match self.queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Input::Event(Event::Command(command))) => self.keep(command),
                Ok(Input::Confirmed(number)) => self.spec.assignment.confirmed_deletes = number,
                Ok(Input::Tiering(tiering, policy)) => self.keep_tiering(tiering, &policy),
                // The next run looks at everything anyway.
                Ok(Input::Event(_)) => {}
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    fn keep_tiering(&mut self, tiering: bool, policy: &Policy) {
        let assignment = &mut self.spec.assignment;
        (assignment.tiering, assignment.policy) = (tiering, policy.clone());
    }

    fn keep(&mut self, command: Command) {
        match command {
            Command::Barrier(number) => self.spec.assignment.barrier = number,
            Command::Pause => self.spec.assignment.paused = true,
            Command::Resume => self.spec.assignment.paused = false,
            Command::Servers(servers) => self.spec.servers = servers,
            // Said again by who said it, or by the assignment.
            Command::ConfirmDeletes | Command::Tiers(_) | Command::Limited(_) | Command::Pin(..) | Command::NotComing(_) => {}
        }
    }

    /// Opens folder and catalog and works until something ends it.
    fn run_once(&mut self) -> End {
        let mut opened = match open::open(&self.spec, &self.inputs) {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let end = self.work(&mut opened).err().unwrap_or(End::Stopped);
        opened.workers.stop();
        end
    }

    fn work(&mut self, opened: &mut Opened) -> Result<(), End> {
        for command in self.first_commands() {
            self.turn(opened, Event::Command(command))?;
        }
        self.confirm(opened, self.spec.assignment.confirmed_deletes)?;
        let mut published_at = Instant::now();
        // Whether something happened since the last picture, and what it said to those who wait for agreement.
        let (mut fresh, mut shown) = (true, None);
        let mut limited = None;
        loop {
            let together = self.spec.attachment.limiter.portion_down(false).map(|bytes| bytes.saturating_mul(APART));
            if together != limited {
                limited = together;
                self.turn(opened, Event::Command(Command::Limited(together)))?;
            }
            let now = opened.now();
            let tick = opened.engine.next_tick(now).map_or(IDLE, |due| Duration::from_millis(due.saturating_sub(now)));
            let picture = if fresh { PUBLISH.saturating_sub(published_at.elapsed()) } else { IDLE };
            let event = match self.queue.recv_timeout(tick.min(picture)) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for input in self.gather(event) {
                fresh = true;
                match input {
                    Input::Stop => return Ok(()),
                    Input::Confirmed(number) => self.confirm(opened, number)?,
                    Input::Tiering(tiering, policy) => {
                        self.keep_tiering(tiering, &policy);
                        opened.set_tiering(tiering, policy.clone());
                        self.turn(opened, Event::Command(Command::Tiers(tiering.then_some(policy))))?;
                    }
                    Input::Event(event) => {
                        if let Event::Command(command) = &event {
                            self.keep(command.clone());
                        }
                        self.turn(opened, event)?;
                    }
                }
            }
            let now = opened.now();
            if opened.engine.next_tick(now).is_some_and(|due| due <= now) {
                self.turn(opened, Event::Tick)?;
                fresh = true;
            }
            opened.keep_marker(CHECK, RENEW)?;
            let age = published_at.elapsed();
            let agreement = Some(opened.engine.agreement());
            if age >= IDLE || (fresh && age >= PUBLISH) || agreement != shown {
                self.picture(opened);
                (published_at, fresh, shown) = (Instant::now(), false, agreement);
            }
        }
    }

    fn first_commands(&self) -> Vec<Command> {
        let assignment = &self.spec.assignment;
        let pause = assignment.paused.then_some(Command::Pause);
        let barrier = (assignment.barrier > 0).then_some(Command::Barrier(assignment.barrier));
        let tiers = Command::Tiers(assignment.tiering.then(|| assignment.policy.clone()));
        [tiers].into_iter().chain(pause).chain(barrier).collect()
    }

    /// What is in the queue, with reports of changes that follow each other made one.
    fn gather(&self, first: Option<Input>) -> Vec<Input> {
        let mut inputs: Vec<Input> = Vec::new();
        for input in first.into_iter().chain(self.queue.try_iter().take(TURN)) {
            match (input, inputs.last_mut()) {
                (Input::Event(Event::Changed(more)), Some(Input::Event(Event::Changed(changes)))) => {
                    let more: Vec<Changed> = more;
                    changes.extend(more);
                }
                (input, _) => inputs.push(input),
            }
        }
        inputs
    }

    fn turn(&mut self, opened: &mut Opened, event: Event) -> Result<(), End> {
        opened.keep_names()?;
        let now = opened.now();
        let is_piece = matches!(event, Event::Snapshot(Ok(_)));
        let effects = opened.engine.handle(event, now)?;
        if is_piece {
            opened.workers.took_piece();
        }
        for effect in effects {
            opened.workers.perform(effect);
        }
        Ok(())
    }

    /// An operator's word counts once, also over restarts.
    fn confirm(&mut self, opened: &mut Opened, number: u64) -> Result<(), End> {
        self.spec.assignment.confirmed_deletes = number;
        if number <= opened.confirmed {
            return Ok(());
        }
        opened.confirmed = number;
        self.turn(opened, Event::Command(Command::ConfirmDeletes))?;
        SqlCatalog::set_value_beside(&opened.catalog_path, open::CONFIRMED, &number.to_le_bytes())?;
        Ok(())
    }

    fn picture(&self, opened: &mut Opened) {
        let now = opened.now();
        let status = opened.engine.status(now);
        let transfers = opened.engine.take_transfers();
        let sizes = opened.engine.catalog().sizes();
        let traffic = opened.share.traffic().totals();
        opened.workers.set_standing(&opened.engine, status.counts.up_bytes);
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let before = published.revision;
        published.update(published::Facts { status, transfers, sizes, traffic, watch: &opened.watch, notes: &opened.notes, now });
        if published.revision != before {
            self.spec.shown.notify_one();
        }
    }
}

impl Opened {
    /// The engine's clock.
    fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }
}
