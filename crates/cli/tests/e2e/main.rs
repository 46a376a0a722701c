//! The real program, end to end: processes, sockets, files.
//!
//! It tests what only whole processes show: exit codes, output, signals, and that the parts fit together. The rules are
//! tested where they are decided.
//!
//! **Invariant:** each test has a folder, a service and ports of its own.

// Logs of processes are shown where a test fails.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod backup;
mod bandwidth;
mod demo;
mod fenced;
mod program;
mod repair;
mod revisions;
mod service;
mod sync;
#[path = "../stubs/texts.rs"]
#[allow(dead_code, reason = "the tests on stubs use all of it")]
mod texts;
mod world;
