//! The service as its clients see it: through HTTP on a loopback address, with the real client.
//!
//! No test looks into the database. Each has a data folder of its own, which goes with it.
//!
//! **Invariant:** no test asserts a time; a deadline of a test only ends what would hang.
#![allow(clippy::unwrap_used)]

mod backup;
mod check;
mod commits;
mod content;
mod damage;
mod download;
mod feed;
mod folder;
mod full;
mod garbage;
mod history;
mod killed;
mod management;
mod raw;
mod revisions;
mod undelete;
mod undo;
mod waiting;
mod world;
