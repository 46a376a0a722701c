//! Disks that fill up under load: the folder of a server, what its agent remembers, the data of the service. Nothing is
//! lost, and when there is room again all goes on by itself.
//!
//! `stops.rs` has the case of a service without room that an administrator looks at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isotherm_gate::testing::{Fs, LoopVolume};

use crate::fleet::{Fleet, SITES};
use crate::journal::Journal;
use crate::machines::fill;
use crate::work::Workers;
use crate::{Dice, rounds, seed, sized};

/// Each part on a disk of its own.
struct World {
    fleet: Fleet,
    /// Folder of each site, state of each site, data.
    disks: Vec<LoopVolume>,
}

impl World {
    fn new() -> Option<Self> {
        let kinds = [Fs::Ext4, Fs::Xfs, Fs::Ext4, Fs::Xfs, Fs::Ext4];
        let disk = |fs| LoopVolume::new(fs, sized(128, 1_024) as u64);
        let disks = kinds.into_iter().map(disk).collect::<Option<Vec<_>>>()?;
        let path = |at: usize| disks[at].path().to_owned();
        let states = [path(2).join("state"), path(3).join("state")];
        let mut fleet = Fleet::at([path(0), path(1)], states, path(4).join("data"));
        fleet.share(&["--delete-limit", "100%"]);
        Workers::prepare(&fleet);
        Some(Self { fleet, disks })
    }

    fn ballast(&self, disk: usize) -> PathBuf {
        self.disks[disk].path().join("ballast")
    }

    /// One disk is full for a while, in which everything is killed now and then, and what ends by itself comes back.
    fn round(&mut self, disk: usize, dice: &mut Dice, journal: &Arc<Journal>, round: u64) {
        let workers = Workers::start(&self.fleet, round, 60, Arc::clone(journal));
        let mut ended = 0;
        std::thread::sleep(Duration::from_millis(dice.roll(1_000) as u64)); // tidy: wait a disk fills up at any time
        fill(&self.ballast(disk));
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(dice.roll(800) as u64)); // tidy: wait people take time
            ended += self.fleet.revive();
            if dice.roll(4) == 0 {
                self.kill_one(dice);
            }
        }
        std::fs::remove_file(self.ballast(disk)).unwrap();
        std::thread::sleep(Duration::from_millis(dice.roll(1_000) as u64)); // tidy: wait people take time
        workers.stop();
        ended += self.fleet.revive();
        let names = journal.check(&self.fleet);
        println!("CAMPAIGN rounds=1 names={names} ended_by_itself={ended}");
    }

    fn kill_one(&mut self, dice: &mut Dice) {
        match SITES.get(dice.roll(3)) {
            Some(site) => {
                self.fleet.kill_agent(site);
                self.fleet.spawn_agent(site);
            }
            // It may not come up while its disk is full.
            None => self.fleet.kill_service(),
        }
    }
}

fn campaign(disks: &[usize], start: u64) {
    let Some(mut world) = World::new() else { return };
    let (mut dice, journal) = (Dice(seed(start)), Arc::new(Journal::default()));
    for round in 0..rounds(1, 10) {
        for disk in disks {
            world.round(*disk, &mut dice, &journal, round as u64);
        }
    }
    println!("CAMPAIGN versions_written={}", journal.versions());
}

#[test]
fn a_full_disk_of_a_server_holds_back_and_loses_nothing() {
    campaign(&[0, 1], 0xF0);
}

#[test]
fn a_full_disk_under_what_an_agent_remembers_loses_nothing() {
    campaign(&[2, 3], 0xF1);
}

#[test]
fn a_full_disk_under_the_service_loses_nothing_under_load() {
    campaign(&[4], 0xF2);
}
