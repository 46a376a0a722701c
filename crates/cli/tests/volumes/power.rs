//! Power cuts under load, of all machines at once, of the servers, of the service: nothing that was durable is lost, no
//! file is torn, both sites agree in the end, and the service has everything that it names.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::machines::Machines;
use crate::tree::assert_equal;
use crate::work::{Journal, Owed, Workers};
use crate::{Dice, rounds, seed};

/// A machine of each site, and the service's.
struct World {
    // Processes end before their disks go.
    fleet: Fleet,
    machines: Machines,
    dice: Dice,
    journal: Arc<Journal>,
}

impl World {
    fn new(kinds: [Fs; 3], start: u64) -> Option<Self> {
        let machines = Machines::new(kinds)?;
        let homes = [0, 1].map(|at: usize| machines.all[at].path().to_owned());
        let states = [0, 1].map(|at: usize| homes[at].join("state"));
        let mut fleet = Fleet::at(homes, states, machines.all[2].path().join("data"));
        fleet.share(&["--delete-limit", "100%"]);
        Workers::prepare(&fleet);
        Some(Self { fleet, machines, dice: Dice(start), journal: Arc::default() })
    }

    /// Some machines lose power in the middle of everything and come back.
    fn cut(&mut self, workers: &Workers, cut: [bool; 3]) {
        for (at, _) in cut.iter().enumerate().filter(|(_, cut)| **cut) {
            self.fleet.freeze(at);
        }
        // What is durable from now on may be lost.
        let moment = SystemTime::now();
        let machines: Vec<_> = self.machines.all.iter().zip(cut).filter(|(_, cut)| *cut).map(|(one, _)| one).collect();
        machines.iter().for_each(|machine| machine.clone_disk());
        let fleet = &mut self.fleet;
        workers.while_nobody_works(|| {
            for (site, _) in SITES.iter().zip(cut).filter(|(_, cut)| *cut) {
                fleet.kill_agent(site);
                self.journal.forget_since(moment, &site[..1]);
            }
            if cut[2] {
                fleet.kill_service();
            }
            machines.iter().for_each(|machine| machine.power_on());
            if cut[2] {
                fleet.start_service();
            }
            SITES.iter().zip(cut).filter(|(_, cut)| *cut).for_each(|(site, _)| fleet.spawn_agent(site));
        });
    }

    /// Work with one power cut or several, then rest and a look at everything.
    fn round(&mut self, round: u64, cut: [bool; 3]) {
        let workers = Workers::start(&self.fleet, round, 60, Arc::clone(&self.journal));
        for _ in 0..1 + self.dice.roll(3) {
            self.pause(2_500);
            self.cut(&workers, cut);
        }
        self.pause(1_000);
        workers.stop();
        self.fleet.settle();
        let folders = self.fleet.folders();
        assert_equal(&folders[0], &folders[1]);
        let owed: Owed = self.journal.done();
        let mut wrong = self.journal.complaints(&folders[1], &owed);
        let (conflicts, problems) = (self.fleet.run(&["conflicts"]), self.fleet.run(&["problems"]));
        let check = self.fleet.run(&["service", "check", "--deep"]);
        for shown in [conflicts, problems, check].iter().filter(|shown| shown.code != Some(0)) {
            wrong.push(format!("{shown:?}"));
        }
        assert!(wrong.is_empty(), "round {round}:\n{}", wrong.join("\n"));
        println!("CAMPAIGN rounds=1 files={}", owed.len());
    }

    fn pause(&mut self, most_ms: usize) {
        std::thread::sleep(Duration::from_millis(self.dice.roll(most_ms) as u64)); // tidy: wait a power cut comes at any time
    }
}

fn campaign(kinds: [Fs; 3], start: u64, choose: impl Fn(&mut Dice) -> [bool; 3]) {
    let Some(mut world) = World::new(kinds, seed(start)) else { return };
    for round in 0..rounds(1, 20) {
        let cut = choose(&mut world.dice);
        world.round(round as u64, cut);
    }
    println!("CAMPAIGN versions_written={}", world.journal.versions());
}

// semantics.md#acknowledged-is-durable, #whole-files
#[test]
fn a_power_cut_of_all_machines_loses_nothing_that_was_durable() {
    campaign([Fs::Ext4, Fs::Xfs, Fs::Xfs], 0xB1AC, |_| [true; 3]);
}

#[test]
fn a_power_cut_of_servers_loses_nothing_that_was_durable() {
    campaign([Fs::Xfs, Fs::Ext4, Fs::Ext4], 0x0FF, |dice| {
        let which = 1 + dice.roll(3);
        [which & 1 != 0, which & 2 != 0, false]
    });
}

#[test]
fn a_power_cut_of_the_service_loses_nothing_that_it_had_acknowledged() {
    campaign([Fs::Ext4, Fs::Xfs, Fs::Ext4], 0x5E2F, |_| [false, false, true]);
}
