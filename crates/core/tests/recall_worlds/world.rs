//! One file, those who use it, and the agent: what there is, and each step that can come next.
//!
//! The file has two units. The disk is two images, what is there and what is durable; at a power cut data and record may each be
//! of either. **Invariant of the model:** a step is what cannot be divided on a real machine.

use std::collections::BTreeSet;

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::stub::{
    Answer, Bound, ContentPrefix, Effect, Event, Failure, Found, Purpose, Question, QuestionId, Recalls, StubRecord,
};
use isotherm_core::trees::Handle;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Unit {
    Hole,
    Old,
    New,
}

use Unit::{Hole, New, Old};

/// What the file is on one of the two images.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Image {
    units: Vec<Unit>,
    record: bool,
}

/// What somebody does next. Each touch of content is asked about while the gate asks at all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Op {
    Open(Purpose),
    Read(usize),
    Write(usize),
    Fsync,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Person {
    ops: Vec<Op>,
    at: usize,
    /// Waits for the answer to this.
    waits: Option<QuestionId>,
    /// Was let through by this, and has not done it yet.
    granted: Option<QuestionId>,
    open: bool,
    /// The gate asked when it opened the file: only then it asks about what is done through this descriptor.
    guarded: bool,
}

/// Work of the agent that takes time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Task {
    Look(Option<Sight>),
    Fill {
        done: usize,
        given_up: bool,
    },
    Flush,
    Forget,
    Release,
    Follow(QuestionId),
    /// The steps of tiering, by their number.
    Tier(usize),
}

/// What a look has seen, and not told yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Sight {
    record: bool,
    size: u64,
    has_blocks: bool,
}

/// A rule of the disk's order that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Broken {
    Nothing,
    /// Tiering does not ask whether somebody has the file open.
    Lease,
    /// Tiering gives up content before the record is durable.
    Record,
    /// The gate begins to ask only when the content is given up.
    Mark,
    /// Nothing is made durable before the record goes.
    Fill,
    /// What has come is given up before the record is durable.
    GiveUp,
    /// A new run of the agent is not told of who was let through to empty the file.
    LetThrough,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct World {
    pub(crate) live: Image,
    pub(crate) durable: Image,
    /// What the file is to those who use it.
    pub(crate) content: Vec<Unit>,
    /// What it may be after a power cut: all that it was since somebody made it durable.
    pub(crate) since: BTreeSet<Vec<Unit>>,
    pub(crate) people: Vec<Person>,
    pub(crate) machine: Recalls,
    pub(crate) tasks: Vec<Task>,
    /// The gate asks about the file.
    pub(crate) asks: bool,
    pub(crate) next: u64,
    pub(crate) tiers: u32,
    pub(crate) kills: u32,
    pub(crate) cuts: bool,
    pub(crate) failures: u32,
    pub(crate) broken: Broken,
}

pub(crate) fn handle() -> Handle {
    Handle(Box::from([7]))
}

fn record() -> StubRecord {
    let content = ContentPrefix::of(&ManifestId::from_bytes([1; 32]));
    StubRecord { node: NodeId([1; 16]), version: Version(1), content, size: 2, bound: Bound::to(&handle()) }
}

fn person(ops: &[Op]) -> Person {
    Person { ops: ops.to_vec(), at: 0, waits: None, granted: None, open: false, guarded: false }
}

pub(crate) fn reader() -> Person {
    person(&[Op::Open(Purpose::Read), Op::Read(0), Op::Read(1)])
}

pub(crate) fn writer() -> Person {
    person(&[Op::Open(Purpose::Write), Op::Write(1), Op::Fsync, Op::Read(0)])
}

pub(crate) fn rewriter() -> Person {
    person(&[Op::Open(Purpose::Empty), Op::Write(0), Op::Fsync])
}

pub(crate) type Next = Result<Vec<(String, World)>, String>;

impl World {
    pub(crate) fn new(stub: bool, people: &[Person]) -> Self {
        let image = Image { units: vec![if stub { Hole } else { Old }; 2], record: stub };
        let content = vec![Old; 2];
        Self {
            live: image.clone(),
            durable: image,
            since: [content.clone()].into(),
            content,
            people: people.to_vec(),
            machine: Recalls::new(1_000),
            tasks: Vec::new(),
            asks: stub,
            next: 0,
            tiers: 0,
            kills: 0,
            cuts: false,
            failures: 0,
            broken: Broken::Nothing,
        }
    }

    /// All worlds that one more step makes of this one.
    pub(crate) fn steps(&self) -> Next {
        let mut worlds = Vec::new();
        for who in 0..self.people.len() {
            worlds.extend(self.person_steps(who)?);
        }
        for at in 0..self.tasks.len() {
            worlds.extend(self.task_steps(at)?);
        }
        if self.tiers > 0 && self.content == [Old, Old] && !self.live.record {
            let mut world = self.clone();
            world.tiers -= 1;
            if world.machine.hold(&handle(), 0) {
                world.tasks.push(Task::Tier(0));
                worlds.push(("tier".to_owned(), world));
            }
        }
        if self.kills > 0 {
            let mut world = self.clone();
            world.kill()?;
            worlds.push(("kill".to_owned(), world));
        }
        if self.cuts {
            self.survives_a_power_cut()?;
        }
        Ok(worlds)
    }

    fn person_steps(&self, who: usize) -> Next {
        let mut worlds = Vec::new();
        let person = &self.people[who];
        let Some(op) = person.ops.get(person.at).copied() else {
            if person.open {
                let mut world = self.clone();
                world.people[who].open = false;
                worlds.push((format!("{who} closes"), world));
            }
            return Ok(worlds);
        };
        if person.waits.is_some() {
            return Ok(worlds);
        }
        let mut world = self.clone();
        let purpose = match op {
            Op::Open(purpose) => Some(purpose),
            Op::Read(_) => Some(Purpose::Read),
            Op::Write(_) => Some(Purpose::Write),
            Op::Fsync => None,
        };
        let is_asked = self.asks && person.granted.is_none() && (person.guarded || matches!(op, Op::Open(_)));
        if let Some(purpose) = purpose.filter(|_| is_asked) {
            world.next += 1;
            let id = QuestionId(world.next);
            world.people[who].waits = Some(id);
            world.tell(Event::Asked(vec![Question { id, file: handle(), purpose, let_through: false }]))?;
            worlds.push((format!("{who} asks for {op:?}"), world));
            return Ok(worlds);
        }
        world.act(who, op)?;
        worlds.push((format!("{who} does {op:?}"), world));
        Ok(worlds)
    }

    fn act(&mut self, who: usize, op: Op) -> Result<(), String> {
        match op {
            Op::Open(purpose) => {
                (self.people[who].open, self.people[who].guarded) = (true, self.asks);
                if purpose == Purpose::Empty {
                    self.live.units.clear();
                    self.change(Vec::new());
                }
            }
            Op::Read(unit) => {
                let (seen, expected) = (self.live.units.get(unit), self.content.get(unit));
                if seen != expected {
                    return Err(format!("{who} reads {seen:?} instead of {expected:?}"));
                }
            }
            Op::Write(unit) => {
                let mut content = self.content.clone();
                put(&mut content, unit);
                put(&mut self.live.units, unit);
                self.change(content);
            }
            Op::Fsync => self.flush(),
        }
        let person = &mut self.people[who];
        (person.granted, person.at) = (None, person.at + 1);
        Ok(())
    }

    fn change(&mut self, content: Vec<Unit>) {
        self.since.insert(content.clone());
        self.content = content;
    }

    fn flush(&mut self) {
        self.durable = self.live.clone();
        self.since = [self.content.clone()].into();
    }

    fn task_steps(&self, at: usize) -> Next {
        let mut worlds = Vec::new();
        let mut world = self.clone();
        let task = world.tasks.remove(at);
        let shown = format!("{task:?}");
        match task {
            Task::Look(None) => {
                let has_blocks = self.live.units.iter().any(|unit| *unit != Hole);
                let sight = Sight { record: self.live.record, size: self.live.units.len() as u64, has_blocks };
                world.begin(Task::Look(Some(sight)));
            }
            Task::Look(Some(Sight { record: has_record, size, has_blocks })) => {
                let found = Found { record: has_record.then(|| Ok(record())), size, has_blocks };
                world.tell(Event::Looked(vec![(handle(), found)]))?;
            }
            Task::Fill { done, given_up } => {
                if given_up || self.failures > 0 {
                    let mut failing = world.clone();
                    failing.failures = self.failures.saturating_sub(u32::from(!given_up));
                    // Content goes only when the record that stands for it is durable.
                    if self.broken != Broken::GiveUp {
                        failing.flush();
                    }
                    failing.live.units.iter_mut().take(done).for_each(|unit| *unit = Hole);
                    failing.tell(Event::Filled(vec![(handle(), Err(Failure::Other))]))?;
                    worlds.push((format!("{shown} fails"), failing));
                }
                if done < 2 {
                    while world.live.units.len() <= done {
                        world.live.units.push(Hole);
                    }
                    world.live.units[done] = Old;
                    world.begin(Task::Fill { done: done + 1, given_up });
                } else {
                    world.tell(Event::Filled(vec![(handle(), Ok(()))]))?;
                }
            }
            Task::Flush => {
                if self.failures > 0 {
                    let mut failing = world.clone();
                    failing.failures -= 1;
                    failing.tell(Event::Flushed(vec![(handle(), Err(Failure::Other))]))?;
                    worlds.push((format!("{shown} fails"), failing));
                }
                if self.broken != Broken::Fill {
                    world.flush();
                }
                world.tell(Event::Flushed(vec![(handle(), Ok(()))]))?;
            }
            Task::Forget => {
                world.live.record = false;
                world.tell(Event::Forgotten(vec![(handle(), Ok(()))]))?;
            }
            Task::Release => {
                world.asks = false;
                world.tell(Event::Released(vec![handle()]))?;
            }
            Task::Follow(caller) if self.people.iter().any(|person| person.granted == Some(caller)) => return Ok(worlds),
            Task::Follow(caller) => world.tell(Event::Returned(vec![caller]))?,
            Task::Tier(step) => world.tier(step)?,
        }
        worlds.push((shown, world));
        Ok(worlds)
    }

    /// Order: ask, make sure that nobody has it open, record, flush, give up.
    fn tier(&mut self, step: usize) -> Result<(), String> {
        match step {
            0 => self.asks |= self.broken != Broken::Mark,
            1 => {
                let is_open = |person: &Person| person.open || (person.at == 0 && (person.waits.or(person.granted)).is_some());
                let is_open = self.people.iter().any(is_open) && self.broken != Broken::Lease;
                if is_open || self.content != [Old, Old] {
                    let effects = self.machine.let_go(&handle(), false, 0);
                    return self.take(effects);
                }
            }
            2 => self.live.record = true,
            3 if self.broken != Broken::Record => self.flush(),
            3 => {}
            4 => {
                self.asks = true;
                self.live.units = vec![Hole; 2];
            }
            _ => {
                let effects = self.machine.let_go(&handle(), true, 0);
                return self.take(effects);
            }
        }
        self.begin(Task::Tier(step + 1));
        Ok(())
    }

    /// The agent ends and starts again. The gate tells it who waits.
    fn kill(&mut self) -> Result<(), String> {
        self.kills -= 1;
        self.tasks.clear();
        self.machine = Recalls::new(1_000);
        let (told, mut questions) = (self.people.clone(), Vec::new());
        for person in told.iter().filter(|person| person.at < person.ops.len()) {
            let purpose = match person.ops[person.at] {
                Op::Open(purpose) => purpose,
                Op::Write(_) => Purpose::Write,
                _ => Purpose::Read,
            };
            let question = |id, let_through| Question { id, file: handle(), purpose, let_through };
            let empties = person.granted.filter(|_| purpose == Purpose::Empty && self.broken != Broken::LetThrough);
            let known = person.waits.map(|id| question(id, false)).or(empties.map(|id| question(id, true)));
            questions.extend(known);
        }
        self.tell(Event::Asked(questions))
    }

    /// Data and record may each be what was durable or what was there.
    fn survives_a_power_cut(&self) -> Result<(), String> {
        for (data, record) in [(&self.live, &self.live), (&self.live, &self.durable), (&self.durable, &self.live)] {
            let found = match (record.record, data.units.len()) {
                (true, 2) => vec![Old; 2],
                (true, 0) => Vec::new(),
                (true, len) => return Err(format!("a power cut leaves a stub of {len} units")),
                (false, _) => data.units.clone(),
            };
            if !self.since.contains(&found) {
                return Err(format!("a power cut leaves {found:?}, and it was {:?}", self.since));
            }
        }
        Ok(())
    }

    fn begin(&mut self, task: Task) {
        self.tasks.push(task);
        self.tasks.sort();
    }

    fn tell(&mut self, event: Event) -> Result<(), String> {
        let effects = self.machine.handle(event, 0);
        self.take(effects)
    }

    fn take(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
                Effect::Look(_) => self.begin(Task::Look(None)),
                Effect::Fill(..) => self.begin(Task::Fill { done: 0, given_up: false }),
                Effect::GiveUp(_) => {
                    for task in &mut self.tasks {
                        if let Task::Fill { given_up, .. } = task {
                            *given_up = true;
                        }
                    }
                }
                Effect::Flush(_) => self.begin(Task::Flush),
                Effect::Forget(_) => self.begin(Task::Forget),
                Effect::Release(_) => self.begin(Task::Release),
                Effect::Follow(caller) => self.begin(Task::Follow(caller)),
                Effect::Answer(caller, answer) => self.answered(caller, answer)?,
                Effect::Ended(..) => {}
                Effect::Show(_, trouble) => return Err(trouble.to_string()),
                Effect::Mend(..) => return Err("something changed a stub, and nobody of this world does".to_owned()),
            }
        }
        Ok(())
    }

    fn answered(&mut self, caller: QuestionId, answer: Answer) -> Result<(), String> {
        let person = self.people.iter_mut().find(|person| person.waits == Some(caller));
        let person = person.ok_or_else(|| format!("{caller:?} was answered twice"))?;
        person.waits = None;
        if answer == Answer::Allow {
            person.granted = Some(caller);
        } else {
            // He gives up.
            (person.at, person.open) = (person.ops.len(), false);
        }
        Ok(())
    }

    /// Nothing can happen any more: everybody has done what he wanted.
    pub(crate) fn is_at_rest(&self) -> Result<(), String> {
        if self.people.iter().any(|person| person.at < person.ops.len()) {
            return Err("somebody waits for ever".to_owned());
        }
        if !self.machine.is_empty() {
            return Err("a job never ends".to_owned());
        }
        let is_stub = self.live.record && !self.live.units.is_empty();
        let found = if is_stub { vec![Old; 2] } else { self.live.units.clone() };
        if found == self.content { Ok(()) } else { Err(format!("{found:?} is left of {:?}", self.content)) }
    }
}

fn put(units: &mut Vec<Unit>, at: usize) {
    while units.len() <= at {
        units.push(Hole);
    }
    units[at] = New;
}
