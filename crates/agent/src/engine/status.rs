//! What an engine can tell about itself.

use std::collections::{BTreeMap, VecDeque};

use isotherm_core::ids::{Cursor, NodeId, Timestamp};
use isotherm_core::trees::{self, Handle, Local, State, path};

use super::{Away, Catalog, Counts, Engine, Look, Millis, Unfit};

/// Something that failed for one item: shown, retried, never fatal for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Below the endpoint's root.
    pub path: Vec<u8>,
    /// What sort of problem, for programs; it does not change between releases.
    pub code: &'static str,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
    /// When it was first seen.
    pub since: Millis,
}

/// Why the engine does nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A newer run of this server's agent has taken over.
    Fenced,
}

/// Deletes that wait for a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Deleted on this server (else: in the share).
    pub local: bool,
    /// How many.
    pub deletes: u64,
    /// Nodes of the endpoint.
    pub of: u64,
}

/// Something that just arrived on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Below the endpoint's root.
    pub path: Vec<u8>,
    /// From this server to the share.
    pub up: bool,
    /// From the first report of the change to its commit.
    pub delay_ms: Option<Millis>,
    /// For a content that came down: when it was written.
    pub modified: Option<Timestamp>,
}

/// A picture of the engine.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// How many nodes are in which state.
    pub counts: Counts,
    /// How far the share was read.
    pub cursor: Option<Cursor>,
    /// Everything known on both sides is agreed on, and nothing is suspected.
    pub agreed: bool,
    /// The newest barrier that was reached: all that had happened here before it has been seen.
    pub barrier: u64,
    /// A scan is under way.
    pub scanning: bool,
    /// The service is away, since when.
    pub away: Option<(Away, Millis)>,
    /// Deletes wait.
    pub held: Option<Held>,
    /// Paused by an administrator.
    pub paused: bool,
    /// It does nothing any more.
    pub stop: Option<Stop>,
    /// Problems, by path.
    pub problems: Vec<Problem>,
    /// Changes on their way up.
    pub outgoing: usize,
    /// Since when something is here that is not safe in the share.
    pub unsafe_since: Option<Millis>,
    /// Paths that are not agreed on, at most a hundred.
    pub open: Vec<Vec<u8>>,
}

/// What is remembered for the status.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) away: Option<(Away, Millis)>,
    pub(super) stop: Option<Stop>,
    problems: BTreeMap<NodeId, Problem>,
    /// Inodes whose content could not be had.
    unrecalled: BTreeMap<NodeId, Handle>,
    unfit: BTreeMap<Vec<u8>, Problem>,
    moved: VecDeque<Transfer>,
    unsafe_since: Option<Millis>,
}

/// Code of the problem that a file's content cannot be brought back.
const NOT_RECALLED: &str = "not_recalled";
/// Code of a problem that stays although both sides agree: the file system cannot hold all metadata.
const METADATA_PARTIAL: &str = "metadata_partial";
/// Nodes that lack attributes, as they are kept for the next start.
const PARTIAL: &str = "partial";
/// Of more it is told again when something happens to them.
const PARTIAL_KEPT: usize = 1_000;
/// Transfers that are kept for whoever asks.
const TRANSFERS_KEPT: usize = 1_000;
/// Paths of open nodes in a status.
const OPEN_SHOWN: usize = 100;

impl Record {
    pub(super) fn moved(&mut self, transfer: Transfer) {
        if self.moved.len() == TRANSFERS_KEPT {
            self.moved.pop_front();
        }
        self.moved.push_back(transfer);
    }

    /// Notes what a look found unfit, and forgets what it found fit again.
    pub(super) fn unfit(&mut self, look: &Look, base: &[u8], now: Millis) {
        let join = |name: Option<&[u8]>| match (base, name) {
            (base, None) => base.to_vec(),
            ([], Some(name)) => name.to_vec(),
            (base, Some(name)) => [base, b"/", name].concat(),
        };
        if let Some(listing) = &look.listing {
            for seen in &listing.seen {
                self.unfit.remove(&join(Some(seen.name.as_bytes())));
            }
            self.unfit.remove(&join(None));
            if let isotherm_core::observe::Scope::Names(names) = &listing.scope {
                names.iter().for_each(|name| {
                    self.unfit.remove(&join(Some(name.as_bytes())));
                });
            }
        }
        for (name, unfit) in &look.unfit {
            let (code, text, remedy) = match unfit {
                Unfit::Special => (
                    "special_file",
                    "Devices, sockets and pipes do not take part in sync".to_owned(),
                    "Move it out of the endpoint, or exclude its name",
                ),
                Unfit::OtherDevice => (
                    "other_file_system",
                    "Another file system is mounted here; it does not take part in sync".to_owned(),
                    "Make it an endpoint of its own",
                ),
                Unfit::Unreadable(text) => ("unreadable", text.clone(), "Check the disk and the permissions"),
            };
            let path = join(name.as_ref().map(isotherm_core::name::Name::as_bytes));
            self.unfit.entry(path.clone()).or_insert(Problem { path, code, text, remedy: remedy.to_owned(), since: now });
        }
    }
}

/// Names of the attributes that a file ought to have and the file system does not show.
fn lacking(local: &Local) -> Vec<String> {
    let Some(raw) = &local.raw else { return Vec::new() };
    let missing = local.metadata.xattrs.iter().filter(|(name, value)| raw.xattrs.get(*name) != Some(*value));
    missing
        .map(|(name, _)| match (String::from_utf8_lossy(name), raw.xattrs.contains_key(name)) {
            (name, false) => name.into_owned(),
            (name, true) => format!("{name} (accounts in it are unknown here)"),
        })
        .collect()
}

impl<C: Catalog> Engine<C> {
    pub(super) fn problem(&mut self, node: NodeId, code: &'static str, text: &str, remedy: &str, now: Millis) {
        let path = path(&self.catalog, node);
        let problem = self.status.problems.entry(node).or_insert(Problem {
            path: Vec::new(),
            code,
            text: String::new(),
            remedy: String::new(),
            since: now,
        });
        problem.path = path;
        problem.code = code;
        text.clone_into(&mut problem.text);
        remedy.clone_into(&mut problem.remedy);
    }

    /// What stood in the way of a node is over; what its file system cannot hold is told as long as it lacks that.
    pub(super) fn resolved(&mut self, node: NodeId) {
        if self.status.problems.get(&node).is_some_and(|problem| problem.code != METADATA_PARTIAL) {
            self.status.problems.remove(&node);
        }
    }

    /// Somebody wanted a content that cannot be had.
    pub(super) fn not_recalled(&mut self, file: &Handle, why: &str, now: Millis) {
        for node in self.catalog.by_handle(file) {
            let remedy = "Write the file anew, or delete it and bring it back with `isotherm undelete`; if its length was changed, \
                          `isotherm recall --mend` undoes that; see the service's log for content that it lacks";
            self.problem(node, NOT_RECALLED, why, remedy, now);
            self.status.unrecalled.insert(node, file.clone());
        }
    }

    /// Its content has come or gone, as it should.
    pub(super) fn recalled(&mut self, node: NodeId) {
        self.status.unrecalled.remove(&node);
    }

    /// Attributes that the file system could not hold: the content is there all the same.
    pub(super) fn tell_what_is_missing(&mut self, node: NodeId, now: Millis) {
        let record = self.catalog.record(node);
        let missing = record.and_then(|record| record.local).map(|local| lacking(&local)).unwrap_or_default();
        let was_told = self.status.problems.get(&node).is_some_and(|problem| problem.code == METADATA_PARTIAL);
        if !missing.is_empty() {
            let text = format!("This server cannot hold these attributes: {}; the content is up to date", missing.join(", "));
            let remedy = "Make the attribute or access list smaller, use a file system with more room for them, or make the accounts known here";
            self.problem(node, METADATA_PARTIAL, &text, remedy, now);
        } else if was_told {
            self.status.problems.remove(&node);
        }
        if was_told == missing.is_empty() {
            self.keep_partial();
        }
    }

    /// Nothing on the volume tells at the next start what is missing, so which nodes they are is kept.
    fn keep_partial(&mut self) {
        let partial = self.status.problems.iter().filter(|(_, problem)| problem.code == METADATA_PARTIAL);
        let nodes: Vec<NodeId> = partial.map(|(node, _)| *node).take(PARTIAL_KEPT).collect();
        let bytes = postcard::to_stdvec(&nodes).ok().filter(|_| !nodes.is_empty());
        self.catalog.set_value(PARTIAL, bytes.as_deref());
    }

    pub(super) fn recall_partial(&mut self) {
        let kept = self.catalog.value(PARTIAL).and_then(|bytes| postcard::from_bytes::<Vec<NodeId>>(&bytes).ok());
        kept.unwrap_or_default().into_iter().for_each(|node| self.tell_what_is_missing(node, 0));
    }

    /// What arrived since the last call.
    pub fn take_transfers(&mut self) -> Vec<Transfer> {
        self.status.moved.drain(..).collect()
    }

    /// A picture of now.
    pub fn status(&mut self, now: Millis) -> EngineStatus {
        let catalog = &self.catalog;
        self.status.problems.retain(|node, problem| {
            let record = catalog.record(*node);
            let partial = |local: &Local| problem.code == METADATA_PARTIAL && !lacking(local).is_empty();
            // Both sides agree on such a file, until another one takes its place.
            let inode = self.status.unrecalled.get(node);
            let unrecalled = |record: &trees::Record| inode.is_some() && record.here().map(|local| &local.handle) == inode;
            record.is_some_and(|record| match problem.code {
                NOT_RECALLED => unrecalled(&record),
                _ => record.state() != State::Settled || record.local.as_ref().is_some_and(partial),
            })
        });
        self.status.unrecalled.retain(|node, _| self.status.problems.contains_key(node));
        let counts = self.catalog.counts();
        let open = self.open_paths();
        let oldest = self.local.oldest().into_iter().chain(self.work.since.values().copied()).min();
        let is_owed = counts.owed > 0 || self.local.oldest().is_some();
        // What was owed before this run began is as old as this run knows.
        self.status.unsafe_since = is_owed.then(|| oldest.or(self.status.unsafe_since).unwrap_or(now));
        EngineStatus {
            counts,
            cursor: self.catalog.cursor(),
            agreed: self.is_quiet(),
            barrier: self.guard.reached,
            scanning: self.local.is_scanning(),
            away: self.status.away.clone(),
            held: self.guard.held(counts),
            paused: self.guard.paused,
            stop: self.status.stop,
            problems: self.status.problems.values().chain(self.status.unfit.values()).cloned().collect(),
            outgoing: self.work.outgoing(),
            unsafe_since: self.status.unsafe_since,
            open,
        }
    }

    /// Whether what the catalog says of the share is what the share holds, as of a moment ago: the service answers, and nothing is
    /// being read anew. Records that were put back may lack what the catalog knows to be there.
    pub fn knows_share(&self) -> bool {
        self.remote.at_head && self.status.away.is_none()
    }

    /// What whoever waits for agreement waits for: [`EngineStatus::agreed`] and [`EngineStatus::barrier`].
    pub fn agreement(&self) -> (bool, u64) {
        (self.is_quiet(), self.guard.reached)
    }

    /// Paths that are not agreed on.
    fn open_paths(&self) -> Vec<Vec<u8>> {
        let nodes = self.catalog.unsettled(None, OPEN_SHOWN);
        nodes.into_iter().map(|node| path(&self.catalog, node)).collect()
    }

    /// When the engine wants to be told the time again, if nothing else happens before.
    pub fn next_tick(&self, now: Millis) -> Option<Millis> {
        let due = [self.next_local(), self.next_remote(), self.next_work(), self.guard.next(now)].into_iter().flatten().min();
        due.map(|due| due.max(now))
    }
}
