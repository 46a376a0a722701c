//! The engine of one endpoint: wait, apply, perform.
//!
//! One thread owns an engine. It is told what happened ([`Event`]), writes what that teaches into the catalog, plans, and
//! answers with what is to be done ([`Effect`]). It reads no clock, touches no file and waits for nothing, which is why
//! the simulation runs the same engine. Results come back as events, in any order.
//!
//! **Invariants:** an effect is returned only after everything it rests on is durable in the catalog; a node has work
//! under way in at most one effect; what a look saw at a place where work was under way is not believed.

mod answers;
mod catalog;
mod coming;
mod deletes;
mod event;
mod guard;
mod lanes;
mod limits;
mod local;
pub(crate) mod placing;
mod remote;
mod results;
mod standing;
mod status;
mod work;

pub use catalog::{Catalog, CatalogFailure, Counts, MemoryCatalog, Sent};
pub(crate) use coming::{COMING, PINNED, coming_name, coming_node};
pub use event::{
    After, Away, Changed, Command, Effect, Event, Look, LookRequest, Millis, Names, ReadRequest, ReadResult, SnapshotPart,
    StepResult, Unfit,
};
pub use limits::Limits;
pub use placing::{PLACING, contents_on_the_way};
pub use status::{EngineStatus, Held, Problem, Stop, Transfer};

use std::collections::BTreeSet;

use isotherm_core::ids::NodeId;
use isotherm_core::node::{Content, Metadata, Place};
use isotherm_core::plan::Rules;
use isotherm_core::tiering::Policy;
use isotherm_core::trees::{Handle, Local, LocalContent, Print, Record};

/// What an engine needs to know beside its catalog.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the planner goes by.
    pub rules: Rules,
    /// Sizes and times.
    pub limits: Limits,
    /// The inode of the endpoint's root, and of its staging folder.
    pub root: Handle,
    /// Where nodes are parked while names are exchanged.
    pub staging: Handle,
    /// Whether the kernel reports changes; without, the endpoint is scanned again and again.
    pub watched: bool,
    /// The volume or the catalog is not the one the other knows (row 15): forget every base before anything else.
    pub rolled_back: bool,
}

/// Value of the catalog that says that every base has to be forgotten; it goes in the transaction that does so.
pub const ROLLED_BACK: &str = "rolled-back";

/// Draws 128 random bits.
pub type Ids = Box<dyn FnMut() -> [u8; 16] + Send>;

/// Owns all state of one endpoint.
pub struct Engine<C> {
    catalog: C,
    settings: Settings,
    ids: Ids,
    local: local::LocalSide,
    remote: remote::RemoteSide,
    work: work::Work,
    placing: placing::Placing,
    guard: guard::Guard,
    status: status::Record,
    /// What comes by itself, if anything does.
    tiers: Option<Policy>,
    /// Bytes of contents that are fetched at a time, where a limit makes them wait.
    limited: Option<u64>,
    effects: Vec<Effect>,
    /// The time of the event that is being handled.
    now: Millis,
}

impl<C> std::fmt::Debug for Engine<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (local, remote, work) = (&self.local, &self.remote, &self.work);
        f.debug_struct("Engine").field("local", local).field("remote", remote).field("work", work).finish_non_exhaustive()
    }
}

impl<C: Catalog> Engine<C> {
    /// An engine that goes on where its catalog stopped. Its first effects come with the first event.
    ///
    /// # Errors
    /// The catalog's failure.
    pub fn new(catalog: C, settings: Settings, ids: Ids) -> Result<Self, CatalogFailure> {
        let mut engine = Self {
            catalog,
            settings,
            ids,
            local: local::LocalSide::default(),
            remote: remote::RemoteSide::default(),
            work: work::Work::default(),
            placing: placing::Placing::default(),
            guard: guard::Guard::default(),
            status: status::Record::default(),
            tiers: None,
            limited: None,
            effects: Vec::new(),
            now: 0,
        };
        engine.anchor(NodeId::ROOT, engine.settings.root.clone());
        engine.anchor(NodeId::PARKED, engine.settings.staging.clone());
        if engine.settings.rolled_back {
            engine.forget_bases();
            engine.catalog.set_value(ROLLED_BACK, None);
        }
        engine.recall_authority();
        engine.recall_recent();
        engine.recall_placing();
        engine.recall_partial();
        engine.resume_sent();
        engine.local.scan_due = Some(0);
        engine.catalog.commit()?;
        Ok(engine)
    }

    /// Takes one event and says what is to be done now. Everything that the effects rest on is durable by then.
    ///
    /// # Errors
    /// The catalog's failure; then nothing may be done and the engine must not be used again.
    pub fn handle(&mut self, event: Event, now: Millis) -> Result<Vec<Effect>, CatalogFailure> {
        self.now = now;
        self.catalog.begin();
        if self.status.stop.is_none() {
            self.apply(event, now);
            self.advance(now);
        }
        if let Err(failure) = self.catalog.commit() {
            self.effects.clear();
            return Err(failure);
        }
        Ok(std::mem::take(&mut self.effects))
    }

    fn apply(&mut self, event: Event, now: Millis) {
        match event {
            Event::Tick => {}
            Event::Changed(changes) => self.changed(changes, now),
            Event::Touched(files) => self.touched(&files, now),
            Event::NotRecalled(file, why) => self.not_recalled(&file, &why, now),
            Event::ScanNeeded => self.local.lose_track(now),
            Event::Drained => self.drained(now),
            Event::Looked(looks) => self.looked(looks, now),
            Event::Probed(found) => self.probed(found, now),
            Event::Page(page) => self.page(page, now),
            Event::Snapshot(part) => self.snapshot(part, now),
            Event::Read(results) => self.read(results, now),
            Event::Answered(answers) => self.answered(answers, now),
            Event::Histories(histories) => self.histories(histories, now),
            Event::Performed(results) => self.performed(results, now),
            Event::Command(command) => self.command(command, now),
        }
    }

    /// Everything that can go on, goes on.
    fn advance(&mut self, now: Millis) {
        self.judge_deletes(now);
        self.advance_local(now);
        self.advance_remote(now);
        self.advance_work(now);
        self.advance_guard();
    }

    /// The catalog, for reading what is not in the status.
    pub fn catalog(&self) -> &C {
        &self.catalog
    }

    /// Gives the catalog back, as a stop or a crash leaves it.
    pub fn into_catalog(self) -> C {
        self.catalog
    }

    fn anchor(&mut self, node: NodeId, handle: Handle) {
        let mut record = Record::new(node);
        let name = isotherm_core::name::Name::new(b"root").expect("a valid name");
        record.local = Some(Local {
            place: Place { parent: node, name },
            handle,
            print: Print::default(),
            metadata: Metadata::default(),
            raw: None,
            content: LocalContent::Known(Content::Directory),
            lost: false,
        });
        self.catalog.put(record);
    }

    fn wake(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.work.wake.extend(nodes.into_iter().filter(|node| !node.is_anchor()));
    }

    /// Whether nothing is known or suspected to be left to do.
    fn is_quiet(&self) -> bool {
        self.local.is_quiet() && self.work.is_quiet() && self.remote.at_head && self.catalog.unsettled(None, 1).is_empty()
    }
}

/// Set of places, as work holds them.
type Places = BTreeSet<Place>;
