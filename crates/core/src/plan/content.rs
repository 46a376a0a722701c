//! Content: who changed it, and what becomes of the other side.

use super::planner::Planner;
use super::{Action, Expected};
use crate::ids::NodeId;
use crate::namespace::{Based, Change};
use crate::node::{Content, FileContent, Kind, Node};
use crate::trees::{Local, LocalContent, Record, Synced, Trees};

impl<T: Trees> Planner<'_, T> {
    /// True if both sides have the same content.
    pub(super) fn reconcile_content(&mut self, record: &Record, local: &Local, remote: &Node, synced: Option<&Synced>) -> bool {
        if local.kind() == Kind::Directory {
            return true;
        }
        let LocalContent::Known(content) = &local.content else {
            self.read(record.node);
            return false;
        };
        if *content == remote.content {
            return self.is_joined(record.node, local, remote);
        }
        if content.same_bytes(&remote.content) {
            return self.reconcile_times(record.node, local, remote, synced);
        }
        let Some(synced) = synced else {
            self.without_base(record, local, remote);
            return false;
        };
        let changed_here = !content.same_bytes(&synced.content);
        let changed_there = !remote.content.same_bytes(&synced.content);
        match (changed_here, changed_there) {
            (false, _) => self.replace_here(record.node, local, remote),
            (true, false) => self.update_there(record.node, content, remote),
            (true, true) => self.conflict(record, local, content, remote),
        }
        false
    }

    /// Whether names of one group are one inode here. After a crash in the middle of making them they may be two equal ones.
    ///
    /// The smallest node's inode is the one that stays, so that two of them never change places.
    fn is_joined(&mut self, node: NodeId, local: &Local, remote: &Node) -> bool {
        let Some(file) = remote.content.file() else { return true };
        let members = file.link.map(|link| self.trees.link_members(link)).unwrap_or_default();
        let smaller = members.into_iter().filter(|member| *member < node).filter_map(|member| self.trees.record(member));
        let holds = |record: &Record| {
            let known = record.here().and_then(Local::known).and_then(Content::file);
            known.is_some_and(|held| held.manifest == file.manifest)
        };
        let Some(first) = smaller.into_iter().find(holds) else { return true };
        let Some(other) = first.here().filter(|other| other.handle != local.handle) else { return true };
        if self.is_blocked(&first) || self.plan.steps.iter().any(|step| step.node == first.node) {
            return false;
        }
        let (Some(target), Some(expected)) = (self.expected(other), self.expected_after_move(node, local)) else { return false };
        let (content, metadata) = (remote.content.clone(), local.metadata.clone());
        self.step(node, Action::Replace { expected, content, metadata, link_to: Some(target) });
        false
    }

    /// Different bytes, and nothing tells whose are older. A local content that the share once had is old, not an
    /// edit (row 15); that is asked before anything is called a conflict.
    fn without_base(&mut self, record: &Record, local: &Local, remote: &Node) {
        let LocalContent::Known(content) = &local.content else { return };
        if self.rules.rules_over(remote.versions.content) {
            self.update_there(record.node, content, remote);
        } else if content.file().is_some() && record.searched != Some(remote.versions.content) {
            self.plan.searches.push(record.node);
        } else {
            self.conflict(record, local, content, remote);
        }
    }

    /// A file that never rests: its content of one moment goes to the share where nothing stands against that. All else
    /// waits until it rests, a conflict too.
    pub(super) fn pass_on(&mut self, record: &Record, local: &Local, content: &Content) {
        match (record.live(), &record.synced) {
            (Some(remote), Some(synced)) => {
                let changed_there = !remote.content.same_bytes(&synced.content);
                let changed_here = !content.same_bytes(&remote.content);
                if changed_here && !changed_there {
                    self.update_there(record.node, content, remote);
                }
            }
            (None, None) if record.remote.is_none() => self.create_passing(record, local, content),
            _ => {}
        }
    }

    fn update_there(&mut self, node: NodeId, content: &Content, remote: &Node) {
        let content = Some(Based { base: remote.versions.content, value: content.clone() });
        self.intend(Change::Update { node, metadata: None, content });
    }

    fn replace_here(&mut self, node: NodeId, local: &Local, remote: &Node) {
        let Some(expected) = self.expected_after_move(node, local) else { return };
        let Some(link_to) = self.link_target(node, &remote.content) else { return };
        // The new inode gets the local metadata where that is newer; metadata is a facet of its own.
        let action = Action::Replace { expected, content: remote.content.clone(), metadata: local.metadata.clone(), link_to };
        self.step(node, action);
    }

    /// The same bytes with another time, or other names of the inode.
    fn reconcile_times(&mut self, node: NodeId, local: &Local, remote: &Node, synced: Option<&Synced>) -> bool {
        let (Some(Content::File(here)), Content::File(there)) = (local.known(), &remote.content) else { return true };
        if let Some(leader) = self.leader(node, local, |member| member.versions.content)
            && let Content::File(newest) = &leader.content
            && leader.versions.content > remote.versions.content
            && newest.manifest == there.manifest
        {
            // One inode has one time: the name that changed last says which. Its own plan brings that here, or the time
            // from here to the share; this name follows.
            if newest == here && newest != there {
                self.update_there(node, &leader.content, remote);
            }
            return false;
        }
        let base = synced.and_then(|synced| synced.content.file());
        let changed_there =
            base.is_none_or(|base| there.modified != base.modified || there.link != base.link || there.manifest != base.manifest);
        if !changed_there || (base.is_none() && self.rules.rules_over(remote.versions.content)) {
            self.update_there(node, &Content::File(here.clone()), remote);
            return false;
        }
        if here.link != there.link && !self.join_links(node, local, here, there, remote) {
            return false;
        }
        if here.modified == there.modified {
            return true;
        }
        if let Some(expected) = self.expected_after_move(node, local) {
            let base = synced.map_or_else(|| local.metadata.clone(), |synced| synced.metadata.clone());
            let (metadata, content) = (local.metadata.clone(), Some(there.clone()));
            self.step(node, Action::SetMetadata { expected, metadata, before: local.shown().clone(), base, content });
        }
        false
    }

    /// The share says that this is a name of the same inode as another node, or no longer is. True where nothing is
    /// to be done for that.
    fn join_links(&mut self, node: NodeId, local: &Local, here: &FileContent, there: &FileContent, remote: &Node) -> bool {
        let target = self.link_target(node, &remote.content);
        match target {
            // Another member is being made right now.
            None => false,
            Some(Some(target)) if target.handle != local.handle => {
                let Some(expected) = self.expected_after_move(node, local) else { return false };
                let (content, metadata) = (remote.content.clone(), local.metadata.clone());
                self.step(node, Action::Replace { expected, content, metadata, link_to: Some(target) });
                false
            }
            // One inode already: the ids differ because both sides named the group. The share's id stands.
            Some(Some(_)) => true,
            // Nobody to link with here, or a link that the share has broken while both names still hold the same bytes.
            Some(None) if there.link.is_some() || here.link.is_none() => true,
            Some(None) => {
                let Some(expected) = self.expected_after_move(node, local) else { return false };
                let (content, metadata) = (remote.content.clone(), local.metadata.clone());
                self.step(node, Action::Replace { expected, content, metadata, link_to: None });
                false
            }
        }
    }

    /// For content of a link group: a name that already holds it here, to link with. The outer none: wait, because
    /// a member is being made in this plan.
    pub(super) fn link_target(&mut self, node: NodeId, content: &Content) -> Option<Option<Expected>> {
        let Some((file, link)) = content.file().and_then(|file| Some((file, file.link?))) else { return Some(None) };
        let members = self.trees.link_members(link);
        let mut target = None;
        for member in members.into_iter().filter(|member| *member != node) {
            let Some(record) = self.trees.record(member) else { continue };
            if self.is_blocked(&record) || self.plan.steps.iter().any(|step| step.node == member) {
                return None;
            }
            let Some(local) = record.here() else { continue };
            // It has to be read first: perhaps it is the very inode to link with.
            if local.known().is_none() {
                self.visit(member);
                return None;
            }
            let holds = local.known().and_then(Content::file).is_some_and(|held| held.manifest == file.manifest);
            if holds && target.is_none() {
                // Its directory is being looked for: wait, or a second inode would be made.
                target = Some(self.expected(local)?);
            }
        }
        Some(target)
    }
}
