#![allow(missing_docs, clippy::unwrap_used)]
//! The safety stop against mass deletes, driven event by event: what it counts, once each, and what it does not.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::engine::{
    After, Command, Effect, Engine, Event, Limits, Look, LookRequest, MemoryCatalog, Settings, StepResult,
};
use isotherm_core::ids::{Cursor, Incarnation, NodeId, OperationId, ServerId, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{Answer, Page};
use isotherm_core::node::{Content, Kind, Metadata, Node, Place, Versions};
use isotherm_core::observe::{Evidence, Listing, Liveness, Scope, Seen};
use isotherm_core::plan::{Action, Authority, Rules, Step};
use isotherm_core::trees::Print;
use isotherm_sim::volume::{Ino, ROOT, STAGING, handle};

const MINUTE: u64 = 60_000;

/// An engine with a share and a folder that hold empty directories, each under the number that is its node's too.
struct World {
    engine: Engine<MemoryCatalog>,
    share: BTreeMap<u64, Node>,
    folder: BTreeMap<u64, Ino>,
    head: u64,
    now: u64,
    /// Removals that find something else than they expect, this often each.
    surprises: usize,
    surprised: BTreeMap<u64, usize>,
}

fn name(number: u64) -> Name {
    Name::new(number.to_string().as_bytes()).unwrap()
}

fn id(number: u64) -> NodeId {
    NodeId(u128::from(number + 1_000_000).to_be_bytes())
}

fn number_of(step: &Step) -> u64 {
    let spot = match &step.action {
        Action::Create { at, .. } => at,
        Action::Remove { expected, .. } => &expected.spot,
        other => panic!("{other:?}"),
    };
    String::from_utf8(spot.name.as_bytes().to_vec()).unwrap().parse().unwrap()
}

fn start(catalog: MemoryCatalog) -> Engine<MemoryCatalog> {
    let rules = Rules {
        case: Case::Sensitive,
        server: ServerId([1; 16]),
        servers: BTreeMap::new(),
        authority: Authority::Merge,
        authority_until: None,
        hold_local_deletes: false,
        hold_remote_deletes: false,
    };
    let (root, staging) = (handle(ROOT), handle(STAGING));
    let settings = Settings { rules, limits: Limits::default(), root, staging, watched: true, rolled_back: false };
    let mut next = 0_u64;
    let ids = Box::new(move || {
        next += 1;
        u128::from(next).to_be_bytes()
    });
    Engine::new(catalog, settings, ids).unwrap()
}

impl World {
    /// A share with some old nodes, all of them here, long after they were made.
    fn with(old: u64) -> Self {
        let engine = start(MemoryCatalog::new(Case::Sensitive));
        let (share, folder) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { engine, share, folder, head: 0, now: 0, surprises: 0, surprised: BTreeMap::new() };
        world.tell(Event::Tick);
        world.make(0..old);
        world.rest(11 * MINUTE);
        world
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.now += 1;
            let effects = self.engine.handle(event, self.now).unwrap();
            let answers: Vec<Event> = effects.into_iter().filter_map(|effect| self.answer(effect)).collect();
            events.extend(answers);
        }
    }

    fn answer(&mut self, effect: Effect) -> Option<Event> {
        Some(match effect {
            // Pages are told by hand.
            Effect::Fetch { .. } | Effect::FetchSnapshot => return None,
            Effect::Look(requests) => Event::Looked(requests.into_iter().map(|request| self.look(request)).collect()),
            Effect::Probe(nodes) => Event::Probed(nodes.into_iter().map(|(node, _)| (node, Liveness::Gone)).collect()),
            Effect::Drain => Event::Drained,
            Effect::Perform(steps) => Event::Performed(steps.into_iter().map(|step| self.perform(step)).collect()),
            Effect::Commit(operations) => {
                let first = self.head + 1;
                self.head += operations.len() as u64;
                Event::Answered(Ok((first..=self.head).map(|version| Answer::Applied(Version(version))).collect()))
            }
            other => panic!("{other:?}"),
        })
    }

    fn look(&self, request: LookRequest) -> Look {
        let names = request.names.map(|names| names.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>());
        let is_asked =
            |number: &u64| request.directory == NodeId::ROOT && names.as_ref().is_none_or(|all| all.contains(&name(*number)));
        let seen = |(number, ino): (&u64, &Ino)| Seen {
            name: name(*number),
            handle: handle(*ino),
            kind: Kind::Directory,
            print: Print::default(),
            metadata: Some(Metadata::default()),
            target: None,
            evidence: Evidence::Watched,
        };
        let seen = self.folder.iter().filter(|(number, _)| is_asked(number)).map(seen).collect();
        let scope = names.clone().map_or(Scope::All, Scope::Names);
        let listing = Listing { directory: request.directory, handle: request.handle, scope, seen };
        Look { directory: request.directory, listing: Some(listing), unfit: Vec::new(), moved: Vec::new() }
    }

    fn perform(&mut self, step: Step) -> (Step, StepResult) {
        let number = number_of(&step);
        let result = if matches!(step.action, Action::Create { .. }) {
            let ino = 1_000 + number;
            self.folder.insert(number, ino);
            StepResult::Done(Some(After {
                handle: handle(ino),
                print: Print::default(),
                shown: Metadata::default(),
                is_tiered: None,
            }))
        } else if *self.surprised.entry(number).and_modify(|times| *times += 1).or_insert(0) < self.surprises {
            StepResult::Surprise
        } else {
            self.folder.remove(&number);
            StepResult::Done(None)
        };
        (step, result)
    }

    fn page(&mut self, nodes: Vec<Node>) {
        let head = Version(self.head);
        let cursor = Cursor { incarnation: Incarnation(1), version: head };
        self.tell(Event::Page(Ok(Page { nodes, cursor, at_head: true, head, start_over: false, lives: Vec::new() })));
    }

    /// Somebody elsewhere makes nodes.
    fn make(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let nodes: Vec<Node> = numbers.into_iter().map(|number| self.fresh(number)).collect();
        self.page(nodes);
    }

    fn fresh(&mut self, number: u64) -> Node {
        self.head += 1;
        let version = Version(self.head);
        let node = Node {
            id: id(number),
            place: Place { parent: NodeId::ROOT, name: name(number) },
            metadata: Metadata::default(),
            content: Content::Directory,
            versions: Versions { created: version, place: version, metadata: version, content: version, last: version },
            deleted: false,
            conflict_of: None,
            author: ServerId([2; 16]),
            operation: OperationId([3; 16]),
        };
        self.share.insert(number, node.clone());
        node
    }

    /// Somebody elsewhere deletes nodes.
    fn delete(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let mut gone = Vec::new();
        for number in numbers {
            self.head += 1;
            let node = self.share.get_mut(&number).unwrap();
            node.deleted = true;
            node.versions.last = Version(self.head);
            gone.push(node.clone());
        }
        self.page(gone);
    }

    /// Somebody here deletes nodes.
    fn lose(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let changed = |number: u64| isotherm_agent::engine::Changed {
            directory: handle(ROOT),
            name: Some(name(number)),
            target: None,
            written: false,
        };
        let reports: Vec<_> =
            numbers.into_iter().inspect(|number| assert!(self.folder.remove(number).is_some())).map(changed).collect();
        self.tell(Event::Changed(reports));
    }

    /// Time passes, with a page now and then as a feed without changes has them.
    fn rest(&mut self, long: u64) {
        let until = self.now + long;
        let mut asked = self.now;
        while self.now < until {
            self.now += 500;
            self.tell(Event::Tick);
            if self.now >= asked + 30_000 {
                asked = self.now;
                self.page(Vec::new());
            }
        }
    }

    fn is_held(&mut self) -> bool {
        self.engine.status(self.now).held.is_some()
    }

    fn restart(self) -> Self {
        Self { engine: start(self.engine.into_catalog()), ..self }
    }
}

// semantics.md#mass-delete
#[test]
fn files_that_are_made_and_removed_one_after_the_other_do_not_add_up() {
    let mut world = World::with(8);
    assert_eq!(world.folder.len(), 8);
    for number in 100..160 {
        world.make([number]);
        world.rest(1_500);
        world.delete([number]);
        world.rest(1_500);
        assert!(!world.is_held(), "at {number}");
    }
    assert_eq!(world.folder.len(), 8);
    // The same where they were removed here.
    for number in 200..230 {
        world.make([number]);
        world.rest(4_000);
        world.lose([number]);
        world.rest(4_000);
        assert!(!world.is_held(), "at {number}");
    }
    let live = (200..230).filter(|number| world.engine.catalog().trees().records().any(|record| record.node == id(*number)));
    assert_eq!(live.count(), 0);
}

#[test]
fn old_ones_add_up_over_the_window_on_either_side() {
    for here in [false, true] {
        let mut world = World::with(40);
        for number in 0..20 {
            if here {
                world.lose([number])
            } else {
                world.delete([number])
            }
            world.rest(10_000);
            assert!(!world.is_held(), "at {number}");
        }
        if here {
            world.lose([20])
        } else {
            world.delete([20])
        }
        world.rest(10_000);
        assert!(world.is_held());
        if !here {
            assert!(world.folder.contains_key(&20));
        }
        // What is made and removed meanwhile changes nothing, and neither does time while others wait.
        world.make(100..150);
        world.rest(MINUTE);
        assert!(world.is_held());
    }
}

// semantics.md#mass-delete
#[test]
fn many_new_files_do_not_free_the_delete_of_old_ones() {
    let mut world = World::with(60);
    world.make(1_000..2_000);
    world.rest(MINUTE);
    world.delete(0..30);
    world.rest(10_000);
    assert!(world.is_held());
    assert_eq!(world.folder.len(), 1_060);
    // Once the new ones are no news any more, that is a small part of the share, and yet it has waited.
    world.rest(12 * MINUTE);
    assert!(world.is_held());
    world.tell(Event::Command(Command::ConfirmDeletes));
    world.rest(MINUTE);
    assert_eq!((world.is_held(), world.folder.len()), (false, 1_030));
    world.delete(1_000..1_200);
    world.rest(MINUTE);
    assert_eq!((world.is_held(), world.folder.len()), (false, 830), "less than a quarter of all that is old by now");
}

// semantics.md#mass-delete
#[test]
fn new_files_that_are_deleted_all_at_once_wait() {
    let mut world = World::with(8);
    world.make(100..160);
    world.rest(MINUTE);
    world.delete(100..160);
    world.rest(MINUTE);
    assert!(world.is_held());
    assert_eq!(world.folder.len(), 68);
}

#[test]
fn after_a_start_nothing_is_young_but_what_is_made_from_then_on() {
    let mut world = World::with(8);
    world.make(100..140);
    world.rest(5_000);
    let mut world = world.restart();
    world.tell(Event::Tick);
    world.page(Vec::new());
    world.rest(5_000);
    for number in 100..121 {
        assert!(!world.is_held(), "at {number}");
        world.delete([number]);
        world.rest(6_000);
    }
    assert!(world.is_held());
    let mut world = World::with(8).restart();
    world.tell(Event::Tick);
    world.page(Vec::new());
    for number in 100..140 {
        world.make([number]);
        world.rest(3_000);
        world.delete([number]);
        world.rest(3_000);
        assert!(!world.is_held(), "at {number}");
    }
}

#[test]
fn what_was_made_while_the_service_was_away_is_not_taken_for_young() {
    let mut world = World::with(8);
    // No page comes for a long time, in which others work.
    world.now += 60 * MINUTE;
    world.make(100..140);
    for number in 100..121 {
        assert!(!world.is_held(), "at {number}");
        world.rest(6_000);
        world.delete([number]);
    }
    world.rest(6_000);
    assert!(world.is_held());
}

#[test]
fn a_removal_that_is_tried_again_counts_once_so_that_a_confirmation_is_enough() {
    let mut world = World::with(60);
    world.surprises = 2;
    world.delete(0..40);
    world.rest(10_000);
    assert!(world.is_held());
    assert_eq!(world.folder.len(), 60);
    world.tell(Event::Command(Command::ConfirmDeletes));
    for _ in 0..60 {
        world.rest(1_000);
        assert!(!world.is_held(), "{} are left", world.folder.len());
    }
    assert_eq!(world.folder.len(), 20);
}
