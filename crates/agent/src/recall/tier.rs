//! Making stubs: content that is safe in the share gives up its room here.
//!
//! Many files at a time, because the one thing that takes time, making the records durable, is the same for one or a thousand.
//! **Invariant:** content goes only while nobody else can have the file open, the file is what was expected, and its record is
//! durable.

use std::os::fd::AsFd;
use std::sync::{MutexGuard, PoisonError};

use isotherm_core::node::Kind;
use isotherm_core::stub::{Bound, ContentPrefix, StubRecord};
use isotherm_core::tiering::STUB_MIN;
use isotherm_core::trees::{Handle, Local, Print, Record};
use isotherm_gate::{ErrorKind, FileHandle, GateError, Inode, StubFile};

use super::perform::{Performer, say_where};
use super::stub_file;
use crate::volume::{gate_handle, print_of};

/// A file that may become a stub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The file.
    pub file: Handle,
    /// Its state when it was found to have the content that the share has.
    pub print: Print,
    /// What it is to stand for; the inode is filled in.
    pub record: StubRecord,
}

impl Candidate {
    /// A file that is as the share has it, as far as is known; none if it is not safe there, or no file that may become a stub:
    /// small ones take more as a stub than they free, and one of several names would lose it under all.
    #[must_use]
    pub fn of(known: &Record) -> Option<Self> {
        let local = known.here().filter(|local| Self::is_suited(local))?;
        let (version, content) = known.stands_for()?;
        let record = StubRecord {
            node: known.node,
            version,
            content: ContentPrefix::of(&content.manifest),
            size: content.size,
            bound: Bound::to(&local.handle),
        };
        Some(Self { file: local.handle.clone(), print: local.print, record })
    }

    /// Whether a file is one that may become a stub, once it is safe.
    #[must_use]
    pub fn is_suited(local: &Local) -> bool {
        local.kind() == Kind::File && local.print.links == 1 && local.print.size >= STUB_MIN
    }
}

/// Why a file did not become a stub. It is whole, and as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotTiered {
    /// It is being recalled, or somebody else of the agent works on it.
    #[error("it is being worked on")]
    Held,
    /// Somebody has it open.
    #[error("it is in use")]
    InUse,
    /// It is a stub already.
    #[error("it is tiered already")]
    IsStub,
    /// It is not what it was.
    #[error("it has changed")]
    Changed,
    /// Its blocks are those of files that stay too.
    #[error("it shares its blocks with files that stay, and so nothing would get free")]
    Shared,
    /// The volume refuses.
    #[error(transparent)]
    Volume(#[from] GateError),
}

/// A file with a record that is not durable yet.
struct Marked {
    inode: Inode,
    opened: StubFile,
    /// What it was found as.
    print: Print,
}

impl Performer {
    /// Makes stubs of files that the machine has given out of hand; one answer for each, in order.
    pub(super) fn tier(&self, candidates: &[Candidate]) -> Vec<Result<(), NotTiered>> {
        let _going = self.while_nothing_goes();
        let handles: Vec<FileHandle> = candidates.iter().filter_map(|candidate| gate_handle(&candidate.file).ok()).collect();
        // From here on whoever opens one of them waits.
        if !self.post.hold(&handles) {
            return candidates.iter().map(|_| Err(NotTiered::Held)).collect();
        }
        let marked: Vec<Result<Marked, NotTiered>> = candidates.iter().map(|candidate| self.mark(candidate)).collect();
        // Without it the content stays, with a record beside it: the next recall takes that away.
        let records: Vec<&StubFile> = marked.iter().flatten().map(|marked| &marked.opened).collect();
        let synced = self.root.sync_records(&records);
        let give_up = |marked: Result<Marked, NotTiered>| {
            let Marked { inode, opened, print: Print { size, modified, .. } } = marked?;
            synced.clone()?;
            // Once more, and kept while the content goes: whoever came in between waits at the gate, or, if it let him through by a
            // fault, has it open. Not kept while the records become durable, since reading a question opens its file and would wait.
            let is_alone = opened.take_alone()?;
            let now = print_of(&opened.stat()?);
            if !is_alone || (now.size, now.modified) != (size, modified) {
                say_where(&opened, true);
                opened.remove_record()?;
                opened.flush()?;
                return Err(if is_alone { NotTiered::Changed } else { NotTiered::InUse });
            }
            opened.give_up()?;
            inode.set_mtime(modified.0)?;
            Ok(())
        };
        marked.into_iter().map(give_up).collect()
    }

    /// No content goes until this is dropped.
    pub(super) fn while_nothing_goes(&self) -> MutexGuard<'_, ()> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the mark on the kernel asks about the file; who has it open already is seen by the lease.
    fn mark(&self, candidate: &Candidate) -> Result<Marked, NotTiered> {
        let Candidate { file, print, record } = candidate;
        let fd = self.root.open_for_mark(&gate_handle(file)?)?;
        self.post.guard(fd.as_fd()).map_err(|_| NotTiered::Held)?;
        drop(fd);
        // A program that runs cannot be opened for writing.
        let opened = stub_file(&self.root, file);
        let (inode, opened) =
            opened.map_err(|error| if error.kind() == ErrorKind::Busy { NotTiered::InUse } else { error.into() })?;
        let is_idle = opened.take_alone()?;
        opened.let_others_in()?;
        if !is_idle {
            return Err(NotTiered::InUse);
        }
        if opened.record()?.is_some() {
            return Err(NotTiered::IsStub);
        }
        // A mapped page that was written shows in the times when it is written back: the lease says that nobody has any.
        if print_of(&opened.stat()?) != *print || print.size != record.size {
            return Err(NotTiered::Changed);
        }
        opened.set_record(&StubRecord { bound: Bound::to(file), ..*record }.encode())?;
        if self.source.shows_offline(file) {
            say_where(&opened, false);
        }
        Ok(Marked { inode, opened, print: *print })
    }
}
