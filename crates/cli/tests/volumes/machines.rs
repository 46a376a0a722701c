//! Machines that can lose power: what a file system had not yet given to its disk is gone, and its journal is replayed.
//!
//! Or their disks fail: the room that an image is in is filled up, and writes to new places of the disk are errors.
//!
//! Each machine's disk is an image on a file system that shares blocks between files, where a clone of an image is one
//! moment of it. What the machine still had in memory is not in the clone; that is what a power cut takes. Its disk keeps
//! all that it was given, so losing writes inside the disk is not tried here.
//!
//! **Invariant:** all machines of a cut are frozen before the first of them is cloned, so that none has an answer from
//! a moment that another one has lost.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use isotherm_gate::testing::{Fs, LoopVolume};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::program::until;
use crate::work::Workers;
use crate::{Dice, sized};

/// A disk and where it is mounted.
#[derive(Debug)]
pub(crate) struct Machine {
    fs: Fs,
    image: PathBuf,
    mounted: PathBuf,
    /// Last: it goes after what is in it.
    room: LoopVolume,
}

impl Machine {
    /// `None` where volumes cannot be made.
    fn new(name: &str, fs: Fs) -> Option<Self> {
        let room = LoopVolume::new(Fs::Xfs, sized(2_048, 16_384) as u64)?;
        let (image, mounted) = (room.path().join(name), room.outside().join(name));
        File::create(&image).and_then(|file| file.set_len((sized(512, 8_192) as u64) << 20)).unwrap();
        fs::create_dir(&mounted).unwrap();
        run(Command::new(format!("mkfs.{}", fs.name())).arg(if fs == Fs::Ext4 { "-qF" } else { "-qf" }).arg(&image));
        let machine = Self { fs, image, mounted, room };
        machine.mount();
        Some(machine)
    }

    pub(crate) fn fs(&self) -> Fs {
        self.fs
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-t", self.fs.name(), "-o", "loop"]).arg(&self.image).arg(&self.mounted));
    }

    fn lost(&self) -> PathBuf {
        self.image.with_extension("clone")
    }

    /// Keeps what the disk holds at this moment.
    pub(crate) fn clone_disk(&self) {
        let (from, to) = (File::open(&self.image).unwrap(), File::create(self.lost()).unwrap());
        ioctl_ficlone(to, from).unwrap();
    }

    /// Goes on with what was kept, as after a power cut. Nobody may use the disk.
    pub(crate) fn power_on(&self) {
        self.unmount();
        fs::rename(self.lost(), &self.image).unwrap();
        self.mount();
    }

    /// From now on writes to places of the disk that were never written are errors.
    pub(crate) fn fail_disk(&self) {
        fill(&self.room.path().join("ballast"));
    }

    /// The disk is mended, looked over, and mounted again. Nobody may use it.
    pub(crate) fn mend_disk(&self) {
        fs::remove_file(self.room.path().join("ballast")).unwrap();
        self.unmount();
        if self.fs == Fs::Ext4 {
            // It mends what the errors left; 1 says that it did.
            let looked = Command::new("e2fsck").args(["-f", "-y"]).arg(&self.image).output().unwrap();
            assert!(looked.status.code().is_some_and(|code| code <= 1), "{looked:?}");
        }
        self.mount();
    }

    fn unmount(&self) {
        until("the disk is free", || match unmount(&self.mounted, UnmountFlags::empty()) {
            Ok(()) => true,
            // A program that another test starts holds copies of all open files until its exec.
            Err(Errno::BUSY) => false,
            Err(errno) => panic!("cannot unmount {}: {errno}", self.mounted.display()),
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A failed test may still hold files open.
        if unmount(&self.mounted, UnmountFlags::empty()).is_err() {
            let _ = unmount(&self.mounted, UnmountFlags::DETACH);
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Takes all space of a file system.
pub(crate) fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut end = 0;
    for size in [64 << 20, 1 << 20, 64 << 10, 4 << 10] {
        while fallocate(&file, FallocateFlags::empty(), end, size).is_ok() {
            end += size;
        }
    }
    file.seek(SeekFrom::End(0)).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
    let _ = file.sync_all();
}

/// A machine of each site and the service's, with the product on them and people at work.
#[derive(Debug)]
pub(crate) struct World {
    // Processes end before their disks go.
    pub(crate) fleet: Fleet,
    pub(crate) machines: [Machine; 3],
    pub(crate) dice: Dice,
    pub(crate) journal: Arc<Journal>,
}

impl World {
    /// File systems of the servers, then that of the service. `None` where volumes cannot be made.
    pub(crate) fn new(kinds: [Fs; 3], start: u64) -> Option<Self> {
        let machines = machines(kinds)?;
        let homes = [0, 1].map(|at: usize| machines[at].path().to_owned());
        let states = [0, 1].map(|at: usize| homes[at].join("state"));
        let mut fleet = Fleet::at(homes, states, machines[2].path().join("data"));
        fleet.share(&["--delete-limit", "100%"]);
        Workers::prepare(&fleet);
        Some(Self { fleet, machines, dice: Dice(start), journal: Arc::default() })
    }

    pub(crate) fn pause(&mut self, most_ms: usize) {
        std::thread::sleep(Duration::from_millis(self.dice.roll(most_ms) as u64)); // tidy: wait faults come at any time
    }
}

fn machines(kinds: [Fs; 3]) -> Option<[Machine; 3]> {
    let names = ["detroit", "munich", "service"];
    let all = names.into_iter().zip(kinds).map(|(name, fs)| Machine::new(name, fs)).collect::<Option<Vec<_>>>()?;
    all.try_into().ok()
}

#[test]
fn a_power_cut_takes_what_was_not_durable_and_nothing_else() {
    for fs in [Fs::Ext4, Fs::Xfs] {
        let Some(machine) = Machine::new("one", fs) else { return };
        let [durable, cached] = ["durable", "cached"].map(|name| machine.path().join(name));
        fs::write(&durable, "durable").unwrap();
        File::open(&durable).unwrap().sync_all().unwrap();
        File::open(machine.path()).unwrap().sync_all().unwrap();
        fs::write(&cached, "cached").unwrap();
        machine.clone_disk();
        machine.power_on();
        assert_eq!(fs::read(&durable).unwrap(), b"durable");
        assert!(fs::read(&cached).is_ok_and(|text| text.is_empty()) || !cached.exists(), "{fs:?} kept what was in memory");
    }
}

#[test]
fn a_disk_that_fails_says_so_and_keeps_what_was_durable() {
    for fs in [Fs::Ext4, Fs::Xfs] {
        let Some(machine) = Machine::new("one", fs) else { return };
        let durable = machine.path().join("durable");
        let write = |path: &Path, bytes: &[u8]| {
            let mut file = File::create(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write(&durable, b"durable").unwrap();
        File::open(machine.path()).unwrap().sync_all().unwrap();
        machine.fail_disk();
        assert!(write(&machine.path().join("more"), &vec![b'm'; 64 << 20]).is_err(), "{fs:?} hides errors of its disk");
        machine.mend_disk();
        assert_eq!(fs::read(&durable).unwrap(), b"durable");
    }
}
