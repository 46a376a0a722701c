//! Power cuts under load, of all machines at once, of the servers, of the service: nothing that was durable is lost, no
//! file is torn, both sites agree in the end, and the service has everything that it names.

use std::sync::Arc;
use std::time::SystemTime;

use isotherm_gate::testing::Fs;

use crate::fleet::SITES;
use crate::machines::World;
use crate::work::Workers;
use crate::{Dice, rounds, seed};

impl World {
    /// Some machines lose power in the middle of everything and come back.
    fn cut(&mut self, workers: &Workers, cut: [bool; 3]) {
        for (at, _) in cut.iter().enumerate().filter(|(_, cut)| **cut) {
            self.fleet.freeze(at);
        }
        // What is durable from now on may be lost.
        let moment = SystemTime::now();
        let machines: Vec<_> = self.machines.iter().zip(cut).filter(|(_, cut)| *cut).map(|(one, _)| one).collect();
        // What the cache inside a disk held may be gone with the power, too.
        let takes_caches = self.dice.roll(2) == 0;
        machines.iter().for_each(|machine| if takes_caches { machine.fail_disk() } else { machine.clone_disk() });
        let fleet = &mut self.fleet;
        workers.while_nobody_works(|| {
            for (site, _) in SITES.iter().zip(cut).filter(|(_, cut)| *cut) {
                fleet.kill_agent(site);
                self.journal.forget_since(moment, &site[..1]);
            }
            if cut[2] {
                fleet.kill_service();
            }
            machines.iter().for_each(|machine| if takes_caches { machine.mend_disk() } else { machine.power_on() });
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
        let files = self.journal.check(&self.fleet);
        println!("CAMPAIGN rounds=1 files={files}");
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
