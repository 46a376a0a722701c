//! The catalog in SQLite answers what the catalog in memory answers, keeps all of a transaction or nothing, and refuses
//! files that it cannot believe.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use isotherm_agent::catalog::{Recorded, RecordedState, SqlCatalog};
use isotherm_agent::engine::{Catalog, MemoryCatalog, Sent};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Cursor, Incarnation, LinkId, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::Change;
use isotherm_core::node::{Content, FileContent, Metadata, Node, Place, Versions};
use isotherm_core::plan::Intent;
use isotherm_core::trees::{Handle, Local, LocalContent, Print, Record, Synced, Trees as _, TreesMut as _};

/// Random numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize].clone()
    }

    fn maybe(&mut self) -> bool {
        self.roll(2) == 0
    }
}

const NAMES: [&[u8]; 5] = [b"a", b"A", b"\xff\n", b"\x01", b"plan.dwg"];

fn node(number: u64) -> NodeId {
    match number {
        0 => NodeId::ROOT,
        1 => NodeId::PARKED,
        other => NodeId([other as u8; 16]),
    }
}

fn content(dice: &mut Dice) -> Content {
    match dice.roll(4) {
        0 => Content::Directory,
        1 => Content::Symlink { target: b"x".to_vec() },
        number => Content::File(FileContent {
            manifest: ManifestId::from_bytes([number as u8; 32]),
            size: number,
            modified: Timestamp(-1),
            link: dice.maybe().then(|| LinkId([dice.roll(3) as u8; 16])),
        }),
    }
}

fn place(dice: &mut Dice) -> Place {
    Place { parent: node(dice.roll(6)), name: Name::new(dice.one_of(&NAMES)).unwrap() }
}

fn record(dice: &mut Dice) -> Record {
    let mut record = Record::new(node(dice.roll(24)));
    if dice.maybe() {
        record.remote = Some(Node {
            id: record.node,
            place: place(dice),
            metadata: Metadata::default(),
            content: content(dice),
            versions: Versions { last: Version(dice.roll(9)), ..Versions::default() },
            deleted: dice.roll(4) == 0,
            conflict_of: None,
            author: ServerId([1; 16]),
            operation: OperationId([2; 16]),
        });
    }
    if dice.maybe() {
        let known = content(dice);
        record.local = Some(Local {
            place: place(dice),
            handle: Handle(vec![dice.roll(5) as u8; 12].into()),
            print: Print { size: dice.roll(9), ..Print::default() },
            metadata: Metadata::default(),
            raw: None,
            content: if dice.maybe() { LocalContent::Known(known) } else { LocalContent::Unread },
            lost: dice.roll(4) == 0,
        });
    }
    match (&record.local, dice.roll(3)) {
        (_, 0) => record.synced = Some(Synced { place: place(dice), metadata: Metadata::default(), content: content(dice) }),
        // Often exactly what is here, so that some records are settled.
        (Some(Local { place, metadata, content: LocalContent::Known(content), .. }), 1) => {
            record.synced = Some(Synced { place: place.clone(), metadata: metadata.clone(), content: content.clone() });
            if let Some(remote) = &mut record.remote {
                (remote.place, remote.content) = (place.clone(), content.clone());
            }
        }
        _ => {}
    }
    record
}

fn sent(dice: &mut Dice) -> Sent {
    let change = Change::Delete { node: node(dice.roll(9)), place: Version(1), content: Version(dice.roll(9)) };
    let intent = Intent { changes: vec![change], rebind: None };
    Sent { intent, ids: vec![OperationId([dice.roll(200) as u8; 16])], group: dice.roll(4) as u32 }
}

fn same(a: &impl Catalog, b: &impl Catalog, case: Case) {
    assert_eq!(a.nodes(None, usize::MAX), b.nodes(None, usize::MAX));
    assert_eq!((a.counts(), a.cursor(), a.sent()), (b.counts(), b.cursor(), b.sent()));
    assert_eq!(a.lost(3), b.lost(3));
    for after in [None, Some(NodeId::ROOT), Some(node(7))] {
        assert_eq!(a.unsettled(after, usize::MAX), b.unsettled(after, usize::MAX));
        assert_eq!(a.unsettled(after, 2), b.unsettled(after, 2));
        assert_eq!(a.nodes(after, 3), b.nodes(after, 3));
    }
    for parent in (0..8).map(node) {
        assert_eq!(a.local_children(parent, usize::MAX), b.local_children(parent, usize::MAX));
        assert_eq!(a.remote_children(parent, 2), b.remote_children(parent, 2));
        assert_eq!(a.local_names(parent), b.local_names(parent));
        assert_eq!(a.local_states(parent), b.local_states(parent));
        for name in NAMES.map(|name| Name::new(name).unwrap()) {
            assert_eq!(a.remote_at(parent, &name.key(case)), b.remote_at(parent, &name.key(case)));
            let place = Place { parent, name };
            assert_eq!(a.local_at(&place), b.local_at(&place));
        }
    }
    for number in 0..24 {
        assert_eq!(a.record(node(number)), b.record(node(number)));
        assert_eq!(a.by_handle(&Handle(vec![number as u8; 12].into())), b.by_handle(&Handle(vec![number as u8; 12].into())));
        assert_eq!(a.link_members(LinkId([number as u8; 16])), b.link_members(LinkId([number as u8; 16])));
        let key = format!("k{number}");
        assert_eq!(a.value(&key), b.value(&key));
    }
}

fn change(catalog: &mut impl Catalog, seed: u64) {
    let mut dice = Dice(seed);
    for _ in 0..40 {
        catalog.put(record(&mut dice));
    }
    let cursor = Cursor { incarnation: Incarnation(seed), version: Version(dice.roll(99)) };
    catalog.set_cursor(dice.maybe().then_some(cursor));
    let operations: Vec<Sent> = (0..dice.roll(4)).map(|_| sent(&mut dice)).collect();
    catalog.set_sent(&operations);
    for _ in 0..8 {
        catalog.set_tiered(node(dice.roll(24)), dice.maybe());
    }
    let key = format!("k{}", dice.roll(4));
    let value = dice.maybe().then(|| vec![dice.roll(9) as u8]);
    catalog.set_value(&key, value.as_deref());
}

#[test]
fn sqlite_answers_what_memory_answers() {
    for case in [Case::Sensitive, Case::Insensitive] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog");
        let mut memory = MemoryCatalog::new(case);
        let mut sqlite = SqlCatalog::open(&path, case).unwrap();
        for seed in 1..60 {
            change(&mut memory, seed);
            change(&mut sqlite, seed);
            same(&sqlite, &memory, case);
            same_tiered(&sqlite, &memory);
            if seed % 3 == 0 {
                memory.commit().unwrap();
                sqlite.commit().unwrap();
            } else if seed % 7 == 0 {
                // Whatever was not committed is gone after a crash.
                memory.crash();
                drop(sqlite);
                sqlite = SqlCatalog::open(&path, case).unwrap();
                same(&sqlite, &memory, case);
                same_tiered(&sqlite, &memory);
            }
        }
    }
}

/// Whose content is away: the numbers while all is open, and, once it is committed, what a reader sees.
fn same_tiered(sqlite: &SqlCatalog, memory: &MemoryCatalog) {
    let nodes: Vec<NodeId> = memory.tiered().collect();
    let bytes = nodes.iter().map(|node| memory.record(*node).unwrap().local.unwrap().print.size).sum();
    assert_eq!((sqlite.sizes().tiered_files, sqlite.sizes().tiered_bytes), (nodes.len() as u64, bytes));
}

#[test]
fn a_catalog_of_an_earlier_format_is_brought_forward() {
    for format in ["catalog-1", "catalog-2", "catalog-3"] {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format).join("catalog");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog");
        std::fs::copy(kept, &path).unwrap();
        for _ in 0..2 {
            let catalog = SqlCatalog::open(&path, Case::Sensitive).unwrap();
            let states = catalog.local_states(NodeId::ROOT);
            let names: Vec<Vec<u8>> = states.keys().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(names, [b"one.txt".to_vec(), b"sub".to_vec()], "{format}");
            let one = Name::new(b"one.txt").unwrap();
            let node = catalog.local_at(&Place { parent: NodeId::ROOT, name: one.clone() }).unwrap();
            let local = catalog.record(node).unwrap().local.unwrap();
            assert!(catalog.by_handle(&local.handle).contains(&node), "{format}");
            assert_eq!(states[&one], (local.handle, local.print), "{format}");
        }
    }
}

#[test]
fn a_reader_sees_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = SqlCatalog::open(&folder.path().join("catalog"), Case::Sensitive).unwrap();
    let reader = catalog.reader().unwrap();
    let mut dice = Dice(5);
    let mut record = Record::new(node(9));
    let name = Name::new(b"plan.dwg").unwrap();
    let here = Local {
        place: Place { parent: NodeId::ROOT, name: name.clone() },
        handle: Handle(vec![7; 12].into()),
        print: Print { size: 5, ..Print::default() },
        metadata: Metadata::default(),
        raw: None,
        content: LocalContent::Known(content(&mut dice)),
        lost: false,
    };
    record.local = Some(here.clone());
    catalog.put(record.clone());
    assert_eq!(reader.names(NodeId::ROOT), BTreeMap::new());
    catalog.commit().unwrap();
    for is_tiered in [false, true] {
        catalog.set_tiered(node(9), is_tiered);
        catalog.commit().unwrap();
        let state = RecordedState { handle: here.handle.clone(), print: here.print, is_tiered };
        assert_eq!(reader.name(NodeId::ROOT, &name), Some(state.clone()));
        assert_eq!(reader.names(NodeId::ROOT), BTreeMap::from([(name.clone(), state)]));
    }
    assert_eq!(reader.child(NodeId::ROOT, &name, Case::Sensitive), Some(record.clone()));
    assert_eq!(reader.by_handle(&here.handle), vec![record]);
}

fn refusal(path: &Path, case: Case) -> String {
    SqlCatalog::open(path, case).unwrap_err().to_string()
}

#[test]
fn foreign_and_damaged_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let mut catalog = SqlCatalog::open(&path, Case::Sensitive).unwrap();
    for seed in 1..200 {
        change(&mut catalog, seed);
    }
    catalog.commit().unwrap();
    drop(catalog);
    assert!(refusal(&path, Case::Insensitive).contains("names compare otherwise"));

    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 9).unwrap();
    assert!(refusal(&path, Case::Sensitive).contains("has format 9, this release knows format 4"));
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);

    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let text = refusal(&path, Case::Sensitive);
    assert!(text.contains("is damaged") && text.contains("Remove the file") && text.contains(path.to_str().unwrap()), "{text}");

    std::fs::write(&path, "no database at all").unwrap();
    let text = refusal(&path, Case::Sensitive);
    assert!(text.contains(path.to_str().unwrap()), "{text}");
}

#[test]
fn a_failure_is_told_once_and_takes_its_transaction_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let mut catalog = SqlCatalog::open(&path, Case::Sensitive).unwrap();
    change(&mut catalog, 1);
    catalog.commit().unwrap();
    let mut memory = MemoryCatalog::new(Case::Sensitive);
    change(&mut memory, 1);
    // An entry that cannot be decoded, as after damage that no check sum noticed.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let victim = catalog.nodes(None, 1)[0];
    connection.execute("UPDATE node SET record = x'09' WHERE id = ?1", [&victim.0[..]]).unwrap();
    catalog.set_value("k1", Some(b"new"));
    assert_eq!(catalog.record(victim), None);
    change(&mut catalog, 2);
    let failure = catalog.commit().unwrap_err();
    assert!(failure.text.contains("is damaged: an entry has format 9"), "{failure}");
    assert_eq!((catalog.value("k1"), catalog.counts()), (memory.value("k1"), memory.counts()));
    change(&mut catalog, 3);
    catalog.commit().unwrap();
    // One flipped bit in the middle of a value, which the database itself would not notice.
    let victim = catalog.nodes(None, usize::MAX).pop().unwrap();
    let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
    let mut blob = connection.query_row("SELECT record FROM node WHERE id = ?1", [&victim.0[..]], read).unwrap();
    let middle = blob.len() / 2;
    blob[middle] ^= 0x10;
    connection.execute("UPDATE node SET record = ?2 WHERE id = ?1", rusqlite::params![&victim.0[..], blob]).unwrap();
    assert_eq!(catalog.record(victim), None);
    let failure = catalog.commit().unwrap_err();
    assert!(failure.text.contains("bits of it have changed"), "{failure}");
}

#[test]
fn names_of_accounts_outlive_a_run() {
    use isotherm_gate::Account::{Group, User};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let catalog = SqlCatalog::open(&path, Case::Sensitive).unwrap();
    assert_eq!(catalog.last_names(), std::collections::BTreeMap::new());
    let name = |text: &str| text.to_owned();
    SqlCatalog::keep_names_beside(&path, &[(User(5001), name("alice")), (Group(7), name("staff"))]).unwrap();
    SqlCatalog::keep_names_beside(&path, &[(User(5001), name("DOMAIN\\alice"))]).unwrap();
    drop(catalog);
    let catalog = SqlCatalog::open(&path, Case::Sensitive).unwrap();
    assert_eq!(catalog.last_names(), [(User(5001), name("DOMAIN\\alice")), (Group(7), name("staff"))].into());
}
