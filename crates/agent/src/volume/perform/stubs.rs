//! Contents that come as stubs: everything of the file but its bytes, which come when somebody opens it.
//!
//! **Invariant:** a stub has its record, durably, before it gets a name that users see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use isotherm_core::ids::{NodeId, Version};
use isotherm_core::node::{FileContent, Place};
use isotherm_core::plan::{Action, Step};
use isotherm_core::stub::{Bound, ContentPrefix, StubRecord};
use isotherm_core::tiering::{Arrival, Comes, Policy, STUB_MIN, Treatment, treatment};
use isotherm_core::trees::Handle;
use isotherm_gate::{ErrorKind, GateError, StagedFile};

use super::super::handle_of;
use super::{PART, Performer};

/// Makes programs wait for the content of stubs.
pub trait StubGuard: Send + Sync + std::fmt::Debug {
    /// Files in staging are about to become stubs: from now on whoever opens one is asked about. An error for each that cannot be
    /// guarded, and must not become one.
    fn begin_stubs(&self, files: &[&StagedFile]) -> Vec<Result<(), GateError>>;

    /// They have their records, or will not get one.
    fn end_stubs(&self, files: &[&StagedFile]);

    /// Asks for the contents of these files, whoever waits for them.
    fn bring_back(&self, files: Vec<Handle>);

    /// Files came without their content: their nodes, and the length of each in bytes.
    fn arrived(&self, files: &[(NodeId, u64)]);

    /// Whether somebody waits for the content of a file: then it is not the moment to take it away.
    fn is_awaited(&self, file: &Handle) -> bool;
}

/// Whether the content of a node with this place is to stay here, by this policy and by what is pinned.
pub type Keeps = dyn Fn(&Policy, NodeId, &Place) -> bool + Send + Sync;

/// Whether contents may come as stubs, and which do. Shared by whoever knows and whoever performs.
#[derive(Default)]
pub struct StubRules {
    /// Who knows what is to stay here; nothing is where nobody does.
    keeps: Option<Box<Keeps>>,
    /// Who makes programs wait for the content of stubs, if there is anybody.
    guard: Mutex<Option<Arc<dyn StubGuard>>>,
    /// Whether new files come as stubs too, not only new contents of stubs, and which contents go.
    tiering: Mutex<(bool, Policy)>,
    /// The endpoint has not had everything of its share yet.
    is_first: AtomicBool,
    /// It has all names of its share.
    has_names: AtomicBool,
    /// What the catalog calls safe in the share is so.
    knows_share: AtomicBool,
    /// Bytes here that the share lacks.
    unsent: AtomicU64,
}

impl StubRules {
    /// Of an endpoint that is set to this, on a volume of which it is not known yet whether it is guarded.
    #[must_use]
    pub fn new(tiering: bool, policy: Policy) -> Self {
        Self { tiering: Mutex::new((tiering, policy)), ..Self::default() }
    }

    /// The endpoint is set to this from now on.
    pub fn set_tiering(&self, tiering: bool, policy: Policy) {
        *self.tiering.lock().unwrap_or_else(PoisonError::into_inner) = (tiering, policy);
    }

    /// Whether clients of Samba are to see which files are tiered.
    pub fn shows_offline(&self) -> bool {
        self.tiering.lock().unwrap_or_else(PoisonError::into_inner).1.offline_attribute
    }

    /// Bytes from which on its files are streamed, if any are.
    pub fn stream_from(&self) -> Option<u64> {
        self.tiering.lock().unwrap_or_else(PoisonError::into_inner).1.stream_from
    }

    /// Whether it is set to tier.
    pub fn is_tiering(&self) -> bool {
        self.tiering.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Which contents go, if any may go now.
    pub fn lets_go(&self) -> Option<Policy> {
        let (tiering, policy) = self.tiering.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (tiering && self.knows_share()).then_some(policy)
    }

    /// The same, with somebody who knows what is to stay here.
    #[must_use]
    pub fn with_keeps(self, keeps: Box<Keeps>) -> Self {
        Self { keeps: Some(keeps), ..self }
    }

    /// Whether the content of a file that is here and whole stays so when it is changed elsewhere.
    fn keeps(&self, node: NodeId, place: &Place) -> bool {
        let policy = self.tiering.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        self.keeps.as_ref().is_some_and(|keeps| keeps(&policy, node, place))
    }

    /// How a content comes that others bring.
    fn comes(&self, arrival: Arrival) -> Comes {
        let (tiering, policy) = &*self.tiering.lock().unwrap_or_else(PoisonError::into_inner);
        match arrival {
            _ if *tiering => policy.comes(arrival),
            // What is tiered stays so until somebody opens it.
            Arrival::Changed { is_stub: true } => Comes::Stub,
            _ => Comes::Whole,
        }
    }

    /// Whether the endpoint has yet to get everything of its share for the first time.
    pub fn set_first(&self, is_first: bool) {
        self.is_first.store(is_first, Ordering::Relaxed);
    }

    /// Whether the names of all files of the share are here, as far as they can be: until then it is not known which are the warmest.
    pub fn has_names(&self) -> bool {
        self.has_names.load(Ordering::Relaxed)
    }

    /// See [`Self::has_names`].
    pub fn set_has_names(&self, has_names: bool) {
        self.has_names.store(has_names, Ordering::Relaxed);
    }

    /// How a program is treated that opens its tiered files.
    pub fn treatment(&self, program: &str, user: Option<u32>) -> Treatment {
        treatment(&self.tiering.lock().unwrap_or_else(PoisonError::into_inner).1.programs, program, user)
    }

    /// Whether it tiers and what is safe cannot be told now.
    pub fn is_unsure(&self) -> bool {
        self.is_tiering() && !self.knows_share()
    }

    /// Bytes here that the share lacks.
    pub fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// See [`Self::unsent`].
    pub fn set_unsent(&self, bytes: u64) {
        self.unsent.store(bytes, Ordering::Relaxed);
    }

    /// Whether any content may be given up now because the share has it.
    pub fn knows_share(&self) -> bool {
        self.knows_share.load(Ordering::Relaxed)
    }

    /// See [`Self::knows_share`].
    pub fn set_knows_share(&self, knows: bool) {
        self.knows_share.store(knows, Ordering::Relaxed);
    }

    /// Whether the volume is guarded now.
    pub fn set_guard(&self, guard: Option<Arc<dyn StubGuard>>) {
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = guard;
    }

    /// Asks for the contents of files that have left the endpoint. Where nobody can bring them, they are asked for again later.
    pub fn bring_back(&self, files: Vec<Handle>) {
        match self.guard() {
            Some(guard) => guard.bring_back(files),
            None => tracing::warn!(
                count = files.len(),
                "Tiered files have left the endpoint, and nobody can bring their content back"
            ),
        }
    }

    /// Tells that files have come without their content; see [`StubGuard::arrived`].
    pub(super) fn arrived(&self, files: &[(NodeId, u64)]) {
        if let Some(guard) = self.guard().filter(|_| !files.is_empty()) {
            guard.arrived(files);
        }
    }

    /// Has the record of a file taken away of which nothing is left; false where nobody answers for it.
    pub(crate) fn forget_emptied(&self, file: &Handle) -> bool {
        let guard = self.guard();
        if let Some(guard) = &guard {
            guard.bring_back(vec![file.clone()]);
        }
        guard.is_some()
    }

    fn guard(&self) -> Option<Arc<dyn StubGuard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for StubRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StubRules").field("tiering", &self.tiering).finish_non_exhaustive()
    }
}

/// Whether a step would take away a file that somebody is about to read: he would be told to try again.
pub(super) fn is_awaited(performer: &Performer, step: &Step) -> bool {
    let (Action::Replace { expected, .. } | Action::Remove { expected, .. }) = &step.action else { return false };
    performer.stubs.guard().is_some_and(|guard| guard.is_awaited(&expected.handle))
}

/// Whether what a step brings comes as a stub.
/// Names of one inode come whole, since each of them may be opened while the others are made.
pub(super) fn comes_as_stub(performer: &Performer, step: &Step, content: &FileContent) -> bool {
    let rules = &performer.stubs;
    if rules.guard().is_none() || content.size < STUB_MIN || content.link.is_some() {
        return false;
    }
    let arrival = match &step.action {
        Action::Create { .. } => Arrival::New { first: rules.is_first.load(Ordering::Relaxed) },
        Action::Replace { expected, .. } => {
            // Where it cannot be looked at, the step itself will say so.
            Arrival::Changed { is_stub: performer.volume.inode(&expected.handle).is_ok_and(|inode| inode.is_stub()) }
        }
        _ => return false,
    };
    let kept = || match &step.action {
        Action::Replace { expected, .. } => rules.keeps(step.node, &expected.spot.place()),
        _ => false,
    };
    rules.comes(arrival) != Comes::Whole && !(arrival == Arrival::Changed { is_stub: false } && kept())
}

/// Makes stubs in staging, all of them known to the gate by one message; one answer for each, in order.
pub(super) fn make(performer: &Performer, files: &[(&Step, &FileContent)]) -> Vec<Result<StagedFile, GateError>> {
    let staging = performer.volume.staging();
    let create = |(step, content): &(&Step, &FileContent)| {
        let file = staging.create(&performer.staged_name(PART, step.node))?;
        // First: a gate that has just begun may ask about it, and this would wait for itself.
        file.set_len(content.size).inspect_err(|_| staging.remove(file.name()).unwrap_or_default())?;
        Ok(file)
    };
    let created: Vec<Result<StagedFile, GateError>> = files.iter().map(create).collect();
    let begun: Vec<&StagedFile> = created.iter().flatten().collect();
    let guard = performer.stubs.guard();
    let nobody = |file: &StagedFile| GateError::new(ErrorKind::Unsupported, "guard", file.name());
    let mut guarded = match &guard {
        Some(guard) => guard.begin_stubs(&begun),
        None => begun.iter().map(|file| Err(nobody(file))).collect(),
    }
    .into_iter();
    let mut record = |(step, content): &(&Step, &FileContent), file: &StagedFile| {
        guarded.next().unwrap_or_else(|| Err(nobody(file)))?;
        set_record(file, step, content)
    };
    let recorded: Vec<Result<(), GateError>> =
        files.iter().zip(&created).map(|(one, created)| created.as_ref().map_or(Ok(()), |file| record(one, file))).collect();
    guard.iter().for_each(|guard| guard.end_stubs(&begun));
    let made = created.into_iter().zip(recorded).map(|(created, recorded)| {
        let file = created?;
        if let Err(error) = recorded {
            let _ = staging.remove(file.name());
            return Err(error);
        }
        Ok(file)
    });
    made.collect()
}

fn set_record(file: &StagedFile, step: &Step, content: &FileContent) -> Result<(), GateError> {
    let bound = Bound::to(&handle_of(&file.inode().handle()?));
    let (node, size, content) = (step.node, content.size, ContentPrefix::of(&content.manifest));
    // A step does not say at which version the content was made, and nothing rests on it.
    let record = StubRecord { node, version: Version::default(), content, size, bound };
    file.set_stub_record(&record.encode())
}
