//! The agent's hands on a simulated volume: the same moves in the same order as on a real one, with a hook between
//! any two of them, where users save files and machines fail.

use std::collections::BTreeMap;

use isotherm_agent::engine::{After, Look, LookRequest, StepResult};
use isotherm_core::ids::NodeId;
use isotherm_core::name::Name;
use isotherm_core::node::{Content, Kind, Metadata};
use isotherm_core::observe::{Listing, Scope};
use isotherm_core::plan::{Action, Expected, Parent, Step};
use isotherm_core::trees::Handle;

use crate::tiering::comes_as_stub;
use crate::volume::{At, Ino, Inode, STAGING, Volume, handle, ino, manifest};

/// What happens between two moves. It may change the volume, and says whether the machine fails now.
pub type Between<'a> = &'a mut dyn FnMut(&mut Volume) -> bool;

/// The machine failed in the middle of something.
#[derive(Debug)]
pub struct Crashed;

/// Looks at what is asked for.
#[must_use]
pub fn look(volume: &Volume, request: &LookRequest) -> Look {
    let directory = ino(&request.handle);
    let listing = volume.inode(directory).map(|_| {
        let (scope, seen) = match &request.names {
            Some(names) => {
                let found = names
                    .iter()
                    .filter_map(|(name, evidence)| volume.seen(name, volume.at(&(directory, name.clone()))?, *evidence));
                (Scope::Names(names.iter().map(|(name, _)| name.clone()).collect()), found.collect())
            }
            None => {
                let found = volume.entries(directory).into_iter();
                (Scope::All, found.filter_map(|(name, ino)| volume.seen(&name, ino, request.evidence)).collect())
            }
        };
        Listing { directory: request.directory, handle: request.handle.clone(), scope, seen }
    });
    let seen = listing.iter().flat_map(|listing| &listing.seen).filter(|seen| seen.kind == Kind::File);
    let is_tiered = |handle: &Handle| volume.inode(ino(handle)).is_some_and(Inode::is_stub);
    let moved = seen.map(|seen| (seen.handle.clone(), is_tiered(&seen.handle))).collect();
    Look { directory: request.directory, listing, unfit: Vec::new(), moved }
}

/// Content numbers by the id that names them in the share.
pub type Contents = BTreeMap<isotherm_core::content::ManifestId, u32>;

/// Performs steps in order, makes them durable together, and says what became of each.
///
/// # Errors
/// The machine failed on the way; what was done until then is on the volume, durable or not.
pub fn perform(
    volume: &mut Volume,
    steps: &[Step],
    (contents, tiers): (&Contents, bool),
    between: Between<'_>,
) -> Result<Vec<(Step, StepResult)>, Crashed> {
    let mut hands = Hands { volume, contents, tiers, between, made: BTreeMap::new(), aside: Vec::new() };
    let mut results = Vec::new();
    for step in steps {
        hands.pause()?;
        results.push((step.clone(), hands.step(step)?));
    }
    hands.pause()?;
    hands.volume.sync();
    for at in std::mem::take(&mut hands.aside) {
        hands.pause()?;
        hands.volume.unlink(&at);
    }
    let Hands { volume, .. } = hands;
    results.iter_mut().for_each(|(step, result)| renew(volume, step, result));
    Ok(results)
}

/// The agent's own later moves (the last name of a displaced inode, the names of the others) move change times. A newer
/// print is taken only if nobody else has changed anything in the meantime.
fn renew(volume: &Volume, step: &Step, result: &mut StepResult) {
    let kept = matches!((&step.action, &result), (Action::Move { expected, .. }, StepResult::Done(Some(after))) if after.print == expected.print);
    let StepResult::Done(Some(after)) = result else { return };
    if kept {
        return;
    }
    let (Some(print), Some(inode)) = (volume.print(ino(&after.handle)), volume.inode(ino(&after.handle))) else { return };
    if inode.metadata == after.shown && print.size == after.print.size && print.modified == after.print.modified {
        after.print = print;
    }
}

struct Hands<'a, 'b> {
    volume: &'a mut Volume,
    contents: &'a Contents,
    /// New files come as stubs.
    tiers: bool,
    between: Between<'b>,
    made: BTreeMap<NodeId, Ino>,
    aside: Vec<At>,
}

impl Hands<'_, '_> {
    fn pause(&mut self) -> Result<(), Crashed> {
        if (self.between)(self.volume) { Err(Crashed) } else { Ok(()) }
    }

    fn directory(&self, parent: &Parent) -> Option<Ino> {
        let found = match parent {
            Parent::Inode(handle) => ino(handle),
            Parent::Planned(node) => *self.made.get(node)?,
        };
        self.volume.inode(found).filter(|inode| inode.kind == Kind::Directory).map(|_| found)
    }

    fn find(&self, expected: &Expected) -> Option<At> {
        let at = (self.directory(&expected.spot.parent)?, expected.spot.name.clone());
        (self.volume.at(&at) == Some(ino(&expected.handle))).then_some(at)
    }

    fn after(&self, ino: Ino) -> StepResult {
        let (Some(print), Some(inode)) = (self.volume.print(ino), self.volume.inode(ino)) else { return StepResult::Surprise };
        StepResult::Done(Some(After {
            handle: handle(ino),
            print,
            shown: inode.metadata.clone(),
            is_tiered: Some(inode.is_stub()),
        }))
    }

    fn step(&mut self, step: &Step) -> Result<StepResult, Crashed> {
        match &step.action {
            Action::Create { at, content, metadata, link_to } => {
                let Some(directory) = self.directory(&at.parent) else { return Ok(StepResult::Surprise) };
                let Some(staged) = self.stage(step, content, metadata, link_to.as_ref()) else {
                    return Ok(StepResult::Surprise);
                };
                self.pause()?;
                let target = (directory, at.name.clone());
                if self.volume.at(&target).is_some() || self.volume.inode(directory).is_none() {
                    self.volume.unlink(&staged);
                    return Ok(StepResult::Occupied);
                }
                let Some(ino) = self.volume.at(&staged) else { return Ok(StepResult::Surprise) };
                self.volume.rename(&staged, target);
                self.made.insert(step.node, ino);
                Ok(self.after(ino))
            }
            Action::Replace { expected, content, metadata, link_to } => {
                self.replace(step, expected, content, metadata, link_to.as_ref())
            }
            Action::SetMetadata { expected, metadata, before, content, .. } => {
                let at = ino(&expected.handle);
                let same = self.volume.inode(at).is_some_and(|inode| inode.metadata == *before);
                let moved_on = content.is_some() && self.volume.print(at) != Some(expected.print);
                if self.find(expected).is_none() || !same || moved_on {
                    return Ok(StepResult::Surprise);
                }
                let known = self.volume.print(at) == Some(expected.print);
                self.volume.alter(at, |inode, _| {
                    inode.metadata = metadata.clone();
                    if let Some(file) = content {
                        inode.modified = file.modified.0;
                    }
                });
                let mut result = self.after(at);
                // Changed since it was planned for: the old print stays, so that the change is found.
                if let StepResult::Done(Some(after)) = &mut result
                    && !known
                {
                    after.print = expected.print;
                }
                Ok(result)
            }
            Action::Move { expected, to, .. } => {
                let (Some(from), Some(directory)) = (self.find(expected), self.directory(&to.parent)) else {
                    return Ok(StepResult::Surprise);
                };
                let target = (directory, to.name.clone());
                if self.volume.at(&target).is_some() {
                    return Ok(StepResult::Occupied);
                }
                let known = self.volume.print(ino(&expected.handle)) == Some(expected.print);
                if !self.volume.rename(&from, target) {
                    return Ok(StepResult::Surprise);
                }
                let mut result = self.after(ino(&expected.handle));
                // Changed since it was planned for: the old print stays, so that the change is found.
                if let StepResult::Done(Some(after)) = &mut result
                    && !known
                {
                    after.print = expected.print;
                }
                Ok(result)
            }
            Action::Remove { expected, .. } => self.remove(step, expected),
        }
    }

    fn stage(&mut self, step: &Step, content: &Content, metadata: &Metadata, link_to: Option<&Expected>) -> Option<At> {
        let node = step.node;
        let at = (STAGING, Name::new(format!("full-{node}").as_bytes()).ok()?);
        if self.volume.at(&at).is_some() {
            self.volume.unlink(&at);
        }
        if let Some(target) = link_to {
            self.find(target)?;
            if self.volume.print(ino(&target.handle))? != target.print {
                return None;
            }
            self.volume.link(at.clone(), ino(&target.handle));
            return Some(at);
        }
        let bytes = match content {
            Content::Directory => 0,
            Content::File(file) => *self.contents.get(&file.manifest)?,
            Content::Symlink { target } => u32::from_be_bytes(target.as_slice().try_into().ok()?),
        };
        let as_stub = comes_as_stub(self.volume, self.tiers, step, bytes);
        let made = self.volume.make(content.kind(), bytes);
        self.volume.alter(made, |inode, _| {
            inode.stub = as_stub.then_some(node);
            inode.metadata = metadata.clone();
            if let Some(file) = content.file() {
                inode.modified = file.modified.0;
            }
        });
        self.volume.link(at.clone(), made);
        Some(at)
    }

    /// Row 1: exchange, then prove that what was displaced is what was expected, else exchange back.
    fn replace(
        &mut self,
        step: &Step,
        expected: &Expected,
        content: &Content,
        metadata: &Metadata,
        link_to: Option<&Expected>,
    ) -> Result<StepResult, Crashed> {
        let Some(at) = self.find(expected) else { return Ok(StepResult::Surprise) };
        if self.volume.print(ino(&expected.handle)) != Some(expected.print) {
            return Ok(StepResult::Surprise);
        }
        let Some(staged) = self.stage(step, content, metadata, link_to) else { return Ok(StepResult::Surprise) };
        // Durable before it gets the name.
        self.volume.sync();
        self.pause()?;
        let Some(made) = self.volume.at(&staged) else { return Ok(StepResult::Surprise) };
        // What it shows is taken before anybody else can reach it.
        let after = self.after(made);
        if !self.volume.exchange(&staged, &at) {
            self.volume.unlink(&staged);
            return Ok(StepResult::Surprise);
        }
        self.pause()?;
        if !self.is_expected(&staged, expected) {
            if self.volume.at(&at) == Some(made) {
                self.volume.exchange(&staged, &at);
                self.withdraw(made, &staged, &at, &after);
            } else {
                self.rescue(&staged, &at);
            }
            return Ok(StepResult::Surprise);
        }
        self.aside.push(staged);
        Ok(after)
    }

    /// The new inode had the name for a moment. If a user wrote to it then, it is his.
    fn withdraw(&mut self, made: Ino, staged: &At, at: &At, placed: &StepResult) {
        let StepResult::Done(Some(after)) = placed else { return };
        let print = self.volume.print(made);
        if print.is_some_and(|print| print.size == after.print.size && print.modified == after.print.modified) {
            self.volume.unlink(staged);
        } else {
            self.rescue(staged, at);
        }
    }

    fn is_expected(&self, at: &At, expected: &Expected) -> bool {
        let Some(found) = self.volume.at(at) else { return false };
        let Some(print) = self.volume.print(found) else { return false };
        found == ino(&expected.handle) && print.size == expected.print.size && print.modified == expected.print.modified
    }

    /// The name was taken again while the displaced file was judged: it goes beside; or its directory is gone: it goes to
    /// the root.
    fn rescue(&mut self, staged: &At, at: &At) {
        let directory = if self.volume.inode(at.0).is_some() { at.0 } else { crate::volume::ROOT };
        for number in 0.. {
            let name = at.1.conflict("rescued", number);
            let beside = (directory, name);
            if self.volume.at(&beside).is_none() {
                self.volume.rename(staged, beside);
                return;
            }
        }
    }

    fn remove(&mut self, step: &Step, expected: &Expected) -> Result<StepResult, Crashed> {
        let Some(at) = self.find(expected) else { return Ok(StepResult::Surprise) };
        let target = ino(&expected.handle);
        let directory = self.volume.inode(target).is_some_and(|inode| inode.kind == Kind::Directory);
        if directory {
            if !self.volume.entries(target).is_empty() {
                return Ok(StepResult::Surprise);
            }
            self.volume.unlink(&at);
            return Ok(StepResult::Done(None));
        }
        if self.volume.print(target) != Some(expected.print) {
            return Ok(StepResult::Surprise);
        }
        let Ok(name) = Name::new(format!("full-{}", step.node).as_bytes()) else { return Ok(StepResult::Surprise) };
        let aside = (STAGING, name);
        self.pause()?;
        if self.volume.at(&aside).is_some() {
            self.volume.unlink(&aside);
        }
        if !self.volume.rename(&at, aside.clone()) {
            return Ok(StepResult::Surprise);
        }
        self.pause()?;
        if !self.is_expected(&aside, expected) {
            if self.volume.at(&at).is_none() && self.volume.inode(at.0).is_some() {
                self.volume.rename(&aside, at);
            } else {
                self.rescue(&aside, &at);
            }
            return Ok(StepResult::Surprise);
        }
        self.aside.push(aside);
        Ok(StepResult::Done(None))
    }
}

/// What a starting agent does with its staging folder: what the share holds too goes, anything else is put back among
/// the user's files.
pub fn recover(volume: &mut Volume, safe: &dyn Fn(NodeId, u32) -> bool) {
    for (name, ino) in volume.entries(STAGING) {
        let text = String::from_utf8_lossy(name.as_bytes()).into_owned();
        let Some(node) = text.strip_prefix("full-").and_then(|id| id.parse().ok()) else { continue };
        let at = (STAGING, name);
        let Some(inode) = volume.inode(ino) else { continue };
        let worthless = match inode.kind {
            Kind::Directory => volume.entries(ino).is_empty(),
            Kind::Symlink => true,
            Kind::File => volume.links(ino) > 1 || safe(node, inode.bytes),
        };
        if worthless {
            volume.unlink(&at);
            continue;
        }
        for number in 0.. {
            let Ok(base) = Name::new(b"rescued") else { return };
            let target = (crate::volume::ROOT, base.conflict("file", number));
            if volume.at(&target).is_none() {
                volume.rename(&at, target);
                break;
            }
        }
    }
    volume.sync();
}

/// The content number of a manifest, for looking contents up.
#[must_use]
pub fn content_entry(bytes: u32) -> (isotherm_core::content::ManifestId, u32) {
    (manifest(bytes), bytes)
}
