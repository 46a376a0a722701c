//! What comes back when something that was deleted is brought back: it, and what went with it.
//!
//! **Invariant:** an undelete that was broken off can be begun again: what has come back is not in the next plan, and what has
//! not, is.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use isotherm_api::revisions::RestoreAction;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::name::escape;
use isotherm_core::namespace::Records as _;
use isotherm_core::node::{Kind, Node};

use super::Page;
use crate::fault::Fault;
use crate::records::{Moment, Revision};

/// What was deleted in this time before a directory was, and lay in it, went with it. Deleting a large tree takes a while.
const WITH_DIRECTORY_MS: u64 = 60 * 60 * 1000;

impl Page<'_, '_> {
    /// Plans to bring back what had a path and was deleted, at most `limit` nodes.
    pub(super) fn deleted(&mut self, path: &[u8], limit: usize) -> Result<(), Fault> {
        let unknown = || Fault::not_found("Path", escape(path));
        let candidates = self.records.ever_at(path)?;
        let Some(first) = candidates.first().copied().filter(|node| *node != NodeId::ROOT) else { return Err(unknown()) };
        let first = self.records.node(first)?.ok_or_else(unknown)?;
        if first.deleted {
            return self.with_contents(&first, limit);
        }
        // One that is live may have come back in part, or has taken the name of another one whose contents belong there now.
        if first.kind() == Kind::Directory {
            for node in &candidates {
                let top = self.records.node(*node)?.filter(|node| node.kind() == Kind::Directory);
                if let Some(top) = top.filter(|top| top.deleted || top.id == first.id) {
                    self.with_contents(&top, limit)?;
                }
                if !self.items.is_empty() {
                    return Ok(());
                }
            }
        }
        let text = format!("Path {} is not deleted; a restore brings back what it was at a moment", escape(path));
        Err(Fault::invalid(text))
    }

    /// A node that was deleted, now or once, and what went with it then.
    fn with_contents(&mut self, top: &Node, limit: usize) -> Result<(), Fault> {
        let Some(deletion) = self.last_deletion(top.id)? else { return Ok(()) };
        let span = deletion.at_ms.saturating_sub(WITH_DIRECTORY_MS)..=deletion.at_ms;
        let mut open = vec![top.clone()];
        let mut seen = BTreeSet::from([top.id]);
        while let Some(node) = open.pop() {
            if node.deleted {
                if self.items.len() >= limit {
                    self.more = true;
                    return Ok(());
                }
                self.undelete(&node)?;
            }
            if node.kind() == Kind::Directory {
                open.extend(self.went_with(node.id, &span)?.into_iter().filter(|inside| seen.insert(inside.id)));
            }
        }
        Ok(())
    }

    fn undelete(&mut self, now: &Node) -> Result<(), Fault> {
        let before = Moment::Version(Version(now.versions.last.0.saturating_sub(1)));
        match self.records.version_at(now.id, before)? {
            Some(then) => self.back_to(now, Some(then), false),
            None => self.add(now, Some(now), RestoreAction::Lost),
        }
    }

    /// What lay in a directory and was deleted in a span of time: what still is, and directories that have come back.
    fn went_with(&self, directory: NodeId, span: &RangeInclusive<u64>) -> Result<Vec<Node>, Fault> {
        let deleted = self.records.deleted_in(directory)?.into_iter().filter(|inside| span.contains(&inside.at_ms));
        let mut found: Vec<Node> = deleted.map(|inside| inside.node).collect();
        for id in self.records.once_in(directory)? {
            let Some(node) = self.records.node(id)?.filter(|node| node.is_live() && node.kind() == Kind::Directory) else {
                continue;
            };
            let deletion = self.last_deletion(id)?.filter(|deletion| span.contains(&deletion.at_ms));
            if deletion.is_some_and(|deletion| deletion.node.place.parent == directory) {
                found.push(node);
            }
        }
        Ok(found)
    }

    fn last_deletion(&self, node: NodeId) -> Result<Option<Revision>, Fault> {
        Ok(self.records.versions(node)?.into_iter().find(|revision| revision.node.deleted))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use isotherm_core::ids::{Epoch, GroupId, Incarnation, OperationId, ServerId};
    use isotherm_core::name::Name;
    use isotherm_core::namespace::{Answer, Batch, Change, Operation, apply};
    use isotherm_core::node::{Content, Metadata, Place};
    use rusqlite::Connection;

    use super::*;
    use crate::records::{self, SqlRecords};
    use crate::{Options, Service};

    const GROUP: GroupId = GroupId([9; 16]);

    fn change(connection: &Connection, number: u8, now_ms: u64, change: Change) {
        let mut records = SqlRecords::open(connection, GROUP, now_ms).unwrap();
        let operations = vec![Operation { id: OperationId([number; 16]), group: None, change }];
        let incarnation = records.share().unwrap().incarnation;
        let batch = Batch { server: ServerId::SERVICE, epoch: Epoch(0), incarnation, operations };
        assert!(matches!(apply(&mut records, &batch).unwrap()[..], [Answer::Applied(_)]));
        records.flush().unwrap();
    }

    fn directory(node: u8, parent: NodeId) -> Change {
        let place = Place { parent, name: Name::new(&[b'a' + node]).unwrap() };
        let (metadata, content) = (Metadata::default(), Content::Directory);
        Change::Create { node: NodeId([node; 16]), place, metadata, content, revives: None, conflict_of: None }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_one_plan_does_not_hold_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::open(Options::at(folder.path())).await.unwrap();
        let work = |connection: &Connection| {
            let new = serde_json::from_str(r#"{"name":"plans"}"#).unwrap();
            records::create_group(connection, GROUP, Incarnation(1), &new, 1)?;
            change(connection, 1, 1, directory(1, NodeId::ROOT));
            (2..=4).for_each(|node| change(connection, node, 1, directory(node, NodeId([1; 16]))));
            for node in [2_u8, 3, 4, 1] {
                let at = Version(u64::from(node));
                change(connection, 10 + node, 2, Change::Delete { node: NodeId([node; 16]), place: at, content: at });
            }
            let records = SqlRecords::open(connection, GROUP, 3)?;
            let planned = |limit| {
                let mut page = Page::new(connection, &records);
                page.deleted(b"b", limit).map(|()| (page.items.len(), page.more))
            };
            Ok([planned(2)?, planned(4)?])
        };
        assert_eq!(service.state.database.write(work, |_| {}).await.unwrap(), [(2, true), (4, false)]);
    }
}
