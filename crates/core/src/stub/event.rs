//! What the recall machine reacts to, and what it asks for. Both come in batches.

use super::record::{RecordError, StubRecord};
use super::units::Units;
use crate::trees::Handle;

/// Milliseconds of a clock that never goes back. Only differences mean anything.
pub type Millis = u64;

/// A caller that waits, by a number that the gate gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionId(pub u64);

/// What a caller is about to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// Read.
    Read,
    /// Write, cut, or something that cannot be told.
    Write,
    /// Open the file and empty it in the same call.
    Empty,
    /// Open the file for reading, by a program that may be shown it while it comes.
    Stream,
    /// Read so many bytes from there on, through a descriptor that it has.
    Range(u64, u64),
}

impl Purpose {
    /// Whether it is enough that a part of the content is here.
    #[must_use]
    pub const fn is_partial(self) -> bool {
        matches!(self, Self::Stream | Self::Range(..))
    }
}

/// A caller that waits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Question {
    /// Its number.
    pub id: QuestionId,
    /// The file.
    pub file: Handle,
    /// What for.
    pub purpose: Purpose,
    /// It was let through already, to empty the file, and has not returned from its call.
    pub let_through: bool,
}

/// What a look at a file found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Found {
    /// Its record; none where it has none.
    pub record: Option<Result<StubRecord, RecordError>>,
    /// Length in bytes.
    pub size: u64,
    /// Whether it takes any room on disk.
    pub has_blocks: bool,
    /// What of its content is here, where its record tells; what it holds elsewhere means nothing then.
    pub resident: Option<Units>,
    /// Whether a program may be shown it while it comes.
    pub streams: bool,
}

/// What became of a file that nobody has to ask anything of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Parted {
    /// It is streamed no more: nobody has it open, and it holds what its record says and nothing else; or it has another length by
    /// now, and has to be looked at before anything is done to it.
    Over,
    /// Somebody still has it open.
    InUse,
    /// In these units is something of which nobody knows whose it is: of an earlier run, or of somebody who wrote to the file while nobody
    /// guarded it. Whoever brings them finds out.
    Strange(Units),
    /// It could not be done, or not be told. It stays as it is.
    Failed,
}

/// Why content did not come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// The volume is full.
    NoSpace,
    /// The quota of the file's owner is used up.
    Quota,
    /// It was given up, as was asked.
    GivenUp,
    /// Anything else, which the performer shows as a problem: content gone or damaged, a disk that fails.
    Other,
}

/// What a caller is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// Go on.
    Allow,
    /// The content cannot be had (EIO).
    Failed,
    /// Another file has its name by now (EAGAIN).
    Again,
    /// It did not come in time (EBUSY).
    Late,
    /// There is no room for it (ENOSPC).
    NoSpace,
    /// The owner has no room for it (EDQUOT).
    Quota,
}

/// What is wrong with a file that looks like a stub. It stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Trouble {
    /// Its record cannot be used.
    #[error("{0}")]
    Record(RecordError),
    /// It has another length than its content.
    #[error("The file has {found} bytes and its content has {recorded}: something changed it while it was a stub")]
    Size {
        /// Of the file.
        found: u64,
        /// Of the content.
        recorded: u64,
    },
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// Callers wait.
    Asked(Vec<Question>),
    /// Callers do not wait any more: they were killed, or the gate has answered them.
    Left(Vec<QuestionId>),
    /// Callers that were let through to empty their file have returned from the call.
    Returned(Vec<QuestionId>),
    /// An administrator or the agent wants these whole.
    Wanted(Vec<Handle>),
    /// An administrator wants these whole, whatever their length is by now: what has changed that is to be undone.
    MendWanted(Vec<Handle>),
    /// Files were looked at.
    Looked(Vec<(Handle, Found)>),
    /// Content arrives.
    Progress(Vec<Handle>),
    /// Content is all there, or what had come of it was given up again.
    Filled(Vec<(Handle, Result<(), Failure>)>),
    /// These have the length of their content again and nothing of it, or could not be made so.
    Mended(Vec<(Handle, Result<(), Failure>)>),
    /// What was written to these is durable, or could not be made so.
    Flushed(Vec<(Handle, Result<(), Failure>)>),
    /// The records of these are gone, or could not be removed.
    Forgotten(Vec<(Handle, Result<(), Failure>)>),
    /// The gate does not ask about these any more.
    Released(Vec<Handle>),
    /// What of these is not here is masked now, or could not be.
    Masked(Vec<(Handle, Result<(), Failure>)>),
    /// These units are here.
    Came(Vec<(Handle, Units)>),
    /// A fetch of these units has ended: all are here, or no more of them will be.
    Brought(Vec<(Handle, Units, Result<(), Failure>)>),
    /// What became of files that nobody had to ask anything of.
    Parted(Vec<(Handle, Parted)>),
    /// An earlier run of the agent may have left masks in these.
    Swept(Vec<Handle>),
    /// Time passed. To be told now and then while anybody waits.
    Tick,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Look at it: [`Event::Looked`].
    Look(Handle),
    /// Say when the caller has returned from its call: [`Event::Returned`].
    Follow(QuestionId),
    /// Give it the length of its content again, and nothing of what it holds: [`Event::Mended`].
    Mend(Handle, StubRecord),
    /// Bring its content, but for what is here already: [`Event::Progress`], [`Event::Came`], [`Event::Filled`].
    Fill(Handle, StubRecord, Units),
    /// Give it a record of what is here, durably, and then mask the rest, that no hole shows. Only holes are masked: somebody may be
    /// reading what is not one. [`Event::Masked`].
    Mask(Handle, StubRecord, Units),
    /// Bring these units: [`Event::Came`], [`Event::Brought`].
    Bring(Handle, StubRecord, Units),
    /// If nobody has it open: make durable what is here, then a record of it, then give up the rest: [`Event::Parted`].
    Part(Handle, StubRecord, Units),
    /// Nobody waits for its content any more; what has come is to be given up, over a durable record, as always, unless somebody may
    /// be reading it. What became of it tells [`Event::Filled`] or [`Event::Brought`].
    GiveUp(Handle),
    /// Make durable what was written to it: [`Event::Flushed`].
    Flush(Handle),
    /// Remove its record: [`Event::Forgotten`].
    Forget(Handle),
    /// It is whole: nobody has to ask about it any more: [`Event::Released`].
    Release(Handle),
    /// Answer a caller.
    Answer(QuestionId, Answer),
    /// Show a problem.
    Show(Handle, Trouble),
    /// A file that was wanted is whole, or will not be: what somebody who waited for it was told.
    Ended(Handle, Answer),
}
