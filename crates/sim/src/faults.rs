//! What goes wrong in a world, and what an administrator does in it.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::engine::{Catalog as _, Effect, Event, PLACING, contents_on_the_way};
use isotherm_core::ids::Incarnation;
use isotherm_core::namespace::{Reader, Records};
use isotherm_core::node::Content;

use crate::effects::away;
use crate::rng::Rng;
use crate::volume::{Ino, STAGING, Volume, manifest};
use crate::world::{Action, CALM_AFTER, Site, World};

impl World {
    pub(crate) fn plan_faults(&mut self) {
        for _ in 0..self.options.actions {
            let number = self.some_site();
            let at = self.rng.below(CALM_AFTER);
            self.at(at, Action::Work(number));
        }
        self.plan_scribblers();
        if !self.options.apart {
            self.plan_restores();
        }
        self.plan_collections();
        if !self.options.faults {
            return;
        }
        for _ in 0..self.rng.below(6) {
            let (number, at, power) = (self.some_site(), self.rng.below(CALM_AFTER), self.rng.chance(40) && !self.options.apart);
            self.at(at, Action::Crash(number, power));
        }
        for _ in 0..self.rng.below(4) {
            let (number, at) = (self.some_site(), self.rng.below(CALM_AFTER));
            let length = self.rng.below(20_000);
            self.at(at, Action::Part(number, true));
            self.at((at + length).min(CALM_AFTER), Action::Part(number, false));
        }
        if !self.options.apart && self.rng.chance(10) {
            let (number, at) = (self.some_site(), self.rng.below(CALM_AFTER));
            self.at(at, Action::RollBack(number));
        }
        self.plan_service_faults();
    }

    /// Some worlds have programs that never stop writing for as long as the quiet time.
    fn plan_scribblers(&mut self) {
        let mut rng = Rng::new(!self.options.seed);
        if !self.options.seed.is_multiple_of(4) {
            return;
        }
        for _ in 0..=rng.below(2) {
            let number = usize::try_from(rng.below(self.options.agents as u64)).unwrap_or(0);
            let at = rng.below(CALM_AFTER / 2);
            self.at(at, Action::Scribble(number, None, at + rng.below(CALM_AFTER / 2)));
        }
    }

    /// In some worlds an administrator restores nodes.
    fn plan_restores(&mut self) {
        if self.options.seed % 5 != 2 {
            return;
        }
        let mut rng = Rng::new(self.options.seed.rotate_left(32));
        for _ in 0..=rng.below(8) {
            let at = rng.below(CALM_AFTER);
            self.at(at, Action::Restore);
        }
    }

    /// In some worlds garbage is collected again and again.
    fn plan_collections(&mut self) {
        if self.options.seed % 3 == 2 {
            let mut rng = Rng::new(self.options.seed.rotate_left(16));
            for _ in 0..=rng.below(20) {
                let at = rng.below(CALM_AFTER + 5_000);
                self.at(at, Action::Collect);
            }
        }
    }

    pub(crate) fn crash(&mut self, number: usize, power: bool) {
        let site = &mut self.sites[number];
        let Some(engine) = site.engine.take() else { return };
        self.outcome.crashes += 1;
        site.run += 1;
        site.next_tick = None;
        let mut catalog = engine.into_catalog();
        catalog.crash();
        site.catalog = Some(catalog);
        if power {
            let before = live_files(&site.volume);
            site.volume.lose_power();
            self.forgive(number, &before);
        }
        let pause = self.rng.below(8_000);
        self.at((self.now + pause).min(CALM_AFTER), Action::Start(number));
    }

    /// What was only on this volume, and not durable there, is gone with its power: no program was told otherwise.
    fn forgive(&mut self, number: usize, before: &BTreeMap<Ino, u32>) {
        let after = live_files(&self.sites[number].volume);
        let elsewhere: BTreeSet<u32> = self
            .sites
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != number)
            .flat_map(|(_, site)| kept_files(site).into_values())
            .collect();
        let shared = self.shared_contents();
        // By inode: a removed file may come back beside another one of the same content.
        let back = after.iter().filter(|(ino, bytes)| before.get(*ino) != Some(bytes));
        back.for_each(|(_, bytes)| self.ledger.given_back(*bytes));
        let left: BTreeSet<u32> = after.values().copied().collect();
        for bytes in before.values().filter(|bytes| !left.contains(bytes)) {
            if !elsewhere.contains(bytes) && !shared.contains(&crate::volume::manifest(*bytes)) {
                self.ledger.owed.remove(bytes);
            }
        }
    }

    /// The volume goes back to an older state; the catalog does not (row 15).
    pub(crate) fn roll_back(&mut self, number: usize) {
        if self.sites[number].engine.is_none() {
            return;
        }
        match self.sites[number].old.take() {
            None => {
                self.sites[number].old = Some(self.sites[number].volume.clone());
                let later = self.now + self.rng.below(10_000);
                self.at(later.min(CALM_AFTER), Action::RollBack(number));
            }
            Some(old) => {
                self.crash(number, false);
                let before = live_files(&self.sites[number].volume);
                self.sites[number].volume.roll_back(&old);
                self.sites[number].rolled_back = true;
                self.went_back = true;
                self.forgive(number, &before);
            }
        }
    }

    /// Some worlds have a service that ends in the middle of its work, one whose data are put back from a copy, or one that
    /// forgets what was deleted long ago.
    fn plan_service_faults(&mut self) {
        let mut rng = Rng::new(self.options.seed.rotate_left(48));
        if rng.chance(25) {
            for _ in 0..=rng.below(3) {
                let (at, length) = (rng.below(CALM_AFTER), rng.below(5_000));
                self.at(at, Action::Service(false));
                self.at((at + length).min(CALM_AFTER), Action::Service(true));
            }
        }
        let mut put_back = None;
        // What was tiered since the copy would be lost with it (see semantics.md#tiering-and-backups).
        if !self.options.apart && !self.options.tiers && rng.chance(10) {
            let (copied, length) = (rng.below(CALM_AFTER), rng.below(20_000));
            self.at(copied, Action::Backup);
            self.at((copied + length).min(CALM_AFTER), Action::PutBack);
            put_back = Some(copied + length);
        }
        if rng.chance(15) {
            for _ in 0..=rng.below(3) {
                let at = rng.below(CALM_AFTER);
                self.at(at, Action::Forget);
            }
        }
        // Again soon, so that some servers are away for two lives. Drawn last: the other faults stay what they were.
        if let Some(ended) = put_back.filter(|_| rng.chance(50)) {
            let copied = ended + rng.below(4_000);
            self.at(copied.min(CALM_AFTER), Action::Backup);
            self.at((copied + rng.below(4_000)).min(CALM_AFTER), Action::PutBack);
        }
    }

    /// The service ends or starts. What it has answered to and is still on its way never arrives.
    pub(crate) fn service(&mut self, runs: bool) {
        self.down = !runs;
        if runs {
            self.own_life = false;
            return;
        }
        self.sites.iter_mut().for_each(|site| site.cursor = None);
        for action in self.calendar.values_mut() {
            // Who waits for a change is told, and asks again with what it knows by then.
            if let Action::Do(number, run, Effect::Fetch { wait: true, .. }) = action {
                *action = Action::Deliver(*number, *run, Event::Page(Err(away())));
            }
            if let Action::Deliver(_, _, event) = action {
                match event {
                    Event::Page(answer) => *answer = Err(away()),
                    Event::Answered(answer) => *answer = Err(away()),
                    Event::Histories(answer) => *answer = Err(away()),
                    _ => {}
                }
            }
        }
    }

    /// The data of the service are put back from a copy (rows 10 and 26), and nobody tells it.
    pub(crate) fn put_back(&mut self) {
        let Some(old) = self.backup.take() else { return };
        self.service(false);
        self.service(true);
        self.records = old;
        for site in &mut self.sites {
            site.epoch = self.records.attach(site.id);
        }
        // What was deleted since the copy comes back, and what only the share had is gone: both are the copy's.
        self.went_back = true;
        let here: BTreeSet<u32> = self.sites.iter().flat_map(|site| kept_files(site).into_values()).collect();
        let shared = self.shared_contents();
        self.ledger.owed.retain(|bytes| here.contains(bytes) || shared.contains(&crate::volume::manifest(*bytes)));
    }

    /// A run of the service that changes the share begins a life of its own, before anything else.
    pub(crate) fn begin_own_life(&mut self) {
        if !self.own_life {
            self.begin_life();
        }
    }

    /// Whether a reader of this life knows what is not there.
    pub(crate) fn records_are_behind(&self, reader: Reader) -> bool {
        let Ok(share) = self.records.share();
        share.incarnation == reader.cursor.incarnation && reader.newest > share.head
    }

    pub(crate) fn begin_life(&mut self) {
        self.lives += 1;
        self.own_life = true;
        self.records.begin_life(Incarnation(self.lives));
    }

    /// The share forgets what was deleted: whoever has not heard of it starts over.
    pub(crate) fn forget(&mut self) {
        // Of what is tiered versions are kept for longer, and so are the nodes.
        if self.options.tiers {
            return;
        }
        let Ok(share) = self.records.share();
        let before = isotherm_core::ids::Version(share.head.0.saturating_sub(self.rng.below(30)));
        self.records.forget_deleted(before);
    }

    fn shared_contents(&self) -> BTreeSet<isotherm_core::content::ManifestId> {
        let live = self.records.nodes().filter(|node| node.is_live());
        live.filter_map(|node| node.content.file()).map(|file| file.manifest).collect()
    }
}

pub(crate) fn live_files(volume: &Volume) -> BTreeMap<Ino, u32> {
    volume.files().map(|(ino, inode)| (ino, inode.bytes)).collect()
}

/// Without what steps were bringing from the share when the agent ended: nobody saw it there, and the next start throws it
/// away.
fn kept_files(site: &Site) -> BTreeMap<Ino, u32> {
    let mut files = live_files(&site.volume);
    let steps = site.catalog.as_ref().and_then(|catalog| catalog.value(PLACING));
    // Nor is what only the share holds.
    files.retain(|ino, _| site.volume.inode(*ino).is_some_and(|inode| !inode.is_stub()));
    for (name, ino) in site.volume.entries(STAGING).into_iter().filter(|(_, ino)| site.volume.links(*ino) == 1) {
        let node = String::from_utf8_lossy(name.as_bytes()).strip_prefix("full-").and_then(|id| id.parse().ok());
        let brought = node.map(|node| contents_on_the_way(steps.as_deref(), node)).unwrap_or_default();
        let brought: Vec<_> = brought.iter().filter_map(Content::file).map(|file| file.manifest).collect();
        if files.get(&ino).is_some_and(|bytes| brought.contains(&manifest(*bytes))) {
            files.remove(&ino);
        }
    }
    files
}
