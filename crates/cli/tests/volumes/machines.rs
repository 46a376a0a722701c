//! Machines that can lose power: what a file system had not yet given to its disk is gone, and its journal is replayed.
//!
//! Each machine's disk is an image on a file system that shares blocks between files, where a clone of an image is one
//! moment of it. What the machine still had in memory is not in the clone; that is what a power cut takes. Its disk keeps
//! all that it was given, so losing writes inside the disk is not tried here.
//!
//! **Invariant:** all machines of a cut are frozen before the first of them is cloned, so that none has an answer from
//! a moment that another one has lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use isotherm_gate::testing::{Fs, LoopVolume};
use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::program::until;
use crate::sized;

/// A disk and where it is mounted.
#[derive(Debug)]
pub(crate) struct Machine {
    fs: Fs,
    image: PathBuf,
    mounted: PathBuf,
}

impl Machine {
    fn new(room: &LoopVolume, name: &str, fs: Fs) -> Self {
        let (image, mounted) = (room.path().join(name), room.outside().join(name));
        File::create(&image).and_then(|file| file.set_len((sized(512, 8_192) as u64) << 20)).unwrap();
        fs::create_dir(&mounted).unwrap();
        run(Command::new(format!("mkfs.{}", fs.name())).arg(if fs == Fs::Ext4 { "-qF" } else { "-qf" }).arg(&image));
        let machine = Self { fs, image, mounted };
        machine.mount();
        machine
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
        until("the disk is free", || match unmount(&self.mounted, UnmountFlags::empty()) {
            Ok(()) => true,
            // A program that another test starts holds copies of all open files until its exec.
            Err(Errno::BUSY) => false,
            Err(errno) => panic!("cannot unmount {}: {errno}", self.mounted.display()),
        });
        fs::rename(self.lost(), &self.image).unwrap();
        self.mount();
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

/// Two servers and the service's machine.
#[derive(Debug)]
pub(crate) struct Machines {
    // Dropped before the room that their images are in.
    pub(crate) all: [Machine; 3],
    _room: LoopVolume,
}

impl Machines {
    /// File systems of the servers, then that of the service. `None` where volumes cannot be made.
    pub(crate) fn new(kinds: [Fs; 3]) -> Option<Self> {
        let room = LoopVolume::new(Fs::Xfs, sized(3_072, 30_720) as u64)?;
        let names = ["detroit", "munich", "service"];
        let all = [0, 1, 2].map(|at: usize| Machine::new(&room, names[at], kinds[at]));
        Some(Self { all, _room: room })
    }
}

#[test]
fn a_power_cut_takes_what_was_not_durable_and_nothing_else() {
    for fs in [Fs::Ext4, Fs::Xfs] {
        let Some(machines) = Machines::new([fs; 3]) else { return };
        let machine = &machines.all[0];
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
