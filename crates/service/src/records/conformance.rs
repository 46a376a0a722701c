#![allow(clippy::unwrap_used)]
//! One suite over core's records in memory and the records on SQLite: the same random batches, the same everything.
//!
//! It does not judge the rules; core's tests do. A new place for records is right when it passes here.
//!
//! **Invariant:** one seed is one run.

mod aging;

use std::collections::BTreeSet;

use isotherm_api::management::NewGroup;
use isotherm_api::sync::Attach;
use isotherm_core::content::{ChunkId, Form, Manifest, ManifestId, PackEntry, PackId, Part};
use isotherm_core::ids::{Cursor, Epoch, GroupId, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{Answer, Based, Batch, Change, MemoryRecords, Operation, Records, apply, check, page};
use isotherm_core::node::{Content, FileContent, Metadata, Node, Place};
use rusqlite::Connection;

use super::{PackRow, SqlRecords, attach, create_group, index_pack, put_manifest, schema};

const GROUP: GroupId = GroupId([3; 16]);
const SERVER: ServerId = ServerId([1; 16]);
const LIFE: Incarnation = Incarnation(u64::MAX - 7);
const NAMES: [&str; 6] = ["a", "b", "A", "ä", "Ä", "c"];
const NODES: u64 = 12;
const MANIFESTS: u64 = 5;

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

struct World {
    dice: Dice,
    memory: MemoryRecords,
    sql: Connection,
    operations: u64,
    sent: Vec<Operation>,
    manifests: Vec<ManifestId>,
    _folder: tempfile::TempDir,
}

fn chunk_of(number: u64) -> ChunkId {
    ChunkId::of(&number.to_le_bytes())
}

impl World {
    fn new(seed: u64, case: Case) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sql = schema::open(&folder.path().join("records.sqlite")).unwrap();
        // What this suite asks for is not durability.
        sql.pragma_update(None, "synchronous", "OFF").unwrap();
        let new = NewGroup {
            name: "g".into(),
            case,
            quota: None,
            exclusions: Vec::new(),
            max_delete_fraction: None,
            keep: isotherm_api::management::KeepChange::default(),
        };
        create_group(&sql, GROUP, LIFE, &new, 1).unwrap();
        let who = Attach { name: "munich".into(), server: Some(SERVER) };
        attach(&sql, &who, SERVER, 1).unwrap();
        let mut memory = MemoryRecords::new(LIFE, case);
        assert_eq!(memory.attach(SERVER), Epoch(1));
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            memory,
            sql,
            operations: 0,
            sent: Vec::new(),
            manifests: Vec::new(),
            _folder: folder,
        };
        world.add_contents();
        world
    }

    /// Some contents that both have, and one that neither has.
    fn add_contents(&mut self) {
        let entries: Vec<PackEntry> = (0..MANIFESTS)
            .map(|number| PackEntry { chunk: chunk_of(number), offset: 8, stored_len: 8, raw_len: 8, form: Form::Raw })
            .collect();
        index_pack(&self.sql, PackRow { id: PackId::from_bytes([9; 32]), len: 100 }, &entries, 1).unwrap();
        for number in 0..MANIFESTS {
            let encoded = Manifest::new(vec![Part::Data { chunk: chunk_of(number), len: 8 }]).unwrap().encode();
            put_manifest(&self.sql, encoded.id, &encoded.bytes, None, 1).unwrap();
            self.memory.add_content(encoded.id);
            self.manifests.push(encoded.id);
        }
        self.manifests.push(ManifestId::from_bytes([0xee; 32]));
    }

    fn some_node(&mut self) -> NodeId {
        NodeId([1 + self.dice.roll(NODES) as u8; 16])
    }

    fn some_place(&mut self) -> Place {
        let parent = if self.dice.roll(2) == 0 { NodeId::ROOT } else { self.some_node() };
        let name = NAMES[self.dice.roll(NAMES.len() as u64) as usize];
        Place { parent, name: Name::new(name.as_bytes()).unwrap() }
    }

    fn some_content(&mut self) -> Content {
        match self.dice.roll(8) {
            0..=3 => {
                let manifest = self.manifests[self.dice.roll(MANIFESTS + 1) as usize];
                let modified = Timestamp(self.dice.roll(3) as i64 - 1);
                Content::File(FileContent { manifest, size: self.dice.roll(30), modified, link: None })
            }
            4..=6 => Content::Directory,
            _ => Content::Symlink { target: b"x".to_vec() },
        }
    }

    fn some_metadata(&mut self) -> Metadata {
        Metadata { mode: self.dice.roll(3) as u32, ..Metadata::default() }
    }

    /// Mostly the right base, sometimes an old one.
    fn base(&mut self, right: Version) -> Version {
        if self.dice.roll(8) == 0 { Version(self.dice.roll(right.0 + 2)) } else { right }
    }

    fn some_change(&mut self) -> Change {
        let id = self.some_node();
        let node = self.memory.node(id).unwrap();
        let versions = node.as_ref().map(|node| node.versions).unwrap_or_default();
        match self.dice.roll(10) {
            _ if node.is_none() => self.create(id, None),
            0 => self.create(id, None),
            1..=7 if node.as_ref().is_some_and(|node| node.deleted) => {
                let base = self.base(versions.last);
                self.create(id, Some(base))
            }
            1..=4 => {
                let metadata =
                    (self.dice.roll(2) == 0).then(|| Based { base: self.base(versions.metadata), value: self.some_metadata() });
                let content =
                    (self.dice.roll(3) > 0).then(|| Based { base: self.base(versions.content), value: self.some_content() });
                Change::Update { node: id, metadata, content }
            }
            5..=7 => {
                let place = Based { base: self.base(versions.place), value: self.some_place() };
                Change::Move { node: id, place }
            }
            _ => Change::Delete { node: id, place: self.base(versions.place), content: self.base(versions.content) },
        }
    }

    fn create(&mut self, node: NodeId, revives: Option<Version>) -> Change {
        let (place, metadata, content) = (self.some_place(), self.some_metadata(), self.some_content());
        let conflict_of = (self.dice.roll(6) == 0).then(|| self.some_node());
        Change::Create { node, place, metadata, content, revives, conflict_of }
    }

    /// Two nodes that exchange their names, all or nothing.
    fn swap(&mut self, group: u32) -> Vec<Operation> {
        let (a, b) = (self.some_node(), self.some_node());
        let (Some(first), Some(second)) = (self.memory.node(a).unwrap(), self.memory.node(b).unwrap()) else {
            return Vec::new();
        };
        let to = |from: &Node, place: &Place| Change::Move {
            node: from.id,
            place: Based { base: from.versions.place, value: place.clone() },
        };
        let changes = [to(&first, &second.place), to(&second, &first.place)];
        changes.into_iter().map(|change| self.operation(Some(group), change)).collect()
    }

    fn operation(&mut self, group: Option<u32>, change: Change) -> Operation {
        self.operations += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.operations.to_le_bytes());
        Operation { id: OperationId(id), group, change }
    }

    fn some_batch(&mut self) -> Batch {
        let mut operations = Vec::new();
        for number in 0..1 + self.dice.roll(6) {
            match self.dice.roll(8) {
                0 if !self.sent.is_empty() => {
                    let at = self.dice.roll(self.sent.len() as u64) as usize;
                    operations.push(self.sent[at].clone());
                }
                1 => operations.extend(self.swap(number as u32)),
                2 => {
                    for _ in 0..3 {
                        let change = self.some_change();
                        operations.push(self.operation(Some(number as u32), change));
                    }
                }
                _ => {
                    let change = self.some_change();
                    operations.push(self.operation(None, change));
                }
            }
        }
        self.sent.extend(operations.iter().cloned());
        let epoch = Epoch(u64::from(self.dice.roll(20) > 0));
        let incarnation = if self.dice.roll(20) == 0 { Incarnation(5) } else { LIFE };
        Batch { server: SERVER, epoch, incarnation, operations }
    }

    fn step(&mut self, now_ms: u64) {
        if self.dice.roll(10) == 0 {
            let quota = (self.dice.roll(2) == 0).then(|| 20 + self.dice.roll(100));
            self.memory.set_quota(quota);
            self.sql.execute("UPDATE share SET quota = ?1", [quota.map(|bytes| bytes as i64)]).unwrap();
        }
        let batch = self.some_batch();
        let expected = apply(&mut self.memory, &batch).unwrap();
        let transaction = self.sql.unchecked_transaction().unwrap();
        let mut records = SqlRecords::open(&transaction, GROUP, now_ms).unwrap();
        let answers: Vec<Answer> = apply(&mut records, &batch).unwrap();
        records.flush().unwrap();
        transaction.commit().unwrap();
        assert_eq!(answers, expected, "{batch:?}");
        self.compare();
    }

    fn compare(&mut self) {
        let records = SqlRecords::open(&self.sql, GROUP, 2).unwrap();
        let share = records.share().unwrap();
        let Ok(wanted) = self.memory.share();
        assert_eq!(share, wanted);
        let all: Vec<Node> = self.memory.nodes().cloned().collect();
        assert_eq!(check(share, all.iter()), Vec::<String>::new());
        for number in 0..=NODES {
            let id = NodeId([number as u8; 16]);
            let Ok(node) = self.memory.node(id);
            assert_eq!(records.node(id).unwrap(), node);
            let Ok(history) = self.memory.history(id, 100);
            assert_eq!(records.history(id, 100).unwrap(), history);
            assert_eq!(records.history(id, 1).unwrap(), history[..history.len().min(1)]);
            let Ok(children) = self.memory.children(id, 100);
            let set = |ids: Vec<NodeId>| ids.into_iter().collect::<BTreeSet<_>>();
            assert_eq!(set(records.children(id, 100).unwrap()), set(children));
            for name in NAMES {
                let key = Name::new(name.as_bytes()).unwrap().key(share.case);
                let Ok(child) = self.memory.child(id, &key);
                assert_eq!(records.child(id, &key).unwrap(), child);
            }
        }
        for limit in [1, 3, 100] {
            let version = Version(self.dice.roll(share.head.0 + 2));
            let cursor = Cursor { incarnation: LIFE, version };
            let Ok(wanted) = page(&self.memory, cursor, limit);
            assert_eq!(page(&records, cursor, limit).unwrap(), wanted);
        }
    }
}

#[test]
fn sqlite_is_what_memory_is() {
    for seed in 1..=12 {
        for case in [Case::Sensitive, Case::Insensitive] {
            let mut world = World::new(seed, case);
            for _ in 0..80 {
                world.step(2);
            }
            let head = world.memory.share().unwrap().head;
            assert!(head > Version(20), "seed {seed} did something, and came to {head}");
        }
    }
}

#[test]
fn content_is_missing_while_any_chunk_is_absent_or_condemned() {
    let world = World::new(1, Case::Sensitive);
    let records = SqlRecords::open(&world.sql, GROUP, 1).unwrap();
    let chunks = [chunk_of(0), chunk_of(1), chunk_of(99)];
    let parts = chunks.map(|chunk| Part::Data { chunk, len: 8 });
    let encoded = Manifest::new(parts.to_vec()).unwrap().encode();
    let own = ChunkId::from_bytes(*encoded.id.as_bytes());
    assert_eq!(records.missing(encoded.id).unwrap(), [own], "the manifest itself");
    put_manifest(&world.sql, encoded.id, &encoded.bytes, None, 1).unwrap();
    assert_eq!(records.missing(encoded.id).unwrap(), [chunk_of(99)]);
    let entry = PackEntry { chunk: chunk_of(99), offset: 8, stored_len: 8, raw_len: 8, form: Form::Raw };
    index_pack(&world.sql, PackRow { id: PackId::from_bytes([8; 32]), len: 50 }, &[entry], 1).unwrap();
    assert_eq!(records.missing(encoded.id).unwrap(), []);
    // What was found complete is looked at again after anything was condemned.
    let condemn = "UPDATE chunk SET condemned = 1 WHERE id = ?1";
    world.sql.execute(condemn, [chunk_of(1).as_bytes()]).unwrap();
    world.sql.execute("UPDATE meta SET value = value + 1 WHERE key = 'condemnations'", []).unwrap();
    assert_eq!(records.missing(encoded.id).unwrap(), [chunk_of(1)]);
    assert_eq!(super::present(&world.sql, &chunks, 1, super::Ages::default()).unwrap().0, [true, false, true]);
    assert_eq!(super::pin(&world.sql, &chunks, 1).unwrap(), [true, false, true]);
    // Uploaded again, in another pack, it is as good as new.
    let again = PackEntry { chunk: chunk_of(1), ..entry };
    index_pack(&world.sql, PackRow { id: PackId::from_bytes([7; 32]), len: 50 }, &[again], 1).unwrap();
    assert_eq!(records.missing(encoded.id).unwrap(), []);
    let location = super::chunk_location(&world.sql, chunk_of(1)).unwrap().unwrap();
    assert_eq!(location.pack, PackId::from_bytes([7; 32]));
}
