#![allow(clippy::unwrap_used)]
//! Nodes that are brought back: what each needs, what is left alone, and whose name is never taken.

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Cursor, Epoch, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{
    Answer, Based, Batch, Change, MemoryRecords, Operation, Records, Restoration, Restored, apply, check, page, restore,
};
use isotherm_core::node::{Content, FileContent, Metadata, Node, Place};

const SERVER: ServerId = ServerId([1; 16]);

struct World {
    records: MemoryRecords,
    epoch: Epoch,
    drawn: u128,
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn place(parent: NodeId, name: &str) -> Place {
    Place { parent, name: Name::new(name.as_bytes()).unwrap() }
}

fn file(number: u8) -> Content {
    let manifest = ManifestId::from_bytes([number; 32]);
    Content::File(FileContent { manifest, size: 10, modified: Timestamp(i64::from(number)), link: None })
}

impl World {
    fn new() -> Self {
        let mut records = MemoryRecords::new(Incarnation(7), Case::Sensitive);
        (0..50).for_each(|number| records.add_content(ManifestId::from_bytes([number; 32])));
        let epoch = records.attach(SERVER);
        Self { records, epoch, drawn: 0 }
    }

    fn change(&mut self, change: Change) -> Version {
        self.drawn += 1;
        let operation = Operation { id: OperationId(self.drawn.to_be_bytes()), group: None, change };
        let batch = Batch { server: SERVER, epoch: self.epoch, incarnation: Incarnation(7), operations: vec![operation] };
        let Ok(mut answers) = apply(&mut self.records, &batch);
        match answers.remove(0) {
            Answer::Applied(version) => version,
            other => panic!("{other:?}"),
        }
    }

    fn make(&mut self, node: NodeId, at: Place, content: Content) -> Version {
        let metadata = Metadata::default();
        self.change(Change::Create { node, place: at, metadata, content, revives: None, conflict_of: None })
    }

    fn edit(&mut self, node: NodeId, content: Content) -> Version {
        let base = self.now(node).versions.content;
        self.change(Change::Update { node, metadata: None, content: Some(Based { base, value: content }) })
    }

    fn rename(&mut self, node: NodeId, to: Place) -> Version {
        let base = self.now(node).versions.place;
        self.change(Change::Move { node, place: Based { base, value: to } })
    }

    fn delete(&mut self, node: NodeId) -> Version {
        let now = self.now(node);
        self.change(Change::Delete { node, place: now.versions.place, content: now.versions.content })
    }

    fn now(&self, node: NodeId) -> Node {
        let Ok(found) = self.records.node(node);
        found.unwrap()
    }

    fn restore(&mut self, node: NodeId, target: Option<Version>) -> Restored {
        let expected = self.now(node).versions.last;
        self.restore_expecting(node, expected, target)
    }

    fn restore_expecting(&mut self, node: NodeId, expected: Version, target: Option<Version>) -> Restored {
        let mut drawn = self.drawn;
        let mut draw = || {
            drawn += 1;
            drawn.to_be_bytes()
        };
        let Ok(outcome) = restore(&mut self.records, Restoration { node, expected, target }, &mut draw);
        self.drawn = drawn;
        let Ok(share) = self.records.share();
        assert_eq!(check(share, self.records.nodes()), Vec::<String>::new());
        outcome
    }
}

#[test]
fn content_and_name_of_a_version_come_back_together() {
    let mut world = World::new();
    let first = world.make(id(1), place(NodeId::ROOT, "plan.dwg"), file(1));
    world.edit(id(1), file(2));
    world.rename(id(1), place(NodeId::ROOT, "plan.locked"));
    assert!(matches!(world.restore(id(1), Some(first)), Restored::Done(_)));
    let now = world.now(id(1));
    assert_eq!((now.place, now.content, now.author), (place(NodeId::ROOT, "plan.dwg"), file(1), ServerId::SERVICE));
    // Once more is nothing.
    let last = now.versions.last;
    assert_eq!(world.restore(id(1), Some(first)), Restored::Done(last));
}

#[test]
fn a_deleted_file_comes_back_with_its_directories() {
    let mut world = World::new();
    world.make(id(1), place(NodeId::ROOT, "a"), Content::Directory);
    world.make(id(2), place(id(1), "b"), Content::Directory);
    let file_at = world.make(id(3), place(id(2), "c"), file(1));
    for number in [3, 2, 1] {
        world.delete(id(number));
    }
    assert!(matches!(world.restore(id(3), Some(file_at)), Restored::Done(_)));
    assert!([1, 2, 3].iter().all(|number| world.now(id(*number)).is_live()));
    assert_eq!(world.now(id(3)).place, place(id(2), "c"));
}

/// A directory was deleted and somebody made another one of that name: that is where people look.
#[test]
fn a_deleted_file_comes_back_into_the_directory_that_has_the_name_now() {
    let mut world = World::new();
    world.make(id(1), place(NodeId::ROOT, "re"), Content::Directory);
    let inner_at = world.make(id(2), place(id(1), "inner"), Content::Directory);
    let file_at = world.make(id(3), place(id(2), "a.txt"), file(1));
    for number in [3, 2, 1] {
        world.delete(id(number));
    }
    world.make(id(11), place(NodeId::ROOT, "re"), Content::Directory);
    assert!(matches!(world.restore(id(3), Some(file_at)), Restored::Done(_)));
    // The directory between has no live namesake, so it came back inside.
    assert_eq!((world.now(id(3)).place.parent, world.now(id(2)).place), (id(2), place(id(11), "inner")));
    assert!(world.now(id(1)).deleted);
    // The directory itself is there already.
    assert!(matches!(world.restore(id(1), Some(Version(1))), Restored::Done(_)));
    assert!(world.now(id(1)).deleted);
    assert!(matches!(world.restore(id(2), Some(inner_at)), Restored::Done(_)));
    assert_eq!(world.now(id(2)).place, place(id(11), "inner"));
}

#[test]
fn a_directory_is_not_put_into_itself_because_it_has_the_name_of_the_one_that_it_lay_in() {
    let mut world = World::new();
    world.make(id(1), place(NodeId::ROOT, "re"), Content::Directory);
    let inner_at = world.make(id(2), place(id(1), "inner"), Content::Directory);
    world.rename(id(2), place(NodeId::ROOT, "moved"));
    world.delete(id(1));
    world.rename(id(2), place(NodeId::ROOT, "re"));
    assert!(matches!(world.restore(id(2), Some(inner_at)), Restored::Done(_)));
    assert_eq!((world.now(id(2)).place, world.now(id(1)).place), (place(id(1), "inner"), place(NodeId::ROOT, "re-restored")));
}

#[test]
fn a_name_that_is_in_use_is_not_taken() {
    let mut world = World::new();
    let first = world.make(id(1), place(NodeId::ROOT, "plan.dwg"), file(1));
    world.delete(id(1));
    world.make(id(2), place(NodeId::ROOT, "plan.dwg"), file(2));
    let beside = place(NodeId::ROOT, "plan-restored.dwg");
    assert!(matches!(world.restore(id(1), Some(first)), Restored::Beside(_, at) if at == beside));
    assert_eq!(world.now(id(2)).content, file(2));
}

#[test]
fn what_was_not_there_goes_but_only_empty_directories() {
    let mut world = World::new();
    world.make(id(1), place(NodeId::ROOT, "new"), Content::Directory);
    world.make(id(2), place(id(1), "note"), file(1));
    assert_eq!(world.restore(id(1), None), Restored::Later);
    assert!(matches!(world.restore(id(2), None), Restored::Done(_)));
    assert!(matches!(world.restore(id(1), None), Restored::Done(_)));
    assert!(world.now(id(1)).deleted && world.now(id(2)).deleted);
}

#[test]
fn a_node_that_has_changed_since_is_left_alone() {
    let mut world = World::new();
    let first = world.make(id(1), place(NodeId::ROOT, "a"), file(1));
    let second = world.edit(id(1), file(2));
    world.edit(id(1), file(3));
    assert_eq!(world.restore_expecting(id(1), second, Some(first)), Restored::Changed);
    assert_eq!(world.restore_expecting(id(1), second, None), Restored::Changed);
    assert_eq!(world.now(id(1)).content, file(3));
}

#[test]
fn a_version_that_is_not_kept_is_gone() {
    let mut world = World::new();
    world.make(id(1), place(NodeId::ROOT, "a"), file(1));
    assert_eq!(world.restore(id(1), Some(Version(999))), Restored::Gone);
}

#[test]
fn retention_keeps_what_was_replaced_since_and_always_the_present_version() {
    let mut world = World::new();
    let versions = [1, 2, 3].map(|number| {
        let first = number == 1;
        if first { world.make(id(1), place(NodeId::ROOT, "a"), file(1)) } else { world.edit(id(1), file(number)) }
    });
    let kept = |world: &World| world.records.revisions(id(1)).iter().map(|node| node.versions.last).collect::<Vec<_>>();
    world.records.expire(versions[1]);
    assert_eq!(kept(&world), versions, "the first was replaced by the second");
    world.records.expire(versions[2]);
    assert_eq!(kept(&world), versions[1..]);
    world.records.expire(Version(99));
    assert_eq!(kept(&world), versions[2..]);
    assert_eq!(world.restore(id(1), Some(versions[0])), Restored::Gone);
}

#[test]
fn content_goes_when_neither_a_kept_version_nor_a_pin_holds_it() {
    let mut world = World::new();
    let content = |number| ManifestId::from_bytes([number; 32]);
    world.make(id(1), place(NodeId::ROOT, "a"), file(1));
    let second = world.edit(id(1), file(2));
    world.make(id(3), place(NodeId::ROOT, "b"), file(3));
    world.delete(id(3));
    world.records.collect(|manifest| manifest == content(9));
    let held = |world: &World| (0..50).filter(|number| world.records.has_content(content(*number))).collect::<Vec<_>>();
    assert_eq!(held(&world), [1, 2, 3, 9]);
    world.records.expire(Version(second.0 + 99));
    world.records.collect(|_| false);
    assert_eq!(held(&world), [2], "a deletion's own state holds nothing");
}

#[test]
fn whoever_missed_a_deletion_that_is_forgotten_starts_over() {
    let mut world = World::new();
    let made = world.make(id(1), place(NodeId::ROOT, "a"), file(1));
    world.delete(id(1));
    let deleted = world.now(id(1)).versions.last;
    let reads = |world: &World, version| {
        let Ok(page) = page(&world.records, Cursor { incarnation: Incarnation(7), version }, 9);
        page
    };
    world.records.forget_deleted(deleted);
    assert!(!reads(&world, made).start_over, "it is not older than that");
    assert_eq!(reads(&world, made).nodes.len(), 1);
    world.records.forget_deleted(deleted.next());
    assert!(reads(&world, made).start_over && reads(&world, Version(0)).start_over);
    let page = reads(&world, deleted);
    assert!(!page.start_over && page.at_head && page.nodes.is_empty());
    assert!(world.records.revisions(id(1)).is_empty());
    assert!(reads(&world, deleted.next()).start_over, "a reader ahead of the share has read another one");
}
