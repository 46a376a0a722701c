//! Nodes that one side deleted. An edit or a move on the other side beats the delete.

use super::place::moved_only_here;
use super::planner::Planner;
use super::{Action, Fact};
use crate::ids::NodeId;
use crate::namespace::Change;
use crate::node::{Kind, Node, Place};
use crate::trees::{Local, LocalContent, Record, Synced, Trees};

impl<T: Trees> Planner<'_, T> {
    /// Deleted on this server, live in the share.
    pub(super) fn deleted_here(&mut self, record: &Record, synced: &Synced, remote: &Node) {
        if !remote.content.same_bytes(&synced.content) || remote.place != synced.place {
            self.fact(Fact::ForgetBase(record.node));
            return;
        }
        // A directory goes after everything in it. If something in it stays, that brings the directory back.
        let holds = remote.kind() == Kind::Directory && !self.trees.remote_children(record.node, 1).is_empty();
        if holds || self.rules.hold_local_deletes {
            return;
        }
        // The name is in use again: what has it now is planned together with this delete.
        if let Some(holder) = self.holder_here(&remote.place) {
            self.visit(holder);
            return;
        }
        if !self.moved_there.contains_key(&record.node) {
            self.intend(delete_change(remote));
            self.gone_there(record.node, &remote.place);
        }
    }

    /// Deleted in the share, still on this server.
    pub(super) fn deleted_there(&mut self, record: &Record, local: &Local, synced: &Synced) {
        let LocalContent::Known(content) = &local.content else {
            self.read(record.node);
            return;
        };
        if !content.same_bytes(&synced.content) || local.place != synced.place {
            self.create_there(record, local);
            return;
        }
        let holds = local.kind() == Kind::Directory && !self.trees.local_children(record.node, 1).is_empty();
        if holds || self.rules.hold_remote_deletes {
            return;
        }
        let Some(expected) = self.expected(local) else { return };
        self.step(record.node, Action::Remove { expected, content: content.clone() });
        self.moved_here.insert(record.node, Place { parent: NodeId::PARKED, name: local.place.name.clone() });
    }

    /// A directory that is to go still holds something, and somebody waits for its name: what belongs elsewhere goes first,
    /// out of the directories in it too that go with it. What is new in it, or was moved into it, would bring the
    /// directory back, and plans that by itself.
    pub(super) fn empty_here(&mut self, directory: NodeId) {
        for child in self.trees.local_children(directory, usize::MAX) {
            let goes = self.trees.record(child).is_some_and(|record| {
                record.here().is_some_and(|local| local.kind() == Kind::Directory) && record.live().is_none()
            });
            if goes && !self.is_being_visited(child) {
                self.empty_here(child);
                continue;
            }
            let leaves = self.trees.record(child).is_some_and(|record| {
                record.live().is_some_and(|remote| remote.place.parent != directory) && !moved_only_here(&record)
            });
            if !leaves {
                continue;
            }
            let rings = self.rings;
            self.visit(child);
            // Where it belongs waits for this very directory: it steps out of the way.
            let waits = self.is_being_visited(child) || self.rings > rings;
            if waits && self.place_here(child).is_some_and(|place| place.parent == directory) {
                self.park(child);
            }
        }
    }
}

pub(super) fn delete_change(remote: &Node) -> Change {
    Change::Delete { node: remote.id, place: remote.versions.place, content: remote.versions.content }
}
