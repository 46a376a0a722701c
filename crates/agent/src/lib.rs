//! Crate agent.
