//! The invariants of a namespace, as a check that tests and the simulation run after every step.

use std::collections::{BTreeMap, BTreeSet};

use super::records::Share;
use crate::ids::NodeId;
use crate::node::{Kind, Node};

/// Says what is wrong with a namespace; nothing where all invariants hold.
#[must_use]
pub fn check<'a>(share: Share, nodes: impl Iterator<Item = &'a Node>) -> Vec<String> {
    let nodes: BTreeMap<NodeId, &Node> = nodes.map(|node| (node.id, node)).collect();
    let mut wrong = Vec::new();
    let mut names = BTreeMap::new();
    let mut versions = BTreeSet::new();
    for node in nodes.values() {
        if !versions.insert(node.versions.last) {
            wrong.push(format!("version {} was given out twice", node.versions.last));
        }
        if node.versions.last > share.head {
            wrong.push(format!("{} is newer than the head", node.id));
        }
        if !node.is_live() {
            continue;
        }
        let key = (node.place.parent, node.place.name.key(share.case));
        if let Some(other) = names.insert(key, node.id) {
            wrong.push(format!("{} and {other} are both called {}", node.id, node.place.name));
        }
        if let Some(problem) = unrooted(node, &nodes) {
            wrong.push(problem);
        }
    }
    let used: u64 = nodes.values().filter(|node| node.is_live()).map(|node| node.content.size()).sum();
    if used != share.used {
        wrong.push(format!("{used} bytes are live, but {} are counted", share.used));
    }
    wrong
}

fn unrooted(node: &Node, nodes: &BTreeMap<NodeId, &Node>) -> Option<String> {
    let mut at = node.place.parent;
    let mut steps = 0;
    while at != NodeId::ROOT {
        let Some(parent) = nodes.get(&at) else { return Some(format!("{} hangs below {at}, which is unknown", node.id)) };
        if parent.deleted || parent.kind() != Kind::Directory {
            return Some(format!("{} hangs below {at}, which is no live directory", node.id));
        }
        steps += 1;
        if steps > nodes.len() {
            return Some(format!("{} hangs in a cycle", node.id));
        }
        at = parent.place.parent;
    }
    None
}
