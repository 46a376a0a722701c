//! One file, those who use it, and the agent: what there is, and each step that can come next.
//!
//! The file has two units. The disk is two images, what is there and what is durable; at a power cut data and record may each be
//! of either. **Invariant of the model:** a step is what cannot be divided on a real machine.

mod work;

use std::collections::BTreeSet;

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::stub::{
    Answer, Bound, ContentPrefix, Effect, Event, Purpose, Question, QuestionId, Recalls, StubRecord, UNIT, Units,
};
use isotherm_core::trees::Handle;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Unit {
    Hole,
    /// Blocks that stand for content that is not here.
    Mask,
    Old,
    New,
}

use Unit::{Hole, Mask, New, Old};

/// What the file is on one of the two images.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Image {
    units: Vec<Unit>,
    record: Option<Kept>,
}

/// What a record says is here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kept {
    Nothing,
    /// What is elsewhere means nothing.
    Units(Units),
}

impl Kept {
    fn resident(&self) -> Option<Units> {
        match self {
            Self::Nothing => None,
            Self::Units(units) => Some(units.clone()),
        }
    }
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
    /// It is a program that may be shown the file while it comes.
    streams: bool,
}

/// Work of the agent that takes time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Task {
    Look(Option<Sight>),
    Fill {
        done: u64,
        given_up: bool,
        present: Units,
        /// There was nothing before, so what has come may go again.
        is_own: bool,
    },
    /// The steps of masking, by their number, with what is here.
    Mask(usize, Units),
    /// What is to come, and what of it has not.
    Bring(Units, Units),
    /// The steps of parting, by their number, with what is kept.
    Part(usize, Units),
    Flush,
    Forget,
    Release,
    Follow(QuestionId),
    /// The steps of tiering, by their number.
    Tier(usize),
}

/// What a look has seen, and not told yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Sight {
    record: Option<Kept>,
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
    /// What has come is given up before the record is durable, also where something was there before.
    GiveUp,
    /// A new run of the agent is not told of who was let through to empty the file.
    LetThrough,
    /// A mask is put over what may have come before, too.
    MaskAll,
    /// A mask is put before the record says that there may be one.
    MaskRecord,
    /// What is not here is given up while somebody may have the file open.
    PartLease,
    /// The record names what has come before that is durable.
    PartFlush,
    /// What is not here is given up before the record says what is.
    PartRecord,
    /// What came of a fetch that failed is given up, whoever reads it.
    StreamGiveUp,
    /// The same where something was there before the fetch began.
    GiveUpFound,
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
    /// It is too small to be shown while it comes.
    pub(crate) is_small: bool,
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
    StubRecord { node: NodeId([1; 16]), version: Version(1), content, size: 2 * UNIT, bound: Bound::to(&handle()) }
}

fn person(ops: &[Op]) -> Person {
    Person { ops: ops.to_vec(), at: 0, waits: None, granted: None, open: false, guarded: false, streams: false }
}

pub(crate) fn reader() -> Person {
    person(&[Op::Open(Purpose::Read), Op::Read(0), Op::Read(1)])
}

pub(crate) fn player() -> Person {
    Person { streams: true, ..person(&[Op::Open(Purpose::Stream), Op::Read(0), Op::Read(1)]) }
}

pub(crate) fn writer() -> Person {
    person(&[Op::Open(Purpose::Write), Op::Write(1), Op::Fsync, Op::Read(0)])
}

pub(crate) fn rewriter() -> Person {
    person(&[Op::Open(Purpose::Empty), Op::Write(0), Op::Fsync])
}

fn machine() -> Recalls {
    Recalls::new(1_000).with_quiet(0)
}

fn unit(at: u64) -> Units {
    Units::of(at..at + 1)
}

pub(crate) type Next = Result<Vec<(String, World)>, String>;

impl World {
    pub(crate) fn new(stub: bool, people: &[Person]) -> Self {
        let image = Image { units: vec![if stub { Hole } else { Old }; 2], record: stub.then_some(Kept::Nothing) };
        let content = vec![Old; 2];
        Self {
            live: image.clone(),
            durable: image,
            since: [content.clone()].into(),
            content,
            people: people.to_vec(),
            machine: machine(),
            tasks: Vec::new(),
            asks: stub,
            is_small: false,
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
        if self.tiers > 0 && self.content == [Old, Old] && self.live.record.is_none() {
            let mut world = self.clone();
            world.tiers -= 1;
            if world.machine.hold(&handle(), 0) {
                world.tasks.push(Task::Tier(0));
                worlds.push(("tier".to_owned(), world));
            }
        }
        let mut quiet = self.clone();
        quiet.tell(Event::Tick)?;
        if quiet != *self {
            worlds.push(("nobody asks for a while".to_owned(), quiet));
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
            Op::Read(at) if person.streams => Some(Purpose::Range(at as u64 * UNIT, UNIT)),
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
                if !matches!(purpose, Purpose::Stream | Purpose::Empty) && self.live.units.contains(&Mask) {
                    return Err(format!("{who} is shown a mask"));
                }
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

    /// The agent ends and starts again. The gate tells it who waits.
    fn kill(&mut self) -> Result<(), String> {
        self.kills -= 1;
        self.tasks.clear();
        self.machine = machine();
        let (told, mut questions) = (self.people.clone(), Vec::new());
        for person in told.iter().filter(|person| person.at < person.ops.len()) {
            let purpose = match person.ops[person.at] {
                Op::Open(purpose) => purpose,
                Op::Write(_) => Purpose::Write,
                Op::Read(at) if person.streams => Purpose::Range(at as u64 * UNIT, UNIT),
                _ => Purpose::Read,
            };
            let question = |id, let_through| Question { id, file: handle(), purpose, let_through };
            let empties = person.granted.filter(|_| purpose == Purpose::Empty && self.broken != Broken::LetThrough);
            let known = person.waits.map(|id| question(id, false)).or(empties.map(|id| question(id, true)));
            questions.extend(known);
        }
        self.tell(Event::Asked(questions))?;
        // It knows by their records what an earlier run may have left masked.
        if matches!(self.live.record, Some(Kept::Units(_))) { self.tell(Event::Swept(vec![handle()])) } else { Ok(()) }
    }

    /// Data and record may each be what was durable or what was there.
    fn survives_a_power_cut(&self) -> Result<(), String> {
        for (data, record) in [(&self.live, &self.live), (&self.live, &self.durable), (&self.durable, &self.live)] {
            let found = match (&record.record, data.units.len()) {
                (Some(_), 0) => Vec::new(),
                (Some(Kept::Nothing), 2) if data.units.contains(&Mask) => {
                    return Err("a power cut leaves a mask of which the record tells nothing".to_owned());
                }
                (Some(Kept::Nothing), 2) => vec![Old; 2],
                (Some(Kept::Units(resident)), 2) => {
                    let read = |at: usize| if resident.contain(&unit(at as u64)) { data.units[at] } else { Old };
                    vec![read(0), read(1)]
                }
                (Some(_), len) => return Err(format!("a power cut leaves a stub of {len} units")),
                (None, _) => data.units.clone(),
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
                Effect::Fill(_, _, present) => {
                    let gives_up_all = matches!(self.broken, Broken::GiveUp | Broken::StreamGiveUp | Broken::GiveUpFound);
                    let is_own = gives_up_all || self.live.units.iter().all(|unit| *unit == Hole);
                    self.begin(Task::Fill { done: 0, given_up: false, present, is_own });
                }
                Effect::Mask(_, _, resident) => self.begin(Task::Mask(0, resident)),
                Effect::Bring(_, _, units) => self.begin(Task::Bring(units.clone(), units)),
                Effect::Part(_, _, present) => self.begin(Task::Part(0, present)),
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
        let found = match &self.live.record {
            Some(_) if self.live.units.is_empty() => Vec::new(),
            Some(Kept::Units(resident)) => {
                let rest = |at: usize| if resident.contain(&unit(at as u64)) { self.live.units[at] } else { Old };
                if (0..2).any(|at| !resident.contain(&unit(at)) && self.live.units[usize::try_from(at).unwrap()] != Hole) {
                    return Err("what is not here keeps its room".to_owned());
                }
                vec![rest(0), rest(1)]
            }
            Some(Kept::Nothing) if self.live.units.contains(&Mask) => return Err("a mask is left".to_owned()),
            Some(Kept::Nothing) => vec![Old; 2],
            None => self.live.units.clone(),
        };
        if found == self.content { Ok(()) } else { Err(format!("{found:?} is left of {:?}", self.content)) }
    }
}

fn put(units: &mut Vec<Unit>, at: usize) {
    while units.len() <= at {
        units.push(Hole);
    }
    units[at] = New;
}
