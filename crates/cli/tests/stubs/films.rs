//! Large files that are read while they come, at work: players, programs that want all, people who change them, tiering, and parts of the
//! product that die. What anybody reads is compared to the byte; what power cuts leave is mounted and looked at.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isotherm_core::stub::{StubRecord, Units};
use isotherm_core::trees::Handle;
use isotherm_gate::Root;
use isotherm_gate::testing::Fs;

use crate::office::{Office, Part};
use crate::power::with_cut;
use crate::program::{isotherm, until};
use crate::rescue::Over;
use crate::texts::text;
use crate::users::EXCUSES;
use crate::{Dice, rounds, seed};

/// Films, and players at them.
const FILMS: usize = 6;
const PLAYERS: usize = 4;

/// A film and what it has to hold.
type Film = RwLock<Known>;

#[derive(Debug)]
struct Known {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Somebody made it longer than what he wrote.
    has_holes: bool,
}

/// What was done.
#[derive(Debug, Default)]
struct Count {
    parts: AtomicU64,
    whole: AtomicU64,
    changed: AtomicU64,
    excused: AtomicU64,
}

/// An office with films, which are streamed by this very process.
fn office(fs: Fs, dice: &mut Dice) -> Option<(Office, Vec<Film>)> {
    let office = Office::open(fs)?;
    let settings = ["--download", "on-demand", "--free-space", "1%", "--program", "stubs-*=stream", "--stream-from", "1MiB"];
    office.set(&settings);
    let film = |at: usize| {
        let bytes = text(at as u64, (3 << 20) + dice.roll(6 << 20));
        fs::write(office.plain().join(format!("film-{at}")), &bytes).unwrap();
        RwLock::new(Known { path: office.guarded().join(format!("film-{at}")), bytes, has_holes: false })
    };
    let films = (0..FILMS).map(film).collect();
    office.settle();
    Some((office, films))
}

/// Opens films, reads here and there or one part after the other, and keeps some open for a while.
fn play(films: &[Film], is_masked: bool, ends: &AtomicBool, count: &Count, mut dice: Dice) {
    while !ends.load(Ordering::Relaxed) {
        let film = films[dice.roll(films.len())].read().unwrap();
        let Known { path, bytes, has_holes } = &*film;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                excuse(path, &error, count);
                continue;
            }
        };
        if is_masked && !has_holes {
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
            assert!(hole >= bytes.len() as u64, "{}: a hole shows at {hole}", path.display());
        }
        let mut at = dice.roll(bytes.len());
        let goes_on = dice.roll(2) == 0;
        for _ in 0..1 + dice.roll(12) {
            let len = (1 + dice.roll(300_000)).min(bytes.len() - at);
            let mut found = vec![0; len];
            match file.read_exact_at(&mut found, at as u64) {
                Ok(()) => compare(path, at, &found, &bytes[at..at + len]),
                Err(error) => excuse(path, &error, count),
            }
            count.parts.fetch_add(1, Ordering::Relaxed);
            at = if goes_on && at + len < bytes.len() { at + len } else { dice.roll(bytes.len()) };
            std::thread::sleep(Duration::from_millis(dice.roll(30) as u64)); // tidy: wait as a player does
        }
        drop(file);
        drop(film);
        if dice.roll(4) == 0 {
            std::thread::sleep(Duration::from_millis(dice.roll(3_000) as u64)); // tidy: wait films are given up meanwhile
        }
    }
}

/// Programs that want all of it.
fn copy(films: &[Film], pause_ms: usize, ends: &AtomicBool, count: &Count, mut dice: Dice) {
    while !ends.load(Ordering::Relaxed) {
        let film = films[dice.roll(films.len())].read().unwrap();
        let Known { path, bytes, .. } = &*film;
        let ended = Command::new("cat").arg(path).output().unwrap();
        if ended.status.success() {
            compare(path, 0, &ended.stdout, bytes);
            count.whole.fetch_add(1, Ordering::Relaxed);
        } else {
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            let excuses = ["Input/output error", "resource busy", "temporarily unavailable", "not permitted"];
            let is_known = excuses.iter().any(|text| said.contains(text));
            assert!(is_known, "{}: {said}", path.display());
            count.excused.fetch_add(1, Ordering::Relaxed);
        }
        drop(film);
        std::thread::sleep(Duration::from_millis(dice.roll(pause_ms) as u64)); // tidy: wait a person's pace
    }
}

/// Somebody who changes films: whoever plays one has closed it.
fn edit(films: &[Film], ends: &AtomicBool, count: &Count, mut dice: Dice) {
    while !ends.load(Ordering::Relaxed) {
        let mut film = films[dice.roll(films.len())].write().unwrap();
        match change(&mut film, &mut dice) {
            Ok(()) => {
                count.changed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => excuse(&film.path, &error, count),
        }
        drop(film);
        std::thread::sleep(Duration::from_millis(200 + dice.roll(400) as u64)); // tidy: wait a person's pace
    }
}

fn change(Known { path, bytes, has_holes }: &mut Known, dice: &mut Dice) -> Result<(), Error> {
    match dice.roll(3) {
        0 => {
            let len = (2 << 20) + dice.roll(7 << 20);
            OpenOptions::new().write(true).open(&*path)?.set_len(len as u64)?;
            *has_holes |= len > bytes.len();
            bytes.resize(len, 0);
        }
        1 => {
            let more = text(dice.roll(1 << 30) as u64, 70_000);
            OpenOptions::new().append(true).open(&*path)?.write_all(&more)?;
            bytes.extend(more);
        }
        _ => {
            let (at, part) = (dice.roll(bytes.len() - 70_000), text(dice.roll(1 << 30) as u64, 60_000));
            OpenOptions::new().write(true).open(&*path)?.write_all_at(&part, at as u64)?;
            bytes[at..at + part.len()].copy_from_slice(&part);
        }
    }
    Ok(())
}

fn excuse(path: &Path, error: &Error, count: &Count) {
    let is_excused = EXCUSES.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    assert!(is_excused, "{}: {error}", path.display());
    count.excused.fetch_add(1, Ordering::Relaxed);
}

fn compare(path: &Path, at: usize, found: &[u8], wanted: &[u8]) {
    if found != wanted {
        let first = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        let (zeros, len) = (found.iter().filter(|byte| **byte == 0).count(), wanted.len());
        let is_mask = found.iter().enumerate().filter(|(to, byte)| **byte == isotherm_gate::mask_byte((at + to) as u64)).count();
        panic!(
            "{}: {} bytes from {at} instead of {len}, first wrong one {first:?}, {zeros} zeros, {is_mask} of a mask\n{}",
            path.display(),
            found.len(),
            crate::witness::about(path)
        );
    }
}

fn tier_again_and_again(office: &Path, folder: &Path, pause_ms: u64, ends: &AtomicBool) {
    let state = office.join("state-Munich");
    while !ends.load(Ordering::Relaxed) {
        let until = Instant::now() + Duration::from_millis(pause_ms);
        while Instant::now() < until && !ends.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50)); // tidy: wait parts are left here meanwhile
        }
        // What it says depends on who lives.
        isotherm(&["tier", folder.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    }
}

// semantics.md#streaming semantics.md#parts-that-die
#[test]
fn whoever_dies_players_and_all_others_read_the_film() {
    let mut dice = Dice(seed(41));
    let kinds = [Fs::Xfs, Fs::Ext4, Fs::Btrfs];
    for round in 0..rounds(2) {
        let fs = kinds[round % kinds.len()];
        let Some((mut office, films)) = office(fs, &mut dice) else { return };
        let (ends, count) = (AtomicBool::new(false), Count::default());
        let deaths = 3 + dice.roll(3);
        std::thread::scope(|scope| {
            let _over = Over::of(&ends, &office);
            let (films, ends, count, folder, home) = (&films, &ends, &count, office.guarded(), office.beside().to_owned());
            for _ in 0..PLAYERS {
                let dice = Dice(dice.roll(1 << 40) as u64 | 1);
                scope.spawn(move || play(films, fs != Fs::Ext4, ends, count, dice));
            }
            let (copies, edits) = (Dice(dice.roll(1 << 40) as u64 | 1), Dice(dice.roll(1 << 40) as u64 | 1));
            scope.spawn(move || copy(films, 400, ends, count, copies));
            scope.spawn(move || edit(films, ends, count, edits));
            scope.spawn(move || tier_again_and_again(&home, &folder, 0, ends));
            for _ in 0..deaths {
                std::thread::sleep(Duration::from_millis(500 + dice.roll(2_500) as u64)); // tidy: wait work goes on meanwhile
                let dying: &[Part] = [&[Part::Munich][..], &[Part::Gate], &[Part::Munich, Part::Gate]][dice.roll(3)];
                dying.iter().for_each(|part| office.kill(*part));
                std::thread::sleep(Duration::from_millis(dice.roll(300) as u64)); // tidy: wait work goes on without them
                dying.iter().rev().for_each(|part| office.start(*part));
                until("there is a keeper, and an agent", || office.keepers().len() == 1 && office.is_whole());
            }
            std::thread::sleep(Duration::from_millis(500)); // tidy: wait work goes on after the last death
        });
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "CAMPAIGN rounds=1 deaths={deaths} parts={} whole={} changed={} excused={}",
            of(&count.parts),
            of(&count.whole),
            of(&count.changed),
            of(&count.excused)
        );
        assert!(of(&count.parts) > 0 && of(&count.whole) > 0, "nothing was tried");
        office.settle();
        for film in &films {
            let Known { path, bytes, .. } = &*film.read().unwrap();
            compare(path, 0, &fs::read(path).unwrap(), bytes);
            let there = office.plain().join(path.file_name().unwrap());
            compare(&there, 0, &fs::read(&there).unwrap(), bytes);
        }
        assert_eq!(office.run(&["conflicts"]).code, Some(0), "{}", office.run(&["conflicts"]).out);
    }
}

// semantics.md#streaming
/// Row 20: at any moment the disk holds of each film what its record says, or all of it.
#[test]
fn case_20_after_a_power_cut_records_name_only_what_is_there() {
    let mut dice = Dice(seed(43));
    let kinds = [Fs::Ext4, Fs::Xfs, Fs::Btrfs];
    let mut all = 0;
    for round in 0..rounds(2) {
        let fs = kinds[round % kinds.len()];
        let Some((office, films)) = office(fs, &mut dice) else { return };
        let (ends, count) = (AtomicBool::new(false), Count::default());
        let mut partial = 0;
        std::thread::scope(|scope| {
            let _over = Over::of(&ends, &office);
            let (films, ends, count, folder, home) = (&films, &ends, &count, office.guarded(), office.beside().to_owned());
            // Few, so that films rest now and then.
            for _ in 0..PLAYERS / 2 {
                let dice = Dice(dice.roll(1 << 40) as u64 | 1);
                scope.spawn(move || play(films, fs != Fs::Ext4, ends, count, dice));
            }
            let copies = Dice(dice.roll(1 << 40) as u64 | 1);
            scope.spawn(move || copy(films, 8_000, ends, count, copies));
            scope.spawn(move || tier_again_and_again(&home, &folder, 8_000, ends));
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(500 + dice.roll(3_000) as u64)); // tidy: wait work goes on meanwhile
                partial += with_cut(&office, fs, |root| films.iter().filter(|film| is_left(root, film)).count());
            }
        });
        all += partial;
        println!("CAMPAIGN rounds=1 cuts=5 partial={partial}");
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
    assert!(all > 0, "no record named any part, so nothing was tried");
}

/// Whether a film is a stub of which the record names some; panics where it is not what it should be.
fn is_left(root: &Root, film: &Film) -> bool {
    let Known { path, bytes, .. } = &*film.read().unwrap();
    let inode = root.dir().inode(path.file_name().unwrap()).unwrap();
    let handle = Handle(inode.handle().unwrap().to_bytes().into());
    let file = isotherm_gate::StubFile::open_to_look(&inode).unwrap();
    let mut found = vec![0; bytes.len()];
    assert_eq!(file.stat().unwrap().size, bytes.len() as u64);
    file.read_at(0, &mut found).unwrap();
    let value = inode.stub_record().unwrap();
    let is_stub = value.is_some();
    let resident = match value {
        None => Units::all(bytes.len() as u64),
        Some(value) => match StubRecord::decode_with(&value, &handle).unwrap().1 {
            Some(resident) => resident,
            None => {
                let is_other = found.iter().zip(bytes).any(|(found, wanted)| *found != 0 && found != wanted);
                assert!(!is_other, "{}: a mask of which the record tells nothing", path.display());
                return false;
            }
        },
    };
    for range in resident.bytes(bytes.len() as u64) {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        compare(path, range.start, &found[range.clone()], &bytes[range]);
    }
    is_stub && !resident.is_empty()
}
