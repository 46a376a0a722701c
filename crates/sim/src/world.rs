//! The world: one share, some servers, and a calendar of what happens when.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::engine::{Away, Command, Effect, Engine, Event, Limits, MemoryCatalog, ReadResult, Settings, SnapshotPart};
use isotherm_core::ids::{Cursor, Epoch, Incarnation, NodeId, ServerId, Timestamp, Version};
use isotherm_core::name::Case;
use isotherm_core::namespace::{Batch, MemoryRecords, Operation, Records, apply, check, page};
use isotherm_core::node::{FileContent, Node};
use isotherm_core::plan::{Authority, Rules};

use crate::perform::{Contents, content_entry, look, perform, recover};
use crate::rng::Rng;
use crate::users::{Ledger, User};
use crate::volume::{ROOT, STAGING, Volume, handle, ino};

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
    /// Write down what happens.
    pub trace: bool,
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
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
}

/// Milliseconds of simulated time.
pub type Time = u64;

const INCARNATION: Incarnation = Incarnation(1);
/// The end of the time in which users work and things fail.
const CALM_AFTER: Time = 60_000;
/// Events after which a world that does not come to rest is given up.
const EVENTS_MAX: u64 = 40_000;
/// After which everybody must have come to rest.
const PATIENCE: Time = 1_800_000;

#[derive(Debug)]
enum Action {
    Deliver(usize, u64, Event),
    Do(usize, u64, Effect),
    Repeat(Batch),
    Work(usize),
    Crash(usize, bool),
    Start(usize),
    Part(usize, bool),
    RollBack(usize),
    Tick(usize, u64),
}

/// A server.
pub(crate) struct Site {
    pub(crate) id: ServerId,
    pub(crate) volume: Volume,
    pub(crate) engine: Option<Engine<MemoryCatalog>>,
    catalog: Option<MemoryCatalog>,
    /// Counts the runs of the agent; what belongs to an earlier one is dropped.
    run: u64,
    epoch: Epoch,
    parted: bool,
    rolled_back: bool,
    old: Option<Volume>,
    next_tick: Option<Time>,
    reported_until: Time,
    pub(crate) cursor: Version,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) records: MemoryRecords,
    pub(crate) sites: Vec<Site>,
    pub(crate) ledger: Ledger,
    contents: Contents,
    calendar: BTreeMap<(Time, u64), Action>,
    now: Time,
    order: u64,
    rng: Rng,
    options: Options,
    pub(crate) outcome: Outcome,
}

/// Runs the world of a seed to its end.
#[must_use]
pub fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    world.plan_faults();
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
        let records = MemoryRecords::new(INCARNATION, case);
        let sites = (0..options.agents).map(|number| {
            // Clocks are off by hours.
            let skew = i64::try_from(rng.below(20_000)).unwrap_or(0);
            let id = ServerId(u128::try_from(number + 1).unwrap_or(1).to_be_bytes());
            Site {
                id,
                volume: Volume::new(1_000_000 + skew),
                engine: None,
                catalog: Some(MemoryCatalog::new(case)),
                run: 0,
                epoch: Epoch(0),
                parted: false,
                rolled_back: false,
                old: None,
                next_tick: None,
                reported_until: 0,
                cursor: Version(0),
            }
        });
        let sites = sites.collect();
        let mut world = Self {
            records,
            sites,
            ledger: Ledger::default(),
            contents: Contents::new(),
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

    fn at(&mut self, time: Time, action: Action) {
        self.order += 1;
        self.calendar.insert((time.max(self.now), self.order), action);
    }

    fn soon(&mut self, within: Time, action: Action) {
        let delay = 1 + self.rng.below(within);
        self.at(self.now + delay, action);
    }

    fn calm(&self) -> bool {
        self.now >= CALM_AFTER
    }

    fn plan_faults(&mut self) {
        for _ in 0..self.options.actions {
            let number = self.some_site();
            let at = self.rng.below(CALM_AFTER);
            self.at(at, Action::Work(number));
        }
        if !self.options.faults {
            return;
        }
        for _ in 0..self.rng.below(6) {
            let (number, at, power) = (self.some_site(), self.rng.below(CALM_AFTER), self.rng.chance(40));
            self.at(at, Action::Crash(number, power));
        }
        for _ in 0..self.rng.below(4) {
            let (number, at) = (self.some_site(), self.rng.below(CALM_AFTER));
            let length = self.rng.below(20_000);
            self.at(at, Action::Part(number, true));
            self.at((at + length).min(CALM_AFTER), Action::Part(number, false));
        }
        if self.rng.chance(10) {
            let (number, at) = (self.some_site(), self.rng.below(CALM_AFTER));
            self.at(at, Action::RollBack(number));
        }
    }

    fn some_site(&mut self) -> usize {
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
            Action::Work(number) => {
                let reports = self.user(number);
                self.report(number, reports);
            }
            Action::Repeat(batch) => self.commit(&batch),
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
        site.epoch = records.attach(site.id);
        recover(&mut site.volume, &|node, bytes| {
            records.history(node, usize::MAX).is_ok_and(|history| history.contains(&crate::volume::manifest(bytes)))
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
                hold_local_deletes: false,
                hold_remote_deletes: false,
            },
            limits: Limits {
                plan_nodes: 50,
                operations: 7,
                steps: 5,
                read_files: 4,
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

    fn crash(&mut self, number: usize, power: bool) {
        let site = &mut self.sites[number];
        let Some(engine) = site.engine.take() else { return };
        self.outcome.crashes += 1;
        site.run += 1;
        site.next_tick = None;
        let mut catalog = engine.into_catalog();
        catalog.crash();
        site.catalog = Some(catalog);
        if power {
            let before = live_contents(&site.volume);
            site.volume.lose_power();
            self.forgive(number, &before);
        }
        let pause = self.rng.below(8_000);
        self.at((self.now + pause).min(CALM_AFTER), Action::Start(number));
    }

    /// What was only on this volume, and not durable there, is gone with its power: no program was told otherwise.
    fn forgive(&mut self, number: usize, before: &BTreeSet<u32>) {
        let after = live_contents(&self.sites[number].volume);
        let elsewhere: BTreeSet<u32> = self
            .sites
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != number)
            .flat_map(|(_, site)| live_contents(&site.volume))
            .collect();
        let shared: BTreeSet<_> = self
            .records
            .nodes()
            .filter(|node| node.is_live())
            .filter_map(|node| node.content.file())
            .map(|file| file.manifest)
            .collect();
        for bytes in before.difference(&after) {
            if !elsewhere.contains(bytes) && !shared.contains(&crate::volume::manifest(*bytes)) {
                self.ledger.owed.remove(bytes);
            }
        }
    }

    /// The volume goes back to an older state; the catalog does not (row 15).
    fn roll_back(&mut self, number: usize) {
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
                let before = live_contents(&self.sites[number].volume);
                self.sites[number].volume.roll_back(&old);
                self.sites[number].rolled_back = true;
                self.forgive(number, &before);
            }
        }
    }

    /// A user does something on a volume.
    fn user(&mut self, number: usize) -> Vec<isotherm_agent::engine::Changed> {
        let site = &mut self.sites[number];
        let mut user = User { volume: &mut site.volume, ledger: &mut self.ledger, rng: &mut self.rng, reports: Vec::new() };
        user.act();
        let reports = user.reports;
        self.trace_image(number);
        // Some of what users do is durable at once.
        if self.rng.chance(50) {
            self.sites[number].volume.sync();
        }
        reports
    }

    fn trace_image(&mut self, number: usize) {
        if self.options.trace {
            let image = self.sites[number].volume.image();
            let shown = image.iter().map(|(path, shown)| format!("{path}={:?}{}", shown.kind, shown.bytes));
            let shown: Vec<String> = shown.collect();
            self.outcome.trace.push(format!("{:>6} site {number} now {}", self.now, shown.join(" ")));
        }
    }

    /// The kernel reports, a little later and in order.
    fn report(&mut self, number: usize, reports: Vec<isotherm_agent::engine::Changed>) {
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

    fn deliver(&mut self, number: usize, event: Event) {
        let run = self.sites[number].run;
        self.soon(40, Action::Deliver(number, run, event));
    }

    /// Whether a message is lost on its way.
    fn lost(&mut self, number: usize) -> bool {
        self.sites[number].parted || (self.options.faults && !self.calm() && self.rng.chance(4))
    }

    fn perform(&mut self, number: usize, effect: Effect) {
        match effect {
            Effect::Look(requests) => {
                let mut looks = Vec::new();
                for request in requests {
                    if self.options.faults && !self.calm() && self.rng.chance(3) {
                        let reports = self.user(number);
                        self.report(number, reports);
                    }
                    looks.push(look(&self.sites[number].volume, &request));
                }
                self.deliver(number, Event::Looked(looks));
            }
            Effect::Probe(nodes) => {
                let volume = &self.sites[number].volume;
                let found = nodes.into_iter().map(|(node, handle)| (node, volume.liveness(ino(&handle)))).collect();
                self.deliver(number, Event::Probed(found));
            }
            Effect::Drain => {
                let (at, run) = (self.sites[number].reported_until.max(self.now) + 1, self.sites[number].run);
                self.at(at, Action::Deliver(number, run, Event::Drained));
            }
            Effect::Fetch { cursor, wait } => self.fetch(number, cursor, wait),
            Effect::FetchSnapshot => self.snapshot(number),
            Effect::Read(requests) => {
                let results = requests.into_iter().map(|request| (request.node, self.read(number, &request.handle))).collect();
                self.deliver(number, Event::Read(results));
            }
            Effect::Commit(operations) => self.send(number, operations),
            Effect::History(nodes) => {
                let histories = if self.lost(number) {
                    Err(away())
                } else {
                    Ok(nodes.into_iter().map(|node| (node, self.records.history(node, 100).unwrap_or_default())).collect())
                };
                self.deliver(number, Event::Histories(histories));
            }
            Effect::Perform(steps) => self.perform_steps(number, &steps),
        }
    }

    fn read(&mut self, number: usize, handle: &isotherm_core::trees::Handle) -> ReadResult {
        if self.lost(number) {
            return ReadResult::Away(away());
        }
        if self.options.faults && !self.calm() && self.rng.chance(3) {
            let reports = self.user(number);
            self.report(number, reports);
            return ReadResult::Changed;
        }
        let volume = &mut self.sites[number].volume;
        let (Some(inode), Some(print)) = (volume.inode(ino(handle)).cloned(), volume.print(ino(handle))) else {
            return ReadResult::Gone;
        };
        // What is uploaded was made durable first (row 7).
        volume.sync();
        let (manifest, bytes) = content_entry(inode.bytes);
        self.records.add_content(manifest);
        self.contents.insert(manifest, bytes);
        let content = FileContent { manifest, size: 1, modified: Timestamp(inode.modified), link: None };
        ReadResult::Content { content, print }
    }

    fn fetch(&mut self, number: usize, cursor: Cursor, wait: bool) {
        let run = self.sites[number].run;
        if self.lost(number) {
            self.deliver(number, Event::Page(Err(away())));
            return;
        }
        let limit = usize::try_from(1 + self.rng.below(6)).unwrap_or(1);
        let Ok(page) = page(&self.records, cursor, limit);
        if wait && page.nodes.is_empty() && !page.start_over {
            self.soon(150, Action::Do(number, run, Effect::Fetch { cursor, wait }));
            return;
        }
        if cursor.version < self.sites[number].cursor && !page.start_over {
            // Allowed only after a crash, whose catalog may be older; never within a run.
            self.sites[number].cursor = cursor.version;
        }
        self.deliver(number, Event::Page(Ok(page)));
    }

    fn snapshot(&mut self, number: usize) {
        if self.lost(number) {
            self.deliver(number, Event::Snapshot(Err(away())));
            return;
        }
        let Ok(share) = self.records.share();
        let mut nodes: Vec<Node> = self.records.nodes().filter(|node| node.is_live()).cloned().collect();
        nodes.sort_by_key(|node| node.versions.created);
        let cursor = Cursor { incarnation: share.incarnation, version: share.head };
        let run = self.sites[number].run;
        let mut at = self.now;
        for part in nodes.chunks(5) {
            at += 1 + self.rng.below(20);
            let part = SnapshotPart { nodes: part.to_vec(), complete: None };
            self.at(at, Action::Deliver(number, run, Event::Snapshot(Ok(part))));
        }
        let last = SnapshotPart { nodes: Vec::new(), complete: Some(cursor) };
        self.at(at + 1, Action::Deliver(number, run, Event::Snapshot(Ok(last))));
    }

    fn send(&mut self, number: usize, operations: Vec<Operation>) {
        let site = &self.sites[number];
        let batch = Batch { server: site.id, epoch: site.epoch, incarnation: INCARNATION, operations };
        if self.lost(number) {
            // The request may have arrived all the same, now or much later; only the answer is lost for sure.
            if self.rng.chance(50) {
                self.soon(5_000, Action::Repeat(batch));
            }
            self.deliver(number, Event::Answered(Err(away())));
            return;
        }
        let Ok(answers) = apply(&mut self.records, &batch);
        self.check_namespace();
        if self.options.faults && self.rng.chance(3) {
            self.soon(5_000, Action::Repeat(batch));
        }
        let answer = if self.lost(number) { Err(away()) } else { Ok(answers) };
        self.deliver(number, Event::Answered(answer));
    }

    fn commit(&mut self, batch: &Batch) {
        let Ok(_) = apply(&mut self.records, batch);
        self.check_namespace();
    }

    fn check_namespace(&mut self) {
        let Ok(share) = self.records.share();
        self.outcome.wrong.extend(check(share, self.records.nodes()));
    }

    fn perform_steps(&mut self, number: usize, steps: &[isotherm_core::plan::Step]) {
        if self.lost(number) {
            let results = steps.iter().map(|step| (step.clone(), isotherm_agent::engine::StepResult::Away(away()))).collect();
            self.deliver(number, Event::Performed(results));
            return;
        }
        let disturbed = self.options.faults && !self.calm();
        let (ledger, rng) = (&mut self.ledger, &mut self.rng);
        let trace = self.options.trace;
        let (mut reports, mut notes) = (Vec::new(), Vec::new());
        let mut between = |volume: &mut Volume| {
            if disturbed && rng.chance(6) {
                let mut user = User { volume, ledger, rng, reports: Vec::new() };
                user.act();
                reports.extend(user.reports);
                if trace {
                    notes.push(format!("       between two moves: {:?}", reports.last()));
                    notes.push(format!(
                        "       {:?}",
                        volume.image().iter().map(|(path, shown)| (path.clone(), shown.bytes)).collect::<Vec<_>>()
                    ));
                }
            }
            disturbed && rng.chance(1)
        };
        let done = perform(&mut self.sites[number].volume, steps, &self.contents, &mut between);
        self.report(number, reports);
        self.outcome.trace.append(&mut notes);
        self.trace_image(number);
        match done {
            Ok(results) => self.deliver(number, Event::Performed(results)),
            Err(_) => {
                let power = self.rng.chance(50);
                self.crash(number, power);
            }
        }
    }

    /// Asks an engine for a barrier; used by the check for rest.
    pub(crate) fn barrier(&mut self, number: usize, barrier: u64) {
        self.feed(number, Event::Command(Command::Barrier(barrier)));
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }
}

fn live_contents(volume: &Volume) -> BTreeSet<u32> {
    let files = volume.all().into_iter().filter_map(|(_, ino)| volume.inode(ino).cloned());
    files.filter(|inode| inode.kind == isotherm_core::node::Kind::File).map(|inode| inode.bytes).collect()
}

fn away() -> Away {
    Away { text: "The service cannot be reached".to_owned(), retry: true }
}

/// Nodes by id, for descriptions.
pub(crate) type Nodes = BTreeMap<NodeId, Node>;
