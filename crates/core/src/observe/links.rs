//! Hard links: the names of one inode share a link id (row 24).

use super::Observed;
use crate::ids::{LinkId, NodeId};
use crate::node::{Content, Kind};
use crate::trees::{Handle, Local, LocalContent, Record, Trees, TreesMut};

/// The link id that all names of an inode share; none for an inode with one name.
///
/// An id that a name already has in the share is kept; otherwise it is made from the smallest node id, so that it
/// needs no chance.
#[must_use]
pub fn link_of(trees: &impl Trees, handle: &Handle, links: u32) -> Option<LinkId> {
    if links <= 1 {
        return None;
    }
    let names: Vec<Record> = here(trees, handle);
    if names.len() < 2 {
        return None;
    }
    let known = names.iter().find_map(|record| {
        let remote = record.live().and_then(|node| node.content.file()).and_then(|file| file.link);
        remote.or_else(|| record.synced.as_ref().and_then(|synced| synced.content.file()).and_then(|file| file.link))
    });
    known.or_else(|| names.iter().map(|record| LinkId(record.node.0)).min())
}

/// Gives all names of a node's inode what was found out through this one: they are one file, with one state, one
/// metadata and one content. Returns the nodes that this changed.
pub fn mirror(trees: &mut impl TreesMut, node: NodeId) -> Vec<NodeId> {
    let Some(source) = trees.record(node).and_then(|record| record.here().cloned()) else { return Vec::new() };
    if source.kind() == Kind::Directory {
        return Vec::new();
    }
    let mut changed = Vec::new();
    for mut record in here(trees, &source.handle).into_iter().filter(|record| record.node != node) {
        let Some(local) = &mut record.local else { continue };
        let shared = Local { place: local.place.clone(), ..source.clone() };
        if *local != shared {
            *local = shared;
            changed.push(record.node);
            trees.put(record);
        }
    }
    changed
}

fn here(trees: &impl Trees, handle: &Handle) -> Vec<Record> {
    let nodes = trees.by_handle(handle).into_iter();
    nodes.filter_map(|node| trees.record(node)).filter(|record| record.here().is_some()).collect()
}

/// Gives all names of an inode the link id that its number of names now asks for.
pub(super) fn relink(trees: &mut impl TreesMut, handle: &Handle, out: &mut Observed) {
    let names = here(trees, handle);
    let Some(links) = names.iter().filter_map(|record| record.here()).map(|local| local.print.links).max() else {
        return;
    };
    let link = link_of(trees, handle, links);
    for mut record in names {
        let Some(local) = &mut record.local else { continue };
        let LocalContent::Known(Content::File(file)) = &mut local.content else { continue };
        if file.link != link {
            file.link = link;
            out.changed.insert(record.node);
            trees.put(record);
        }
    }
}
