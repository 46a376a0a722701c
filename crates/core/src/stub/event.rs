//! What the recall machine reacts to, and what it asks for. Both come in batches.

use super::record::{RecordError, StubRecord};
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
}

/// Why content did not come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// The volume is full.
    NoSpace,
    /// The quota of the file's owner is used up.
    Quota,
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
    /// Bring its content: [`Event::Progress`], [`Event::Filled`].
    Fill(Handle, StubRecord),
    /// Nobody waits for its content any more; what has come is to be given up, over a durable record, as always. What became
    /// of it tells [`Event::Filled`].
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
