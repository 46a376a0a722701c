//! The real program on real volumes: what is promised about bytes, names and metadata, under kills, damage and full disks.
//!
//! Each test makes its own volumes (ext4 and XFS on loop devices), service and agents. Where that needs root and there is
//! none, tests say so and pass. With `ISOTHERM_CAMPAIGN=1` the same tests run with the sizes of a release, which takes long.
//!
//! **Invariant:** no test asserts a time, and whatever is random comes from a fixed seed.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

use std::sync::atomic::{AtomicU64, Ordering};

mod cases;
mod damage;
mod dice;
mod directories;
mod errors;
mod fleet;
mod full;
mod journal;
mod kills;
mod limits;
mod lost;
mod machines;
mod names;
mod namespaces;
mod network;
mod power;
#[path = "../e2e/program.rs"]
#[allow(dead_code, reason = "the other tests use all of it")]
mod program;
mod proxy;
mod seeding;
mod stops;
mod tree;
mod work;
mod writers;

use dice::Dice;

/// The size of something: what CI runs, or what a release is tried with.
fn sized(small: usize, campaign: usize) -> usize {
    if std::env::var_os("ISOTHERM_CAMPAIGN").is_some_and(|value| value == "1") { campaign } else { small }
}

/// How many rounds of something: `ISOTHERM_ROUNDS` if it is set.
fn rounds(small: usize, campaign: usize) -> usize {
    let wanted = std::env::var("ISOTHERM_ROUNDS").ok().map(|text| text.parse().unwrap());
    wanted.unwrap_or_else(|| sized(small, campaign))
}

/// Where chance begins: `ISOTHERM_SEED` moves it, so that a campaign tries something new in each piece.
fn seed(usual: u64) -> u64 {
    let moved: u64 = std::env::var("ISOTHERM_SEED").map_or(0, |text| text.parse().unwrap());
    usual.wrapping_add(moved.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1
}

/// A number that this process has not given before.
fn noted() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
