//! What the engine keeps: the three trees and the few facts beside them.
//!
//! Only observations are kept, an operation that was sent among them; work is derived. Everything that one event
//! teaches goes into one transaction.

use std::collections::BTreeMap;
use std::fmt;

use isotherm_core::ids::{Cursor, LinkId, NodeId, OperationId};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::Operation;
use isotherm_core::node::Place;
use isotherm_core::plan::Intent;
use isotherm_core::trees::{Handle, MemoryTrees, Record, State, Trees, TreesMut};
use serde::{Deserialize, Serialize};

/// Operations on their way to the share (row 21): stored before they are sent, and sent again with the same ids until
/// they are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// What is to follow when they are applied.
    pub intent: Intent,
    /// One id for each change of the intent.
    pub ids: Vec<OperationId>,
    /// The group number among what was sent together.
    pub group: u32,
}

impl Sent {
    /// The operations as they go over the wire.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let group = (self.intent.changes.len() > 1).then_some(self.group);
        let changes = self.intent.changes.iter().cloned().zip(&self.ids);
        changes.map(|(change, id)| Operation { id: *id, group, change }).collect()
    }
}

/// How many nodes are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All nodes with any observation.
    pub nodes: u64,
    /// Nodes that do not agree, deletes included.
    pub unsettled: u64,
    /// Of these: deleted on this server, live in the share.
    pub deleted_here: u64,
    /// Of these: deleted in the share, still on this server.
    pub deleted_there: u64,
    /// Nodes of which the share may lack something that is here.
    pub owed: u64,
    /// Bytes of content that have to go to the share.
    pub up_bytes: u64,
    /// Bytes of content that have to come from the share.
    pub down_bytes: u64,
}

/// The catalog's first failure. Nothing may be stored or performed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogFailure {
    /// In a user's words, with the catalog's path.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for CatalogFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.remedy)
    }
}

/// The trees and the facts beside them, changed in transactions: everything since the last [`Catalog::commit`] is
/// one of them.
pub trait Catalog: TreesMut {
    /// Nodes whose state is not [`State::Settled`] (nor an anchor), in order of id, after `after`, at most `limit`.
    fn unsettled(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId>;
    /// All nodes in order of id after `after`, at most `limit`.
    fn nodes(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId>;
    /// Lost nodes, at most `limit`.
    fn lost(&self, limit: usize) -> Vec<NodeId>;
    /// Numbers for status and safety stops; cheap enough for once a second.
    fn counts(&self) -> Counts;
    /// Notes whether the content of what a node has here is away. It holds as long as the node keeps the inode. Only numbers for people
    /// rest on it: an inode that changes its node may be counted wrong until it is looked at again.
    fn set_tiered(&mut self, node: NodeId, is_tiered: bool);
    /// Where the change feed was read to; none before the first snapshot or page.
    fn cursor(&self) -> Option<Cursor>;
    /// Keeps the position.
    fn set_cursor(&mut self, cursor: Option<Cursor>);
    /// What was sent and not answered yet, in the order it was sent.
    fn sent(&self) -> Vec<Sent>;
    /// Replaces what is stored as sent.
    fn set_sent(&mut self, sent: &[Sent]);
    /// A named small value.
    fn value(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps or (none) removes a named small value.
    fn set_value(&mut self, key: &str, value: Option<&[u8]>);
    /// Begins a transaction, so that many reads take one lock. The first change would begin it otherwise.
    fn begin(&mut self) {}
    /// Ends the transaction: all of it is kept, durably, or none.
    ///
    /// # Errors
    /// The first failure since the last commit, of a read or a write; the transaction is rolled back then.
    fn commit(&mut self) -> Result<(), CatalogFailure>;
}

/// The catalog in memory: the readable specification, and the simulation's. `durable` is what a crash leaves.
#[derive(Clone, Debug)]
pub struct MemoryCatalog {
    live: Image,
    durable: Image,
}

#[derive(Clone, Debug)]
struct Image {
    trees: MemoryTrees,
    cursor: Option<Cursor>,
    sent: Vec<Sent>,
    values: BTreeMap<String, Vec<u8>>,
    tiered: BTreeMap<NodeId, Handle>,
}

impl MemoryCatalog {
    /// An empty catalog of a share whose names compare like this.
    #[must_use]
    pub fn new(case: Case) -> Self {
        let image = Image {
            trees: MemoryTrees::new(case),
            cursor: None,
            sent: Vec::new(),
            values: BTreeMap::new(),
            tiered: BTreeMap::new(),
        };
        Self { live: image.clone(), durable: image }
    }

    /// Forgets what was not committed.
    pub fn crash(&mut self) {
        self.live = self.durable.clone();
    }

    /// Nodes whose content is away, as far as was noted.
    pub fn tiered(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.live.tiered.keys().copied()
    }

    /// The trees as they are now.
    #[must_use]
    pub fn trees(&self) -> &MemoryTrees {
        &self.live.trees
    }
}

impl Trees for MemoryCatalog {
    fn record(&self, node: NodeId) -> Option<Record> {
        self.live.trees.record(node)
    }
    fn local_at(&self, place: &Place) -> Option<NodeId> {
        self.live.trees.local_at(place)
    }
    fn remote_at(&self, parent: NodeId, key: &[u8]) -> Option<NodeId> {
        self.live.trees.remote_at(parent, key)
    }
    fn by_handle(&self, handle: &Handle) -> Vec<NodeId> {
        self.live.trees.by_handle(handle)
    }
    fn local_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId> {
        self.live.trees.local_children(parent, limit)
    }
    fn remote_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId> {
        self.live.trees.remote_children(parent, limit)
    }
    fn link_members(&self, link: LinkId) -> Vec<NodeId> {
        self.live.trees.link_members(link)
    }
    fn local_names(&self, parent: NodeId) -> Vec<(Name, NodeId)> {
        self.live.trees.local_names(parent)
    }
}

impl TreesMut for MemoryCatalog {
    fn put(&mut self, record: Record) {
        let inode = record.local.as_ref().map(|local| &local.handle);
        if self.live.tiered.get(&record.node).is_some_and(|known| inode != Some(known)) {
            self.live.tiered.remove(&record.node);
        }
        self.live.trees.put(record);
    }
}

impl Catalog for MemoryCatalog {
    fn unsettled(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId> {
        self.live.trees.unsettled(after, limit)
    }

    fn nodes(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId> {
        let all = self.live.trees.records().map(|record| record.node);
        all.filter(|node| after.is_none_or(|after| *node > after)).take(limit).collect()
    }

    fn lost(&self, limit: usize) -> Vec<NodeId> {
        let lost = self.live.trees.records().filter(|record| record.is_lost());
        lost.map(|record| record.node).take(limit).collect()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in self.live.trees.records().filter(|record| !record.node.is_anchor()) {
            counts.nodes += 1;
            let state = record.state();
            counts.unsettled += u64::from(state != State::Settled);
            counts.deleted_here += u64::from(state == State::DeletedHere);
            counts.deleted_there += u64::from(state == State::DeletedThere);
            counts.owed += u64::from(record.owes());
            let (up, down) = record.bytes_to_move();
            counts.up_bytes += up;
            counts.down_bytes += down;
        }
        counts
    }

    fn set_tiered(&mut self, node: NodeId, is_tiered: bool) {
        match self.live.trees.record(node).and_then(|record| record.local) {
            Some(local) if is_tiered && !node.is_anchor() => self.live.tiered.insert(node, local.handle),
            _ => self.live.tiered.remove(&node),
        };
    }

    fn cursor(&self) -> Option<Cursor> {
        self.live.cursor
    }

    fn set_cursor(&mut self, cursor: Option<Cursor>) {
        self.live.cursor = cursor;
    }

    fn sent(&self) -> Vec<Sent> {
        self.live.sent.clone()
    }

    fn set_sent(&mut self, sent: &[Sent]) {
        self.live.sent = sent.to_vec();
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.live.values.get(key).cloned()
    }

    fn set_value(&mut self, key: &str, value: Option<&[u8]>) {
        match value {
            Some(value) => self.live.values.insert(key.to_owned(), value.to_vec()),
            None => self.live.values.remove(key),
        };
    }

    fn commit(&mut self) -> Result<(), CatalogFailure> {
        self.durable = self.live.clone();
        Ok(())
    }
}
