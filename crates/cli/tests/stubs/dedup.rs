//! Equal contents that share space.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use isotherm_gate::testing::Fs;
use serde_json::Value;

use crate::office::{Office, Part, blocks};
use crate::program::{isotherm, until};
use crate::rescue::Over;
use crate::texts::text;
use crate::users::is_excused;
use crate::{Dice, rounds, seed};

const MIB: u64 = 1 << 20;
const LEN: usize = 16 << 20;
const SHARING: [Fs; 2] = [Fs::Xfs, Fs::Btrfs];

fn set(office: &Office, settings: &[&str]) -> Value {
    let volume = office.guarded().parent().unwrap().to_owned();
    let mut all = vec!["volume", "set", volume.to_str().unwrap(), "--json"];
    all.extend(settings);
    office.ask_munich(&all).expect(0).json()
}

fn shared(office: &Office) -> u64 {
    set(office, &["--dedup", "on", "--dedup-after", "0s"])["shared_bytes"].as_u64().unwrap()
}

fn free(office: &Office) -> u64 {
    let volume = office.guarded();
    rustix::fs::syncfs(File::open(&volume).unwrap()).unwrap();
    let found = rustix::fs::statvfs(&volume).unwrap();
    found.f_bavail * found.f_frsize
}

fn times(path: &Path) -> (i64, i64, i64, i64) {
    let found = fs::metadata(path).unwrap();
    (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
}

// semantics.md#deduplication
/// Equal files and equal parts share space: nobody sees it but in what is free, whoever writes changes one file alone, and what would get
/// free when they are tiered is what gets free.
#[test]
fn equal_contents_share_space_and_stay_files_of_their_own() {
    for fs in SHARING {
        let Some(office) = Office::open(fs) else { return };
        let here = office.guarded();
        let mut changed = text(1, LEN);
        changed[LEN / 2..LEN / 2 + 4_096].fill(7);
        let mut contents: BTreeMap<&str, Vec<u8>> = ["a", "b", "c"].map(|name| (name, text(1, LEN))).into();
        contents.extend(["small-1", "small-2", "small-3"].map(|name| (name, text(2, 70_001))));
        contents.extend([("changed", changed), ("alone", text(3, LEN))]);
        contents.iter().for_each(|(name, bytes)| fs::write(here.join(name), bytes).unwrap());
        office.settle();
        let (before, states) = (free(&office), contents.keys().map(|name| times(&here.join(name))).collect::<Vec<_>>());
        let names: Vec<&str> = contents.keys().copied().collect();
        let versions = || names.iter().map(|name| office.shown(&here.join(name))["version"].clone()).collect::<Vec<_>>();
        let known = versions();
        // Two of three large ones, two of three small ones, and all of the changed one but the chunk that was changed.
        let least = 2 * LEN as u64 + 2 * 70_001 + 9 * MIB;
        until("what is equal is shared", || shared(&office) >= least);
        // btrfs gives nothing free of what was written at once while any of it is in use.
        let of_parts = if fs == Fs::Btrfs { 10 * MIB } else { MIB };
        assert!(free(&office) >= before + least - of_parts, "{} and then {} on {}", before, free(&office), fs.name());
        assert_eq!(contents.keys().map(|name| times(&here.join(name))).collect::<Vec<_>>(), states, "on {}", fs.name());
        let listed = office.ask_gate(&["volume", "list", "--state", office.beside().join("state-Munich").to_str().unwrap()]).out;
        assert!(listed.contains("on, ") && listed.contains("MiB shared"), "{listed}");

        // Somebody works on one of them.
        contents.get_mut("b").unwrap()[5_000_000..5_000_100].fill(9);
        File::options().write(true).open(here.join("b")).unwrap().write_all_at(&[9; 100], 5_000_000).unwrap();
        office.settle();
        for (name, bytes) in &contents {
            assert!(fs::read(here.join(name)).unwrap() == *bytes, "{name} here on {}", fs.name());
            assert!(fs::read(office.plain().join(name)).unwrap() == *bytes, "{name} there on {}", fs.name());
        }
        let changed_since = versions().iter().zip(&known).filter(|(now, then)| now != then).count();
        assert_eq!(changed_since, 1, "sharing sends nothing");

        set(&office, &["--dedup", "off"]);
        let plan = office.tier_plan(&here);
        let (frees, bytes) = (plan["frees"].as_u64().unwrap(), plan["bytes"].as_u64().unwrap());
        assert!(bytes == 5 * LEN as u64 + 3 * 70_001 && frees < bytes - 2 * LEN as u64 + MIB, "{plan}");
        let of_one = office.tier_plan(&here.join("c"));
        assert!(of_one["frees"].as_u64().unwrap() < MIB, "{of_one} on {}", fs.name());
        let before = free(&office);
        office.tier_all();
        let freed = free(&office) - before;
        // What of a file on btrfs is its own may free more than its length: see above.
        let is_right = if fs == Fs::Btrfs { freed + 2 * MIB > frees && freed <= bytes } else { freed.abs_diff(frees) < 2 * MIB };
        assert!(is_right, "{freed} of {frees} on {}", fs.name());
        for (name, bytes) in &contents {
            assert!(fs::read(here.join(name)).unwrap() == *bytes, "{name} again on {}", fs.name());
        }
        office.settle();
        until("what came again is shared again", || shared(&office) >= 2 * LEN as u64);
        assert_eq!(office.problems(), [] as [Value; 0]);
    }
}

/// Files of the same length, the coldest first, each with its days and the number of its content; two have the same. Then half a file more
/// than is free is asked for.
fn room_is_needed(office: &Office, files: &[(u64, &str, u64)]) {
    let (here, large) = (office.guarded(), 3 * LEN);
    office.set(&["--free-space", "0%", "--grace", "0s"]);
    for (days, name, content) in files {
        fs::write(here.join(name), text(*content, large)).unwrap();
        let then = SystemTime::now() - Duration::from_secs(days * 24 * 3_600);
        File::options().write(true).open(here.join(name)).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
    }
    office.settle();
    until("the twins share", || shared(office) >= large as u64);
    let found = rustix::fs::statvfs(&here).unwrap();
    let total = found.f_blocks * found.f_frsize;
    let percent = ((free(office) + large as u64 / 2) * 100 / total + 1).to_string();
    office.set(&["--free-space", &percent]);
}

// semantics.md#deduplication
/// Where room is needed, a file goes with which something gets free: not the coldest one if all its blocks are those of a file in use.
#[test]
fn what_would_free_nothing_stays() {
    for fs in SHARING {
        let Some(office) = Office::open(fs) else { return };
        let here = office.guarded();
        room_is_needed(&office, &[(90, "twin", 1), (20, "cold", 2), (1, "warm", 3), (0, "used", 1)]);
        until("room is made", || blocks(&here.join("cold")) == 0);
        office.settle();
        assert!(blocks(&here.join("twin")) > 0 && blocks(&here.join("used")) > 0, "on {}", fs.name());
        assert_eq!(office.problems(), [] as [Value; 0]);
    }
}

// semantics.md#deduplication
/// Copies that nobody uses go together, before what was used later, although one of them alone would have been enough by its length.
#[test]
fn copies_that_nobody_uses_go_together() {
    for fs in SHARING {
        let Some(office) = Office::open(fs) else { return };
        let here = office.guarded();
        room_is_needed(&office, &[(90, "copy", 1), (60, "another", 1), (20, "cool", 2), (1, "warm", 3)]);
        until("room is made", || blocks(&here.join("copy")) + blocks(&here.join("another")) == 0);
        office.settle();
        assert!(blocks(&here.join("cool")) > 0 && blocks(&here.join("warm")) > 0, "on {}", fs.name());
        assert_eq!(office.problems(), [] as [Value; 0]);
    }
}

#[test]
fn where_files_cannot_share_it_says_so() {
    let Some(office) = Office::open(Fs::Ext4) else { return };
    let volume = office.guarded().parent().unwrap().to_owned();
    let refused = office.ask_munich(&["volume", "set", volume.to_str().unwrap(), "--dedup", "on"]).expect(4);
    assert!(refused.err.contains("ext4") && refused.err.contains("btrfs"), "{}", refused.err);
    let unknown = office.ask_munich(&["volume", "set", "/srv/nowhere", "--dedup", "on"]).expect(1);
    assert!(unknown.err.contains("/srv/nowhere"), "{}", unknown.err);
    office.ask_munich(&["volume", "set", volume.to_str().unwrap()]).expect(2);
}

/// Files that begin as copies of each other.
const WRITTEN: usize = 8;
/// They consist of blocks of so many bytes, each with one of few contents, so that the same comes again and again.
const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 24;
const KINDS: usize = 3;

// semantics.md#deduplication
/// Copies are written to, cut and made longer while their blocks are shared, while they are tiered and recalled, and while agent and gate
/// die: each byte is what its writer wrote last.
#[test]
fn whoever_writes_and_whoever_dies_every_file_is_its_own() {
    let mut dice = Dice(seed(53));
    let mut all_shared = 0;
    for round in 0..rounds(2) {
        let Some(mut office) = Office::open(SHARING[round % SHARING.len()]) else { return };
        set(&office, &["--dedup", "on", "--dedup-after", "0s"]);
        all_shared += one_office(&mut office, &mut dice);
    }
    assert!(all_shared > 0, "nothing was ever shared, so nothing was tried");
}

fn one_office(office: &mut Office, dice: &mut Dice) -> u64 {
    let (here, state) = (office.guarded(), office.beside().join("state-Munich"));
    let volume = here.parent().unwrap().to_owned();
    let ends = AtomicBool::new(false);
    let (shared, deeds) = (AtomicU64::new(0), AtomicU64::new(0));
    let written: Mutex<BTreeMap<usize, Vec<u8>>> = Mutex::default();
    let deaths = 2 + dice.roll(3);
    std::thread::scope(|scope| {
        let _over = Over::of(&ends, office);
        for at in 0..WRITTEN {
            let (folder, dice, ends, written, deeds) =
                (&here, Dice(seed(at as u64 + dice.roll(1 << 20) as u64)), &ends, &written, &deeds);
            scope.spawn(move || {
                let bytes = write(&folder.join(format!("copy-{at}")), dice, ends, deeds);
                written.lock().unwrap().insert(at, bytes);
            });
        }
        let (ends, shared, here, volume, state) = (&ends, &shared, &here, &volume, &state);
        scope.spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                // What it says depends on who lives.
                isotherm(&["tier", here.to_str().unwrap(), "--state", state.to_str().unwrap()]);
                std::thread::sleep(Duration::from_millis(2_500)); // tidy: wait work goes on meanwhile
                let asked =
                    ["volume", "set", volume.to_str().unwrap(), "--dedup", "on", "--state", state.to_str().unwrap(), "--json"];
                let view: Value = serde_json::from_str(&isotherm(&asked).out).unwrap_or_default();
                shared.fetch_max(view["shared_bytes"].as_u64().unwrap_or(0), Ordering::Relaxed);
            }
        });
        for _ in 0..deaths {
            std::thread::sleep(Duration::from_millis(2_000 + dice.roll(3_000) as u64)); // tidy: wait work goes on meanwhile
            let dying = [Part::Munich, Part::Munich, Part::Gate][dice.roll(3)];
            until("the agent holds the group too", || office.is_whole());
            office.kill(dying);
            office.start(dying);
        }
        std::thread::sleep(Duration::from_millis(1_500)); // tidy: wait work goes on after the last death
    });
    until("everything is guarded and answered for again", || office.is_whole());
    office.settle();
    for (at, bytes) in written.into_inner().unwrap() {
        for folder in [&here, &office.plain()] {
            let found = fs::read(folder.join(format!("copy-{at}"))).unwrap();
            assert!(found == bytes, "copy-{at} in {}\n{}", folder.display(), office.logs());
        }
    }
    assert_eq!(office.run(&["conflicts"]).code, Some(0));
    let (shared, deeds) = (shared.into_inner(), deeds.into_inner());
    println!("CAMPAIGN rounds=1 deaths={deaths} deeds={deeds} shared_mib={}", shared / MIB);
    shared
}

/// Writes to a file until it is to end, and reads it; what it has to hold then.
fn write(path: &Path, mut dice: Dice, ends: &AtomicBool, deeds: &AtomicU64) -> Vec<u8> {
    let kinds: Vec<Vec<u8>> = (0..KINDS).map(|kind| text(100 + kind as u64, BLOCK)).collect();
    let mut bytes = template(&kinds, 0);
    fs::write(path, &bytes).unwrap();
    while !ends.load(Ordering::Relaxed) {
        // Long enough that others find it at rest.
        std::thread::sleep(Duration::from_millis(500 + dice.roll(5_000) as u64)); // tidy: wait somebody works now and then
        let found = retried(|| fs::read(path));
        assert!(found == bytes, "{} is not what was written", path.display());
        let file = retried(|| File::options().read(true).write(true).open(path));
        if dice.roll(3) == 0 {
            // One of few that all begin as.
            bytes = template(&kinds, dice.roll(2));
            file.write_all_at(&bytes, 0).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
        for _ in 0..dice.roll(4) {
            let at = dice.roll(BLOCKS) * BLOCK;
            match dice.roll(8) {
                0 => {
                    bytes.truncate(at + dice.roll(BLOCK));
                    file.set_len(bytes.len() as u64).unwrap();
                }
                1 => {
                    let from = dice.roll(BLOCKS * BLOCK);
                    put(&file, &mut bytes, from, &[7; 100]);
                }
                _ => put(&file, &mut bytes, at, &kinds[dice.roll(KINDS)]),
            }
            deeds.fetch_add(1, Ordering::Relaxed);
        }
        if dice.roll(3) == 0 {
            file.sync_all().unwrap();
        }
    }
    bytes
}

fn template(kinds: &[Vec<u8>], first: usize) -> Vec<u8> {
    (first..first + BLOCKS).flat_map(|at| kinds[at % KINDS].clone()).collect()
}

fn put(file: &File, bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    file.write_all_at(piece, at as u64).unwrap();
    bytes.resize(bytes.len().max(at + piece.len()), 0);
    bytes[at..at + piece.len()].copy_from_slice(piece);
}

/// Whoever opens a file in the moment in which somebody dies is told so, and is served when he tries again.
fn retried<T>(mut work: impl FnMut() -> std::io::Result<T>) -> T {
    let mut tries = 0;
    loop {
        match work() {
            Err(error) if is_excused(&error) && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(100)); // tidy: wait the next one is started
            }
            done => return done.unwrap(),
        }
    }
}
