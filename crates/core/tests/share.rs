#![allow(clippy::unwrap_used, missing_docs)]
//! What the share answers, operation by operation: what it refuses, what it merges, and what it remembers.

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Epoch, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{Answer, Based, Batch, Change, MemoryRecords, Operation, Records, Refusal, apply, check};
use isotherm_core::node::{Content, FileContent, Metadata, Node, Place};

const SERVER: ServerId = ServerId([1; 16]);
const LINK: Content = Content::Symlink { target: Vec::new() };

struct Share {
    records: MemoryRecords,
    epoch: Epoch,
    drawn: u8,
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn at(parent: NodeId, name: &str) -> Place {
    Place { parent, name: Name::new(name.as_bytes()).unwrap() }
}

fn file(number: u8) -> Content {
    let manifest = ManifestId::from_bytes([number; 32]);
    Content::File(FileContent { manifest, size: 10, modified: Timestamp(0), link: None })
}

fn make(node: u8, place: Place, content: Content) -> Change {
    Change::Create { node: id(node), place, metadata: Metadata::default(), content, revives: None, conflict_of: None }
}

fn revive(node: u8, place: Place, content: Content, tombstone: u64) -> Change {
    let revives = Some(Version(tombstone));
    Change::Create { node: id(node), place, metadata: Metadata::default(), content, revives, conflict_of: None }
}

fn write(node: u8, base: u64, value: Content) -> Change {
    Change::Update { node: id(node), metadata: None, content: Some(Based { base: Version(base), value }) }
}

fn chmod(node: u8, base: u64, mode: u32) -> Change {
    let value = Metadata { mode, ..Metadata::default() };
    Change::Update { node: id(node), metadata: Some(Based { base: Version(base), value }), content: None }
}

fn rename(node: u8, base: u64, value: Place) -> Change {
    Change::Move { node: id(node), place: Based { base: Version(base), value } }
}

fn delete(node: u8, version: u64) -> Change {
    Change::Delete { node: id(node), place: Version(version), content: Version(version) }
}

impl Share {
    /// Version 1 is the directory 1 (`d`), version 2 the file 2 (`f`).
    fn new() -> Self {
        let mut records = MemoryRecords::new(Incarnation(7), Case::Sensitive);
        (0..50).for_each(|number| records.add_content(ManifestId::from_bytes([number; 32])));
        let epoch = records.attach(SERVER);
        let mut share = Self { records, epoch, drawn: 0 };
        assert_eq!(share.one(make(1, at(NodeId::ROOT, "d"), Content::Directory)), Answer::Applied(Version(1)));
        assert_eq!(share.one(make(2, at(NodeId::ROOT, "f"), file(1))), Answer::Applied(Version(2)));
        share
    }

    fn operations(&mut self, changes: Vec<Change>) -> Vec<Operation> {
        let group = (changes.len() > 1).then_some(1);
        let number = |change| {
            self.drawn += 1;
            Operation { id: OperationId([self.drawn; 16]), group, change }
        };
        changes.into_iter().map(number).collect()
    }

    fn send(&mut self, incarnation: u64, operations: Vec<Operation>) -> Vec<Answer> {
        let batch = Batch { server: SERVER, epoch: self.epoch, incarnation: Incarnation(incarnation), operations };
        let Ok(answers) = apply(&mut self.records, &batch);
        let Ok(share) = self.records.share();
        assert_eq!(check(share, self.records.nodes()), Vec::<String>::new());
        answers
    }

    fn group(&mut self, changes: Vec<Change>) -> Vec<Answer> {
        let operations = self.operations(changes);
        self.send(7, operations)
    }

    fn one(&mut self, change: Change) -> Answer {
        self.group(vec![change]).remove(0)
    }

    fn refused(&mut self, change: Change) -> Refusal {
        match self.one(change) {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_place_needs_a_live_directory() {
    let mut share = Share::new();
    assert_eq!(share.refused(make(3, at(id(9), "x"), file(2))), Refusal::NoParent, "never heard of");
    assert_eq!(share.refused(make(3, at(id(2), "x"), file(2))), Refusal::NotADirectory);
    assert_eq!(share.refused(rename(2, 2, at(id(9), "x"))), Refusal::NoParent);
    assert_eq!(share.refused(rename(1, 1, at(id(2), "x"))), Refusal::NotADirectory);
    share.one(delete(1, 1));
    assert_eq!(share.refused(rename(2, 2, at(id(1), "x"))), Refusal::NoParent, "deleted");
}

#[test]
fn the_root_and_the_kind_of_a_node_are_fixed() {
    let mut share = Share::new();
    let root = |change| match change {
        Change::Move { place, .. } => Change::Move { node: NodeId::ROOT, place },
        Change::Delete { place, content, .. } => Change::Delete { node: NodeId::ROOT, place, content },
        Change::Create { place, metadata, content, revives, conflict_of, .. } => {
            Change::Create { node: NodeId::ROOT, place, metadata, content, revives, conflict_of }
        }
        other => other,
    };
    assert_eq!(share.refused(root(rename(1, 1, at(id(1), "x")))), Refusal::Fixed);
    assert_eq!(share.refused(root(delete(1, 1))), Refusal::Fixed);
    assert_eq!(share.refused(root(make(1, at(id(1), "x"), Content::Directory))), Refusal::Fixed);
    assert_eq!(share.refused(make(0xff, at(NodeId::ROOT, "x"), Content::Directory)), Refusal::Fixed, "nor what is parked");
    assert_eq!(share.refused(write(2, 2, LINK)), Refusal::Fixed);
    share.one(delete(2, 2));
    assert_eq!(share.refused(revive(2, at(NodeId::ROOT, "f"), LINK, 3)), Refusal::Fixed);
    assert_eq!(share.one(revive(2, at(NodeId::ROOT, "f"), file(3), 3)), Answer::Applied(Version(4)));
}

#[test]
fn what_is_not_there_cannot_change_and_what_is_gone_is_gone() {
    let mut share = Share::new();
    assert_eq!(share.refused(write(9, 1, file(2))), Refusal::NoNode);
    assert_eq!(share.refused(rename(9, 1, at(id(1), "x"))), Refusal::NoNode);
    assert_eq!(share.refused(delete(9, 1)), Refusal::NoNode);
    assert_eq!(share.refused(revive(9, at(NodeId::ROOT, "x"), file(2), 1)), Refusal::NoNode);
    assert_eq!(share.one(delete(2, 2)), Answer::Applied(Version(3)));
    assert_eq!(share.one(delete(2, 2)), Answer::Applied(Version(3)), "deleted twice is deleted");
    assert!(matches!(share.one(write(2, 2, file(2))), Answer::Conflict(node) if node.deleted));
    assert!(matches!(share.one(rename(2, 2, at(id(1), "x"))), Answer::Conflict(node) if node.deleted));
}

#[test]
fn who_asks_for_what_is_there_already_gets_its_version_and_who_builds_on_something_else_a_conflict() {
    let mut share = Share::new();
    assert_eq!(share.one(make(2, at(NodeId::ROOT, "f"), file(1))), Answer::Applied(Version(2)));
    for other in [make(2, at(NodeId::ROOT, "g"), file(1)), make(2, at(NodeId::ROOT, "f"), file(2)), rename(2, 1, at(id(1), "f"))]
    {
        assert!(matches!(share.one(other), Answer::Conflict(_)));
    }
    assert_eq!(share.one(rename(2, 1, at(NodeId::ROOT, "f"))), Answer::Applied(Version(2)), "it has the name");
    assert_eq!(share.one(chmod(2, 2, 0o600)), Answer::Applied(Version(3)));
    assert_eq!(share.one(chmod(2, 2, 0o600)), Answer::Applied(Version(3)), "it has the mode");
    assert!(matches!(share.one(chmod(2, 2, 0o640)), Answer::Conflict(_)));
    assert!(matches!(share.one(make(2, at(NodeId::ROOT, "f"), file(1))), Answer::Conflict(_)), "it had another mode");
    // Each facet has a base of its own: one that is old spoils a change of both.
    let both = |metadata, content| Change::Update {
        node: id(2),
        metadata: Some(Based { base: Version(metadata), value: Metadata { mode: 0o640, ..Metadata::default() } }),
        content: Some(Based { base: Version(content), value: file(2) }),
    };
    assert!(matches!(share.one(both(2, 2)), Answer::Conflict(_)));
    assert!(matches!(share.one(both(3, 1)), Answer::Conflict(_)));
    assert_eq!(share.one(both(3, 2)), Answer::Applied(Version(4)));
    assert!(matches!(share.one(Change::Delete { node: id(2), place: Version(1), content: Version(4) }), Answer::Conflict(_)));
    assert_eq!(share.one(Change::Delete { node: id(2), place: Version(2), content: Version(4) }), Answer::Applied(Version(5)));
}

#[test]
fn a_group_is_judged_by_how_it_leaves_the_share() {
    let mut share = Share::new();
    share.one(make(3, at(id(1), "x"), file(2)));
    let ok = |answers: &[Answer]| answers.iter().all(|answer| matches!(answer, Answer::Applied(_)));
    assert!(ok(&share.group(vec![rename(3, 3, at(NodeId::ROOT, "x")), delete(1, 1)])), "its last child has left");
    let mut share = Share::new();
    let answers = share.group(vec![rename(2, 2, at(id(1), "x")), delete(1, 1)]);
    assert_eq!(answers, [Answer::Skipped, Answer::Refused(Refusal::NotEmpty)], "a child has come");
    let mut share = Share::new();
    share.one(make(3, at(id(1), "x"), file(2)));
    share.one(make(4, at(id(1), "y"), file(2)));
    let answers = share.group(vec![rename(3, 3, at(NodeId::ROOT, "x")), delete(1, 1)]);
    assert_eq!(answers[1], Answer::Refused(Refusal::NotEmpty), "another stays");
    assert!(ok(&share.group(vec![delete(2, 2), make(5, at(NodeId::ROOT, "f"), Content::Directory)])), "the name is free");
    let answers = share.group(vec![make(6, at(id(5), "n"), file(3)), make(7, at(id(5), "n"), file(4))]);
    assert_eq!(answers, [Answer::Skipped, Answer::Skipped], "two want one name");
    let answers = share.group(vec![rename(1, 1, at(id(5), "d")), rename(5, 6, at(id(1), "f"))]);
    assert!(answers.contains(&Answer::Refused(Refusal::Cycle)) && !answers.iter().any(|it| matches!(it, Answer::Applied(_))));
}

// semantics.md#quota
#[test]
fn the_quota_counts_what_a_group_adds() {
    let mut share = Share::new();
    share.records.set_quota(Some(20));
    assert!(matches!(share.one(make(3, at(NodeId::ROOT, "x"), file(2))), Answer::Applied(_)), "full to the last byte");
    let more = |more| Refusal::Quota { quota: 20, used: 20, more };
    assert_eq!(share.refused(make(4, at(NodeId::ROOT, "y"), file(2))), more(10));
    assert!(matches!(share.one(make(5, at(NodeId::ROOT, "e"), Content::Directory)), Answer::Applied(_)), "takes no room");
    let answers = share.group(vec![make(6, at(id(1), "y"), file(2)), make(7, at(id(1), "z"), file(2))]);
    assert_eq!(answers, [Answer::Refused(more(10)), Answer::Skipped]);
    share.records.set_quota(Some(5));
    assert!(matches!(share.one(delete(3, 3)), Answer::Applied(_)), "less is always allowed");
    assert!(matches!(share.one(write(2, 2, file(3))), Answer::Applied(_)), "and so is as much");
}

#[test]
fn what_was_answered_is_answered_again_whatever_has_changed_since() {
    let mut share = Share::new();
    share.records.set_quota(Some(10));
    let absent = share.operations(vec![write(2, 2, file(99))]);
    let full = share.operations(vec![make(3, at(NodeId::ROOT, "x"), file(2))]);
    let taken = share.operations(vec![make(4, at(NodeId::ROOT, "f"), Content::Directory)]);
    let refused = share.operations(vec![rename(2, 2, at(id(9), "x"))]);
    let sent = [absent, full, taken, refused];
    let answers: Vec<_> = sent.iter().map(|operations| share.send(7, operations.clone())).collect();
    assert!(matches!(answers[0][0], Answer::Missing(_)) && matches!(answers[2][0], Answer::Conflict(_)), "{answers:?}");
    assert!(matches!(answers[1][0], Answer::Refused(Refusal::Quota { .. })), "{answers:?}");
    assert_eq!(answers[3], [Answer::Refused(Refusal::NoParent)]);
    share.records.set_quota(None);
    share.records.add_content(ManifestId::from_bytes([99; 32]));
    share.one(make(9, at(NodeId::ROOT, "n"), Content::Directory));
    share.one(rename(2, 2, at(id(1), "f")));
    // A request may be held up on its way until its author has long sent something else, under another id.
    for (operations, answer) in sent.into_iter().zip(answers) {
        assert_eq!(share.send(7, operations), answer);
    }
}

#[test]
fn an_earlier_life_answers_for_the_common_past_only() {
    let mut share = Share::new();
    let kept = share.operations(vec![write(2, 2, file(2))]);
    let mut grouped = share.operations(vec![write(2, 3, file(3))]);
    grouped[0].group = Some(1);
    assert_eq!(share.send(7, kept.clone()), [Answer::Applied(Version(3))]);
    assert_eq!(share.send(7, grouped.clone()), [Answer::Applied(Version(4))]);
    let conflict = share.operations(vec![make(4, at(NodeId::ROOT, "f"), Content::Directory)]);
    let refused = share.operations(vec![rename(2, 2, at(id(9), "x"))]);
    let answers = [share.send(7, conflict.clone()), share.send(7, refused.clone())].concat();
    share.records.begin_life(Incarnation(8));
    let new = share.operations(vec![chmod(2, 2, 0o600)]);
    let start_over = [Answer::Refused(Refusal::Incarnation)];
    assert_eq!(share.send(7, kept.clone()), [Answer::Applied(Version(3))]);
    assert_eq!(share.send(7, conflict), [answers[0].clone()]);
    assert_eq!(share.send(7, refused), start_over, "a refusal says nothing about the share");
    assert_eq!(share.send(7, new.clone()), start_over);
    assert_eq!(share.send(6, kept.clone()), start_over, "a life that nobody knows");
    let both = [kept, new.clone()].concat();
    assert_eq!(share.send(7, both), [Answer::Applied(Version(3)), start_over[0].clone()], "each for itself");
    let groups = [grouped, vec![Operation { group: Some(2), ..new[0].clone() }]].concat();
    assert_eq!(share.send(7, groups), [Answer::Applied(Version(4)), start_over[0].clone()], "each group for itself");
    assert_eq!(share.send(8, new.clone()), [Answer::Applied(Version(5))]);
    assert_eq!(share.send(7, new), start_over, "answered in the new life, which the old one does not know");
}

#[test]
fn the_check_of_a_namespace_sees_what_is_wrong() {
    let share = Share::new();
    let Ok(head) = share.records.share();
    let sound: Vec<Node> = share.records.nodes().cloned().collect();
    type Damage = fn(&mut Vec<Node>);
    let cases: [(&str, Damage); 7] = [
        ("given out twice", |nodes| nodes[1].versions.last = nodes[0].versions.last),
        ("newer than the head", |nodes| nodes[1].versions.last = Version(3)),
        ("both called", |nodes| nodes[1].place = nodes[0].place.clone()),
        ("is unknown", |nodes| nodes[1].place.parent = id(9)),
        ("no live directory", |nodes| nodes[0].place.parent = id(2)),
        ("in a cycle", |nodes| nodes[0].place.parent = id(1)),
        ("bytes are live", |nodes| nodes[1].deleted = true),
    ];
    assert_eq!(check(head, sound.iter()), Vec::<String>::new());
    for (what, damage) in cases {
        let mut nodes = sound.clone();
        damage(&mut nodes);
        let told = check(head, nodes.iter());
        assert!(told.len() == 1 && told[0].contains(what), "{what}: {told:?}");
    }
}
