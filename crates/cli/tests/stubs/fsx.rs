//! The file system exerciser `fsx`, which knows what each byte has to be, on files that are tiered, recalled, shared with equal ones and sent to the
//! other server whenever it has closed them, while agents die.
//!
//! It opens a file again at once after it has closed it. Each opening is held up for a moment, in which the file can become a
//! stub.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part};
use crate::program::{isotherm, until};
use crate::rescue::Over;
use crate::{Dice, rounds, seed};

/// Files that are worked on at once.
const FILES: usize = 8;
/// What `fsx` does to each.
const DEEDS: usize = 1_000;
/// For so long each opening is held up, in microseconds.
const HELD_UP: u32 = 3_500_000;

/// All that it can do. An opening is held up, so there are few.
const SETTINGS: &str = "
flen = 400000
[opsize]
max = 70000
[weights]
close_open = 0.06
invalidate = 0.3
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 0.3
punch_hole = 0.7
sendfile = 0.7
posix_fadvise = 0.3
copy_file_range = 0.7
";

/// The programs that are needed; none where one is missing.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    let fsx = std::env::var_os("ISOTHERM_FSX").map(PathBuf::from).or_else(|| find("fsx"));
    let found = fsx.zip(find("strace"));
    if found.is_none() {
        println!("SKIPPED the_exerciser: `fsx` (cargo install fsx) and `strace` are not both there");
    }
    found
}

// semantics.md#whole-or-nothing
#[test]
fn the_exerciser_finds_every_byte_while_its_files_come_and_go() {
    let Some((fsx, strace)) = programs() else { return };
    let mut dice = Dice(seed(37));
    let kinds = [Fs::Ext4, Fs::Xfs, Fs::Btrfs];
    let mut all_tiered = 0;
    for round in 0..rounds(3) {
        let Some(mut office) = Office::open(kinds[round % kinds.len()]) else { return };
        // In pairs, so that where files can share blocks there are some that are equal for a while.
        let pairs: Vec<usize> = (0..FILES / 2).map(|_| dice.roll(1 << 30)).collect();
        let seeds: Vec<usize> = pairs.iter().flat_map(|seed| [*seed; 2]).collect();
        let volume = office.guarded().parent().unwrap().to_owned();
        let dedup = ["volume", "set", volume.to_str().unwrap(), "--dedup", "on", "--dedup-after", "0s"];
        // ext4 refuses.
        office.ask_munich(&dedup);
        let running = seeds.iter().enumerate().map(|(at, seed)| {
            let command = exerciser(&fsx, &strace, &office, at, *seed);
            (format!("seed {seed} on {}", kinds[round % kinds.len()].name()), command)
        });
        let running: Vec<(String, Child)> = running.collect();
        let tiered = adversary(&mut office, running, &mut dice);
        all_tiered += tiered;
        println!("CAMPAIGN rounds=1 files={FILES} deeds={} tiered={tiered}", FILES * DEEDS);
        office.settle();
        for at in 0..FILES {
            let name = format!("exercised-{at}");
            let (here, there) = (fs::read(office.guarded().join(&name)).unwrap(), fs::read(office.plain().join(&name)).unwrap());
            assert!(here == there, "{name}: {} bytes here, {} there", here.len(), there.len());
        }
        assert_eq!(office.run(&["conflicts"]).code, Some(0));
    }
    assert!(all_tiered > 0, "nothing was ever tiered, so nothing was tried");
}

/// `fsx` on a file of its own, each opening of which is held up.
fn exerciser(fsx: &Path, strace: &Path, office: &Office, at: usize, seed: usize) -> Child {
    let settings = office.beside().join("fsx.toml");
    fs::write(&settings, SETTINGS).unwrap();
    let file = office.guarded().join(format!("exercised-{at}"));
    let said = fs::File::create(office.beside().join(format!("fsx-{at}"))).unwrap();
    let mut command = Command::new(strace);
    command.args(["-qqq", "-o", "/dev/null", "-e", "trace=openat", "-e"]).arg(format!("inject=openat:delay_enter={HELD_UP}"));
    command.arg("-P").arg(&file).arg(fsx).arg("-f").arg(settings).arg("-P").arg(office.beside());
    command.args(["-N", &DEEDS.to_string(), "-S", &seed.to_string()]).arg(&file);
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap()
}

/// Tiers everything again and again, brings some of it back, and ends the agent now and then, until all have ended. Gives how
/// many files became stubs.
fn adversary(office: &mut Office, mut running: Vec<(String, Child)>, dice: &mut Dice) -> u64 {
    let ends = AtomicBool::new(false);
    let (folder, state) = (office.guarded(), office.beside().join("state-Munich"));
    std::thread::scope(|scope| {
        let over = Over::of(&ends, office);
        let tiering = scope.spawn(|| tier_again_and_again(&folder, &state, &ends));
        let mut turn = 0;
        while !running.is_empty() {
            std::thread::sleep(Duration::from_millis(200 + dice.roll(300) as u64)); // tidy: wait work goes on meanwhile
            turn += 1;
            if turn % 20 == 0 {
                office.kill(Part::Munich);
                std::thread::sleep(Duration::from_millis(dice.roll(200) as u64)); // tidy: wait work goes on without it
                office.start(Part::Munich);
                until("the agent holds the group again", || office.is_whole());
            } else if turn % 3 == 0 {
                let file = folder.join(format!("exercised-{}", dice.roll(FILES)));
                isotherm(&["recall", file.to_str().unwrap(), "--state", state.to_str().unwrap()]);
            }
            running.retain_mut(|(what, child)| match child.try_wait().unwrap() {
                None => true,
                Some(ended) => {
                    assert!(ended.success(), "{what}: {ended}\n{}", said(office));
                    false
                }
            });
        }
        drop(over);
        tiering.join().unwrap()
    })
}

fn said(office: &Office) -> String {
    let all = (0..FILES).map(|at| fs::read_to_string(office.beside().join(format!("fsx-{at}"))).unwrap_or_default());
    let tails = all.map(|text| text.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
    tails.collect::<Vec<_>>().join("\n---\n")
}

fn tier_again_and_again(folder: &Path, state: &Path, ends: &AtomicBool) -> u64 {
    let mut tiered = 0;
    while !ends.load(Ordering::Relaxed) {
        // What it says depends on whether the agent lives.
        let ended = isotherm(&["tier", folder.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&ended.out).unwrap_or_default();

        tiered += answer["files"].as_u64().unwrap_or(0);
    }
    tiered
}
