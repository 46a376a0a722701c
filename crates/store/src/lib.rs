//! Crate store.
