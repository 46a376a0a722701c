//! Programs that write in ways of their own: editors that save by rename, and programs that never stop writing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::program::until;
use crate::tree::{assert_equal, walk};

// semantics.md#atomic-save
#[test]
fn case_16_saving_by_rename_is_an_edit_of_the_same_file() {
    let Some(mut fleet) = Fleet::sharing([Fs::Ext4, Fs::Xfs], &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("plan.txt"), "first").unwrap();
    fs::write(detroit.join("letter.txt"), "first").unwrap();
    fleet.settle_clean();
    let nodes = ["plan.txt", "letter.txt"].map(|name| fleet.node(SITES[0], &detroit.join(name)));
    for round in 0..25 {
        // As vim and GNOME do: a new file renamed over the old one.
        fs::write(munich.join("4913"), "").unwrap();
        fs::remove_file(munich.join("4913")).unwrap();
        fs::write(munich.join("plan.txt.new"), format!("plan {round}")).unwrap();
        fs::rename(munich.join("plan.txt.new"), munich.join("plan.txt")).unwrap();
        // As emacs and LibreOffice do: the old one is moved aside, and removed when the new one is there.
        fs::rename(munich.join("letter.txt"), munich.join("letter.txt~")).unwrap();
        fs::write(munich.join("letter.txt"), format!("letter {round}")).unwrap();
        fs::remove_file(munich.join("letter.txt~")).unwrap();
        if round % 8 == 0 {
            fleet.settle_clean();
        }
    }
    fleet.settle_clean();
    // And while nobody looks.
    fleet.stop_agent(SITES[1]);
    let before = fs::metadata(munich.join("plan.txt")).unwrap().ino();
    fs::write(munich.join("aside"), "saved while the agent was away").unwrap();
    fs::rename(munich.join("aside"), munich.join("plan.txt")).unwrap();
    assert_ne!(fs::metadata(munich.join("plan.txt")).unwrap().ino(), before);
    fleet.start_agent(SITES[1]);
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 2, "{:?}", walk(&detroit));
    assert_eq!(fs::read_to_string(detroit.join("plan.txt")).unwrap(), "saved while the agent was away");
    assert_eq!(fs::read_to_string(detroit.join("letter.txt")).unwrap(), "letter 24");
    assert_eq!(["plan.txt", "letter.txt"].map(|name| fleet.node(SITES[0], &detroit.join(name))), nodes);
}

/// Pause between two writes: far below the quiet time.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `write` again and again, without a pause as long as the quiet time, for as long as `meanwhile` takes.
fn writing(write: impl Fn(u64) + Sync, meanwhile: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                write(number);
                number += 1;
                std::thread::sleep(PAUSE); // tidy: wait this is the writer's own rhythm
            }
        });
        // Also if `meanwhile` fails: a scope waits for its threads.
        let _stop = Stop(&stop);
        meanwhile();
    });
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

// semantics.md#restless-files
#[test]
fn a_file_that_is_appended_to_all_the_time_travels_as_it_grows() {
    let Some(fleet) = Fleet::sharing([Fs::Ext4, Fs::Xfs], &[]) else { return };
    // ext4 takes prefixes, XFS takes snapshots.
    for (from, to) in [(0, 1), (1, 0)] {
        let (log, copy) = (fleet.folders()[from].join(format!("{from}.log")), fleet.folders()[to].join(format!("{from}.log")));
        let append = |number: u64| {
            let mut file = File::options().create(true).append(true).open(&log).unwrap();
            writeln!(file, "line {number}").unwrap();
        };
        writing(append, || {
            let mut seen = 0;
            for round in 0..3 {
                until("a longer part of the log arrives", || size(&copy) > seen);
                let (here, there) = (fs::read(&log).unwrap(), fs::read(&copy).unwrap());
                assert!(here.starts_with(&there), "round {round}: what arrived is no beginning of the log");
                seen = there.len() as u64;
            }
        });
        fleet.settle_clean();
        assert_eq!(fs::read(&log).unwrap(), fs::read(&copy).unwrap());
    }
}

// semantics.md#restless-files
#[test]
fn a_file_that_is_written_in_place_all_the_time_travels_as_one_moment_or_waits() {
    let Some(fleet) = Fleet::sharing([Fs::Xfs, Fs::Ext4], &[]) else { return };
    const BLOCK: usize = 4096;
    const BLOCKS: u64 = 1024;
    let [xfs, ext4] = fleet.folders();
    for (folder, other) in [(&xfs, &ext4), (&ext4, &xfs)] {
        let name = if folder == &xfs { "snapshot.db" } else { "waits.db" };
        let path = folder.join(name);
        fs::write(&path, vec![0; BLOCK * BLOCKS as usize]).unwrap();
        fleet.settle_clean();
        let file = File::options().write(true).open(&path).unwrap();
        // Each round stamps the blocks from the first to the last: at each moment they never grow from left to right.
        let write = |number: u64| {
            for block in 0..BLOCKS {
                file.write_all_at(&(number + 1).to_be_bytes(), block * BLOCK as u64).unwrap();
            }
        };
        writing(write, || {
            let stamps = || {
                let bytes = fs::read(other.join(name)).unwrap();
                let stamp = |block: &[u8]| u64::from_be_bytes(block[..8].try_into().unwrap());
                bytes.chunks(BLOCK).map(stamp).collect::<Vec<u64>>()
            };
            if folder == &xfs {
                until("a moment of the file arrives", || stamps()[0] > 0);
                let seen = stamps();
                assert!(seen.is_sorted_by(|a, b| a >= b && *a <= b + 1), "a mixture of moments: {seen:?}");
            } else {
                until("the file is listed as a problem", || fleet.run(&["problems"]).out.contains(name));
            }
        });
        drop(file);
        fleet.settle_clean();
        assert_eq!(fs::read(&path).unwrap(), fs::read(other.join(name)).unwrap());
    }
}
