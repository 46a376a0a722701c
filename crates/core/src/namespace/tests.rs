#![allow(clippy::unwrap_used)]
//! The rules of a share, one by one, over records in memory.

use std::collections::BTreeMap;

use super::*;
use crate::content::ManifestId;
use crate::ids::{Cursor, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use crate::name::{Case, Name};
use crate::node::{Content, FileContent, Metadata, Node, Place};

const SERVER: ServerId = ServerId([1; 16]);

struct World {
    records: MemoryRecords,
    next: u8,
    epoch: crate::ids::Epoch,
}

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn place(parent: NodeId, name: &str) -> Place {
    Place { parent, name: Name::new(name.as_bytes()).unwrap() }
}

fn file(number: u8) -> Content {
    let manifest = ManifestId::from_bytes([number; 32]);
    Content::File(FileContent { manifest, size: 10, modified: Timestamp(i64::from(number)), link: None })
}

fn create(id: NodeId, at: Place, content: Content) -> Change {
    Change::Create { node: id, place: at, metadata: Metadata::default(), content, revives: None, conflict_of: None }
}

fn rename(id: NodeId, base: u64, to: Place) -> Change {
    Change::Move { node: id, place: Based { base: Version(base), value: to } }
}

fn edit(id: NodeId, base: u64, content: Content) -> Change {
    Change::Update { node: id, metadata: None, content: Some(Based { base: Version(base), value: content }) }
}

impl World {
    fn new(case: Case) -> Self {
        let mut records = MemoryRecords::new(Incarnation(7), case);
        (0..50).for_each(|number| records.add_content(ManifestId::from_bytes([number; 32])));
        let epoch = records.attach(SERVER);
        Self { records, next: 0, epoch }
    }

    fn operation(&mut self, group: Option<u32>, change: Change) -> Operation {
        self.next += 1;
        Operation { id: OperationId([self.next; 16]), group, change }
    }

    fn send(&mut self, operations: Vec<Operation>) -> Vec<Answer> {
        let batch = Batch { server: SERVER, epoch: self.epoch, incarnation: Incarnation(7), operations };
        let Ok(answers) = apply(&mut self.records, &batch);
        let Ok(share) = self.records.share();
        assert_eq!(check(share, self.records.nodes()), Vec::<String>::new());
        answers
    }

    fn one(&mut self, change: Change) -> Answer {
        let operation = self.operation(None, change);
        self.send(vec![operation]).remove(0)
    }

    fn node(&self, id: NodeId) -> Node {
        let Ok(node) = self.records.node(id);
        node.unwrap()
    }
}

#[test]
fn each_change_gets_the_next_version_and_moves_only_its_facet() {
    let mut world = World::new(Case::Sensitive);
    assert_eq!(world.one(create(node(1), place(NodeId::ROOT, "a"), file(1))), Answer::Applied(Version(1)));
    assert_eq!(world.one(edit(node(1), 1, file(2))), Answer::Applied(Version(2)));
    assert_eq!(world.one(rename(node(1), 1, place(NodeId::ROOT, "b"))), Answer::Applied(Version(3)));
    let versions = world.node(node(1)).versions;
    assert_eq!((versions.created.0, versions.place.0, versions.metadata.0, versions.content.0, versions.last.0), (1, 3, 1, 2, 3));
}

#[test]
fn case_22_rename_chmod_and_edit_on_old_bases_do_not_conflict() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "a"), file(1)));
    assert_eq!(world.one(edit(node(1), 1, file(2))), Answer::Applied(Version(2)));
    assert_eq!(world.one(rename(node(1), 1, place(NodeId::ROOT, "b"))), Answer::Applied(Version(3)));
    let metadata = Metadata { mode: 0o600, ..Metadata::default() };
    let chmod = Change::Update { node: node(1), metadata: Some(Based { base: Version(1), value: metadata }), content: None };
    assert_eq!(world.one(chmod), Answer::Applied(Version(4)));
    assert!(matches!(world.one(edit(node(1), 1, file(3))), Answer::Conflict(_)), "the content has moved on");
}

#[test]
fn equal_content_merges_whatever_its_base() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "a"), file(1)));
    world.one(edit(node(1), 1, file(2)));
    assert_eq!(world.one(edit(node(1), 1, file(2))), Answer::Applied(Version(2)));
}

#[test]
fn a_name_is_taken_once_and_folded_where_the_share_says_so() {
    for (case, taken) in [(Case::Sensitive, false), (Case::Insensitive, true)] {
        let mut world = World::new(case);
        world.one(create(node(1), place(NodeId::ROOT, "Plan.dwg"), file(1)));
        let answer = world.one(create(node(2), place(NodeId::ROOT, "PLAN.DWG"), file(2)));
        assert_eq!(matches!(&answer, Answer::Conflict(holder) if holder.id == node(1)), taken, "{answer:?}");
        // A node never collides with itself.
        assert!(matches!(world.one(rename(node(1), 1, place(NodeId::ROOT, "plan.DWG"))), Answer::Applied(_)) || !taken);
    }
}

#[test]
fn a_group_swaps_names_and_fails_as_a_whole() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "a"), file(1)));
    world.one(create(node(2), place(NodeId::ROOT, "b"), file(2)));
    let first = world.operation(Some(1), rename(node(1), 1, place(NodeId::ROOT, "b")));
    let second = world.operation(Some(1), rename(node(2), 2, place(NodeId::ROOT, "a")));
    assert_eq!(world.send(vec![first, second]), vec![Answer::Applied(Version(3)), Answer::Applied(Version(4))]);
    let first = world.operation(Some(2), edit(node(1), 1, file(5)));
    let second = world.operation(Some(2), edit(node(2), 1, file(6)));
    let answers = world.send(vec![first, second]);
    assert_eq!(answers[0], Answer::Skipped);
    assert!(matches!(answers[1], Answer::Conflict(_)));
    assert_eq!(world.node(node(1)).content, file(1));
}

#[test]
fn a_conflict_shows_the_share_as_it_is_not_as_the_group_would_have_left_it() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "b-s2"), file(1)));
    let copy = world.operation(Some(1), create(node(2), place(NodeId::ROOT, "b-s2"), file(2)));
    let update = world.operation(Some(1), edit(node(1), 1, file(3)));
    let answers = world.send(vec![copy, update]);
    let Answer::Conflict(current) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(**current, world.node(node(1)), "found by a seed: the holder of the name was updated in the same group");
    assert_eq!(world.node(node(1)).content, file(1));
}

#[test]
fn what_builds_on_a_failed_creation_is_skipped() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "a"), file(1)));
    let parent = world.operation(None, create(node(2), place(NodeId::ROOT, "a"), Content::Directory));
    let child = world.operation(None, create(node(3), place(node(2), "x"), file(3)));
    let grandchild = world.operation(None, create(node(4), place(node(3), "y"), file(3)));
    let other = world.operation(None, create(node(5), place(NodeId::ROOT, "z"), file(3)));
    let answers = world.send(vec![parent, child, grandchild, other]);
    assert!(matches!(answers[0], Answer::Conflict(_)));
    assert_eq!(answers[1..3], [Answer::Skipped, Answer::Skipped]);
    assert!(matches!(answers[3], Answer::Applied(_)));
}

#[test]
fn a_directory_goes_last_and_never_below_itself() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "d"), Content::Directory));
    world.one(create(node(2), place(node(1), "e"), Content::Directory));
    let delete = |id, version| Change::Delete { node: node(id), place: Version(version), content: Version(version) };
    assert_eq!(world.one(delete(1, 1)), Answer::Refused(Refusal::NotEmpty));
    assert_eq!(world.one(rename(node(1), 1, place(node(2), "f"))), Answer::Refused(Refusal::Cycle));
    assert_eq!(world.one(rename(node(1), 1, place(node(1), "f"))), Answer::Refused(Refusal::Cycle));
    assert!(matches!(world.one(delete(2, 2)), Answer::Applied(_)));
    assert!(matches!(world.one(delete(1, 1)), Answer::Applied(_)));
    assert_eq!(world.one(create(node(3), place(node(1), "x"), file(1))), Answer::Refused(Refusal::NoParent));
}

#[test]
fn a_delete_on_an_old_content_is_a_conflict_and_a_deleted_node_can_come_back() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "a"), file(1)));
    world.one(edit(node(1), 1, file(2)));
    let delete = |content| Change::Delete { node: node(1), place: Version(1), content: Version(content) };
    assert!(matches!(world.one(delete(1)), Answer::Conflict(_)));
    assert_eq!(world.one(delete(2)), Answer::Applied(Version(3)));
    let revive = |base| Change::Create {
        node: node(1),
        place: place(NodeId::ROOT, "a"),
        metadata: Metadata::default(),
        content: file(3),
        revives: base,
        conflict_of: None,
    };
    assert!(matches!(world.one(revive(None)), Answer::Conflict(_)));
    assert!(matches!(world.one(revive(Some(Version(2)))), Answer::Conflict(_)));
    assert_eq!(world.one(revive(Some(Version(3)))), Answer::Applied(Version(4)));
}

#[test]
fn case_21_the_same_operation_answers_the_same_and_an_id_means_one_change() {
    let mut world = World::new(Case::Sensitive);
    let operation = world.operation(None, create(node(1), place(NodeId::ROOT, "a"), file(1)));
    assert_eq!(world.send(vec![operation.clone()]), vec![Answer::Applied(Version(1))]);
    world.one(edit(node(1), 1, file(2)));
    assert_eq!(world.send(vec![operation.clone()]), vec![Answer::Applied(Version(1))]);
    assert_eq!(world.node(node(1)).content, file(2), "the late copy changed nothing");
    let other = Operation { change: edit(node(1), 2, file(4)), ..operation };
    assert_eq!(world.send(vec![other]), vec![Answer::Refused(Refusal::ReusedOperation)]);
    assert_eq!(world.node(node(1)).operation, OperationId([2; 16]), "a version names its operation");
}

#[test]
fn fenced_foreign_and_incomplete_batches_change_nothing() {
    let mut world = World::new(Case::Sensitive);
    let absent =
        Content::File(FileContent { manifest: ManifestId::from_bytes([99; 32]), size: 1, modified: Timestamp(0), link: None });
    assert!(matches!(world.one(create(node(1), place(NodeId::ROOT, "a"), absent)), Answer::Missing(_)));
    let operation = world.operation(None, create(node(1), place(NodeId::ROOT, "a"), file(1)));
    let mut batch = Batch { server: SERVER, epoch: world.epoch, incarnation: Incarnation(8), operations: vec![operation] };
    assert_eq!(apply(&mut world.records, &batch).unwrap(), vec![Answer::Refused(Refusal::Incarnation)]);
    batch.incarnation = Incarnation(7);
    world.records.attach(SERVER);
    assert_eq!(apply(&mut world.records, &batch).unwrap(), vec![Answer::Refused(Refusal::Fenced)]);
}

#[test]
fn a_full_quota_refuses_what_grows_and_allows_what_shrinks() {
    let mut world = World::new(Case::Sensitive);
    world.records.set_quota(Some(25));
    world.one(create(node(1), place(NodeId::ROOT, "a"), file(1)));
    world.one(create(node(2), place(NodeId::ROOT, "b"), file(2)));
    let third = world.operation(None, create(node(3), place(NodeId::ROOT, "c"), file(3)));
    let refused = Answer::Refused(Refusal::Quota { quota: 25, used: 20, more: 10 });
    assert_eq!(world.send(vec![third.clone()]), vec![refused.clone()]);
    assert!(matches!(world.one(edit(node(1), 1, file(4))), Answer::Applied(_)), "same size");
    world.records.set_quota(None);
    assert_eq!(world.send(vec![third]), vec![refused], "what was held up on its way changes nothing any more");
    assert!(matches!(world.one(create(node(3), place(NodeId::ROOT, "c"), file(3))), Answer::Applied(_)));
}

/// Reads the feed in pages of `limit` and checks what a reader may rely on.
fn follow(world: &World, limit: usize) -> BTreeMap<NodeId, Node> {
    let mut known = BTreeMap::new();
    let mut cursor = Cursor { incarnation: Incarnation(7), version: Version(0) };
    loop {
        let Ok(page) = page(&world.records, cursor, limit);
        assert!(!page.start_over);
        for node in page.nodes {
            known.insert(node.id, node);
        }
        for node in known.values().filter(|node: &&Node| node.is_live()) {
            assert!(node.place.parent == NodeId::ROOT || known.contains_key(&node.place.parent), "unknown parent of {node:?}");
        }
        assert!(page.cursor.version >= cursor.version);
        cursor = page.cursor;
        if page.at_head {
            return known;
        }
    }
}

#[test]
fn pages_are_closed_under_parents_even_when_parents_changed_later() {
    let mut world = World::new(Case::Sensitive);
    world.one(create(node(1), place(NodeId::ROOT, "d"), Content::Directory));
    world.one(create(node(2), place(node(1), "e"), Content::Directory));
    for number in 3..20 {
        world.one(create(node(number), place(node(2), &format!("f{number}")), file(number)));
    }
    world.one(rename(node(2), 2, place(NodeId::ROOT, "e")));
    world.one(rename(node(1), 1, place(node(2), "d")));
    for limit in [1, 2, 3, 7, 100] {
        let known = follow(&world, limit);
        assert_eq!(known, world.records.nodes().map(|node| (node.id, node.clone())).collect(), "limit {limit}");
    }
}

#[test]
fn a_cursor_of_another_life_starts_over() {
    let world = World::new(Case::Sensitive);
    let cursor = Cursor { incarnation: Incarnation(6), version: Version(0) };
    assert!(page(&world.records, cursor, 10).unwrap().start_over);
}

/// What a page leaves out because it has changed again stands behind the page, until that change is taken back.
#[test]
fn a_reader_in_the_middle_of_the_feed_of_a_share_that_is_put_back_starts_over() {
    let mut world = World::new(Case::Sensitive);
    for number in 1..=3 {
        world.one(create(node(number), place(NodeId::ROOT, &format!("f{number}")), file(number)));
    }
    let copy = world.records.clone();
    world.one(Change::Delete { node: node(1), place: Version(1), content: Version(1) });
    let Ok(first) = page(&world.records, Cursor { incarnation: Incarnation(7), version: Version(0) }, 1);
    assert_eq!((first.nodes[0].id, first.at_head, first.head), (node(2), false, Version(4)));
    world.records = copy;
    let reader = Reader { cursor: first.cursor, newest: first.head };
    assert!(page(&world.records, reader, 10).unwrap().start_over);
    world.records.begin_life(Incarnation(8));
    assert!(page(&world.records, reader, 10).unwrap().start_over, "also once its next life has begun");
}
