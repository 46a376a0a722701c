//! The catalog of an endpoint in SQLite: the engine's three trees and the few facts beside them. And, in files of their own for each
//! guarded volume, what is known of uses (`heat`), what happened to contents (`history`), and which contents are equal (`shares`).
//!
//! It decides nothing and derives nothing but indexes. **Invariants:** everything since the last commit is one
//! transaction; after a failure nothing is written before that transaction was rolled back, and whoever commits is told.

mod accounts;
mod beside;
mod heat;
mod history;
mod put;
mod reader;
mod row;
mod schema;
mod shares;
mod states;

pub(crate) use heat::HeatStore;
pub(crate) use history::HistoryStore;
pub use history::{Happening, What};
pub use reader::{CatalogReader, Recorded};
pub(crate) use shares::{ShareStore, SharedFile};
pub use states::RecordedState;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isotherm_core::ids::{Cursor, LinkId, NodeId};
use isotherm_core::name::{Case, Name};
use isotherm_core::node::Place;
use isotherm_core::trees::{Handle, Print, Record, Trees};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};

use crate::engine::{Catalog, CatalogFailure, Counts, Sent};
use row::{DELETED_HERE, DELETED_THERE, DIRECTORY, FILE, SETTLED, handle_key};

/// What an endpoint holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Files and symlinks.
    pub files: u64,
    /// Directories, the root not counted.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files whose content is away.
    pub tiered_files: u64,
    /// Their bytes.
    pub tiered_bytes: u64,
}

/// Numbers that are kept while rows change, because counting rows would take too long.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    counts: Counts,
    sizes: Sizes,
}

/// What rows add to the tally.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    rows: u64,
    state: i64,
    kind: Option<i64>,
    size: u64,
    up: u64,
    down: u64,
    owed: u64,
    tiered: bool,
}

/// The catalog in its file.
#[derive(Debug)]
pub struct SqlCatalog {
    path: PathBuf,
    case: Case,
    connection: Connection,
    /// The first failure since the last commit.
    failed: RefCell<Option<CatalogFailure>>,
    in_transaction: bool,
    /// As of now, and as of the last commit.
    tally: Tally,
    committed: Tally,
}

impl SqlCatalog {
    /// Opens the catalog in the file `path`, which is made where there is none.
    ///
    /// # Errors
    /// The file is damaged, of another format, or cannot be used; the failure names it and the remedy.
    pub fn open(path: &Path, case: Case) -> Result<Self, CatalogFailure> {
        let connection = schema::open(path, case)?;
        let tally = count(&connection).map_err(|error| schema::failure(path, &error))?;
        let failed = RefCell::new(None);
        Ok(Self { path: path.to_owned(), case, connection, failed, in_transaction: false, tally, committed: tally })
    }

    /// A view of what was committed, for another thread.
    ///
    /// # Errors
    /// The file cannot be opened once more.
    pub fn reader(&self) -> Result<CatalogReader, CatalogFailure> {
        CatalogReader::open(&self.path)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is here now.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.tally.sizes
    }

    /// Keeps a small value durably, beside an engine that owns the catalog. Not while a transaction of it is open.
    ///
    /// # Errors
    /// The value was not kept.
    pub fn set_value_beside(path: &Path, key: &str, value: &[u8]) -> Result<(), CatalogFailure> {
        let sql = "INSERT INTO fact (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
        let kept = schema::open_beside(path).and_then(|connection| connection.execute(sql, params![value_key(key), value]));
        kept.map(|_| ()).map_err(|error| schema::failure(path, &error))
    }

    fn remember(&self, failure: CatalogFailure) {
        self.failed.borrow_mut().get_or_insert(failure);
    }

    /// The answer, or nothing and a remembered failure.
    fn attempt<T: Default>(&self, answer: rusqlite::Result<T>) -> T {
        answer.unwrap_or_else(|error| {
            self.remember(schema::failure(&self.path, &error));
            T::default()
        })
    }

    fn decoded<T: serde::de::DeserializeOwned>(&self, blob: &[u8]) -> Option<T> {
        row::decode(blob).map_err(|why| self.remember(schema::damaged(&self.path, &why))).ok()
    }

    fn one<T>(&self, sql: &str, values: impl Params, read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>) -> Option<T> {
        let answer = self.connection.prepare_cached(sql).and_then(|mut query| query.query_row(values, read).optional());
        self.attempt(answer)
    }

    fn many<T>(&self, sql: &str, values: impl Params, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let all = |mut query: rusqlite::CachedStatement<'_>| query.query_map(values, read)?.collect();
        self.attempt(self.connection.prepare_cached(sql).and_then(all))
    }

    fn nodes_of(&self, sql: &str, values: impl Params) -> Vec<NodeId> {
        self.many(sql, values, node_id)
    }

    /// Changes something, in the transaction that is open or begins now.
    fn change(&mut self, sql: &str, values: impl Params) {
        self.begin();
        if self.failed.get_mut().is_none() && self.in_transaction {
            self.attempt(self.connection.prepare_cached(sql).and_then(|mut query| query.execute(values)));
        }
    }

    fn recount(&mut self, node: NodeId, before: Option<Weight>, after: Option<Weight>) {
        if node.is_anchor() {
            return;
        }
        if let Some(weight) = before {
            self.tally.change(weight, |total, by| total.saturating_sub(by));
        }
        if let Some(weight) = after {
            self.tally.change(weight, u64::saturating_add);
        }
    }

    fn fact(&self, key: &str) -> Option<Vec<u8>> {
        self.one("SELECT value FROM fact WHERE key = ?1", [key], |row| row.get(0))
    }

    fn set_fact(&mut self, key: &str, value: Option<&[u8]>) {
        match value {
            Some(value) => {
                self.change(
                    "INSERT INTO fact (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
                    params![key, value],
                );
            }
            None => self.change("DELETE FROM fact WHERE key = ?1", [key]),
        }
    }
}

fn node_id(row: &Row<'_>) -> rusqlite::Result<NodeId> {
    row.get(0).map(NodeId)
}

impl Weight {
    /// Of the columns: state, kind, number of rows, the sums of their sizes and of what has to travel, and whether content is away.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let sum = |at| row.get::<_, f64>(at).map(|sum| sum as u64);
        let rows = row.get::<_, i64>(2)?.unsigned_abs();
        let (size, up, down, owed) = (sum(3)?, sum(4)?, sum(5)?, sum(6)?);
        Ok(Self { rows, state: row.get(0)?, kind: row.get(1)?, size, up, down, owed, tiered: row.get(7)? })
    }
}

impl Tally {
    fn change(&mut self, weight: Weight, by: impl Fn(u64, u64) -> u64) {
        let Weight { rows, state, kind, size, up, down, owed, tiered } = weight;
        let (counts, sizes) = (&mut self.counts, &mut self.sizes);
        counts.nodes = by(counts.nodes, rows);
        counts.owed = by(counts.owed, owed);
        counts.up_bytes = by(counts.up_bytes, up);
        counts.down_bytes = by(counts.down_bytes, down);
        if state != SETTLED {
            counts.unsettled = by(counts.unsettled, rows);
        }
        match state {
            DELETED_HERE => counts.deleted_here = by(counts.deleted_here, rows),
            DELETED_THERE => counts.deleted_there = by(counts.deleted_there, rows),
            _ => {}
        }
        match kind {
            Some(DIRECTORY) => sizes.directories = by(sizes.directories, rows),
            Some(_) => sizes.files = by(sizes.files, rows),
            None => {}
        }
        if kind == Some(FILE) {
            sizes.bytes = by(sizes.bytes, size);
        }
        if tiered {
            sizes.tiered_files = by(sizes.tiered_files, rows);
            sizes.tiered_bytes = by(sizes.tiered_bytes, size);
        }
    }
}

fn count(connection: &Connection) -> rusqlite::Result<Tally> {
    let mut tally = Tally::default();
    let sql = "SELECT state, kind, count(*), total(size), total(up), total(down), total(owed), tiered FROM node
        WHERE id NOT IN (?1, ?2) GROUP BY state, kind, tiered";
    let mut query = connection.prepare(sql)?;
    let mut rows = query.query([&NodeId::ROOT.0[..], &NodeId::PARKED.0[..]])?;
    while let Some(row) = rows.next()? {
        tally.change(Weight::read(row)?, u64::saturating_add);
    }
    Ok(tally)
}

fn value_key(key: &str) -> String {
    format!("value:{key}")
}

/// SQLite counts in signed numbers.
fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl Trees for SqlCatalog {
    fn record(&self, node: NodeId) -> Option<Record> {
        let blob: Vec<u8> = self.one("SELECT record FROM node WHERE id = ?1", [&node.0[..]], |row| row.get(0))?;
        self.decoded(&blob)
    }

    fn local_at(&self, place: &Place) -> Option<NodeId> {
        let sql = "SELECT id FROM node WHERE local_parent = ?1 AND local_name = ?2 AND local_lost = 0 ORDER BY id LIMIT 1";
        self.one(sql, [&place.parent.0[..], place.name.as_bytes()], node_id)
    }

    fn remote_at(&self, parent: NodeId, key: &[u8]) -> Option<NodeId> {
        let sql = "SELECT id FROM node WHERE remote_parent = ?1 AND remote_key = ?2 ORDER BY id LIMIT 1";
        self.one(sql, [&parent.0[..], key], node_id)
    }

    fn by_handle(&self, handle: &Handle) -> Vec<NodeId> {
        self.nodes_of("SELECT id FROM node WHERE handle = ?1 ORDER BY id", [handle_key(handle)])
    }

    fn local_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId> {
        let sql = "SELECT id FROM node WHERE local_parent = ?1 ORDER BY local_name, id LIMIT ?2";
        self.nodes_of(sql, params![&parent.0[..], bounded(limit)])
    }

    fn remote_children(&self, parent: NodeId, limit: usize) -> Vec<NodeId> {
        let sql = "SELECT id FROM node WHERE remote_parent = ?1 ORDER BY remote_key, id LIMIT ?2";
        self.nodes_of(sql, params![&parent.0[..], bounded(limit)])
    }

    fn link_members(&self, link: LinkId) -> Vec<NodeId> {
        self.nodes_of("SELECT id FROM node WHERE link = ?1 ORDER BY id", [&link.0[..]])
    }

    fn local_names(&self, parent: NodeId) -> Vec<(Name, NodeId)> {
        let sql = "SELECT id, local_name FROM node WHERE local_parent = ?1 AND local_lost = 0 ORDER BY local_name, id";
        let rows = self.many(sql, [&parent.0[..]], |row| Ok((row.get::<_, Vec<u8>>(1)?, node_id(row)?)));
        let named = rows.into_iter().filter_map(|(name, node)| match Name::new(&name) {
            Ok(name) => Some((name, node)),
            Err(error) => {
                self.remember(schema::damaged(&self.path, &error.to_string()));
                None
            }
        });
        named.collect()
    }

    fn local_states(&self, parent: NodeId) -> BTreeMap<Name, (Handle, Print)> {
        let states = states::of_children(&self.connection, parent);
        self.attempt(states).into_iter().map(|(name, state)| (name, (state.handle, state.print))).collect()
    }
}

impl Catalog for SqlCatalog {
    fn unsettled(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId> {
        let first = "SELECT id FROM node INDEXED BY node_unsettled WHERE state <> 0 ORDER BY id LIMIT ?1";
        let next = "SELECT id FROM node INDEXED BY node_unsettled WHERE state <> 0 AND id > ?1 ORDER BY id LIMIT ?2";
        match after {
            None => self.nodes_of(first, [bounded(limit)]),
            Some(after) => self.nodes_of(next, params![&after.0[..], bounded(limit)]),
        }
    }

    fn nodes(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId> {
        match after {
            None => self.nodes_of("SELECT id FROM node ORDER BY id LIMIT ?1", [bounded(limit)]),
            Some(after) => {
                let sql = "SELECT id FROM node WHERE id > ?1 ORDER BY id LIMIT ?2";
                self.nodes_of(sql, params![&after.0[..], bounded(limit)])
            }
        }
    }

    fn lost(&self, limit: usize) -> Vec<NodeId> {
        let sql = "SELECT id FROM node INDEXED BY node_lost WHERE local_lost <> 0 ORDER BY id LIMIT ?1";
        self.nodes_of(sql, [bounded(limit)])
    }

    fn counts(&self) -> Counts {
        self.tally.counts
    }

    fn set_tiered(&mut self, node: NodeId, is_tiered: bool) {
        if node.is_anchor() {
            return;
        }
        let sql = "SELECT tiered, size FROM node WHERE id = ?1 AND handle IS NOT NULL";
        let found = self.one(sql, [&node.0[..]], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, Option<i64>>(1)?)));
        let Some((before, size)) = found.filter(|(before, _)| *before != is_tiered) else { return };
        self.change("UPDATE node SET tiered = ?2 WHERE id = ?1", params![&node.0[..], is_tiered]);
        let size = size.unwrap_or(0).unsigned_abs();
        let sizes = &mut self.tally.sizes;
        let by = |total: u64, by| if before { total.saturating_sub(by) } else { total.saturating_add(by) };
        sizes.tiered_files = by(sizes.tiered_files, 1);
        sizes.tiered_bytes = by(sizes.tiered_bytes, size);
    }

    fn cursor(&self) -> Option<Cursor> {
        self.decoded(&self.fact("cursor")?)
    }

    fn set_cursor(&mut self, cursor: Option<Cursor>) {
        self.set_fact("cursor", cursor.map(|cursor| row::encode(&cursor)).as_deref());
    }

    fn sent(&self) -> Vec<Sent> {
        let blobs = self.many("SELECT operations FROM sent ORDER BY number", [], |row| row.get::<_, Vec<u8>>(0));
        blobs.iter().filter_map(|blob| self.decoded(blob)).collect()
    }

    fn set_sent(&mut self, sent: &[Sent]) {
        self.change("DELETE FROM sent", []);
        for one in sent {
            self.change("INSERT INTO sent (operations) VALUES (?1)", [row::encode(one)]);
        }
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.fact(&value_key(key))
    }

    fn set_value(&mut self, key: &str, value: Option<&[u8]>) {
        self.set_fact(&value_key(key), value);
    }

    fn begin(&mut self) {
        if self.failed.get_mut().is_none() && !self.in_transaction {
            self.in_transaction = self.attempt(self.connection.execute_batch("BEGIN IMMEDIATE").map(|()| true));
        }
    }

    fn commit(&mut self) -> Result<(), CatalogFailure> {
        let open = std::mem::take(&mut self.in_transaction);
        if open && self.failed.get_mut().is_none() {
            self.attempt(self.connection.execute_batch("COMMIT"));
        }
        let Some(failure) = self.failed.get_mut().take() else {
            self.committed = self.tally;
            return Ok(());
        };
        // A failure such as a full disk may have rolled the transaction back already; then there is none to end.
        if open && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.tally = self.committed;
        Err(failure)
    }
}

impl Drop for SqlCatalog {
    fn drop(&mut self) {
        // What was not committed was never promised; closing would roll it back anyway.
        if self.in_transaction {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}
