//! Steps that were under way when an agent ended: whatever became of them is not taken for a user's work.
//!
//! What a step leaves on the volume looks like a change that somebody made, unless its result was written down too. If
//! the node was deleted elsewhere in the meantime, that change would bring it back. So steps are kept before they are
//! performed, and after a crash their targets are recognised when they are first seen: by inode, or by name, size and
//! modification time. The bytes are still read before anything rests on them.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::ids::{NodeId, OperationId};
use isotherm_core::node::{Content, Kind, Metadata, Node, Place, Versions};
use isotherm_core::observe::{Listing, Seen};
use isotherm_core::plan::settle;
use isotherm_core::plan::{Action, Step};
use isotherm_core::stored;
use isotherm_core::trees::{Local, LocalContent, Record, same_metadata};

use super::local::LocalSide;
use super::{After, Catalog, Engine};

/// Catalog value of the steps that are kept.
pub const PLACING: &str = "placing";

/// The contents that kept steps were bringing to a node. They came from the share, which may have newer ones by now.
#[must_use]
pub fn contents_on_the_way(kept: Option<&[u8]>, node: NodeId) -> Vec<Content> {
    let steps = kept.map(kept_steps).into_iter().flatten();
    let contents = steps.filter(|step| step.node == node).filter_map(|step| match step.action {
        Action::Create { content, .. } | Action::Replace { content, .. } => Some(content),
        _ => None,
    });
    contents.collect()
}

/// Version of the form in which steps are kept: postcard, sealed. The form of earlier releases had neither seal nor number.
const FORMAT: u8 = 1;

/// The steps of a kept value. What cannot be read is as if there were none: then what they left on the volume is taken for a
/// user's work, which loses nothing.
pub(crate) fn kept_steps(bytes: &[u8]) -> Vec<Step> {
    // All of it: damage must not be read as fewer steps, or others.
    let read =
        |body| postcard::take_from_bytes(body).ok().filter(|(_, rest): &(_, &[u8])| rest.is_empty()).map(|(steps, _)| steps);
    let steps = stored::open(FORMAT, bytes).ok().and_then(read);
    steps.or_else(|| read(bytes)).unwrap_or_else(|| {
        tracing::warn!("Steps that were under way when the agent ended cannot be read");
        Vec::new()
    })
}

/// Steps whose results are not known.
#[derive(Debug, Default)]
pub(super) struct Placing {
    under_way: BTreeMap<NodeId, Step>,
    /// Of earlier runs, by their targets, until everything was looked at once. One place may be the target of several: a
    /// run that ended before it saw what its predecessor had left there may have begun another step.
    left: BTreeMap<Place, Vec<Step>>,
}

impl Placing {
    /// Nodes that steps under way move.
    pub(super) fn moving(&self) -> impl Iterator<Item = NodeId> {
        self.under_way.values().filter(|step| matches!(step.action, Action::Move { .. })).map(|step| step.node)
    }

    /// Whether it will be known soon what a step of an earlier run has done to the node.
    pub(super) fn is_open(&self, node: NodeId, local: &LocalSide) -> bool {
        let mut places = self.left.iter().filter(|(_, steps)| steps.iter().any(|step| step.node == node));
        places.any(|(place, _)| local.awaits(place))
    }

    /// All steps of earlier runs whose results are not known.
    fn steps_left(&self) -> impl Iterator<Item = &Step> {
        self.left.values().flatten()
    }
}

impl<C: Catalog> Engine<C> {
    pub(super) fn recall_placing(&mut self) {
        let kept = self.catalog.value(PLACING);
        for step in kept.as_deref().map(kept_steps).into_iter().flatten() {
            if let Some(place) = target(&step) {
                self.placing.left.entry(place).or_default().push(step);
            }
        }
        // Their targets come first: what the start gave back under another name must not be taken for a move of the file
        // that has been replaced.
        let targets: Vec<Place> = self.placing.left.keys().cloned().collect();
        targets.iter().for_each(|place| self.look_at(place));
        let parents: BTreeSet<NodeId> = targets.iter().map(|place| place.parent).collect();
        let made: BTreeSet<NodeId> = self.placing.steps_left().map(|step| step.node).collect();
        parents.difference(&made).for_each(|parent| self.go_on_below(*parent));
    }

    /// It is known where a directory is: what was to be placed in it is looked at, or can not be there.
    fn go_on_below(&mut self, directory: NodeId) {
        let here = directory == NodeId::PARKED || self.catalog.record(directory).is_some_and(|record| record.local.is_some());
        let below = self.placing.left.keys().filter(|place| place.parent == directory).cloned();
        for place in below.collect::<Vec<_>>() {
            if here {
                self.look_at(&place);
            } else {
                for step in self.placing.left.remove(&place).unwrap_or_default() {
                    self.around(step.node);
                    self.go_on_below(step.node);
                }
            }
        }
    }

    /// Keeps steps that are about to be performed.
    pub(super) fn begin_placing(&mut self, steps: &[Step]) {
        let lasting = steps.iter().filter(|step| target(step).is_some());
        self.placing.under_way.extend(lasting.map(|step| (step.node, step.clone())));
        self.keep_placing();
    }

    /// The results of steps are known.
    pub(super) fn end_placing<'a>(&mut self, steps: impl Iterator<Item = &'a Step>) {
        let before = self.placing.under_way.len();
        steps.for_each(|step| {
            self.placing.under_way.remove(&step.node);
        });
        if self.placing.under_way.len() != before {
            self.keep_placing();
        }
    }

    /// Everything was looked at: what was not found by now is not there.
    pub(super) fn forget_placing(&mut self) {
        let left = std::mem::take(&mut self.placing.left);
        if !left.is_empty() {
            self.keep_placing();
            left.values().flatten().for_each(|step| self.around(step.node));
        }
    }

    fn keep_placing(&mut self) {
        let steps: Vec<&Step> = self.placing.steps_left().chain(self.placing.under_way.values()).collect();
        let bytes = (!steps.is_empty()).then(|| postcard::to_allocvec(&steps)).and_then(Result::ok);
        let sealed = bytes.map(|bytes| stored::seal(FORMAT, &bytes));
        self.catalog.set_value(PLACING, sealed.as_deref());
    }

    /// Takes what steps of an earlier run have left, before the listing is compared with what is known.
    pub(super) fn recognise(&mut self, listing: &Listing) {
        if self.placing.left.is_empty() || !self.is_believed(listing) {
            return;
        }
        let covered = self.placing.left.keys().filter(|place| listing.covers(place));
        let covered: Vec<Place> = covered.cloned().collect();
        // All are judged by what was known before any is taken: one may stand where another one was moved away.
        let mut found = Vec::new();
        for place in &covered {
            let seen = listing.seen.iter().find(|seen| seen.name == place.name);
            // One thing is one step's work; the latest step knows best what the share has there.
            let mut unclaimed = seen;
            for step in self.placing.left.remove(place).unwrap_or_default().into_iter().rev() {
                let local = unclaimed.and_then(|seen| self.left_by(&step, place.clone(), seen));
                unclaimed = unclaimed.filter(|_| local.is_none());
                found.push((step, local));
            }
        }
        for (step, local) in found {
            if let Some(local) = local {
                self.take_placed(&step, local);
            }
            // Nothing was planned for it before this was known.
            self.around(step.node);
            self.go_on_below(step.node);
        }
        if !covered.is_empty() {
            self.keep_placing();
        }
    }

    fn take_placed(&mut self, step: &Step, local: Local) {
        let place = &local.place;
        self.displaced(place, step.node);
        let before = self.catalog.record(step.node).and_then(|record| record.here().map(|local| local.place.clone()));
        if let Some(before) = before.filter(|before| before != place && !matches!(step.action, Action::Move { .. })) {
            // Its former file was given back there, and is a file of its own.
            self.look_at(&before);
        }
        if local.kind() == Kind::Directory {
            self.scan_from(step.node);
        }
        let deleted = self.deleted_since(step);
        let strays = settle::performed(&mut self.catalog, step, Some(local));
        if let Some(mut record) = self.catalog.record(step.node).filter(|_| deleted.is_some()) {
            record.remote = deleted;
            self.catalog.put(record);
        }
        strays.into_iter().for_each(|stray| self.around(stray));
        // Whether it was made without its content is not known here; if not, it is found here.
        self.note_coming(step, true);
        self.mirrored(step.node);
    }

    /// The share had what a step made; a node of which nothing is known any more was deleted there since. In which version, is
    /// forgotten: whoever wants it back learns that by the answer.
    fn deleted_since(&self, step: &Step) -> Option<Node> {
        let Action::Create { at, content, metadata, .. } = &step.action else { return None };
        self.catalog.record(step.node).is_none().then(|| Node {
            id: step.node,
            place: at.place(),
            metadata: metadata.clone(),
            content: content.clone(),
            versions: Versions::default(),
            deleted: true,
            conflict_of: None,
            author: self.settings.rules.server,
            operation: OperationId::default(),
        })
    }

    /// What is seen at the target of a step, if the step has made it.
    fn left_by(&self, step: &Step, place: Place, seen: &Seen) -> Option<Local> {
        // A node that was deleted elsewhere since may be forgotten already.
        let record = self.catalog.record(step.node).unwrap_or_else(|| Record::new(step.node));
        let known = !self.catalog.by_handle(&seen.handle).is_empty();
        match &step.action {
            Action::Create { content, metadata, link_to: None, .. } if record.local.is_none() && !known => {
                made(content, metadata, place, seen)
            }
            Action::Replace { expected, content, metadata, link_to: None } if !known => {
                // Wherever it was seen since: its former file may have been given back under another name.
                let replaced = record.here().is_some_and(|local| local.handle == expected.handle);
                made(content, metadata, place, seen).filter(|_| replaced)
            }
            Action::Create { link_to: Some(target), .. } if record.local.is_none() && seen.handle == target.handle => {
                self.further_name(place, seen)
            }
            Action::Replace { expected, link_to: Some(target), .. } if seen.handle == target.handle => {
                let replaced = record.here().is_some_and(|local| local.handle == expected.handle);
                self.further_name(place, seen).filter(|_| replaced)
            }
            // A file with several names may have been given this one by a user.
            Action::Move { expected, .. }
                if seen.handle == expected.handle && (seen.kind == Kind::Directory || seen.print.links == 1) =>
            {
                // Also if it counts as lost: what another step has put into its former place may have been seen first.
                let before = record.local.as_ref().filter(|local| local.place == expected.spot.place())?;
                Some(Local { place, lost: false, ..before.clone() })
            }
            _ => None,
        }
    }

    /// A name of an inode that had others when the step was planned.
    fn further_name(&self, place: Place, seen: &Seen) -> Option<Local> {
        let after = After { handle: seen.handle.clone(), print: seen.print, shown: seen.metadata.clone()?, is_tiered: None };
        Some(self.linked(place, after))
    }
}

fn made(content: &Content, given: &Metadata, place: Place, seen: &Seen) -> Option<Local> {
    let shown = seen.metadata.clone()?;
    // What the file system could not hold is no change of a user.
    let untouched = (shown.mode, &shown.user.id, &shown.group.id) == (given.mode, &given.user.id, &given.group.id);
    let (metadata, raw) = if untouched { (given.clone(), Some(shown)) } else { (shown, None) };
    let raw = raw.filter(|raw| !same_metadata(raw, &metadata));
    let same = seen.kind == content.kind()
        && match content {
            Content::File(file) => file.size == seen.print.size && file.modified == seen.print.modified,
            Content::Symlink { target } => seen.target.as_ref() == Some(target),
            Content::Directory => true,
        };
    let content = if seen.kind == Kind::File { LocalContent::Unread } else { LocalContent::Known(content.clone()) };
    let (handle, print) = (seen.handle.clone(), seen.print);
    same.then_some(Local { place, handle, print, metadata, raw, content, lost: false })
}

/// The place where a step leaves something.
fn target(step: &Step) -> Option<Place> {
    match &step.action {
        Action::Create { at, .. } => Some(at.place()),
        Action::Replace { expected, .. } => Some(expected.spot.place()),
        Action::Move { to, .. } => Some(to.place()),
        Action::SetMetadata { .. } | Action::Remove { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use isotherm_core::content::ManifestId;
    use isotherm_core::ids::Timestamp;
    use isotherm_core::name::Name;
    use isotherm_core::node::FileContent;
    use isotherm_core::plan::{Parent, Spot};
    use isotherm_core::trees::Handle;

    use super::*;

    /// As releases without a format number kept one step.
    const RAW: &[u8] = include_bytes!("../../tests/formats/steps-0");
    const SEALED: &[u8] = include_bytes!("../../tests/formats/steps-1");

    fn step() -> Step {
        let name = Name::new("Pläne.dwg".as_bytes()).unwrap();
        let at = Spot { node: NodeId([7; 16]), parent: Parent::Inode(Handle(vec![1, 2, 3].into())), name };
        let manifest = ManifestId::from_bytes([9; 32]);
        let content = Content::File(FileContent { manifest, size: 300, modified: Timestamp(-5), link: None });
        let action = Action::Create { at, content, metadata: Metadata { mode: 0o640, ..Metadata::default() }, link_to: None };
        Step { node: NodeId([8; 16]), action }
    }

    #[test]
    fn steps_of_every_format_are_read_and_damaged_ones_are_none() {
        let body = postcard::to_allocvec(&[step()][..]).unwrap();
        assert!(body == RAW && stored::seal(FORMAT, &body) == SEALED, "a change of the form is a new format");
        assert_eq!(kept_steps(RAW), [step()]);
        assert_eq!(kept_steps(SEALED), [step()]);
        for at in 0..SEALED.len() {
            let mut damaged = SEALED.to_vec();
            damaged[at] ^= 0x40;
            assert_eq!(kept_steps(&damaged), [], "byte {at}");
            assert_eq!(kept_steps(&SEALED[..at]), []);
        }
    }
}
