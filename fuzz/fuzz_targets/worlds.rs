//! The planner and the rules of the share among people: whatever they do on two or three servers, and whenever the servers
//! look, learn and work in between, all become equal and settled, plan nothing more, and nobody's content is lost.
#![no_main]

use isotherm_core::name::Case;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/core/tests/world/mod.rs"]
mod world;

use world::people::{Do, act, agreed};

const PATHS: &[&str] = &["d", "d/f", "g", "x", "n", "d/n", "x/g", "f", "D", "e", "e/f", "x/d"];
const EVENTS_MAX: usize = 40;

fuzz_target!(|data: &[u8]| {
    let Some((&how, story)) = data.split_first() else { return };
    let count = 2 + how % 2;
    let case = if how & 2 == 0 { Case::Sensitive } else { Case::Insensitive };
    let mut world = agreed(count, case);
    world.is_lenient = true;
    for (at, event) in story.chunks_exact(2).take(EVENTS_MAX).enumerate() {
        let number = usize::from(event[0] & 3) % usize::from(count);
        let fresh = 10 + u8::try_from(at).expect("events are few");
        match event[0] >> 2 {
            0..=5 => world.scan(number),
            6..=9 => world.learn(number),
            10..=15 => {
                world.scan(number);
                world.learn(number);
                world.round(number, &|_| {});
            }
            kind => act(&mut world, number, action(kind - 16, event[1]), fresh),
        }
    }
    if let Err(what) = world.converge(usize::from(how >> 2) % usize::from(count)) {
        panic!("{what}");
    }
});

fn action(kind: u8, places: u8) -> Do {
    let path = PATHS[usize::from(places) % PATHS.len()];
    let other = PATHS[usize::from(places) / PATHS.len() % PATHS.len()];
    match kind % 14 {
        0 => Do::Edit(path),
        1 => Do::Save(path),
        2 => Do::Touch(path),
        3 => Do::Chmod(path),
        4 => Do::Delete(path),
        5..=7 => Do::Move(path, other),
        8 => Do::Swap(path, other),
        9 | 10 => Do::File(path),
        11 => Do::Directory(path),
        12 => Do::Symlink(path),
        _ => Do::Link(path, other),
    }
}
