//! What an agent is told of callers, and where it hears it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::caller::{Call, Program, Purpose};
use super::group::{Group, GuardError, GuardUnavailable, Refusal};
use crate::FileHandle;

/// A caller that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its number, never given twice.
    pub id: u64,
    /// The file.
    pub file: FileHandle,
    /// What it is about to do.
    pub purpose: Purpose,
    /// It was let through to empty the file and may not have done so yet.
    pub let_through: bool,
    /// Thread that waits.
    pub thread: i32,
    /// Its program.
    pub program: Program,
}

/// A caller that was let through to empty its file, until it has returned from the call.
#[derive(Debug)]
pub struct Follow {
    call: Call,
    thread: i32,
    file: FileHandle,
}

impl Follow {
    /// Of a caller that still stands in the call.
    #[must_use]
    pub fn of(waiting: &Waiting) -> Self {
        Self { call: Call::of(waiting.thread), thread: waiting.thread, file: waiting.file.clone() }
    }

    /// Whether it has left the call, or is gone.
    #[must_use]
    pub fn has_returned(&self) -> bool {
        self.call.has_ended()
    }

    /// Whether it is this thread, and this file.
    #[must_use]
    pub fn is_of(&self, thread: i32, file: &FileHandle) -> bool {
        self.thread == thread && self.file == *file
    }
}

/// What the agent is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Somebody waits.
    Asked(Waiting),
    /// Somebody was told to try again, and will: the file is wanted.
    Wanted(FileHandle),
    /// Somebody does not wait any more.
    Left(u64),
    /// Somebody who was let through has returned from the call.
    Returned(u64),
}

impl Told {
    /// The same for an agent that knows nothing of parts of files.
    #[must_use]
    pub fn in_general(self) -> Self {
        match self {
            Self::Asked(waiting) => Self::Asked(Waiting { purpose: waiting.purpose.in_general(), ..waiting }),
            other => other,
        }
    }
}

/// Where an agent hears who waits, and answers: a post of its own process, or the gate's.
pub trait Sentry: Send + Sync + std::fmt::Debug {
    /// The group, for marks.
    fn group(&self) -> Group;

    /// Everything that a new run of the agent has to know. What the one before had in hand and nobody waits for is in hand no
    /// more: a starting agent makes durable first what was done to it.
    ///
    /// # Errors
    /// [`GuardError`].
    fn begin(&self) -> Result<Vec<Told>, GuardError>;

    /// Waits until there is something to know; empty if there was not for so long.
    ///
    /// # Errors
    /// [`GuardError`]; the next call tries again.
    fn next(&self, patience: Duration) -> Result<Vec<Told>, GuardError>;

    /// Answers a caller; nothing happens if it does not wait any more.
    fn answer(&self, id: u64, refusal: Option<Refusal>);

    /// The agent takes files in hand: whoever is asked about from now on waits, record or not. False if it cannot have them.
    fn hold(&self, files: &[FileHandle]) -> bool;

    /// The agent has done with files.
    fn release(&self, files: &[FileHandle]);

    /// The content of a file that was wanted did not come: who was told to try again is told that when he does.
    fn not_come(&self, file: &FileHandle, why: Refusal);

    /// Has the kernel ask about a file that it may not ask about now.
    ///
    /// # Errors
    /// [`GuardUnavailable`]: then it must not become a stub.
    fn guard(&self, file: BorrowedFd<'_>) -> Result<(), GuardUnavailable>;

    /// Who was killed while he waited, and who has returned from the call that he was let through in, where the agent has to
    /// look for that himself.
    fn look_after(&self) -> Vec<Told>;
}
