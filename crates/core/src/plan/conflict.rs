//! Both sides changed the bytes: one keeps the name, the other becomes a copy beside it.
//!
//! The newer modification time keeps the name; on equal times, and for symlinks, the share's version does (row 25).
//! Copy and update are one all-or-nothing group, so that a crash cannot make a second copy. The losing version
//! that is here already is not moved again: its file is rebound to the copy's node and renamed.

use super::planner::Planner;
use super::{Intent, Trouble};
use crate::ids::{NodeId, ServerId};
use crate::name::{CONFLICT_COPIES_MAX, Name};
use crate::namespace::{Based, Change};
use crate::node::{Content, FileContent, Metadata, Node, Place};
use crate::trees::{Local, Record, Trees};

impl<T: Trees> Planner<'_, T> {
    pub(super) fn conflict(&mut self, record: &Record, local: &Local, content: &Content, remote: &Node) {
        // The place must be settled first: the copy stands beside the file. A step of this plan must find the file as this node's.
        if local.place != remote.place || self.expected_after_move(record.node, local).is_none() {
            return;
        }
        let newer_here = match (content, &remote.content) {
            (Content::File(here), Content::File(there)) => here.modified > there.modified,
            _ => false,
        };
        let loser = if newer_here { remote.author } else { self.rules.server };
        let Some(name) = self.conflict_name(&remote.place, loser) else {
            self.trouble(record.node, Trouble::TooManyConflicts);
            return;
        };
        let copy = (self.fresh)();
        let place = Place { parent: remote.place.parent, name };
        let create = |metadata: &Metadata, content: &Content| Change::Create {
            node: copy,
            place: place.clone(),
            metadata: metadata.clone(),
            content: unlinked(content),
            revives: None,
            conflict_of: Some(record.node),
        };
        let intent = if newer_here {
            let update = Change::Update {
                node: record.node,
                metadata: None,
                content: Some(Based { base: remote.versions.content, value: content.clone() }),
            };
            Intent { changes: vec![create(&remote.metadata, &remote.content), update], rebind: None }
        } else {
            Intent { changes: vec![create(&local.metadata, content)], rebind: Some((record.node, copy)) }
        };
        self.plan.intents.push(intent);
    }

    /// A free name for the losing version, in both trees. None: all hundred are taken.
    pub(super) fn conflict_name(&mut self, place: &Place, loser: ServerId) -> Option<Name> {
        let server = self.rules.servers.get(&loser).cloned().unwrap_or_else(|| "share".to_owned());
        for number in 0..CONFLICT_COPIES_MAX {
            let name = place.name.conflict(&server, number);
            let key = self.key(&name);
            let here = Place { parent: place.parent, name: name.clone() };
            let free = self.trees.local_at(&here).is_none() && self.trees.remote_at(place.parent, &key).is_none();
            if free && self.taken_there(place.parent, key) {
                return Some(name);
            }
        }
        None
    }

    /// Gives a local node that lost its name another one, on this server first; the share learns of it as of any rename.
    pub(super) fn give_way_here(&mut self, record: &Record, local: &Local, keeper: NodeId) {
        if self.moved_here.contains_key(&record.node) || self.is_blocked(record) {
            return;
        }
        let Some(name) = self.conflict_name(&local.place, self.rules.server) else {
            self.trouble(record.node, Trouble::TooManyConflicts);
            return;
        };
        let place = Place { parent: local.place.parent, name };
        let (Some(expected), Some(to)) = (self.expected(local), self.spot(&place)) else { return };
        self.step(record.node, super::Action::Move { expected, to, conflict_of: Some(keeper) });
        self.moved_here.insert(record.node, place);
    }
}

/// A copy is a file of its own, not another name of the inode.
fn unlinked(content: &Content) -> Content {
    match content {
        Content::File(file) => Content::File(FileContent { link: None, ..file.clone() }),
        other => other.clone(),
    }
}
