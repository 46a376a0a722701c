//! Stubs: files whose content is in the share and not on the disk, and how they come back.
//!
//! **Invariant:** a file that has a record which holds for it is a stub, and one that has none is whole, whatever anybody
//! remembers about it. Nobody reads what is not there: who opens a stub waits until it is whole, and who may read one while it comes
//! waits for the part that he reads.

mod event;
mod job;
mod recall;
mod record;
mod sought;
mod stream;
mod units;

pub use event::{Answer, Effect, Event, Failure, Found, Millis, Parted, Purpose, Question, QuestionId, Trouble};
pub use recall::Recalls;
pub use record::{Bound, ContentPrefix, RANGES_MAX, RECORD_MAX, RecordError, StubRecord};
pub use sought::Sought;
pub use stream::STREAM_MIN;
pub use units::{UNIT, Units, units_of};
