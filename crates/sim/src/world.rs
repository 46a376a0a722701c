//! The world: one share, some servers, and a calendar of what happens when.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::engine::{
    Catalog as _, Effect, Engine, Event, Limits, MemoryCatalog, PLACING, Settings, contents_on_the_way,
};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Cursor, Epoch, Incarnation, ServerId};
use isotherm_core::name::Case;
use isotherm_core::namespace::{Batch, MemoryRecords, Records};
use isotherm_core::node::Content;
use isotherm_core::plan::{Authority, Rules};
use isotherm_core::trees::Trees;

use crate::faults::live_files;
use crate::perform::{Contents, recover};
use crate::rng::Rng;
use crate::users::{Ledger, User};
use crate::volume::{Ino, ROOT, STAGING, TICK, Volume, handle, manifest};

/// What kind of world.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Servers, each with an agent.
    pub agents: usize,
    /// User actions in all.
    pub actions: u64,
    /// Machines, networks and disks fail.
    pub faults: bool,
    /// People at one server leave alone what others made, and nothing is put back: then there must be no conflict copy.
    pub apart: bool,
    /// Files give up their content and get it back.
    pub tiers: bool,
    /// Write down what happens.
    pub trace: bool,
    /// With `trace`: after each event of this server, what its catalog says of this inode.
    pub watch: Option<(usize, u64)>,
}

impl Options {
    /// The usual world of a seed: three servers, sixty actions, and everything fails.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, agents: 3, actions: 60, faults: true, apart: false, tiers: false, trace: false, watch: None }
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is wrong; nothing where all holds.
    pub wrong: Vec<String>,
    /// Nodes that were live in the end.
    pub nodes: usize,
    /// Conflict copies among them.
    pub conflicts: usize,
    /// Events that engines handled.
    pub events: u64,
    /// Crashes and power cuts that happened.
    pub crashes: u64,
    /// Files that gave up their content, or came without it.
    pub tiered: u64,
    /// Stubs that were opened.
    pub recalled: u64,
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
}

/// Milliseconds of simulated time.
pub type Time = u64;

/// The end of the time in which users work and things fail.
pub(crate) const CALM_AFTER: Time = 60_000;
/// Events after which a world that does not come to rest is given up.
const EVENTS_MAX: u64 = 40_000;
/// After which everybody must have come to rest.
const PATIENCE: Time = 1_800_000;

#[derive(Debug)]
pub(crate) enum Action {
    Deliver(usize, u64, Event),
    Do(usize, u64, Effect),
    Repeat(Batch),
    Work(usize),
    /// A program writes to one file again and again, until this time.
    Scribble(usize, Option<Ino>, Time),
    Crash(usize, bool),
    Start(usize),
    Part(usize, bool),
    RollBack(usize),
    /// Some files give up their content.
    Tier(usize),
    /// Somebody opens a file that has given it up.
    Open(usize),
    /// An administrator restores something.
    Restore,
    /// Old versions and garbage go.
    Collect,
    /// The service ends, or starts.
    Service(bool),
    /// Its data are copied, and put back later.
    Backup,
    PutBack,
    /// It forgets what was deleted.
    Forget,
    Tick(usize, u64),
}

/// A server.
pub(crate) struct Site {
    pub(crate) id: ServerId,
    pub(crate) volume: Volume,
    /// New files come without their content.
    pub(crate) tiers: bool,
    pub(crate) engine: Option<Engine<MemoryCatalog>>,
    pub(crate) catalog: Option<MemoryCatalog>,
    /// Counts the runs of the agent; what belongs to an earlier one is dropped.
    pub(crate) run: u64,
    pub(crate) epoch: Epoch,
    pub(crate) parted: bool,
    pub(crate) rolled_back: bool,
    pub(crate) old: Option<Volume>,
    pub(crate) next_tick: Option<Time>,
    pub(crate) reported_until: Time,
    pub(crate) cursor: Option<Cursor>,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) records: MemoryRecords,
    pub(crate) sites: Vec<Site>,
    pub(crate) ledger: Ledger,
    pub(crate) contents: Contents,
    /// When contents were uploaded last.
    pub(crate) uploaded: BTreeMap<ManifestId, Time>,
    /// What has ever had a name that an agent gave it in a conflict. That is a rename, and a rename beats a delete.
    pub(crate) copied: BTreeSet<ManifestId>,
    /// The service does not run.
    pub(crate) down: bool,
    pub(crate) backup: Option<MemoryRecords>,
    /// This run of the service has begun a life of the share.
    pub(crate) own_life: bool,
    /// How many lives the share has had.
    pub(crate) lives: u64,
    /// A volume, or the service, went back to an older state.
    pub(crate) went_back: bool,
    pub(crate) calendar: BTreeMap<(Time, u64), Action>,
    pub(crate) now: Time,
    order: u64,
    pub(crate) rng: Rng,
    pub(crate) options: Options,
    pub(crate) outcome: Outcome,
}

/// Runs the world of a seed to its end.
#[must_use]
pub fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    world.plan_faults();
    world.plan_tiering();
    world.live();
    if world.outcome.wrong.is_empty() {
        crate::verify::verify(&mut world);
    }
    world.outcome
}

impl World {
    fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let case = if rng.chance(20) { Case::Insensitive } else { Case::Sensitive };
        let records = MemoryRecords::new(Incarnation(1), case);
        let sites = (0..options.agents).map(|number| {
            // Clocks are off by hours.
            let skew = i64::try_from(rng.below(20_000)).unwrap_or(0);
            let id = ServerId(u128::try_from(number + 1).unwrap_or(1).to_be_bytes());
            Site {
                id,
                volume: Volume::new((1_000_000 + skew) * TICK + i64::try_from(number).unwrap_or(0)),
                tiers: false,
                engine: None,
                catalog: Some(MemoryCatalog::new(case)),
                run: 0,
                epoch: Epoch(0),
                parted: false,
                rolled_back: false,
                old: None,
                next_tick: None,
                reported_until: 0,
                cursor: None,
            }
        });
        let sites = sites.collect();
        let mut world = Self {
            records,
            sites,
            ledger: Ledger::default(),
            contents: Contents::new(),
            uploaded: BTreeMap::new(),
            copied: BTreeSet::new(),
            down: false,
            backup: None,
            lives: 1,
            own_life: true,
            went_back: false,
            calendar: BTreeMap::new(),
            now: 0,
            order: 0,
            rng,
            options,
            outcome: Outcome::default(),
        };
        for number in 0..options.agents {
            let at = world.rng.below(2_000);
            world.at(at, Action::Start(number));
        }
        world
    }

    pub(crate) fn at(&mut self, time: Time, action: Action) {
        self.order += 1;
        self.calendar.insert((time.max(self.now), self.order), action);
    }

    pub(crate) fn soon(&mut self, within: Time, action: Action) {
        let delay = 1 + self.rng.below(within);
        self.at(self.now + delay, action);
    }

    pub(crate) fn calm(&self) -> bool {
        self.now >= CALM_AFTER
    }

    fn scribble(&mut self, number: usize, ino: Option<Ino>, until: Time) {
        let there = self.recallable(number);
        let site = &mut self.sites[number];
        let before = live_files(&site.volume);
        let (volume, ledger, rng, apart) = (&mut site.volume, &mut self.ledger, &mut self.rng, self.options.apart);
        let mut user =
            User { site: number, volume, ledger, rng, apart, there: &there, recalled: Vec::new(), reports: Vec::new() };
        let ino = user.scribble(ino);
        let (reports, recalled) = (user.reports, user.recalled);
        self.touched(number, recalled);
        self.note_moved_before(number, &before);
        self.trace_image(number);
        self.report(number, reports);
        let next = self.now + 20 + self.rng.below(400);
        if next < until {
            self.at(next, Action::Scribble(number, ino, until));
        }
    }

    pub(crate) fn some_site(&mut self) -> usize {
        usize::try_from(self.rng.below(self.options.agents as u64)).unwrap_or(0)
    }

    fn live(&mut self) {
        while let Some(((time, _), action)) = self.calendar.pop_first() {
            self.now = time;
            if self.now > CALM_AFTER + PATIENCE || self.outcome.events > EVENTS_MAX {
                self.outcome.wrong.push("no rest after half an hour of calm".to_owned());
                crate::verify::describe(self);
                return;
            }
            self.act(action);
            if !self.outcome.wrong.is_empty() || (self.calm() && self.order.is_multiple_of(16) && crate::verify::at_rest(self)) {
                return;
            }
        }
    }

    fn act(&mut self, action: Action) {
        if self.options.trace {
            self.outcome.trace.push(format!("{:>6} {action:?}", self.now));
        }
        match action {
            Action::Start(number) => self.start(number),
            Action::Crash(number, power) => self.crash(number, power),
            Action::Part(number, parted) => self.sites[number].parted = parted,
            Action::RollBack(number) => self.roll_back(number),
            Action::Tier(number) => self.tier(number),
            Action::Open(number) => self.open(number),
            Action::Restore => self.restore_something(),
            Action::Collect => self.collect(),
            Action::Service(runs) => self.service(runs),
            Action::Backup => self.backup = Some(self.records.clone()),
            Action::PutBack => self.put_back(),
            Action::Forget => self.forget(),
            Action::Work(number) => {
                let reports = self.user(number);
                self.report(number, reports);
            }
            Action::Scribble(number, ino, until) => self.scribble(number, ino, until),
            Action::Repeat(batch) => drop(self.commit(&batch)),
            Action::Tick(number, run) if self.sites[number].run == run => {
                self.sites[number].next_tick = None;
                self.feed(number, Event::Tick);
            }
            Action::Deliver(number, run, event) if self.sites[number].run == run => self.feed(number, event),
            Action::Do(number, run, effect) if self.sites[number].run == run => self.perform(number, effect),
            Action::Tick(..) | Action::Deliver(..) | Action::Do(..) => {}
        }
    }

    fn start(&mut self, number: usize) {
        let (seed, records) = (self.rng.next_u64(), &mut self.records);
        let site = &mut self.sites[number];
        let Some(mut catalog) = site.catalog.take() else { return };
        catalog.crash();
        site.run += 1;
        site.cursor = None;
        site.epoch = records.attach(site.id);
        let kept = catalog.value(PLACING);
        recover(&mut site.volume, &|node, bytes| {
            let on_the_way = contents_on_the_way(kept.as_deref(), node);
            on_the_way.iter().filter_map(Content::file).any(|file| file.manifest == manifest(bytes))
                || catalog.record(node).is_some_and(|record| record.is_safe(&manifest(bytes)))
        });
        let Ok(share) = self.records.share();
        let servers: BTreeMap<ServerId, String> =
            self.sites.iter().enumerate().map(|(at, site)| (site.id, format!("s{at}"))).collect();
        let site = &mut self.sites[number];
        let settings = Settings {
            rules: Rules {
                case: share.case,
                server: site.id,
                servers,
                authority: Authority::Merge,
                authority_until: None,
                hold_local_deletes: false,
                hold_remote_deletes: false,
            },
            limits: Limits {
                plan_nodes: 50,
                operations: 7,
                steps: 5,
                read_files: 4,
                // In some worlds every file is a large one.
                bulk_bytes: if self.options.seed % 3 == 1 { 0 } else { Limits::default().bulk_bytes },
                deletes_free: u64::MAX / 2,
                ..Limits::default()
            },
            root: handle(ROOT),
            staging: handle(STAGING),
            watched: true,
            rolled_back: std::mem::take(&mut site.rolled_back),
        };
        let mut ids = Rng::new(seed);
        match Engine::new(catalog, settings, Box::new(move || ids.id())) {
            Ok(engine) => site.engine = Some(engine),
            Err(failure) => self.outcome.wrong.push(failure.to_string()),
        }
        self.feed(number, Event::Tick);
    }

    /// A user does something on a volume.
    pub(crate) fn user(&mut self, number: usize) -> Vec<isotherm_agent::engine::Changed> {
        let there = self.recallable(number);
        let site = &mut self.sites[number];
        let before = live_files(&site.volume);
        let (volume, ledger, rng, apart) = (&mut site.volume, &mut self.ledger, &mut self.rng, self.options.apart);
        let mut user =
            User { site: number, volume, ledger, rng, apart, there: &there, recalled: Vec::new(), reports: Vec::new() };
        user.act();
        let (reports, recalled) = (user.reports, user.recalled);
        self.touched(number, recalled);
        self.note_moved_before(number, &before);
        self.trace_image(number);
        // Some of what users do is durable at once.
        if self.rng.chance(50) {
            self.sites[number].volume.sync();
        }
        reports
    }

    pub(crate) fn trace_image(&mut self, number: usize) {
        if self.options.trace {
            let image = self.sites[number].volume.image();
            let shown = image.iter().map(|(path, shown)| format!("{path}={:?}{}", shown.kind, shown.bytes));
            let shown: Vec<String> = shown.collect();
            self.outcome.trace.push(format!("{:>6} site {number} now {}", self.now, shown.join(" ")));
        }
    }

    /// The kernel reports, a little later and in order.
    pub(crate) fn report(&mut self, number: usize, reports: Vec<isotherm_agent::engine::Changed>) {
        if reports.is_empty() || self.sites[number].engine.is_none() {
            return;
        }
        let at = (self.now + self.rng.below(50)).max(self.sites[number].reported_until);
        self.sites[number].reported_until = at;
        let run = self.sites[number].run;
        self.at(at, Action::Deliver(number, run, Event::Changed(reports)));
    }

    fn feed(&mut self, number: usize, event: Event) {
        self.outcome.events += 1;
        let now = self.now;
        let site = &mut self.sites[number];
        let Some(engine) = site.engine.as_mut() else { return };
        let effects = match engine.handle(event, now) {
            Ok(effects) => effects,
            Err(failure) => {
                self.outcome.wrong.push(failure.to_string());
                return;
            }
        };
        if let Some((_, ino)) = self.options.watch.filter(|watch| self.options.trace && watch.0 == number) {
            let catalog = engine.catalog();
            let known = catalog.by_handle(&handle(ino)).into_iter().map(|node| catalog.record(node));
            self.outcome.trace.push(format!("       inode {ino}: {:?}", known.collect::<Vec<_>>()));
        }
        let (run, tick) = (site.run, engine.next_tick(now));
        if let Some(tick) = tick.filter(|tick| site.next_tick.is_none_or(|known| *tick < known)) {
            let tick = tick.max(now + 1);
            site.next_tick = Some(tick);
            self.at(tick, Action::Tick(number, run));
        }
        for effect in effects {
            self.soon(40, Action::Do(number, run, effect));
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }
}
