//! A year of a file server: what stays by our order, beside what stays where the file that was used last goes last (LRU).
//!
//! People work on projects that come and go, some files are used all the time, and a backup reads everything once a month, which our
//! order knows to be no use. `ISOTHERM_FILES` and `ISOTHERM_SEED`, set while it is compiled, make it larger or another one;
//! `cargo xtask bench year` keeps what it says.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::tiering::{File, Heat, Plan, Policy, Volume};

const DAY_MS: u64 = 24 * 3_600_000;
const START_MS: u64 = 20_000 * DAY_MS;
const DAYS: u64 = 365;
/// Files of a project, and days between two that begin.
const PROJECT: usize = 200;
/// Part of all contents that the volume has room for, in percent, beyond what stays free.
const ROOM_PERCENT: u64 = 15;
const FREE_PERCENT: u8 = 20;

/// A stream of numbers, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What happens to a file, when.
struct Use {
    file: usize,
    at_ms: u64,
    by_people: bool,
}

/// The uses of a year, in order: of files in projects that are worked on for some weeks, of some that everybody uses, and of any.
fn year(sizes: &[u64], numbers: &mut Numbers) -> Vec<Use> {
    let projects = sizes.len() / PROJECT;
    let mut active: BTreeMap<usize, u64> = BTreeMap::new();
    let mut uses = Vec::new();
    let each_day = sizes.len() / 25;
    for day in 0..DAYS {
        active.retain(|_, until| *until > day);
        while active.len() < (projects / 10).max(2) {
            active.insert(numbers.below(projects), day + 5 + numbers.next() % 40);
        }
        let now: Vec<usize> = active.keys().copied().collect();
        for number in 0..each_day {
            let at_ms = START_MS + day * DAY_MS + 8 * 3_600_000 + (number as u64) * 36_000_000 / each_day as u64;
            let kind = numbers.part();
            let file = if kind < 0.75 {
                // Some files of a project more often than others.
                let inside = (numbers.part().powi(2) * PROJECT as f64) as usize;
                now[numbers.below(now.len())] * PROJECT + inside.min(PROJECT - 1)
            } else if kind < 0.9 {
                (numbers.part().powi(4) * sizes.len() as f64) as usize
            } else {
                numbers.below(sizes.len())
            };
            uses.push(Use { file: file.min(sizes.len() - 1), at_ms, by_people: true });
        }
        if day % 30 == 29 {
            let at_ms = START_MS + day * DAY_MS + 22 * 3_600_000;
            uses.extend((0..sizes.len()).map(|file| Use { file, at_ms, by_people: false }));
        }
    }
    uses
}

/// What came of a year: uses by people, those that found the file here, and bytes that people had to wait for.
#[derive(Debug, Default)]
struct Outcome {
    uses: u64,
    hits: u64,
    waited_bytes: u64,
}

/// Bytes that a volume holds, and the files that are here.
struct Server<'a> {
    sizes: &'a [u64],
    total: u64,
    used: u64,
    here: BTreeSet<usize>,
}

impl<'a> Server<'a> {
    fn new(sizes: &'a [u64]) -> Self {
        let all: u64 = sizes.iter().sum();
        let total = all * ROOM_PERCENT / (100 - u64::from(FREE_PERCENT));
        Self { sizes, total, used: 0, here: BTreeSet::new() }
    }

    fn volume(&self) -> Volume {
        Volume { total: self.total, free: self.total.saturating_sub(self.used), unsent: 0, free_percent: FREE_PERCENT }
    }

    fn take(&mut self, one: &Use, outcome: &mut Outcome) {
        let is_new = self.here.insert(one.file);
        self.used += if is_new { self.sizes[one.file] } else { 0 };
        outcome.uses += u64::from(one.by_people);
        outcome.hits += u64::from(one.by_people && !is_new);
        outcome.waited_bytes += if one.by_people && is_new { self.sizes[one.file] } else { 0 };
    }

    fn give_up(&mut self, file: usize) {
        if self.here.remove(&file) {
            self.used -= self.sizes[file];
        }
    }
}

fn ours(sizes: &[u64], uses: &[Use]) -> Outcome {
    let (mut server, mut outcome) = (Server::new(sizes), Outcome::default());
    // Nobody has seen a use of any: they count by their age.
    let mut heat = vec![Heat::once(START_MS - 200 * DAY_MS); sizes.len()];
    let policy = Policy { grace_s: 0, largest_percent: 100, ..Policy::default() };
    for one in uses {
        server.take(one, &mut outcome);
        if one.by_people {
            heat[one.file] = heat[one.file].and(one.at_ms);
        }
        if server.volume().needed() > 0 {
            let mut plan = Plan::new(server.volume(), one.at_ms, usize::MAX);
            for file in &server.here {
                let known = File { size: sizes[*file], heat: heat[*file], came_ms: 0 };
                if plan.would_take(&policy, &known) {
                    plan.offer(&policy, &known, *file).unwrap();
                }
            }
            plan.into_going().into_iter().for_each(|going| server.give_up(going.file));
        }
    }
    outcome
}

/// What was used last goes last, and every read is a use.
fn lru(sizes: &[u64], uses: &[Use], knows_backups: bool) -> Outcome {
    let (mut server, mut outcome) = (Server::new(sizes), Outcome::default());
    let mut order: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut last: Vec<Option<u64>> = vec![None; sizes.len()];
    for (moment, one) in (1..).zip(uses) {
        server.take(one, &mut outcome);
        let counts = one.by_people || !knows_backups;
        if counts || last[one.file].is_none() {
            // What only a backup has read goes first.
            let moment = if counts { moment } else { 0 };
            if let Some(before) = last[one.file].replace(moment) {
                order.remove(&(before, one.file));
            }
            order.insert((moment, one.file));
        }
        let volume = server.volume();
        if volume.needed() > 0 {
            let enough = volume.levels().enough;
            while server.volume().free < enough
                && let Some((_, file)) = order.pop_first()
            {
                last[file] = None;
                server.give_up(file);
            }
        }
    }
    outcome
}

#[test]
fn our_order_keeps_what_people_use() {
    let files = option_env!("ISOTHERM_FILES").and_then(|files| files.parse().ok()).unwrap_or(10_000);
    let first = option_env!("ISOTHERM_SEED").and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 3_u64 {
        let mut numbers = Numbers(seed);
        // From some KiB to some hundred MiB, most of them small.
        let sizes: Vec<u64> = (0..files).map(|_| 8 << 10 << (numbers.part().powi(3) * 15.0) as u32).collect();
        let uses = year(&sizes, &mut numbers);
        let (ours, lru, blind) = (ours(&sizes, &uses), lru(&sizes, &uses, true), lru(&sizes, &uses, false));
        let part = |outcome: &Outcome| 100.0 * outcome.hits as f64 / outcome.uses as f64;
        let gib = |outcome: &Outcome| outcome.waited_bytes as f64 / f64::from(1 << 30);
        for (name, outcome) in [("ours", &ours), ("LRU that knows backups", &lru), ("LRU", &blind)] {
            println!(
                "seed {seed}, {name}: {:.2} % of uses found the file here, {:.1} GiB waited for",
                part(outcome),
                gib(outcome)
            );
        }
        // Against the same knowledge nothing is lost, and against what knows nothing of backups much is won.
        assert!(part(&ours) > part(&lru) - 0.5, "seed {seed}");
        assert!(gib(&ours) < gib(&lru) * 1.03, "seed {seed}");
        assert!(part(&ours) > part(&blind) + 1.0 && gib(&ours) < gib(&blind) * 0.95, "seed {seed}");
    }
}
