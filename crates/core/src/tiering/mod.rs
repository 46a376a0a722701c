//! Which contents are kept on a server, and which go: what administrators ask for, how warm files are, and the order in which
//! they go.
//!
//! **Invariant:** nothing here says whether a content may be given up, only whether that is wanted; whether it is safe in the
//! share is asked elsewhere.

mod arrival;
mod coldest;
mod heat;
mod plan;
mod policy;
mod programs;
mod warmest;

pub use arrival::{Arrival, Comes, Download, Initial};
pub use coldest::{Coldest, Used};
pub use heat::{HALF_LIFE_MS, Heat, Position};
pub use plan::{Going, Plan, Reason};
pub use policy::{File, GRACE_S, Levels, Policy, PolicyError, STUB_MIN, Stays, Volume};
pub use programs::{ProgramRule, ProgramRuleError, Treatment, treatment};
pub use warmest::Warmest;
