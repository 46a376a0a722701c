//! Machines that can lose power, and whose disks can fail.
//!
//! Each machine's disk is an image in a room of its own: an XFS volume that can clone files and can be shut down. A clone
//! is one moment of the image: all that the disk was given is in it, and what the machine still had in memory is not. A
//! room that is shut down is a disk that answers each write with an error; and what it was given and not told to make
//! durable is lost, as from the cache inside a disk.
//!
//! (A room that is filled up is no failing disk: the loop device calls writes done of which only a part found room.)
//!
//! **Invariant:** all machines of a cut are frozen before the first of them is cut, so that none has an answer from a
//! moment that another one has lost.

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
        fs.format(&image).unwrap();
        let machine = Self { fs, image, mounted, room };
        machine.mount();
        Some(machine)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) {
        mount_image(self.fs, &self.image, &self.mounted);
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
        unmount_from(&self.mounted);
        fs::rename(self.lost(), &self.image).unwrap();
        self.mount();
    }

    /// From now on each write to the disk is an error, and so is the reading of what is not in memory.
    pub(crate) fn fail_disk(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.room.path()));
    }

    /// The disk works again; it has what it was told to make durable. Nobody may use it.
    pub(crate) fn mend_disk(&self) {
        unmount_from(&self.mounted);
        unmount_from(self.room.path());
        mount_image(Fs::Xfs, &self.room.outside().join("image"), self.room.path());
        self.mount();
    }
}

fn mount_image(fs: Fs, image: &Path, to: &Path) {
    until("a loop device is free", || {
        let output = Command::new("mount").args(["-t", fs.name(), "-o", "loop"]).arg(image).arg(to).output().unwrap();
        // Another program may take the device between the search for one and its use.
        let is_taken = String::from_utf8_lossy(&output.stderr).contains("loop device");
        assert!(output.status.success() || is_taken, "{output:?}");
        output.status.success()
    });
}

/// Waits until nobody uses a file system, and unmounts it.
fn unmount_from(mounted: &Path) {
    until("the disk is free", || match unmount(mounted, UnmountFlags::empty()) {
        Ok(()) => true,
        // A program that another test starts holds copies of all open files until its exec, and a loop device goes a
        // moment after its file system.
        Err(Errno::BUSY) => false,
        Err(errno) => panic!("cannot unmount {}: {errno}", mounted.display()),
    });
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
        assert!(write(&machine.path().join("more"), b"more").is_err(), "{fs:?} hides errors of its disk");
        machine.mend_disk();
        assert_eq!(fs::read(&durable).unwrap(), b"durable");
    }
}
