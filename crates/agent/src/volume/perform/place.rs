//! One step: what is at its name is compared with what it expects, and the name changes.
//!
//! **Invariant:** each function either does what its step says or leaves every name as it was.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use isotherm_core::name::Name;
use isotherm_core::node::{Content, FileContent, Metadata};
use isotherm_core::plan::{Action, Expected, Parent, Spot, Step};
use isotherm_core::trees::{Print, same_metadata};
use isotherm_gate::{Dir, ErrorKind, FileHandle, GateError, Inode, Stat};

use super::super::{handle_of, is_tiered, print_of};
use super::displaced::{Displaced, is_written, same_bytes};
use super::fetch::{Staged, staged, step_name};
use super::refusal::{Refusal, refused};
use super::stubs;
use super::{Batch, FULL, MADE};
use crate::engine::After;

type Placed = (Option<After>, Option<Displaced>);

/// A name for the kernel.
pub(super) fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

impl Batch<'_> {
    /// Performs a step whose content, if it needs one, is staged. What is staged and not used is removed.
    pub(super) fn place(&mut self, step: &Step, content: Option<Staged>) -> Result<Placed, Refusal> {
        let ready = content.as_ref().map(|staged| (staged.name.clone(), staged.stat.handle.clone()));
        let result = if stubs::is_awaited(self.performer, step) { Err(Refusal::Busy) } else { self.perform(step, content) };
        if let (Err(_), Some((name, handle))) = (&result, ready) {
            self.remove_own(&name, &handle);
        }
        result
    }

    fn perform(&mut self, step: &Step, content: Option<Staged>) -> Result<Placed, Refusal> {
        let refuse = |error: GateError| refused(step_name(step), &error);
        match &step.action {
            Action::Create { at, content: wanted, metadata, link_to } => {
                let dir = self.parent(at)?;
                let new = match content {
                    Some(staged) => staged,
                    None => self.make(step, wanted, metadata, link_to.as_ref())?,
                };
                let after = match self.name(&new, &dir, os(&at.name)) {
                    Err(error) if error.kind() == ErrorKind::CrossDevice && matches!(wanted, Content::Symlink { .. }) => {
                        self.remove_own(&new.name, &new.stat.handle);
                        self.symlink_in_place(&dir, os(&at.name), wanted, metadata)
                    }
                    named => named,
                };
                after.map(|after| (Some(after), None)).map_err(|error| {
                    self.remove_own(&new.name, &new.stat.handle);
                    refuse(error)
                })
            }
            Action::Replace { expected, content: wanted, metadata, link_to } => {
                let dir = self.expected(expected)?.0;
                let new = match content {
                    Some(staged) => staged,
                    None => self.make(step, wanted, metadata, link_to.as_ref())?,
                };
                self.replace(new, expected, dir)
            }
            Action::SetMetadata { expected, metadata, before, content, .. } => {
                let after = self.set_metadata(step, expected, (before, metadata), content.as_ref())?;
                Ok((Some(after), None))
            }
            Action::Move { expected, to, .. } => self.rename(expected, to).map(|after| (Some(after), None)),
            Action::Remove { expected, content } => {
                let displaced = self.remove(step, expected, content)?;
                Ok((None, displaced))
            }
        }
    }

    /// Makes a directory, a symlink or another name of an inode in staging.
    fn make(
        &mut self,
        step: &Step,
        content: &Content,
        metadata: &Metadata,
        link_to: Option<&Expected>,
    ) -> Result<Staged, Refusal> {
        let refuse = |error: GateError| refused(step_name(step), &error);
        let prefix = if content == &Content::Directory { MADE } else { FULL };
        let name = self.performer.staged_name(prefix, step.node);
        let staging = self.performer.volume.staging().dir();
        match (content, link_to) {
            (_, Some(target)) => {
                let (dir, inode, _) = self.expected(target)?;
                dir.link(os(&target.spot.name), staging, OsStr::new(&name)).map_err(refuse)?;
                let new = staged(self.performer, name).map_err(refuse)?;
                if new.stat.handle != inode.handle().map_err(refuse)? {
                    self.remove_own(&new.name, &new.stat.handle);
                    return Err(Refusal::Surprise);
                }
                return Ok(new);
            }
            (Content::Directory, None) => staging.mkdir(OsStr::new(&name), 0o700).map_err(refuse)?,
            (Content::Symlink { target }, None) => {
                staging.symlink(OsStr::new(&name), OsStr::from_bytes(target)).map_err(refuse)?;
            }
            (Content::File(_), None) => return Err(Refusal::Skipped),
        }
        let dressed = staging
            .inode(OsStr::new(&name))
            .and_then(|inode| self.performer.volume.write_metadata(&inode, metadata))
            .and_then(|()| staged(self.performer, name.clone()));
        dressed.map_err(|error| {
            // Made a moment ago and never out of staging.
            let _ = self.volume().staging().remove(OsStr::new(&name));
            refuse(error)
        })
    }

    /// Gives something staged a free name.
    fn name(&self, new: &Staged, dir: &Dir, name: &OsStr) -> Result<After, GateError> {
        let staging = self.performer.volume.staging().dir();
        in_project(&new.inode, dir, || staging.rename_noreplace(OsStr::new(&new.name), dir, name))?;
        named(new)
    }

    /// A symlink cannot be given to a project, so in a directory that takes in nothing else it is made where it belongs.
    fn symlink_in_place(&self, dir: &Dir, name: &OsStr, content: &Content, metadata: &Metadata) -> Result<After, GateError> {
        let Content::Symlink { target } = content else { return Err(GateError::new(ErrorKind::CrossDevice, "name", name)) };
        dir.symlink(name, OsStr::from_bytes(target))?;
        let inode = dir.inode(name)?;
        self.performer.volume.write_metadata(&inode, metadata)?;
        let stat = inode.stat()?;
        let shown = self.performer.volume.read_metadata(&inode, &stat)?;
        Ok(After { handle: handle_of(&stat.handle), print: print_of(&stat), shown, is_tiered: Some(false) })
    }

    fn replace(&self, new: Staged, expected: &Expected, dir: Arc<Dir>) -> Result<Placed, Refusal> {
        let name = os(&expected.spot.name);
        let refuse = |error: GateError| refused(name, &error);
        let volume = self.volume();
        // Another name of an inode has that inode's own.
        if new.stat.nlink == 1 {
            let old = dir.inode(name).map_err(refuse)?;
            new.inode.take_local_attributes(&old).map_err(refuse)?;
        }
        let staging = volume.staging().dir();
        in_project(&new.inode, &dir, || staging.rename_exchange(OsStr::new(&new.name), &dir, name)).map_err(refuse)?;
        // From here on the staged name holds what had the name before: a user's.
        let successor = Some(new.stat.clone());
        let displaced = Displaced { staged: new.name.clone(), expected: expected.clone(), dir, successor };
        match displaced.judge(volume) {
            Ok(()) => Ok((Some(named(&new).map_err(refuse)?), Some(displaced))),
            Err(doubt) => Err(displaced.put_back(volume, doubt)),
        }
    }

    fn remove(&mut self, step: &Step, expected: &Expected, content: &Content) -> Result<Option<Displaced>, Refusal> {
        let name = os(&expected.spot.name);
        let refuse = |error: GateError| refused(name, &error);
        let (dir, _, _) = if *content == Content::Directory { self.found(expected)? } else { self.expected(expected)? };
        if *content == Content::Directory && !is_empty(&dir.open_dir(name).map_err(refuse)?).map_err(refuse)? {
            return Err(Refusal::Surprise);
        }
        let staged = self.performer.staged_name(FULL, step.node);
        let volume = self.volume();
        dir.rename_noreplace(name, volume.staging().dir(), OsStr::new(&staged)).map_err(refuse)?;
        let displaced = Displaced { staged, expected: expected.clone(), dir, successor: None };
        if let Err(doubt) = displaced.judge(volume) {
            return Err(displaced.put_back(volume, doubt));
        }
        if *content != Content::Directory {
            return Ok(Some(displaced));
        }
        // Never recursive (row 17): what somebody put into it meanwhile brings it back.
        match volume.staging().dir().rmdir(OsStr::new(&displaced.staged)) {
            Ok(()) => Ok(None),
            Err(error) => {
                let result = refuse(error);
                displaced.put_back(volume, super::displaced::Doubt::Other);
                Err(result)
            }
        }
    }

    fn rename(&mut self, expected: &Expected, to: &Spot) -> Result<After, Refusal> {
        let refuse = |error: GateError| match error.kind() {
            // A directory into its own child: somebody has moved the target there.
            ErrorKind::Io(_) => Refusal::Surprise,
            _ => refused(os(&to.name), &error),
        };
        let (from, inode, before) = self.found(expected)?;
        let dir = self.parent(to)?;
        in_project(&inode, &dir, || from.rename_noreplace(os(&expected.spot.name), &dir, os(&to.name))).map_err(refuse)?;
        let moved = dir.stat(os(&to.name)).map_err(refuse)?;
        if moved.is_none_or(|moved| moved.handle != before.handle) {
            // Another file had taken the name in the last moment. It goes back; where its name is taken again it
            // stays where it is now, under a name that users see.
            let _ = dir.rename_noreplace(os(&to.name), &from, os(&expected.spot.name));
            return Err(Refusal::Surprise);
        }
        self.after(&inode, &expected.print, &before, None).map_err(refuse)
    }

    fn set_metadata(
        &mut self,
        step: &Step,
        expected: &Expected,
        (planned, metadata): (&Metadata, &Metadata),
        content: Option<&FileContent>,
    ) -> Result<After, Refusal> {
        let refuse = |error: GateError| refused(step_name(step), &error);
        let (_, inode, before) = if content.is_some() { self.expected(expected)? } else { self.found(expected)? };
        // A directory's times move with what is in it, so its metadata itself is compared.
        if !same_metadata(&self.volume().read_metadata(&inode, &before).map_err(refuse)?, planned) {
            return Err(Refusal::Surprise);
        }
        self.volume().write_metadata(&inode, metadata).map_err(refuse)?;
        if let Some(content) = content {
            inode.set_mtime(content.modified.0).map_err(refuse)?;
        }
        self.after(&inode, &expected.print, &before, content).map_err(refuse)
    }

    /// What an inode shows after a step changed its place or metadata. A change by somebody else since it was last
    /// looked at is not taken over: the print then stays the one that the step expected, so that the next look sees it.
    fn after(&self, inode: &Inode, expected: &Print, before: &Stat, content: Option<&FileContent>) -> Result<After, GateError> {
        let stat = inode.stat()?;
        let modified = content.map_or(before.mtime_ns, |content| content.modified.0);
        let is_ours = print_of(before) == *expected && stat.size == before.size && stat.mtime_ns == modified;
        let print = if is_ours { print_of(&stat) } else { *expected };
        let (shown, is_tiered) = (self.volume().read_metadata(inode, &stat)?, Some(is_tiered(inode, &stat, true)));
        Ok(After { handle: handle_of(&stat.handle), print, shown, is_tiered })
    }

    /// Finds what a step is about, in exactly the state that it expects, with nobody writing to it.
    fn expected(&mut self, expected: &Expected) -> Result<(Arc<Dir>, Inode, Stat), Refusal> {
        let (dir, inode, stat) = self.found(expected)?;
        if print_of(&stat) != expected.print {
            return Err(Refusal::Surprise);
        }
        if is_written(&inode, &stat) {
            return Err(Refusal::Busy);
        }
        Ok((dir, inode, stat))
    }

    /// Finds the inode that a step is about under its name.
    fn found(&mut self, expected: &Expected) -> Result<(Arc<Dir>, Inode, Stat), Refusal> {
        let name = os(&expected.spot.name);
        let refuse = |error: GateError| refused(name, &error);
        let dir = self.parent(&expected.spot)?;
        let inode = dir.inode(name).map_err(refuse)?;
        let stat = inode.stat().map_err(refuse)?;
        if handle_of(&stat.handle) != expected.handle {
            return Err(Refusal::Surprise);
        }
        Ok((dir, inode, stat))
    }

    /// The directory of a place.
    fn parent(&mut self, spot: &Spot) -> Result<Arc<Dir>, Refusal> {
        let handle = match &spot.parent {
            Parent::Inode(handle) => handle.clone(),
            Parent::Planned(node) => self.made.get(node).cloned().flatten().ok_or(Refusal::Skipped)?,
        };
        if let Some(dir) = self.dirs.get(&handle) {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(self.volume().dir(&handle).map_err(|error| refused(os(&spot.name), &error))?);
        self.dirs.insert(handle, Arc::clone(&dir));
        Ok(dir)
    }

    /// Removes something that did not get its name, unless the staged name holds another inode by now: one that could
    /// not be put back, which the next start looks at. Best effort; the next start would remove it too.
    fn remove_own(&self, staged: &str, handle: &FileHandle) {
        let staging = self.volume().staging();
        if staging.dir().stat(OsStr::new(staged)).is_ok_and(|found| found.is_some_and(|found| found.handle == *handle)) {
            let _ = staging.remove(OsStr::new(staged));
        }
    }
}

/// Moves an inode. Where a directory takes in only what is of its own project, as under a quota for directories, the inode
/// joins that first.
fn in_project(inode: &Inode, dir: &Dir, change: impl Fn() -> Result<(), GateError>) -> Result<(), GateError> {
    match change() {
        Err(error) if error.kind() == ErrorKind::CrossDevice && inode.join_project(dir)? => change(),
        done => done,
    }
}

/// What shows under a name that something staged just got. Metadata is what it was in staging, where nobody could
/// change it; a write since then is left for the next look.
fn named(new: &Staged) -> Result<After, GateError> {
    let stat = new.inode.stat()?;
    let is_ours = same_bytes(&print_of(&new.stat), &stat);
    let print = print_of(if is_ours { &stat } else { &new.stat });
    let is_tiered = Some(is_tiered(&new.inode, &stat, true));
    Ok(After { handle: handle_of(&stat.handle), print, shown: new.shown.clone(), is_tiered })
}

fn is_empty(dir: &Dir) -> Result<bool, GateError> {
    let mut empty = true;
    dir.list(|_| empty = false)?;
    Ok(empty)
}
