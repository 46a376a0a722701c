//! One guarded volume: its mount, its post, and the threads that answer for it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::GateFailure;
use super::kept::Held;
use super::list::Listed;
use super::readers::Readers;
use crate::device::{Mounted, find};
use crate::guard::{AgentProcess, Group, Post, Told};
use crate::link::{ENTRIES_MAX, FromGate, SPEAKS_OF_PARTS, VolumeId, VolumeState};
use crate::lock::{LockError, lock_exclusive};

/// How long a caller waits where there is no agent, or one that says nothing (DESIGN 7.4).
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at who was killed or has returned, while anybody waits.
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// Between two looks at everything else.
const IDLE: Duration = Duration::from_millis(200);

/// A volume that users see, guarded.
#[derive(Debug)]
pub(super) struct Guarded {
    listed: Listed,
    post: Post,
    mounted: Mutex<Mounted>,
    agent: Mutex<Option<AgentLink>>,
    agents: AtomicU64,
    readers: Readers,
    /// Since when there is no agent, where there is none.
    alone_since: Mutex<Instant>,
    agent_lock: PathBuf,
    is_kept: AtomicBool,
    settles: AtomicBool,
    /// Only stubs are asked about.
    by_inode: AtomicBool,
    /// Users saw it before anybody guarded it.
    pub(super) was_bare: AtomicBool,
    ends: AtomicBool,
}

/// The agent that attends.
#[derive(Debug)]
pub(super) struct AgentLink {
    pub(super) number: u64,
    /// What it can say.
    pub(super) speech: u16,
    pub(super) queue: Sender<FromGate>,
    pub(super) heard: Instant,
}

/// The lock that an agent holds while it works on a volume.
pub(crate) fn agent_lock(run: &Path, id: VolumeId) -> PathBuf {
    run.join(format!("agent-{id}.lock"))
}

impl Guarded {
    /// Mounts a volume, guards it, and attaches it.
    pub(super) fn begin(listed: Listed, run: &Path) -> Result<Arc<Self>, GateFailure> {
        let settings = &listed.settings;
        let (device, superblock) = find(listed.id.0, &settings.device)?;
        let mut mounted = Mounted::new(&device, &superblock, &settings.options)?;
        let group = Group::new()?;
        group.guard_file_system(mounted.top())?;
        // The gate reads the list of stubs through it.
        group.spare_mount(mounted.top())?;
        let was_bare = mounted.is_at(&settings.path);
        if was_bare {
            tracing::error!(
                path = %settings.path.display(),
                "The volume was attached and nobody guarded it: every process that did had ended, or it stands in /etc/fstab too"
            );
        } else {
            mounted.attach(&settings.path)?;
        }
        let guarded = Self::start(listed, group, mounted, run);
        guarded.was_bare.store(was_bare, Ordering::Relaxed);
        Ok(guarded)
    }

    /// Goes on for an earlier gate.
    pub(super) fn take_over(listed: Listed, (_, group, top): Held, run: &Path) -> Result<Arc<Self>, GateFailure> {
        let mounted = Mounted::from_top(top);
        let numbers = i32::try_from(super::DESCRIPTORS).unwrap_or(i32::MAX);
        let swept = group.sweep(0..numbers);
        tracing::info!(path = %listed.settings.path.display(), swept, "Guarding goes on; callers whose answer was lost were refused");
        group.guard_file_system(mounted.top())?;
        group.spare_mount(mounted.top())?;
        // systemd may have held it over a restart of everything but the kernel.
        let path = &listed.settings.path;
        if !mounted.is_at(path) {
            match attach_again(&listed) {
                Ok(()) => tracing::warn!(path = %path.display(), "The volume was not attached any more: it is again"),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "The volume is guarded, and not where it should be seen")
                }
            }
        }
        Ok(Self::start(listed, group, mounted, run))
    }

    fn start(listed: Listed, group: Group, mounted: Mounted, run: &Path) -> Arc<Self> {
        let guarded = Arc::new(Self {
            agent_lock: agent_lock(run, listed.id.0),
            listed,
            post: Post::of_file_system(group),
            mounted: Mutex::new(mounted),
            agent: Mutex::default(),
            agents: AtomicU64::new(0),
            readers: Readers::default(),
            alone_since: Mutex::new(Instant::now()),
            is_kept: AtomicBool::new(false),
            settles: AtomicBool::new(false),
            by_inode: AtomicBool::new(false),
            was_bare: AtomicBool::new(false),
            ends: AtomicBool::new(false),
        });
        guarded.note_mount();
        // Also where no keeper was left: what that agent has in hand may be about to become a stub.
        guarded.expect_living_agent();
        guarded.read_more();
        let tender = Arc::clone(&guarded);
        std::thread::spawn(move || tender.look_after());
        guarded
    }

    /// Who opens files through this mount may stream them. If somebody sets up another one nobody may, until the gate begins anew.
    fn note_mount(&self) {
        self.post.is_attached_at(self.mounted().number_at(&self.listed.settings.path));
    }

    /// Answers the kernel until the volume is detached, or others do.
    fn answer(&self, reader: u64) {
        // A signal ends the wait for a lease, and the kernel refuses the caller then.
        if !crate::sys::signals::keep_away() {
            tracing::warn!("Signals reach those who read the kernel's questions: one may refuse a caller");
        }
        while !self.ends.load(Ordering::Relaxed) {
            if !self.post.wait(IDLE) {
                continue;
            }
            self.readers.begins(reader);
            let asked = self.post.ask();
            let is_needed = self.readers.ends(reader);
            match asked {
                Ok(questions) => {
                    // Locked over both: an agent that begins hears of each caller once.
                    let agent = self.agent();
                    tell(agent.as_ref(), self.post.take_all(questions));
                }
                Err(error) => {
                    tracing::error!(%error, "The kernel's questions cannot be read");
                    std::thread::sleep(LOOK_AFTER);
                }
            }
            if !is_needed {
                return;
            }
        }
    }

    /// Another thread answers, if all that do are kept by somebody's lease.
    fn read_more(self: &Arc<Self>) {
        if let Some(reader) = self.readers.one_more() {
            let volume = Arc::clone(self);
            std::thread::spawn(move || volume.answer(reader));
        }
    }

    /// Looks after those who wait and those who answer.
    fn look_after(self: &Arc<Self>) {
        while !self.ends.load(Ordering::Relaxed) {
            let is_busy = self.post.is_busy() || self.readers.is_any_reading();
            std::thread::sleep(if is_busy { LOOK_AFTER } else { IDLE });
            self.read_more();
            let agent = self.agent();
            tell(agent.as_ref(), self.post.look_after());
            self.watch_agent(agent.as_ref());
        }
    }

    fn alone_since(&self) -> MutexGuard<'_, Instant> {
        self.alone_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent has left.
    pub(super) fn is_left_alone(&self) {
        *self.alone_since() = Instant::now();
    }

    /// Where nobody answers, callers are refused after a while.
    fn watch_agent(self: &Arc<Self>, agent: Option<&AgentLink>) {
        if agent.is_none_or(|agent| agent.heard.elapsed() >= PATIENCE) {
            // Who waits while agents change is waited for anew.
            let alone_since = agent.map_or_else(|| *self.alone_since(), |agent| agent.heard);
            let refused = self.post.refuse_after(PATIENCE, alone_since);
            if refused > 0 {
                tracing::warn!(refused, "Nobody answered for tiered files: is the agent running?");
            }
        }
        if agent.is_none() && self.post.is_expecting() && !self.has_agent_process() {
            self.settle();
        }
    }

    /// No agent works on the volume any more: what it did is made durable, and then whoever waited for a file that is whole goes
    /// on. On a thread of its own, because the kernel's questions must not wait for the volume.
    pub(super) fn settle(self: &Arc<Self>) {
        if self.settles.swap(true, Ordering::Relaxed) {
            return;
        }
        let volume = Arc::clone(self);
        std::thread::spawn(move || {
            let agents = volume.agents.load(Ordering::Relaxed);
            // Nobody has to wait for the volume's lock meanwhile: on a frozen file system this takes as long as it is frozen.
            let top = volume.mounted().another_top();
            let synced = top.and_then(|top| rustix::fs::syncfs(&top));
            volume.settles.store(false, Ordering::Relaxed);
            if let Err(errno) = synced {
                tracing::error!(%errno, "The volume cannot be made durable: whoever waits goes on waiting");
                return;
            }
            let agent = volume.agent();
            if agent.is_none() && volume.agents.load(Ordering::Relaxed) == agents {
                volume.post.agent_left();
            }
        });
    }

    /// Whoever works on the volume is waited for; false if nobody does.
    pub(super) fn expect_living_agent(&self) -> bool {
        let Some(holder) = self.agent_process() else { return false };
        let process = holder.and_then(|holder| AgentProcess::of(i32::try_from(holder).ok()?));
        // Still the same one: otherwise that number may be somebody else's.
        let process = process.filter(|_| self.agent_process() == Some(holder));
        self.post.expect_agent();
        self.post.is_attended_by(process);
        true
    }

    fn has_agent_process(&self) -> bool {
        self.agent_process().is_some()
    }

    /// The holder of the agent's lock, if it has one, and its number where it is known.
    fn agent_process(&self) -> Option<Option<u32>> {
        match lock_exclusive(&self.agent_lock) {
            Err(LockError::Held { holder, .. }) => Some(holder),
            _ => None,
        }
    }

    /// The number of a new conversation with an agent.
    pub(super) fn next_agent(&self) -> u64 {
        self.agents.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn agent(&self) -> MutexGuard<'_, Option<AgentLink>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mounted(&self) -> MutexGuard<'_, Mounted> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn post(&self) -> &Post {
        &self.post
    }

    pub(super) fn group(&self) -> &Group {
        self.post.group()
    }

    pub(super) fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Whether it was taken away.
    pub(super) fn has_ended(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    pub(super) fn is_by_inode(&self) -> bool {
        self.by_inode.load(Ordering::Relaxed)
    }

    pub(super) fn set_by_inode(&self) {
        self.by_inode.store(true, Ordering::Relaxed);
        self.post.asks_about_single_files();
    }

    pub(super) fn set_kept(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::Relaxed);
    }

    pub(super) fn state(&self) -> VolumeState {
        VolumeState {
            id: self.listed.id.0,
            settings: self.listed.settings.clone(),
            failure: None,
            waiting: self.post.waiting(),
            by_inode: self.is_by_inode(),
            attended: self.agent().is_some(),
            kept: self.is_kept.load(Ordering::Relaxed),
        }
    }

    /// Takes the volume away from users, and guards it no more.
    pub(super) fn end(&self) -> Result<(), GateFailure> {
        self.mounted().detach(&self.listed.settings.path)?;
        self.ends.store(true, Ordering::Relaxed);
        // Its conversation ends with its next message, and it looks for another gate. It holds the group as well: with marks left,
        // whoever mounts the volume without a gate would wait for somebody who does not read.
        *self.agent() = None;
        let refused = self.group().abandon();
        tracing::info!(path = %self.listed.settings.path.display(), refused, "The volume is not guarded any more");
        Ok(())
    }
}

/// Attaches what is guarded already: another mount of it is the same file system.
fn attach_again(listed: &Listed) -> Result<(), GateFailure> {
    let (device, superblock) = find(listed.id.0, &listed.settings.device)?;
    let mut mounted = Mounted::new(&device, &superblock, &listed.settings.options)?;
    Ok(mounted.attach(&listed.settings.path)?)
}

/// Puts what an agent has to know into its queue, in messages that are not too long.
pub(super) fn tell(agent: Option<&AgentLink>, told: Vec<Told>) {
    let Some(agent) = agent else { return };
    let told: Vec<Told> = if agent.speech >= SPEAKS_OF_PARTS { told } else { told.into_iter().map(Told::in_general).collect() };
    for part in told.chunks(ENTRIES_MAX) {
        // Its end is noticed by whoever reads from it.
        let _ = agent.queue.send(FromGate::Told(part.to_vec()));
    }
}
