//! Power cuts while files are tiered and recalled and users save: every file is whole or a valid stub, and what a user was told
//! is durable is there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isotherm_core::stub::StubRecord;
use isotherm_core::trees::Handle;
use isotherm_gate::Root;
use isotherm_gate::testing::Fs;
use rustix::fs::ioctl_ficlone;
use rustix::mount::{UnmountFlags, unmount};

use crate::office::Office;
use crate::program::{isotherm, until};
use crate::rescue::Over;
use crate::texts::{number_of, text};
use crate::{Dice, rounds, seed};

/// Files that are tiered and recalled, and files that a user saves.
const FILES: usize = 40;
const SAVED: usize = 8;

#[test]
fn after_a_power_cut_every_file_is_whole_or_a_valid_stub() {
    let mut dice = Dice(seed(23));
    let kinds = [Fs::Ext4, Fs::Xfs, Fs::Btrfs];
    for round in 0..rounds(3) {
        let fs = kinds[round % kinds.len()];
        let Some(office) = Office::open(fs) else { return };
        let guarded = office.guarded();
        if (round / kinds.len()).is_multiple_of(2) {
            // Everybody reads as players do, and goes on before what he reads is durable.
            office.set(&["--program", "*=stream"]);
        }
        for at in 0..FILES {
            fs::write(guarded.join(format!("tiered-{at}")), text(at as u64, 20_000 + dice.roll(100_000))).unwrap();
        }
        office.settle();
        let saved: Vec<Mutex<u64>> = (0..SAVED).map(|_| Mutex::new(0)).collect();
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = Over::of(&ends, &office);
            let (folder, state, ends, saved) = (&guarded, office.beside().join("state-Munich"), &ends, &saved);
            scope.spawn(move || tier_and_recall(folder, &state, ends));
            let readers = dice.clone();
            scope.spawn(move || read_on(folder, ends, readers));
            let savers = dice.clone();
            scope.spawn(move || save_on(folder, saved, ends, savers));
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(200 + dice.roll(700) as u64)); // tidy: wait work goes on meanwhile
                cut(&office, fs, saved);
            }
        });
        println!("CAMPAIGN rounds=1");
    }
}

fn tier_and_recall(folder: &Path, state: &Path, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        // Mostly the readers bring them back.
        for command in ["tier", "tier", "tier", "recall"] {
            isotherm(&[command, folder.to_str().unwrap(), "--state", state.to_str().unwrap()]);
        }
    }
}

fn read_on(folder: &Path, ends: &AtomicBool, mut dice: Dice) {
    while !ends.load(Ordering::Relaxed) {
        let at = dice.roll(FILES);
        let bytes = fs::read(folder.join(format!("tiered-{at}"))).unwrap();
        assert_eq!(number_of(&bytes), Ok(at as u64), "tiered-{at}");
        std::thread::sleep(Duration::from_millis(dice.roll(40) as u64)); // tidy: wait a person's pace
    }
}

/// Saves over what may be a stub by then, and remembers what is durable.
fn save_on(folder: &Path, saved: &[Mutex<u64>], ends: &AtomicBool, mut dice: Dice) {
    let mut number = 1_000;
    while !ends.load(Ordering::Relaxed) {
        let at = dice.roll(SAVED);
        let path = folder.join(format!("saved-{at}"));
        number += 1;
        let bytes = text(number, 30_000);
        // The same length each time, over what is there: a record that came back would cover it.
        let file = File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        let mut durable = saved[at].lock().unwrap();
        *durable = 0;
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        *durable = number;
    }
}

/// What the disk held at one moment, mounted by itself and looked at.
pub(crate) fn with_cut<T>(office: &Office, fs: Fs, look: impl FnOnce(&Root) -> T) -> T {
    let (clone, place) = (office.beside().join("clone"), office.beside().join("cut"));
    fs::create_dir_all(&place).unwrap();
    ioctl_ficlone(File::create(&clone).unwrap(), File::open(office.image()).unwrap()).unwrap();
    // A file system of the same id is mounted already; ext4 does not mind, and btrfs gives the second one another.
    let options = if fs == Fs::Xfs { "loop,nouuid" } else { "loop" };
    run(Command::new("mount").args(["-t", fs.name(), "-o", options]).arg(&clone).arg(&place));
    let root = Root::open(&place.join("plans")).unwrap();
    let found = look(&root);
    drop(root);
    until("the cut volume is free", || unmount(&place, UnmountFlags::empty()).is_ok());
    found
}

fn cut(office: &Office, fs: Fs, saved: &[Mutex<u64>]) {
    // What is durable by now has to be there.
    let durable: Vec<u64> = saved.iter().map(|number| *number.lock().unwrap()).collect();
    with_cut(office, fs, |root| {
        let after: Vec<u64> = saved.iter().map(|number| *number.lock().unwrap()).collect();
        let place = office.beside().join("cut");
        look_at(root, (&place, fs), (&durable, &after));
    });
}

fn look_at(root: &Root, (place, fs): (&Path, Fs), (durable, after): (&[u64], &[u64])) {
    let (mut stubs, mut whole) = (0, 0);
    for at in 0..FILES {
        let name = format!("tiered-{at}");
        match record_of(root, &name) {
            Some(record) => {
                let found = fs::metadata(place.join("plans").join(&name)).unwrap().len();
                assert_eq!(found, record.size, "{name} on {}", fs.name());
                stubs += 1;
            }
            None => {
                let bytes = fs::read(place.join("plans").join(&name)).unwrap();
                assert_eq!(number_of(&bytes), Ok(at as u64), "{name} on {}", fs.name());
                whole += 1;
            }
        }
    }
    for (at, number) in durable.iter().enumerate().filter(|(at, number)| **number > 0 && after[*at] == **number) {
        let name = format!("saved-{at}");
        match record_of(root, &name) {
            // It was tiered since, and the share has it.
            Some(record) => assert_eq!(record.size, 30_000, "{name}"),
            None => {
                let bytes = fs::read(place.join("plans").join(&name)).unwrap();
                assert_eq!(number_of(&bytes), Ok(*number), "{name} on {}", fs.name());
            }
        }
    }
    println!("CAMPAIGN cuts=1 stubs={stubs} whole={whole}");
}

fn record_of(root: &Root, name: &str) -> Option<StubRecord> {
    let inode = root.dir().inode(name.as_ref()).unwrap();
    let value = inode.stub_record().unwrap()?;
    let handle = Handle(inode.handle().unwrap().to_bytes().into());
    Some(StubRecord::decode(&value, &handle).unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
