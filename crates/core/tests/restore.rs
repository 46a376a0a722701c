#![allow(clippy::unwrap_used)]
//! Nodes that are brought back: what each needs, what is left alone, and whose name is never taken.

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Epoch, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{
    Answer, Based, Batch, Change, MemoryRecords, Operation, Records, Restoration, Restored, apply, check, restore,
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
