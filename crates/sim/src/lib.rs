//! Simulated worlds that attack the rules: several agents, the real service rules, volumes with a durable image, a
//! network that delays, loses, repeats and parts, users who do what users do, crashes anywhere.
//!
//! Everything follows from one number, the seed: the same seed is the same run. The engine, the planner and the
//! namespace rules are the product's own; only what surrounds them is made up.
//!
//! **Invariant:** nothing here asks the real clock, a thread or the operating system for anything.

mod effects;
mod faults;
pub mod perform;
pub mod restore;
mod rng;
mod tiering;
pub mod users;
pub mod verify;
pub mod volume;
pub mod world;

pub use world::{Options, Outcome, run};
