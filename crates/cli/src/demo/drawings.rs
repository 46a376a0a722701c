//! Drawings that are larger together than a site's volume: made while the demo runs, so that people see contents go.
//!
//! They come as from somebody who works at the site: slower where the volume is full, until something has gone. So it is another process that
//! puts them there (`cp`): what this one does the site's agent takes for its own doing.
//!
//! **Invariants:** which drawings there are, and what is in each, depends on how much there is to be alone; none is made twice, also
//! after the demo was stopped or killed in between.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::failure::Failure;

/// Large drawings, and the part of all bytes that each of them takes; at most so much as a volume has free that has given up what it was
/// asked for.
const LARGE: u64 = 4;
const LARGE_PART: u64 = 18;
const LARGE_MAX: u64 = 86 << 20;
const LARGE_NAME: &str = "point cloud.las";
/// Sizes of all others.
const SMALLEST: u64 = 24 << 10;
const LARGEST: u64 = 12 << 20;
/// Years of projects. They are drawn in this order, so that the older ones are the colder ones.
const YEARS: [u32; 6] = [2019, 2021, 2023, 2024, 2025, 2026];
/// Bytes that are made at a time.
const PIECE: usize = 1 << 20;
/// Bytes of the volume that are left free for others while drawings are made.
const LEFT_FREE: u64 = 6 << 20;
/// Between two looks whether there is room again.
const ROOM_AGAIN: Duration = Duration::from_millis(200);

/// A drawing that is to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Drawing {
    path: String,
    bytes: u64,
    seed: u64,
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    made: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Progress {
    /// Drawings that are there, and how many there will be.
    pub(super) fn now(&self) -> (u64, u64) {
        (self.made.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed))
    }

    /// Ends the making at the next piece; it goes on with the next start.
    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }
}

/// Makes the drawings in a folder that are still to be made, of so many bytes together. In the folder `own` each is drawn first, and noted
/// how many there are.
pub(super) fn make(folder: &Path, own: &Path, bytes: u64, progress: &Progress) -> Result<(), Failure> {
    let (drawings, note, table) = (all(bytes), own.join("made"), own.join("table"));
    let io = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Failure::io(what, &path, &error)
    };
    let made = std::fs::read_to_string(&note).ok().and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(0);
    progress.all.store(drawings.len() as u64, Ordering::Relaxed);
    for (number, drawing) in drawings.iter().enumerate() {
        progress.made.store(number as u64, Ordering::Relaxed);
        if number < made {
            continue;
        }
        let drawn = table.join(&drawing.path);
        let parent = drawn.parent().unwrap_or(&table);
        std::fs::create_dir_all(parent).map_err(io("make", parent))?;
        draw(&drawn, drawing).map_err(io("write", &drawn))?;
        while !has_room(folder, drawing.bytes).map_err(io("look at", folder))? || !put(&table, drawing, folder)? {
            if progress.is_over() {
                return Ok(());
            }
            std::thread::sleep(ROOM_AGAIN);
        }
        std::fs::write(&note, (number + 1).to_string()).map_err(io("write", &note))?;
        std::fs::remove_dir_all(&table).map_err(io("remove", &table))?;
        if progress.is_over() {
            return Ok(());
        }
    }
    progress.made.store(drawings.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// Whether a drawing of so many bytes fits, and leaves some room for others.
fn has_room(folder: &Path, bytes: u64) -> std::io::Result<bool> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail * space.f_frsize >= bytes + LEFT_FREE)
}

fn draw(path: &Path, drawing: &Drawing) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let (mut noise, mut left) = (Noise(drawing.seed), drawing.bytes as usize);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE)];
        noise.fill(piece);
        file.write_all(piece)?;
        left -= piece.len();
    }
    Ok(())
}

/// Puts it into the folder, with those above it; false where others have taken the room meanwhile.
fn put(table: &Path, drawing: &Drawing, folder: &Path) -> Result<bool, Failure> {
    let mut copy = Command::new("cp");
    copy.args(["--parents", "--"]).arg(&drawing.path).arg(folder).current_dir(table);
    // Ctrl-C is for the demo, which ends the making.
    copy.stdin(Stdio::null()).process_group(0);
    let output = copy.output().map_err(|error| Failure::failed(format!("Cannot run `cp`: {error}")))?;
    if output.status.success() {
        return Ok(true);
    }
    let had_room = has_room(folder, drawing.bytes).unwrap_or(false);
    // Half of one takes room that the next try needs.
    let _ = Command::new("rm").arg("--force").arg(folder.join(&drawing.path)).status();
    if !had_room {
        return Ok(false);
    }
    let said = crate::output::text(String::from_utf8_lossy(&output.stderr).trim());
    Err(Failure::failed(format!("`cp` failed: {said}")))
}

/// The first of the large ones, below a site's folder.
pub(super) fn large() -> String {
    format!("Projects/{}/{LARGE_NAME}", YEARS[0])
}

/// How large they are, of so many bytes in all.
pub(super) fn large_bytes(bytes: u64) -> u64 {
    (bytes / LARGE_PART).min(LARGE_MAX)
}

/// All of them, the oldest first.
fn all(bytes: u64) -> Vec<Drawing> {
    let mut noise = Noise(0x4973_6f74_6865_726d);
    let mut drawings = Vec::new();
    for (number, year) in YEARS.iter().enumerate() {
        let mut left = bytes / YEARS.len() as u64;
        let mut push = |name: String, bytes: u64, noise: &mut Noise| {
            drawings.push(Drawing { path: format!("Projects/{year}/{name}"), bytes, seed: noise.next() | 1 });
        };
        let large = large_bytes(bytes);
        if (number as u64) < LARGE && large > SMALLEST {
            left = left.saturating_sub(large);
            push(LARGE_NAME.to_owned(), large, &mut noise);
        }
        let mut sheet = 0;
        while left >= SMALLEST {
            // As many between 24 and 48 KiB as between 6 and 12 MiB.
            let doublings = (LARGEST / SMALLEST).ilog2();
            let least = SMALLEST << noise.below(u64::from(doublings) + 1);
            let size = (least + noise.below(least)).min(LARGEST).min(left);
            left -= size;
            sheet += 1;
            let house = ["bridge", "school", "station", "harbour"][noise.below(4) as usize];
            push(format!("{house}/sheet {sheet:03}.dwg"), size, &mut noise);
        }
    }
    drawings
}

/// Numbers that look random and are not: xorshift64*.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_are_some_hundred_of_all_sizes_and_always_the_same() {
        let drawings = all(3 << 29);
        assert_eq!(drawings, all(3 << 29));
        let bytes: u64 = drawings.iter().map(|drawing| drawing.bytes).sum();
        assert!((300..1_500).contains(&drawings.len()) && bytes > (3 << 29) / 100 * 98 && bytes <= 3 << 29, "{}", drawings.len());
        assert_eq!(drawings.iter().filter(|drawing| drawing.bytes > 80 << 20).count(), LARGE as usize);
        let mut paths: Vec<&String> = drawings.iter().map(|drawing| &drawing.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), drawings.len());
    }

    #[test]
    fn none_is_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (own, bytes) = (tempfile::tempdir().unwrap(), 3 << 20);
        let drawings = all(bytes);
        make(folder.path(), own.path(), bytes, &Progress::default()).unwrap();
        let first = folder.path().join(&drawings[0].path);
        assert_eq!(first.metadata().unwrap().len(), drawings[0].bytes);
        // Somebody has deleted one, and the demo is started again.
        std::fs::remove_file(&first).unwrap();
        let progress = Progress::default();
        make(folder.path(), own.path(), bytes, &progress).unwrap();
        assert!(!first.exists());
        assert_eq!(progress.now(), (drawings.len() as u64, drawings.len() as u64));
        // One is made to its end.
        let (over, own) = (Progress::default(), tempfile::tempdir().unwrap());
        over.end();
        make(folder.path(), own.path(), bytes, &over).unwrap();
        assert!(first.exists() && own.path().join("made").exists() && !own.path().join("table").exists());
    }
}
