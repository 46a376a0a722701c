//! The rules of Isotherm as functions of data.
//!
//! Nothing here reads a file, a clock or a random number, starts a thread or waits. The agent, the service
//! and the simulation feed this crate observations and perform what it decides; that is why a run of the
//! simulation and a run on a server go through the same code.
//!
//! **Invariant:** equal inputs give equal decisions. `BTreeMap` stands where a hash map would make the order
//! of a plan depend on chance.

pub mod bandwidth;
pub mod content;
pub mod dedup;
pub mod exclude;
pub mod fold;
pub mod ids;
pub mod name;
pub mod namespace;
pub mod node;
pub mod observe;
pub mod plan;
pub mod stored;
pub mod stub;
pub mod tiering;
pub mod trees;
