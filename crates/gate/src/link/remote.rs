//! The gate's post as an agent sees it. It outlives gates: when one goes and the next comes, the agent says what it has in
//! hand and goes on.
//!
//! **Invariant:** what the agent holds it holds at every gate before that one lets anybody through, because the lock that the
//! agent has tells the gate to wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{Channel, ENTRIES_MAX, FromGate, GATE_SOCKET, LinkError, SPEECH, ToGate, VolumeId};
use crate::FileHandle;
use crate::guard::{Follow, Group, GuardError, GuardUnavailable, Purpose, Refusal, Sentry, Told, Waiting};
use crate::lock::{LockError, StateLock, lock_exclusive};
use crate::serve::agent_lock;

/// How long the gate may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How long to wait for the lock: a gate that only looks has it for a moment.
const LOCK_WITHIN: Duration = Duration::from_secs(5);

/// The right to be the one agent of a volume: what it keeps there is its alone.
#[derive(Debug)]
pub struct AgentTurn {
    volume: VolumeId,
    lock: StateLock,
}

impl AgentTurn {
    /// Takes it, on the gate's folder `run`.
    ///
    /// # Errors
    /// [`GuardError::Gate`]: another agent has it.
    pub fn take(run: &Path, volume: VolumeId) -> Result<Self, GuardError> {
        Ok(Self { volume, lock: lock_within(&agent_lock(run, volume))? })
    }
}

/// A post at the gate.
#[derive(Debug)]
pub struct RemotePost {
    socket: PathBuf,
    volume: VolumeId,
    state: Mutex<State>,
    /// Mounts that the agent works through: nobody is asked about these.
    own: Mutex<Vec<Weak<OwnedFd>>>,
    _top: Arc<OwnedFd>,
    /// Told when a hold is acknowledged, or the gate is gone.
    held: Condvar,
    _lock: StateLock,
}

#[derive(Debug)]
struct State {
    link: Option<Arc<Channel>>,
    group: Group,
    /// Each file that may become a stub is to be marked.
    marks: bool,
    /// The same number means the same gate, without a gap.
    life: u64,
    /// Files that the agent holds or was asked about.
    in_hand: BTreeSet<FileHandle>,
    /// Callers that wait.
    waiting: BTreeMap<u64, Waiting>,
    /// Those that were let through to empty their file, as the gate follows them.
    on_their_way: BTreeMap<u64, Follow>,
    /// The same of a gate that is gone, which nobody else follows.
    orphans: BTreeMap<u64, Follow>,
    /// What was told at the beginning, and not handed on yet.
    first: Vec<Told>,
    /// Number of the last hold that was asked for.
    round: u64,
    /// Holds that are not acknowledged yet: the answers come in the order in which the messages were sent, not the numbers given.
    pending: BTreeSet<u64>,
    sign: Instant,
}

impl RemotePost {
    /// Begins to attend a volume, working through this mount.
    ///
    /// # Errors
    /// [`GuardError`]: no gate, not such a volume, or another agent.
    pub fn attend(run: &Path, turn: AgentTurn, own: OwnedFd) -> Result<Self, GuardError> {
        let socket = run.join(GATE_SOCKET);
        let AgentTurn { volume, lock } = turn;
        let top = Arc::new(own);
        let own = vec![Arc::downgrade(&top)];
        let Begun { link, group, marks, told: first } = begin(&socket, volume, &own, &BTreeSet::new())?;
        let mut state = State {
            link: Some(Arc::new(link)),
            group,
            marks,
            life: 1,
            in_hand: BTreeSet::new(),
            waiting: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
            orphans: BTreeMap::new(),
            first: Vec::new(),
            round: 0,
            pending: BTreeSet::new(),
            sign: Instant::now(),
        };
        state.first = state.note(first);
        Ok(Self { socket, volume, state: Mutex::new(state), own: Mutex::new(own), _top: top, held: Condvar::new(), _lock: lock })
    }

    /// The agent works through this mount too, for as long as it keeps what is given back.
    ///
    /// # Errors
    /// [`GuardUnavailable`]: then nothing may be done through it.
    pub fn spare(&self, mount: OwnedFd) -> Result<Arc<OwnedFd>, GuardUnavailable> {
        // Known before it is marked: a gate that comes between the two finds it in the list.
        let mount = Arc::new(mount);
        let mut own = self.own();
        own.retain(|mount| mount.strong_count() > 0);
        own.push(Arc::downgrade(&mount));
        self.group().spare_mount(&mount)?;
        Ok(mount)
    }

    fn own(&self) -> MutexGuard<'_, Vec<Weak<OwnedFd>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message; a gate that is gone is noticed by whoever reads.
    fn send(&self, message: &ToGate) -> bool {
        let link = self.state().link.clone();
        link.is_some_and(|link| link.send(message).is_ok())
    }

    fn lost(&self) {
        let mut state = self.state();
        if let Some(link) = state.link.take() {
            link.end();
            state.life += 1;
        }
        self.held.notify_all();
    }

    /// Goes on with the next gate. Who waited at the one before was refused.
    fn begin_again(&self) -> Result<Vec<Told>, GuardError> {
        let in_hand = self.state().in_hand.clone();
        let Begun { link, group, marks, told: first } = begin(&self.socket, self.volume, &self.own(), &in_hand)?;
        let mut state = self.state();
        let mut told: Vec<Told> = std::mem::take(&mut state.waiting).into_keys().map(Told::Left).collect();
        let followed = std::mem::take(&mut state.on_their_way);
        state.orphans.extend(followed);
        told.extend(state.note(first));
        state.link = Some(Arc::new(link));
        state.marks = marks;
        let former = std::mem::replace(&mut state.group, group);
        match former.is_same(&state.group) {
            Some(true) => {}
            Some(false) => {
                // Nobody but this agent holds it any more. If it just went, the kernel would let everybody through who waits there.
                // On a thread of its own: it takes a while, and a group ends only when those who wait at other groups too have
                // been answered, for which this thread is needed.
                std::thread::spawn(move || {
                    let refused = former.abandon();
                    tracing::warn!(refused, "The gate has begun anew: callers whose answer was lost were refused");
                });
            }
            // If it is the same its marks are needed; if it is not, whoever waits there must not be let through.
            None => {
                tracing::warn!(
                    "The kernel does not tell whether the gate has begun anew (kcmp): callers may wait until they are ended"
                );
                std::mem::forget(former);
            }
        }
        Ok(told)
    }

    fn receive(&self, link: &Channel, patience: Duration) -> Result<Vec<Told>, LinkError> {
        let Some((message, _)) = link.receive_within::<FromGate>(patience)? else { return Ok(Vec::new()) };
        let mut state = self.state();
        match message {
            FromGate::Told(told) => Ok(state.note(told)),
            FromGate::Held(round) => {
                state.pending.remove(&round);
                self.held.notify_all();
                Ok(Vec::new())
            }
            _ => Err(LinkError::NotUnderstood),
        }
    }
}

impl State {
    /// Remembers what is told, and gives what the agent has to know beside it.
    fn note(&mut self, told: Vec<Told>) -> Vec<Told> {
        told.into_iter().flat_map(|one| self.note_one(one)).collect()
    }

    fn note_one(&mut self, one: Told) -> Vec<Told> {
        let mut before = Vec::new();
        match &one {
            Told::Asked(waiting) => {
                // Whoever asks again about a file has returned from the call in which he was let through to it.
                let same = |follow: &Follow| waiting.thread > 0 && follow.is_of(waiting.thread, &waiting.file);
                let returned = self.orphans.iter().filter(|(_, follow)| same(follow)).map(|(id, _)| *id);
                before = returned.map(Told::Returned).collect();
                self.orphans.retain(|_, follow| !same(follow));
                self.in_hand.insert(waiting.file.clone());
                if waiting.let_through {
                    self.on_their_way.insert(waiting.id, Follow::of(waiting));
                } else {
                    self.waiting.insert(waiting.id, waiting.clone());
                }
            }
            Told::Wanted(file) => {
                self.in_hand.insert(file.clone());
            }
            Told::Left(id) => {
                self.waiting.remove(id);
                // He left while he was answered.
                self.on_their_way.remove(id);
            }
            Told::Returned(id) => {
                self.on_their_way.remove(id);
            }
        }
        before.push(one);
        before
    }
}

impl Sentry for RemotePost {
    fn group(&self) -> Group {
        self.state().group.clone()
    }

    fn begin(&self) -> Result<Vec<Told>, GuardError> {
        Ok(std::mem::take(&mut self.state().first))
    }

    fn next(&self, patience: Duration) -> Result<Vec<Told>, GuardError> {
        let (link, sign_is_due) = {
            let mut state = self.state();
            let is_due = state.sign.elapsed() >= SIGN_OF_LIFE;
            if is_due {
                state.sign = Instant::now();
            }
            (state.link.clone(), is_due)
        };
        let Some(link) = link else { return self.begin_again() };
        if sign_is_due {
            // A gate that is gone is noticed below.
            let _ = link.send(&ToGate::Alive);
        }
        self.receive(&link, patience).map_err(|error| {
            self.lost();
            GuardError::Gate(error.to_string())
        })
    }

    fn answer(&self, id: u64, refusal: Option<Refusal>) {
        {
            let mut state = self.state();
            let waiting = state.waiting.remove(&id);
            if let Some(waiting) = waiting.filter(|waiting| refusal.is_none() && waiting.purpose == Purpose::Empty) {
                state.on_their_way.insert(id, Follow::of(&waiting));
            }
        }
        self.send(&ToGate::Answer(vec![(id, refusal)]));
    }

    fn hold(&self, files: &[FileHandle]) -> bool {
        if files.is_empty() {
            return true;
        }
        let (rounds, life) = {
            let mut state = self.state();
            state.in_hand.extend(files.iter().cloned());
            let rounds = state.round + 1..=state.round + files.chunks(ENTRIES_MAX).len() as u64;
            state.round = *rounds.end();
            state.pending.extend(rounds.clone());
            (rounds, state.life)
        };
        let mut sent = files.chunks(ENTRIES_MAX).zip(rounds.clone());
        let is_sent = sent.all(|(part, round)| self.send(&ToGate::Hold(round, part.to_vec())));
        let waits = |state: &mut State| {
            is_sent && state.life == life && state.link.is_some() && state.pending.range(rounds.clone()).next().is_some()
        };
        let waited = self.held.wait_timeout_while(self.state(), ANSWERS_WITHIN, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_held = is_sent && state.life == life && state.pending.range(rounds.clone()).next().is_none();
        rounds.for_each(|round| {
            state.pending.remove(&round);
        });
        is_held
    }

    fn release(&self, files: &[FileHandle]) {
        {
            let mut state = self.state();
            for file in files {
                // As at the gate: of whoever waits by now it was told after it had said so.
                if !state.waiting.values().any(|waiting| waiting.file == *file) {
                    state.in_hand.remove(file);
                }
            }
        }
        for part in files.chunks(ENTRIES_MAX) {
            self.send(&ToGate::Release(part.to_vec()));
        }
    }

    fn not_come(&self, file: &FileHandle, why: Refusal) {
        self.send(&ToGate::NotCome(file.clone(), why));
    }

    fn guard(&self, file: BorrowedFd<'_>) -> Result<(), GuardUnavailable> {
        let (group, marks) = {
            let state = self.state();
            (state.group.clone(), state.marks)
        };
        // Where the whole file system is asked about, all are but those that were let through.
        group.unspare_file(file)?;
        if marks { group.guard_file(file) } else { Ok(()) }
    }

    fn look_after(&self) -> Vec<Told> {
        let mut state = self.state();
        let returned: Vec<u64> = state.orphans.iter().filter(|(_, follow)| follow.has_returned()).map(|(id, _)| *id).collect();
        returned.iter().for_each(|id| {
            state.orphans.remove(id);
        });
        returned.into_iter().map(Told::Returned).collect()
    }
}

/// A conversation that has begun.
struct Begun {
    link: Channel,
    group: Group,
    /// Each file that may become a stub is to be marked.
    marks: bool,
    told: Vec<Told>,
}

/// Tells a gate what is in hand, and hears everything that an agent has to know.
fn begin(socket: &Path, volume: VolumeId, own: &[Weak<OwnedFd>], in_hand: &BTreeSet<FileHandle>) -> Result<Begun, GuardError> {
    let gate = |error: LinkError| GuardError::Gate(error.to_string());
    let link = Channel::connect(socket).map_err(gate)?;
    link.send(&ToGate::Attend(volume, SPEECH)).map_err(gate)?;
    let in_hand: Vec<FileHandle> = in_hand.iter().cloned().collect();
    for part in in_hand.chunks(ENTRIES_MAX) {
        link.send(&ToGate::InHand(part.to_vec())).map_err(gate)?;
    }
    link.send(&ToGate::Begin).map_err(gate)?;
    let mut group = None;
    let mut told = Vec::new();
    // What waits at the beginning comes right behind; the rest comes when it is read.
    loop {
        let patience = if group.is_some() { Duration::ZERO } else { ANSWERS_WITHIN };
        match link.receive_within::<FromGate>(patience).map_err(gate)? {
            Some((FromGate::Attended { marks, speech }, descriptors)) => {
                if speech != SPEECH {
                    tracing::info!(gate = speech, agent = SPEECH, "The gate is of another release");
                }
                group = descriptors.into_iter().next().map(|group| (Group::from_fd(group), marks));
            }
            Some((FromGate::Told(more), _)) => told.extend(more),
            Some((FromGate::Failed { text, .. }, _)) => return Err(GuardError::Gate(text)),
            Some(_) => return Err(gate(LinkError::NotUnderstood)),
            None => break,
        }
    }
    let group = group.ok_or_else(|| GuardError::Gate("it did not answer in time".to_owned()))?;
    own.iter()
        .filter_map(Weak::upgrade)
        .try_for_each(|mount| group.0.spare_mount(mount))
        .map_err(|error| GuardError::Gate(error.to_string()))?;
    let (group, marks) = group;
    Ok(Begun { link, group, marks, told })
}

fn lock_within(path: &Path) -> Result<StateLock, GuardError> {
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match lock_exclusive(path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { .. }) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(GuardError::Gate(error.to_string())),
        }
    }
}
