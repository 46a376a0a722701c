//! The change feed: the latest state of each node that changed after a cursor.
//!
//! It is a feed of states, not of events: a node that changed ten times appears once, where it changed last. So
//! the order of a page is no history, and the tree is whole only at a page marked `at_head`. Within a page, each
//! live node's ancestors are there or were known to the reader before.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::lives::{History, Life};
use super::records::Records;
use crate::ids::{Cursor, NodeId, Version};
use crate::node::Node;

/// Who reads the feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reader {
    /// Where to read on.
    pub cursor: Cursor,
    /// The newest version that the reader knows of: the share's when a page was read, or an answer's; not before the cursor.
    pub newest: Version,
}

/// A reader that knows nothing but what it has read.
impl From<Cursor> for Reader {
    fn from(cursor: Cursor) -> Self {
        Self { cursor, newest: cursor.version }
    }
}

/// A piece of the feed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Changed nodes; an ancestor may appear before its turn, and then again in its turn.
    pub nodes: Vec<Node>,
    /// Where to go on reading.
    pub cursor: Cursor,
    /// Nothing lies behind this page: the tree that the reader now knows is consistent.
    pub at_head: bool,
    /// The newest version of the share. What had changed twice by then is left out before its turn: if the share is put back
    /// to before that, it never comes, so the reader knows of this version from now on ([`Reader::newest`]).
    pub head: Version,
    /// The reader knows more than its life and this one have in common, or the cursor lies before the tombstone horizon: the
    /// page is empty and the reader has to read a snapshot.
    pub start_over: bool,
    /// Where the cursor goes over into another life: those that have ended, the oldest first.
    pub lives: Vec<Life>,
}

/// Reads a page of at most `limit` changes (and the ancestors they need) in the caller's one read transaction.
///
/// # Errors
/// Those of the records.
pub fn page<R: Records>(records: &R, reader: impl Into<Reader>, limit: usize) -> Result<Page, R::Error> {
    let Reader { cursor, newest } = reader.into();
    let share = records.share()?;
    let known = cursor.version;
    let is_other_life = cursor.incarnation != share.incarnation;
    let lives = if is_other_life { records.lives()? } else { Vec::new() };
    let history = History { lives, present: share.incarnation };
    let common = history.common_with(cursor.incarnation).map(|common| common.min(share.head));
    // Also at zero: an answer may have told a reader of nodes that the feed never named to it.
    let gone = known < share.horizon;
    if gone || common.is_none_or(|common| newest.max(known) > common) {
        return Ok(Page { nodes: Vec::new(), cursor, at_head: false, head: share.head, start_over: true, lives: Vec::new() });
    }
    let changed = records.changed_after(known, limit)?;
    let end = if changed.len() < limit { share.head } else { changed.last().map_or(share.head, |node| node.versions.last) };
    let mut sent = BTreeSet::new();
    let mut nodes = Vec::with_capacity(changed.len());
    for node in changed {
        if node.is_live() {
            add_ancestors(records, &node, (known, end), &mut sent, &mut nodes)?;
        }
        if sent.insert(node.id) {
            nodes.push(node);
        }
    }
    let cursor = Cursor { incarnation: share.incarnation, version: end };
    Ok(Page { nodes, cursor, at_head: end == share.head, head: share.head, start_over: false, lives: history.lives })
}

/// Ancestors made after the reader's cursor whose latest change lies behind the page: the reader cannot know them.
fn add_ancestors<R: Records>(
    records: &R,
    node: &Node,
    (known, end): (Version, Version),
    sent: &mut BTreeSet<NodeId>,
    nodes: &mut Vec<Node>,
) -> Result<(), R::Error> {
    let mut chain = Vec::new();
    let mut at = node.place.parent;
    while at != NodeId::ROOT && !sent.contains(&at) {
        let Some(parent) = records.node(at)? else { break };
        at = parent.place.parent;
        if parent.versions.created > known && parent.versions.last > end {
            chain.push(parent);
        }
    }
    for parent in chain.into_iter().rev() {
        if sent.insert(parent.id) {
            nodes.push(parent);
        }
    }
    Ok(())
}
