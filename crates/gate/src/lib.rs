//! Crate gate.
