//! What performed work means for the trees. One place for the agent, the simulation and the tests.
//!
//! Each function writes down an observation: what the share answered, or what the file system shows after a step.
//! If a side has moved on in the meantime, the base that is written here tells it.

use std::collections::BTreeSet;

use super::{Action, Fact, Intent, Step};
use crate::ids::{NodeId, OperationId, ServerId, Version};
use crate::namespace::Change;
use crate::node::{Content, Node, Versions};
use crate::observe::{lose, mirror};
use crate::trees::{Local, LocalContent, Record, Synced, Trees, TreesMut};

fn record(trees: &impl Trees, node: NodeId) -> Record {
    trees.record(node).unwrap_or_else(|| Record::new(node))
}

/// Takes a node from the change feed, unless something newer is known.
pub fn learn(trees: &mut impl TreesMut, node: &Node) -> bool {
    let mut record = record(trees, node.id);
    if record.remote.as_ref().is_some_and(|known| known.versions.last > node.versions.last || known == node) {
        return false;
    }
    record.remote = Some(node.clone());
    trees.put(record);
    true
}

/// Writes down what was found out; returns the nodes to plan for again.
pub fn establish(trees: &mut impl TreesMut, fact: &Fact) -> BTreeSet<NodeId> {
    match fact {
        Fact::Agree(node) => {
            let mut record = record(trees, *node);
            if let (Some(remote), Some(local)) = (record.live().cloned(), &mut record.local) {
                local.content = LocalContent::Known(remote.content.clone());
                record.synced = Some(Synced::of(&remote));
                record.conflict_of = None;
                trees.put(record);
                // The link id may be another one now, and it is the inode's, not this name's.
                return mirror(trees, *node).into_iter().collect();
            }
            BTreeSet::new()
        }
        Fact::ForgetBase(node) => {
            let mut record = record(trees, *node);
            record.synced = None;
            trees.put(record);
            BTreeSet::from([*node])
        }
        Fact::Rebind(from, to) => rebind(trees, *from, *to),
        Fact::Forget(node) => {
            let mut record = record(trees, *node);
            if record.local.is_none() && record.live().is_none() {
                record.synced = None;
                record.remote = None;
                trees.put(record);
            }
            BTreeSet::new()
        }
    }
}

/// The local file or directory of one node becomes that of another, with all that hangs below it.
fn rebind(trees: &mut impl TreesMut, from: NodeId, to: NodeId) -> BTreeSet<NodeId> {
    let mut source = record(trees, from);
    let mut target = record(trees, to);
    let Some(local) = source.local.take().filter(|_| target.local.is_none()) else { return BTreeSet::new() };
    target.local = Some(local);
    trees.put(source);
    trees.put(target);
    let mut changed = BTreeSet::from([from, to]);
    for child in trees.local_children(from, usize::MAX) {
        let mut record = record(trees, child);
        if let Some(local) = &mut record.local {
            local.place.parent = to;
        }
        trees.put(record);
        changed.insert(child);
    }
    changed
}

/// Who committed what, for the remote observation that an answer implies.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// This server.
    pub author: ServerId,
    /// The operation.
    pub operation: OperationId,
    /// The version it was applied at.
    pub version: Version,
}

/// Takes the answer "applied" to one change of an intent. The feed brings the node as it really is; until then this is known
/// of it.
pub fn committed(trees: &mut impl TreesMut, intent: &Intent, change: &Change, commit: Commit) {
    let mut record = record(trees, change.node());
    let stale = record.remote.as_ref().is_some_and(|known| known.versions.last >= commit.version);
    if !stale {
        record.remote = updated(record.remote.take(), change, commit);
    }
    match change {
        Change::Create { place, metadata, content, .. } => {
            // A conflict copy of the share's version is not here yet, and has no base. Anything else was here when it was
            // sent, also what gave way in a conflict: if it is not any more, it was deleted meanwhile, and must not come back.
            if record.local.is_some() || !copies_the_share(intent, change) {
                record.synced = Some(Synced { place: place.clone(), metadata: metadata.clone(), content: content.clone() });
            }
        }
        Change::Update { metadata, content, .. } => {
            if content.is_some() && record.local.is_none() && record.synced.is_none() {
                // As above: it was deleted while its content was on the way.
                record.synced = record.remote.as_ref().map(Synced::of);
            }
            if let Some(synced) = base(&mut record) {
                if let Some(new) = metadata {
                    synced.metadata = new.value.clone();
                }
                if let Some(new) = content {
                    synced.content = new.value.clone();
                }
            }
        }
        Change::Move { place, .. } => {
            // Also where it was deleted meanwhile: its own move must not bring it back.
            if let Some(synced) = &mut record.synced {
                synced.place = place.value.clone();
            }
        }
        Change::Delete { .. } => record.synced = None,
    }
    trees.put(record);
}

/// Whether a change makes a conflict copy of the share's version: then its intent gives what is here to the node itself.
fn copies_the_share(intent: &Intent, change: &Change) -> bool {
    let Change::Create { conflict_of: Some(kept), .. } = change else { return false };
    intent.changes.iter().any(|other| matches!(other, Change::Update { node, .. } if node == kept))
}

/// The base. Where there was none it is made only if both sides hold the same bytes: place and metadata may count as
/// unchanged here, so that the share's value comes, but a content that the share does not have never may.
fn base(record: &mut Record) -> Option<&mut Synced> {
    if record.synced.is_none() {
        let (local, remote) = (record.local.as_ref()?, record.remote.as_ref()?);
        let content = local.known().filter(|content| content.same_bytes(&remote.content))?.clone();
        record.synced = Some(Synced { place: local.place.clone(), metadata: local.metadata.clone(), content });
    }
    record.synced.as_mut()
}

fn updated(known: Option<Node>, change: &Change, commit: Commit) -> Option<Node> {
    let Commit { author, operation, version } = commit;
    if let Change::Create { node, place, metadata, content, conflict_of, .. } = change {
        return Some(Node {
            id: *node,
            place: place.clone(),
            metadata: metadata.clone(),
            content: content.clone(),
            versions: Versions { created: version, place: version, metadata: version, content: version, last: version },
            deleted: false,
            conflict_of: *conflict_of,
            author,
            operation,
        });
    }
    let mut node = known?;
    match change {
        Change::Create { .. } => {}
        Change::Update { metadata, content, .. } => {
            if let Some(new) = metadata {
                node.metadata = new.value.clone();
                node.versions.metadata = version;
            }
            if let Some(new) = content {
                node.content = new.value.clone();
                node.versions.content = version;
            }
        }
        Change::Move { place, .. } => {
            node.place = place.value.clone();
            node.versions.place = version;
            node.conflict_of = None;
        }
        Change::Delete { .. } => node.deleted = true,
    }
    node.versions.last = version;
    node.author = author;
    node.operation = operation;
    Some(node)
}

/// After all changes of an intent were applied: the losing local file now belongs to the conflict copy.
pub fn rebound(trees: &mut impl TreesMut, intent: &Intent) -> BTreeSet<NodeId> {
    let (Some((from, to)), Some(Change::Create { metadata, content, .. })) = (intent.rebind, intent.changes.first()) else {
        return BTreeSet::new();
    };
    let mut source = record(trees, from);
    source.synced = None;
    let place = source.local.as_ref().map(|local| local.place.clone());
    trees.put(source);
    let changed = rebind(trees, from, to);
    if let Some(place) = place {
        let mut target = record(trees, to);
        target.synced = Some(Synced { place, metadata: metadata.clone(), content: content.clone() });
        trees.put(target);
    }
    changed
}

/// Takes what the file system shows after a step was performed; none after a removal. Returns nodes whose whereabouts
/// are unknown because of it.
pub fn performed(trees: &mut impl TreesMut, step: &Step, after: Option<Local>) -> BTreeSet<NodeId> {
    let mut record = record(trees, step.node);
    match &step.action {
        Action::Create { at, content, metadata, .. } => {
            record.synced = Some(Synced { place: at.place(), metadata: metadata.clone(), content: content.clone() });
        }
        Action::Replace { content, .. } => {
            record.local.clone_from(&after);
            if let Some(synced) = base(&mut record) {
                synced.content = content.clone();
            }
        }
        Action::SetMetadata { base: shared, content, .. } => {
            if let Some(synced) = base(&mut record) {
                synced.metadata = shared.clone();
                if let Some(file) = content {
                    synced.content = Content::File(file.clone());
                }
            }
        }
        Action::Move { to, conflict_of: None, .. } => {
            if let Some(synced) = &mut record.synced {
                synced.place = to.place();
            }
        }
        Action::Move { conflict_of, .. } => record.conflict_of = *conflict_of,
        Action::Remove { .. } => record.synced = None,
    }
    record.local = after;
    trees.put(record);
    strays(trees, step.node)
}

/// Nodes that are recorded in a directory that is not here any more: something was seen in it, or a step ended in it,
/// while it went.
fn strays(trees: &mut impl TreesMut, node: NodeId) -> BTreeSet<NodeId> {
    let record = record(trees, node);
    let mut strays = BTreeSet::new();
    match record.here() {
        None => strays.extend(trees.local_children(node, usize::MAX)),
        Some(local) if trees.record(local.place.parent).is_none_or(|parent| parent.local.is_none()) => {
            strays.insert(node);
        }
        Some(_) => {}
    }
    strays.iter().for_each(|stray| lose(trees, *stray));
    strays
}

/// An older content of the node turned out to be what is here: it is the base (row 15). Without one, the search is
/// remembered as done. `history` has the newest content first, perhaps newer ones than are known here: what is here and is
/// one of those is no base, it is ahead.
pub fn searched(trees: &mut impl TreesMut, node: NodeId, history: &[crate::content::ManifestId]) {
    let mut record = record(trees, node);
    let Some(remote) = record.live().cloned() else { return };
    record.searched = Some(remote.versions.content);
    let known = remote.content.file().map(|file| file.manifest);
    let older = history.iter().position(|manifest| Some(*manifest) == known).map_or(&[][..], |at| &history[at + 1..]);
    if let Some(local) = &record.local
        && let Some(content) = local.known().filter(|content| content.file().is_some_and(|file| older.contains(&file.manifest)))
    {
        let (place, metadata) = (local.place.clone(), local.metadata.clone());
        record.synced = Some(Synced { place, metadata, content: content.clone() });
    }
    trees.put(record);
}
