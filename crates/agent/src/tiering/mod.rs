//! Tiering by itself: what was used when, what may go, and who lets it go when a volume needs room or content gets old.
//!
//! What is wanted is said by policies (`isotherm_core::tiering`); whether a content is safe the catalogs know, and whether it may
//! really go is asked of the file itself, when everybody else has to wait. **Invariant:** nothing but the order in which contents go,
//! and when, is decided here.

mod cold;
mod filler;
mod frees;
mod kept;
mod outlook;
mod runner;
mod uses;

pub(crate) use cold::{Ground, by_times, cold_files};
pub(crate) use filler::expected;
pub(crate) use frees::{Frees, planned};
pub(crate) use kept::Kept;
pub(crate) use outlook::{outlook, outlook_of_stub};
pub(crate) use runner::{Runner, Situation};
