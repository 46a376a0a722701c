//! The sync agent: watches folders, keeps three trees of each, and performs what the planner decides.
//!
//! The engine ([`engine`]) decides and performs nothing; everything around it performs and decides nothing.

mod agent;
pub mod catalog;
mod chance;
mod clock;
pub mod control;
mod dedup;
mod endpoint;
pub mod engine;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod guarded;
mod hashing;
pub mod recall;
pub mod remote;
mod tiering;
pub mod volume;
pub mod watcher;

pub use agent::{Agent, AgentError, EndpointView, Options, Overview};
