//! Crate service.
