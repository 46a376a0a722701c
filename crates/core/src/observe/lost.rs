//! What became of a node whose name no longer holds its inode.

use std::collections::BTreeSet;

use super::Observed;
use crate::ids::NodeId;
use crate::node::{Kind, Place};
use crate::trees::{Local, Record, Trees, TreesMut, merge_metadata};

/// What asking the kernel for an inode by its handle told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// The inode is gone, or has no name any more.
    Gone,
    /// It has this many names somewhere on the volume.
    Linked(u32),
    /// So many names, and its content is not here.
    Tiered(u32),
}

/// A node is about to be recorded under a name that another one is recorded to have: its file has left the name unseen,
/// or the name would not have been free. Returns that other node, which is lost now.
pub fn displace(trees: &mut impl TreesMut, place: &Place, by: NodeId) -> Option<NodeId> {
    let node = trees.local_at(place).filter(|holder| *holder != by)?;
    lose(trees, node);
    Some(node)
}

/// Nothing is known any more of where the node's inode is; [`resolve_lost`] decides what became of it.
pub fn lose(trees: &mut impl TreesMut, node: NodeId) {
    let Some(mut record) = trees.record(node) else { return };
    if let Some(local) = &mut record.local {
        local.lost = true;
        trees.put(record);
    }
}

/// Decides about a lost node once it is known whether its inode lives. `searched` says that the whole endpoint
/// was listed since the node was lost, so that a living inode is known to be outside. Outside it is a file like others, once
/// its content is here: a tiered one stays lost until then, since the share would not keep the content of what is deleted (row 12).
pub fn resolve_lost(trees: &mut impl TreesMut, node: NodeId, liveness: Liveness, searched: bool) -> Observed {
    let mut out = Observed::default();
    let Some(record) = trees.record(node).filter(Record::is_lost) else { return out };
    let gone = match liveness {
        Liveness::Gone => true,
        Liveness::Linked(links) => searched || other_names(trees, &record) >= links,
        Liveness::Tiered(links) => other_names(trees, &record) >= links,
    };
    if !gone {
        out.lost.insert(node);
        return out;
    }
    let taken = match liveness {
        Liveness::Gone => adopt(trees, &record, &mut out),
        Liveness::Linked(links) | Liveness::Tiered(links) => links > 1 && follow(trees, &record, &mut out),
    };
    if taken {
        return out;
    }
    remove(trees, record, &mut out);
    out
}

/// Names of the inode that are accounted for by other nodes: when they are all there are, this name is gone.
fn other_names(trees: &impl Trees, record: &Record) -> u32 {
    let Some(local) = &record.local else { return 0 };
    let owners = trees.by_handle(&local.handle).into_iter().filter(|node| *node != record.node);
    let here = owners.filter(|node| trees.record(*node).is_some_and(|record| record.here().is_some()));
    u32::try_from(here.count()).unwrap_or(u32::MAX)
}

/// One of several names of an inode is gone, and there is one that nobody else knows: the name has moved.
fn follow(trees: &mut impl TreesMut, record: &Record, out: &mut Observed) -> bool {
    let Some(local) = record.local.as_ref().filter(|local| local.kind() == Kind::File) else { return false };
    let names = trees.by_handle(&local.handle).into_iter().filter_map(|node| trees.record(node));
    let mut fresh = names.filter(|other| other.here().is_some() && other.remote.is_none() && other.synced.is_none());
    let is_reached = |other: &Record| {
        let parent = other.here().and_then(|local| trees.record(local.place.parent));
        parent.is_some_and(|parent| parent.here().is_some())
    };
    let Some(successor) = fresh.find(|other| other.node != record.node && is_reached(other)) else { return false };
    hand_over(trees, record, successor, out);
    true
}

/// Row 16: the inode is gone and its name holds another file that nobody else knows. That file takes the node.
fn adopt(trees: &mut impl TreesMut, record: &Record, out: &mut Observed) -> bool {
    let Some(local) = &record.local else { return false };
    let successor = trees.local_at(&local.place).and_then(|node| trees.record(node));
    let Some(successor) = successor.filter(|other| other.remote.is_none() && other.synced.is_none()) else {
        return false;
    };
    if successor.here().map(|other| other.kind()) != Some(local.kind()) || local.kind() == Kind::Directory {
        return false;
    }
    hand_over(trees, record, successor, out);
    true
}

/// What is here of a node that only this server knows becomes another node's.
fn hand_over(trees: &mut impl TreesMut, record: &Record, successor: Record, out: &mut Observed) {
    out.changed.extend([successor.node, record.node]);
    trees.put(Record::new(successor.node));
    let mut local = successor.local;
    if let (Some(before), Some(now)) = (&record.local, &mut local) {
        keep_what_does_not_fit(before, now);
    }
    trees.put(Record { local, ..record.clone() });
}

/// What this file system could not show of the file before, it does not show of the one that took its place either: that is
/// no removal, whoever saved the file.
fn keep_what_does_not_fit(before: &Local, now: &mut Local) {
    if let Some(shown_before) = before.raw.as_ref().filter(|_| now.raw.is_none()) {
        let shown = now.metadata.clone();
        now.metadata = merge_metadata(shown_before, &before.metadata, &shown);
        now.raw = Some(shown);
    }
}

/// The node is not here any more; whatever was recorded below it has to be looked for in turn.
fn remove(trees: &mut impl TreesMut, mut record: Record, out: &mut Observed) {
    let was_directory = record.local.take().is_some_and(|local| local.kind() == Kind::Directory);
    let node = record.node;
    out.changed.insert(node);
    trees.put(record);
    if !was_directory {
        return;
    }
    let mut below: BTreeSet<NodeId> = trees.local_children(node, usize::MAX).into_iter().collect();
    while let Some(child) = below.pop_first() {
        lose(trees, child);
        out.lost.insert(child);
        out.changed.insert(child);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ids::Timestamp;
    use crate::name::{Case, Name};
    use crate::node::{Metadata, Xattrs};
    use crate::trees::{Handle, LocalContent, MemoryTrees, Print, Synced};

    fn local(inode: u8, metadata: Metadata, raw: Option<Metadata>) -> Local {
        let place = Place { parent: NodeId::ROOT, name: Name::new(b"plan.dwg").unwrap() };
        let print = Print { changed: Timestamp(i64::from(inode)), links: 1, ..Print::default() };
        Local { place, handle: Handle(Box::new([inode])), print, metadata, raw, content: LocalContent::Unread, lost: false }
    }

    fn with(names: &[&str]) -> Metadata {
        let xattrs = names.iter().map(|name| (name.as_bytes().into(), b"value".as_slice().into())).collect::<Xattrs>();
        Metadata { xattrs, ..Metadata::default() }
    }

    /// A save by rename where only one of three attributes fits: the editor dropped that one, and added another.
    #[test]
    fn what_never_fitted_is_not_removed_by_a_save() {
        let mut trees = MemoryTrees::new(Case::Sensitive);
        let (old, new) = (NodeId([1; 16]), NodeId([2; 16]));
        let all = with(&["user.a", "user.b", "user.c"]);
        let mut record = Record::new(old);
        let mut lost = local(1, all.clone(), Some(with(&["user.a"])));
        lost.lost = true;
        record.synced = Some(Synced { place: lost.place.clone(), metadata: all, content: crate::node::Content::Directory });
        record.local = Some(lost);
        trees.put(record);
        let mut successor = Record::new(new);
        successor.local = Some(local(2, with(&["user.mine"]), None));
        trees.put(successor);
        resolve_lost(&mut trees, old, Liveness::Gone, false);
        let now = trees.record(old).unwrap().local.unwrap();
        assert_eq!(now.metadata, with(&["user.b", "user.c", "user.mine"]));
        assert_eq!(now.raw, Some(with(&["user.mine"])));
    }
}
