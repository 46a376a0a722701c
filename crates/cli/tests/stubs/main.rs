//! Tiering with the real program: gate, keeper, agents and service as processes, a guarded volume on a loop device, users
//! on both servers.
//!
//! Each test makes its own volume. Where that needs root, or a kernel that asks before content is touched, and there is none,
//! tests say so and pass. `ISOTHERM_ROUNDS` makes the rigs longer, `ISOTHERM_SEED` moves where chance begins.
//!
//! **Invariant:** no test asserts a time, and whatever is random comes from a fixed seed.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod arrivals;
mod bandwidth;
mod copies;
mod dedup;
mod demo;
#[path = "../volumes/dice.rs"]
mod dice;
mod films;
mod fsx;
mod kills;
mod neighbours;
mod next;
mod office;
mod policies;
mod power;
#[path = "../e2e/program.rs"]
#[allow(dead_code, reason = "the other tests use all of it")]
mod program;
mod programs;
mod rescue;
mod room;
mod scarce;
mod storm;
mod streams;
mod sync;
mod texts;
mod users;
mod volumes;
mod why;
mod witness;

use dice::Dice;

/// How many rounds of something: `ISOTHERM_ROUNDS` if it is set.
fn rounds(usual: usize) -> usize {
    std::env::var("ISOTHERM_ROUNDS").map_or(usual, |text| text.parse().unwrap())
}

/// Where chance begins: `ISOTHERM_SEED` moves it, so that a campaign tries something new in each piece.
fn seed(usual: u64) -> u64 {
    let moved: u64 = std::env::var("ISOTHERM_SEED").map_or(0, |text| text.parse().unwrap());
    usual.wrapping_add(moved.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1
}
