//! Hard links: the names of one inode share a link id (row 24).

use super::Observed;
use crate::ids::{LinkId, NodeId};
use crate::node::{Content, Kind};
use crate::trees::{Handle, Local, LocalContent, Record, Trees, TreesMut};

/// The link id of a name here, whose inode has `links` names.
///
/// Names of one inode share it: an id that one of them already has in the share is kept; otherwise it is made from the
/// smallest node id, so that it needs no chance. A single name keeps the id that it had, because others of its group may
/// be about to arrive; it gives the id up when another name of the group is another inode here.
#[must_use]
pub fn link_of(trees: &impl Trees, node: NodeId, links: u32) -> Option<LinkId> {
    let record = trees.record(node)?;
    let local = record.local.as_ref()?;
    let names: Vec<Record> = here(trees, &local.handle);
    if links <= 1 || names.len() < 2 {
        return known_link(&record).filter(|link| !has_left(trees, local, *link));
    }
    let known = names.iter().find_map(known_link);
    known.or_else(|| names.iter().map(|record| LinkId(record.node.0)).min())
}

/// The link id that a node has in the share, or had when both sides last agreed.
fn known_link(record: &Record) -> Option<LinkId> {
    let remote = record.live().and_then(|node| node.content.file()).and_then(|file| file.link);
    remote.or_else(|| agreed_link(record))
}

fn agreed_link(record: &Record) -> Option<LinkId> {
    record.synced.as_ref()?.content.file()?.link
}

/// Whether a name that is agreed to be of the group is another inode here.
fn has_left(trees: &impl Trees, local: &Local, link: LinkId) -> bool {
    let members = trees.link_members(link).into_iter().filter_map(|member| trees.record(member));
    let mut agreed = members.filter(|member| agreed_link(member) == Some(link));
    agreed.any(|member| member.here().is_some_and(|other| other.handle != local.handle))
}

/// Gives all names of a node's inode what was found out through this one: they are one file, with one state, one
/// metadata and one content, with the link id that they ask for. Returns the nodes that this changed.
pub fn mirror(trees: &mut impl TreesMut, node: NodeId) -> Vec<NodeId> {
    let Some(mut record) = trees.record(node) else { return Vec::new() };
    let Some(mut source) = record.here().cloned().filter(|local| local.kind() != Kind::Directory) else { return Vec::new() };
    let mut changed = Vec::new();
    if let LocalContent::Known(Content::File(file)) = &mut source.content
        && source.print.links > 1
    {
        let link = link_of(trees, node, source.print.links);
        if file.link != link {
            file.link = link;
            record.local = Some(source.clone());
            changed.push(node);
            trees.put(record);
        }
    }
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
    for mut record in names {
        let link = link_of(trees, record.node, links);
        let Some(local) = &mut record.local else { continue };
        let LocalContent::Known(Content::File(file)) = &mut local.content else { continue };
        if file.link != link {
            file.link = link;
            out.changed.insert(record.node);
            trees.put(record);
        }
    }
}
