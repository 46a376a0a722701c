//! Stubs: files whose content is in the share and not on the disk, and how they come back.
//!
//! **Invariant:** a file that has a record which holds for it is a stub, and one that has none is whole, whatever anybody
//! remembers about it. Nobody reads a stub: who opens it waits until it is whole.

mod event;
mod recall;
mod record;
mod sought;

pub use event::{Answer, Effect, Event, Failure, Found, Millis, Purpose, Question, QuestionId, Trouble};
pub use recall::Recalls;
pub use record::{Bound, ContentPrefix, RECORD_MAX, RecordError, StubRecord};
pub use sought::Sought;
