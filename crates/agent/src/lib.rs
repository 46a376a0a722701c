//! The sync agent: watches folders, keeps three trees of each, and performs what the planner decides.
//!
//! The engine ([`engine`]) decides and performs nothing; everything around it performs and decides nothing.

pub mod catalog;
pub mod engine;
mod hashing;
pub mod remote;
pub mod volume;
pub mod watcher;
