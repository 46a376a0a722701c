//! Bad networks under load: afterwards both sites agree, and no conflict copy appears that no user caused.

use std::sync::Arc;
use std::time::Duration;

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES, Way};
use crate::journal::Journal;
use crate::namespaces::{ADDRESSES, Line};
use crate::proxy::{Ends, Proxy, Weather};
use crate::work::Workers;
use crate::{Dice, rounds, seed, sized};

/// Some weather; half of it lets something through.
fn weather(dice: &mut Dice) -> Weather {
    let fine = Weather::default();
    match dice.roll(7) {
        0 => Weather { is_down: true, ..fine },
        1 => Weather { stands_still: true, ..fine },
        2 => Weather { breaks: 150, ..fine },
        3 => Weather { breaks: 30, delay_ms: 5, ..fine },
        4 => Weather { delay_ms: 1 + dice.roll(150) as u64, ..fine },
        5 => Weather { rate: Some(200_000), breaks: 10, ..fine },
        _ => fine,
    }
}

fn pause(dice: &mut Dice, most_ms: usize) {
    std::thread::sleep(Duration::from_millis(dice.roll(most_ms) as u64)); // tidy: wait weather changes at any time
}

/// Runs rounds of work in `bad` times.
fn campaign(fleet: &mut Fleet, dice: &mut Dice, mut bad: impl FnMut(&mut Fleet, &mut Dice), fine: impl Fn()) {
    let journal = Arc::new(Journal::default());
    Workers::prepare(fleet);
    for round in 0..rounds(1, 20) {
        let workers = Workers::start(fleet, round as u64, 60, Arc::clone(&journal));
        for _ in 0..sized(8, 15) {
            bad(fleet, dice);
            pause(dice, 1_500);
        }
        fine();
        workers.stop();
        let files = journal.check(fleet);
        println!("CAMPAIGN rounds=1 files={files}");
    }
    println!("CAMPAIGN versions_written={}", journal.versions());
}

// semantics.md#offline-work
#[test]
fn connections_that_break_delay_and_stand_still_lose_nothing_and_make_no_conflicts() {
    let Some(mut fleet) = Fleet::on([Fs::Ext4, Fs::Xfs], sized(512, 4_096) as u64) else { return };
    let proxies = SITES.map(|_| Proxy::to(&fleet.url));
    for (site, proxy) in SITES.iter().zip(&proxies) {
        fleet.go(site, Way { url: Some(proxy.url()), namespace: None });
    }
    fleet.share(&["--delete-limit", "100%"]);
    let mut dice = Dice(seed(0x57A8));
    let bad = |fleet: &mut Fleet, dice: &mut Dice| {
        for proxy in &proxies {
            proxy.set(weather(dice));
        }
        // Now and then somebody starts an agent anew because nothing seems to happen.
        if dice.roll(8) == 0 {
            let site = SITES[dice.roll(2)];
            fleet.kill_agent(site);
            fleet.spawn_agent(site);
        }
    };
    campaign(&mut fleet, &mut dice, bad, || proxies.iter().for_each(|proxy| proxy.set(Weather::default())));
    println!("CAMPAIGN connections_broken={}", proxies.iter().map(Proxy::broken).sum::<u64>());
}

// semantics.md#offline-work
#[test]
fn a_line_that_goes_down_and_loses_packets_loses_nothing_and_makes_no_conflicts() {
    let Some(line) = Line::new() else { return };
    let Some(mut fleet) = Fleet::on([Fs::Xfs, Fs::Ext4], sized(512, 4_096) as u64) else { return };
    let service = fleet.url.strip_prefix("http://").unwrap().parse().unwrap();
    let local = "127.0.0.1:7811".parse().unwrap();
    let address = format!("{}:7811", ADDRESSES[0]).parse().unwrap();
    // The service accepts loopback only, so at each end of the line somebody hands on, as tunnels do.
    let [near, far] = [0, 1].map(|end| Some(line.namespace(end)));
    let _there = Proxy::between(Ends { listen: address, listen_in: near, connect: service, connect_in: None });
    let here = Proxy::between(Ends { listen: local, listen_in: far.clone(), connect: address, connect_in: far.clone() });
    fleet.go(SITES[1], Way { url: Some(here.url()), namespace: far });
    fleet.share(&["--delete-limit", "100%"]);
    let mut dice = Dice(seed(0x11E));
    let mut spoilt = "";
    let bad = |_: &mut Fleet, dice: &mut Dice| match dice.roll(4) {
        0 => line.set_up(false),
        1 => line.set_up(true),
        2 => spoilt = line.spoil(),
        _ => line.clear(),
    };
    campaign(&mut fleet, &mut dice, bad, || {
        line.set_up(true);
        line.clear();
    });
    if spoilt == "tbf" {
        println!("SKIPPED netem: this kernel has none; packets are lost by a narrow line instead");
    }
}
