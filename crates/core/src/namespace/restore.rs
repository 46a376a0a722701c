//! Bringing a node back to what it was, or taking away what should not be there.
//!
//! A restore is a change like any other: it gets a version, travels by the change feed, and what it replaces stays as a
//! revision itself. It decides nothing about which nodes and which moment; that is the caller's.
//!
//! A directory that is gone and has a live namesake is that one: what lay in it comes back there.
//!
//! **Invariants:** a node that has changed since the caller looked at it is left alone; no name that somebody uses is
//! taken from him.

use super::apply;
use super::operation::{Answer, Based, Batch, Change, Operation, Refusal};
use super::records::Records;
use crate::ids::{Epoch, NodeId, OperationId, ServerId, Version};
use crate::node::{Kind, Node, Place};

/// Names that are tried beside one that is taken.
const NAMES_MAX: u32 = 100;
/// Deleted directories above a node that are brought back with it.
const DEPTH_MAX: usize = 4096;

/// Records that keep what nodes were.
pub trait Revisions: Records {
    /// A node as it was from this version on; none if that is not kept any more. The present version counts.
    ///
    /// # Errors
    /// Those of the records.
    fn revision(&self, node: NodeId, version: Version) -> Result<Option<Node>, Self::Error>;
}

/// One node to be brought back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restoration {
    /// The node.
    pub node: NodeId,
    /// Its present version, as the caller saw it.
    pub expected: Version,
    /// The version to bring back; none: it is deleted, because it was not there.
    pub target: Option<Version>,
}

/// What came of one restoration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restored {
    /// Done, at this version, or nothing was to be done.
    Done(Version),
    /// The same under another name, because its own is in use.
    Beside(Version, Place),
    /// Somebody has changed the node since.
    Changed,
    /// That version is not kept any more, or its content is not.
    Gone,
    /// A directory that still holds something; what is in it goes first.
    Later,
    /// Refused by the rules of the share.
    Refused(Refusal),
}

/// Draws 128 random bits.
pub type Draw<'a> = &'a mut dyn FnMut() -> [u8; 16];

/// Brings one node back.
///
/// # Errors
/// Those of the records; then nothing may be kept.
pub fn restore<R: Revisions>(records: &mut R, wanted: Restoration, draw: Draw<'_>) -> Result<Restored, R::Error> {
    let Some(now) = records.node(wanted.node)? else { return Ok(Restored::Gone) };
    if now.versions.last != wanted.expected && !was_revived(records, &now, wanted.expected)? {
        return Ok(Restored::Changed);
    }
    let then = match wanted.target {
        None => None,
        Some(version) => match records.revision(wanted.node, version)? {
            None => return Ok(Restored::Gone),
            Some(then) => Some(then).filter(Node::is_live),
        },
    };
    let Some(mut then) = then else { return remove(records, &now, draw) };
    match revive_above(records, &then, draw)? {
        Ok(parent) => then.place.parent = parent,
        Err(outcome) => return Ok(outcome),
    }
    if now.deleted && has_namesake(records, &then)? {
        return Ok(Restored::Done(now.versions.last));
    }
    let own = then.place.clone();
    let Some(place) = free_place(records, &then)? else { return Ok(Restored::Refused(Refusal::Fixed)) };
    then.place = place;
    let beside = then.place != own;
    let answered = commit(records, changes(&now, &then), draw)?;
    Ok(match answered {
        Ok(version) if beside => Restored::Beside(version.unwrap_or(now.versions.last), then.place),
        Ok(version) => Restored::Done(version.unwrap_or(now.versions.last)),
        Err(outcome) => outcome,
    })
}

/// Whether a deleted directory came back since only because something in it did.
fn was_revived<R: Revisions>(records: &R, now: &Node, expected: Version) -> Result<bool, R::Error> {
    let deleted = records.revision(now.id, expected)?.is_some_and(|node| node.deleted);
    Ok(deleted && now.author == ServerId::SERVICE && now.is_live())
}

fn remove<R: Records>(records: &mut R, now: &Node, draw: Draw<'_>) -> Result<Restored, R::Error> {
    if now.deleted {
        return Ok(Restored::Done(now.versions.last));
    }
    let change = Change::Delete { node: now.id, place: now.versions.place, content: now.versions.content };
    Ok(match commit(records, vec![change], draw)? {
        Ok(version) => Restored::Done(version.unwrap_or(now.versions.last)),
        Err(outcome) => outcome,
    })
}

/// What makes `then` of `now`; nothing where it is that already.
fn changes(now: &Node, then: &Node) -> Vec<Change> {
    let (node, base) = (now.id, now.versions);
    if now.deleted {
        let (place, metadata, content) = (then.place.clone(), then.metadata.clone(), then.content.clone());
        let (revives, conflict_of) = (Some(base.last), None);
        return vec![Change::Create { node, place, metadata, content, revives, conflict_of }];
    }
    let metadata = (now.metadata != then.metadata).then(|| Based { base: base.metadata, value: then.metadata.clone() });
    let content = (now.content != then.content).then(|| Based { base: base.content, value: then.content.clone() });
    let update = (metadata.is_some() || content.is_some()).then_some(Change::Update { node, metadata, content });
    let moved =
        (now.place != then.place).then(|| Change::Move { node, place: Based { base: base.place, value: then.place.clone() } });
    update.into_iter().chain(moved).collect()
}

/// The newest version that a commit made, or why it was not made.
type Committed = Result<Option<Version>, Restored>;

/// Brings back the directories above, as they were when they were deleted; gives the one that is live now in the place of the
/// lowest, which is the root where nothing is known of it any more.
fn revive_above<R: Records>(records: &mut R, then: &Node, draw: Draw<'_>) -> Result<Result<NodeId, Restored>, R::Error> {
    let (mut above, dead) = dead_above(records, then.place.parent)?;
    for now in dead.into_iter().rev() {
        let mut node = now.clone();
        node.place.parent = above;
        if let Some(live) = namesake(records, &node.place, then.id)? {
            above = live;
            continue;
        }
        let Some(place) = free_place(records, &node)? else { return Ok(Err(Restored::Refused(Refusal::Fixed))) };
        node.place = place;
        if let Err(outcome) = commit(records, changes(&now, &node), draw)? {
            return Ok(Err(outcome));
        }
        above = node.id;
    }
    Ok(Ok(above))
}

/// The deleted directories from this one upwards, and the live one above them. What is above a forgotten one is the root.
fn dead_above<R: Records>(records: &R, directory: NodeId) -> Result<(NodeId, Vec<Node>), R::Error> {
    let (mut at, mut dead) = (directory, Vec::new());
    while at != NodeId::ROOT {
        match records.node(at)? {
            Some(node) if node.is_live() => return Ok((at, dead)),
            Some(node) if dead.len() < DEPTH_MAX => {
                at = node.place.parent;
                dead.push(node);
            }
            _ => break,
        }
    }
    Ok((NodeId::ROOT, dead))
}

/// The live directory that has this place, unless it is the one that is to be restored: that cannot be put into itself.
fn namesake<R: Records>(records: &R, place: &Place, restored: NodeId) -> Result<Option<NodeId>, R::Error> {
    let key = place.name.key(records.share()?.case);
    let Some(holder) = records.child(place.parent, &key)?.filter(|holder| *holder != restored) else { return Ok(None) };
    Ok(records.node(holder)?.filter(|node| node.kind() == Kind::Directory).map(|node| node.id))
}

/// Where a node comes back that had this place: its directory, or the live one that has that one's path now. The directory
/// itself where it would be brought back too.
///
/// # Errors
/// Those of the records.
pub fn standing_place<R: Records>(records: &R, then: &Node) -> Result<Place, R::Error> {
    let (mut above, dead) = dead_above(records, then.place.parent)?;
    for node in dead.into_iter().rev() {
        match namesake(records, &Place { parent: above, name: node.place.name }, then.id)? {
            Some(live) => above = live,
            None => return Ok(then.place.clone()),
        }
    }
    Ok(Place { parent: above, name: then.place.name.clone() })
}

/// Whether a deleted directory has a live namesake, which stands for it.
///
/// # Errors
/// Those of the records.
pub fn has_namesake<R: Records>(records: &R, then: &Node) -> Result<bool, R::Error> {
    Ok(then.kind() == Kind::Directory && namesake(records, &standing_place(records, then)?, then.id)?.is_some())
}

/// The node's own place, or one beside it that nobody has.
fn free_place<R: Records>(records: &R, node: &Node) -> Result<Option<Place>, R::Error> {
    let case = records.share()?.case;
    let is_free = |place: &Place| -> Result<bool, R::Error> {
        Ok(records.child(place.parent, &place.name.key(case))?.is_none_or(|holder| holder == node.id))
    };
    if is_free(&node.place)? {
        return Ok(Some(node.place.clone()));
    }
    for number in 0..NAMES_MAX {
        let place = Place { parent: node.place.parent, name: node.place.name.conflict("restored", number) };
        if is_free(&place)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Commits changes as one group, in the name of the service itself.
fn commit<R: Records>(records: &mut R, changes: Vec<Change>, draw: Draw<'_>) -> Result<Committed, R::Error> {
    let group = (changes.len() > 1).then_some(0);
    let operations = changes.into_iter().map(|change| Operation { id: OperationId(draw()), group, change }).collect();
    let incarnation = records.share()?.incarnation;
    let batch = Batch { server: ServerId::SERVICE, epoch: Epoch(0), incarnation, operations };
    let mut last = None;
    for answer in apply(records, &batch)? {
        match answer {
            Answer::Applied(version) => last = Some(version),
            Answer::Conflict(_) => return Ok(Err(Restored::Changed)),
            Answer::Missing(_) => return Ok(Err(Restored::Gone)),
            Answer::Refused(Refusal::NotEmpty) => return Ok(Err(Restored::Later)),
            Answer::Refused(refusal) => return Ok(Err(Restored::Refused(refusal))),
            // A member of the group has failed, and says why.
            Answer::Skipped => {}
        }
    }
    Ok(Ok(last))
}
