//! Disks that fail: writes that are errors under load, on each side; and a file that cannot be read any more.
//!
//! **Invariant:** what a file system had called durable is asked for; what it had refused is not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use isotherm_gate::testing::{Fs, LoopVolume};

use crate::fleet::{Fleet, SITES};
use crate::journal::Owed;
use crate::machines::World;
use crate::program::until;
use crate::tree::{assert_equal, walk};
use crate::work::Workers;
use crate::{Dice, rounds, seed};

impl World {
    /// A disk fails under load, and is mended after a while. Whoever ends by itself is started again.
    fn fail(&mut self, at: usize, round: u64) {
        let workers = Workers::start(&self.fleet, round, 60, Arc::clone(&self.journal));
        self.pause(1_500);
        self.machines[at].fail_disk();
        let mut ended = 0;
        for _ in 0..6 {
            self.pause(1_000);
            ended += self.fleet.revive();
        }
        let (fleet, machine) = (&mut self.fleet, &self.machines[at]);
        workers.while_nobody_works(|| match SITES.get(at) {
            Some(site) => {
                fleet.kill_agent(site);
                machine.mend_disk();
                let found = self.journal.look(&fleet.folder(site), &Owed::new());
                assert!(found.is_empty(), "the file system itself has lost something: {found:?}");
                fleet.spawn_agent(site);
            }
            None => {
                fleet.kill_service();
                machine.mend_disk();
                fleet.start_service();
            }
        });
        self.pause(1_500);
        workers.stop();
        ended += self.fleet.revive();
        let names = self.journal.check(&self.fleet);
        println!("CAMPAIGN rounds=1 names={names} ended_by_itself={ended}");
    }
}

fn campaign(kinds: [Fs; 3], at: usize, start: u64) {
    let Some(mut world) = World::new(kinds, seed(start)) else { return };
    for round in 0..rounds(1, 10) {
        world.fail(at, round as u64);
    }
    println!("CAMPAIGN versions_written={}", world.journal.versions());
}

#[test]
fn errors_of_a_server_disk_with_ext4_lose_nothing_that_was_durable() {
    campaign([Fs::Ext4, Fs::Xfs, Fs::Xfs], 0, 0xE0);
}

#[test]
fn errors_of_a_server_disk_with_xfs_lose_nothing_that_was_durable() {
    campaign([Fs::Ext4, Fs::Xfs, Fs::Ext4], 1, 0xE1);
}

#[test]
fn errors_of_the_service_disk_with_ext4_lose_nothing_that_was_acknowledged() {
    campaign([Fs::Xfs, Fs::Ext4, Fs::Ext4], 2, 0xE2);
}

#[test]
fn errors_of_the_service_disk_with_xfs_lose_nothing_that_was_acknowledged() {
    campaign([Fs::Ext4, Fs::Xfs, Fs::Xfs], 2, 0xE3);
}

/// Changes bytes of a file below its file system, so that reading it is an error.
fn spoil(volume: &LoopVolume, marker: &[u8]) {
    let image = File::options().read(true).write(true).open(volume.outside().join("image")).unwrap();
    let length = image.metadata().unwrap().len();
    let mut block = [0; 4096];
    let mut spoilt = 0;
    for at in (0..length).step_by(block.len()) {
        image.read_exact_at(&mut block, at).unwrap();
        if block.starts_with(marker) {
            image.write_all_at(b"spoilt", at + 2_000).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "the file is not on the disk");
}

fn umount_and(volume: &LoopVolume, meanwhile: impl FnOnce()) {
    let mounted = volume.path();
    until("the disk is free", || Command::new("umount").arg(mounted).output().unwrap().status.success());
    meanwhile();
    let image = volume.outside().join("image");
    let done = Command::new("mount").args(["-t", "btrfs", "-o", "loop"]).arg(image).arg(mounted).status().unwrap();
    assert!(done.success());
}

// semantics.md#delete-travels
#[test]
fn a_file_that_cannot_be_read_any_more_is_told_and_neither_deleted_nor_changed_elsewhere() {
    let Some(mut fleet) = Fleet::sharing([Fs::Btrfs, Fs::Ext4], &[]) else { return };
    let [detroit, munich] = fleet.folders();
    let mut dice = Dice(0xBAD);
    let noise: Vec<u8> = b"unreadable soon".iter().copied().chain((0..60_000).map(|_| dice.roll(256) as u8)).collect();
    for name in ["spoilt", "healthy"] {
        fs::write(detroit.join(name), if name == "spoilt" { &noise[..] } else { b"healthy" }).unwrap();
    }
    fleet.settle_clean();
    // With what the agent remembers, and then without: it has to read everything.
    for (round, forgets) in [(0, false), (1, true)] {
        fleet.stop_agent(SITES[0]);
        umount_and(fleet.volume(SITES[0]), || spoil(fleet.volume(SITES[0]), b"unreadable soon"));
        assert!(fs::read(detroit.join("spoilt")).is_err(), "btrfs reads what is spoilt");
        if forgets {
            fs::remove_dir_all(fleet.state(SITES[0]).join("endpoints")).unwrap();
        }
        fs::write(munich.join(format!("new {round}")), "new").unwrap();
        fleet.start_agent(SITES[0]);
        until("the rest goes on", || detroit.join(format!("new {round}")).exists());
        if forgets {
            until("it is told", || fleet.run(&["problems"]).out.contains("spoilt"));
        }
        assert_eq!(fs::read(munich.join("spoilt")).unwrap(), noise);
        assert_eq!(walk(&munich).len(), 3 + round, "{:?}", walk(&munich));
    }
    // Put back, as the problem's remedy says.
    fs::remove_file(detroit.join("spoilt")).unwrap();
    fs::copy(munich.join("spoilt"), detroit.join("spoilt")).unwrap();
    fleet.settle();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read(detroit.join("spoilt")).unwrap(), noise);
}
