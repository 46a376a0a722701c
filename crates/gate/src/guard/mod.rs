//! Standing between programs and files whose content is not all there.
//!
//! The kernel asks before a file is opened and before content is touched, and holds the caller until it has an answer. When
//! the last holder of the group goes away, the kernel lets everybody through: what that means for stubs is the business of
//! whoever holds it. **Invariant:** nothing is let through because an answer was forgotten; a question that is dropped is
//! refused.

mod caller;
mod group;
mod post;
mod probe;
mod told;
mod worker;

pub use caller::{Program, Purpose, program, purpose};
pub(crate) use group::{ALIVE_SIGN, ASKS_BEFORE_CONTENT};
pub use group::{Group, GuardError, GuardUnavailable, Question, Refusal, Touch};
pub use post::Post;
pub use probe::{ProbeFailure, probe};
pub use told::{Follow, Sentry, Told, Waiting};
pub use worker::AgentProcess;
