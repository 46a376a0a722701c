//! What happened to the contents of a volume's files: when each came or went, why, and for whom. In a small database of its own.
//!
//! It is a record for people. Nobody who waits for a content waits for it: what happens is gathered in memory and written by somebody
//! else, once a second. **Invariants:** nothing rests on it; it holds the latest few of each node, and a bounded number in all.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isotherm_core::ids::NodeId;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::beside::{self, Shape};

/// What is kept of one node.
const KEPT_OF_NODE: u64 = 20;
/// What is kept of all together, the latest: some 30 MiB.
const KEPT: u64 = 200_000;
/// What is in memory before it is written; of more at once the oldest is forgotten.
const FRESH_MAX: usize = 50_000;

/// The application id is "IsoW".
const SHAPE: Shape = Shape {
    format: 1,
    application: 0x4973_6f57,
    tables: "
CREATE TABLE happened (
    number INTEGER PRIMARY KEY, node BLOB NOT NULL, at_ms INTEGER NOT NULL, what INTEGER NOT NULL, bytes INTEGER NOT NULL,
    waited_ms INTEGER, program TEXT, process INTEGER, user INTEGER
) STRICT;
CREATE INDEX happened_node ON happened (node, number);
",
    cache_kib: 2 * 1024,
};

const COLUMNS: &str = "node, at_ms, what, bytes, waited_ms, program, process, user";

/// What can happen to a content at a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its file came from the share without it.
    Arrived,
    /// It was tiered: the volume needed room.
    TieredForSpace,
    /// The volume ran low.
    TieredForLow,
    /// Nobody had used it for longer than the endpoint allows.
    TieredForAge,
    /// Somebody waited for another content, and there was no room.
    TieredForRecall,
    /// `isotherm tier`.
    TieredByCommand,
    /// It is in the share only, as before: a program read a part of it while that came.
    ReadInPart,
    /// It was recalled: a program opened the file and waited.
    RecalledByProgram,
    /// A client of the kernel's NFS server did.
    RecalledOverNfs,
    /// `isotherm recall`, or an endpoint that was to be whole before it left its group.
    RecalledByCommand,
    /// It is pinned.
    RecalledForPin,
    /// The endpoint has what is new or changed come by itself.
    RecalledByItself,
    /// Its file had left the endpoint.
    RecalledToLeave,
}

impl What {
    /// Numbers in the database; only added to.
    const NUMBERS: [(i64, Self); 13] = [
        (0, Self::Arrived),
        (10, Self::TieredForSpace),
        (11, Self::TieredForLow),
        (12, Self::TieredForAge),
        (13, Self::TieredForRecall),
        (14, Self::TieredByCommand),
        (15, Self::ReadInPart),
        (20, Self::RecalledByProgram),
        (21, Self::RecalledOverNfs),
        (22, Self::RecalledByCommand),
        (23, Self::RecalledForPin),
        (24, Self::RecalledByItself),
        (25, Self::RecalledToLeave),
    ];

    /// Whether the content is here after it.
    #[must_use]
    pub fn is_recall(self) -> bool {
        self.number() >= 20
    }

    /// Whether somebody waited for the content.
    #[must_use]
    pub fn is_awaited(self) -> bool {
        matches!(self, Self::RecalledByProgram | Self::RecalledOverNfs | Self::RecalledByCommand)
    }

    fn number(self) -> i64 {
        Self::NUMBERS.iter().find(|(_, what)| *what == self).map_or(0, |(number, _)| *number)
    }

    fn of(number: i64) -> Option<Self> {
        Self::NUMBERS.iter().find(|(known, _)| *known == number).map(|(_, what)| *what)
    }
}

/// Something that happened to the content of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Happening {
    /// The file's node.
    pub node: NodeId,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: What,
    /// Length of the content in bytes, or of what came of it.
    pub bytes: u64,
    /// How long who asked for it waited, in milliseconds; none where nobody did.
    pub waited_ms: Option<u64>,
    /// The program that waited first; empty where it cannot be seen, none where no program waited at the file.
    pub program: Option<String>,
    /// Number of its process.
    pub process: Option<i32>,
    /// Number of its user.
    pub user: Option<u32>,
}

impl Happening {
    /// To a content of so many bytes, for which no program waited.
    #[must_use]
    pub fn new(node: NodeId, what: What, at_ms: u64, bytes: u64) -> Self {
        Self { node, at_ms, what, bytes, waited_ms: None, program: None, process: None, user: None }
    }
}

/// What happened to the contents of a volume.
#[derive(Debug)]
pub(crate) struct HistoryStore {
    path: PathBuf,
    /// What is not written yet. Never held while anything is written.
    fresh: Mutex<VecDeque<Happening>>,
    /// None where it cannot be kept: then it is forgotten at once. Held before `fresh`.
    kept: Mutex<Option<Connection>>,
    of_node: u64,
    in_all: u64,
}

impl HistoryStore {
    /// Of the file at this path, which is made where there is none, and anew where it cannot be read.
    pub(crate) fn open(path: &Path) -> Self {
        Self::bounded(path, KEPT_OF_NODE, KEPT)
    }

    fn bounded(path: &Path, of_node: u64, in_all: u64) -> Self {
        let kept = Mutex::new(beside::open(path, &SHAPE));
        Self { path: path.to_owned(), fresh: Mutex::default(), kept, of_node, in_all }
    }

    /// Something happened. It costs its caller next to nothing.
    pub(crate) fn note(&self, happened: impl IntoIterator<Item = Happening>) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.extend(happened);
        let too_many = fresh.len().saturating_sub(FRESH_MAX);
        fresh.drain(..too_many);
    }

    /// Keeps what is only in memory.
    pub(crate) fn write(&self) {
        self.write_to(&mut self.kept());
    }

    /// What is remembered of a node, the newest first.
    pub(crate) fn of(&self, node: NodeId) -> Vec<Happening> {
        let sql = format!("SELECT {COLUMNS} FROM happened WHERE node = ?1 ORDER BY number DESC");
        self.read(&sql, params![&node.0[..]])
    }

    /// The latest of all nodes, the newest first.
    pub(crate) fn latest(&self, count: u32) -> Vec<Happening> {
        self.read(&format!("SELECT {COLUMNS} FROM happened ORDER BY number DESC LIMIT ?1"), params![count])
    }

    fn read(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Vec<Happening> {
        let mut kept = self.kept();
        // Who asks wants to know of what happened just now too.
        self.write_to(&mut kept);
        let Some(connection) = &*kept else { return Vec::new() };
        let found: rusqlite::Result<Vec<Option<Happening>>> =
            connection.prepare_cached(sql).and_then(|mut query| query.query_map(values, happening)?.collect());
        match found {
            // What a newer release has noted is nothing that this one can tell.
            Ok(found) => found.into_iter().flatten().collect(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "What happened to contents cannot be read");
                Vec::new()
            }
        }
    }

    fn write_to(&self, kept: &mut Option<Connection>) {
        let fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(connection) = kept.as_mut().filter(|_| !fresh.is_empty()) else { return };
        // Where it fails it is forgotten: memory is not for what a full disk refuses.
        if let Err(error) = write(connection, &fresh, self.of_node, self.in_all) {
            tracing::warn!(path = %self.path.display(), %error, "What happened to contents was not kept");
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HistoryStore {
    fn drop(&mut self) {
        self.write();
    }
}

fn write(connection: &mut Connection, fresh: &VecDeque<Happening>, of_node: u64, in_all: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let sql = format!("INSERT INTO happened ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
        let mut insert = transaction.prepare_cached(&sql)?;
        // Else a film that is looked into each day would push out why it is tiered.
        let mut forget = transaction.prepare_cached("DELETE FROM happened WHERE node = ?1 AND what = ?2")?;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for one in fresh {
            let waited_ms = one.waited_ms.map(number);
            if one.what == What::ReadInPart {
                forget.execute(params![&one.node.0[..], one.what.number()])?;
            }
            insert.execute(params![
                &one.node.0[..],
                number(one.at_ms),
                one.what.number(),
                number(one.bytes),
                waited_ms,
                one.program,
                one.process,
                one.user
            ])?;
        }
        let sql = "DELETE FROM happened WHERE node = ?1
            AND number <= (SELECT number FROM happened WHERE node = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
        let mut shorten = transaction.prepare_cached(sql)?;
        let nodes: BTreeSet<NodeId> = fresh.iter().map(|one| one.node).collect();
        for node in nodes {
            shorten.execute(params![&node.0[..], number(of_node)])?;
        }
        // Without counting rows: those of one node that went earlier count too.
        let sql = "DELETE FROM happened WHERE number <= (SELECT max(number) FROM happened) - ?1";
        transaction.prepare_cached(sql)?.execute(params![number(in_all)])?;
    }
    transaction.commit()
}

/// None for what this release does not know.
fn happening(row: &Row<'_>) -> rusqlite::Result<Option<Happening>> {
    let node: Vec<u8> = row.get(0)?;
    let (Ok(node), Some(what)) = (node.try_into(), What::of(row.get(2)?)) else { return Ok(None) };
    let unsigned = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(Some(Happening {
        node: NodeId(node),
        at_ms: unsigned(1)?,
        what,
        bytes: unsigned(3)?,
        waited_ms: row.get::<_, Option<i64>>(4)?.map(i64::unsigned_abs),
        program: row.get(5)?,
        process: row.get(6)?,
        user: row.get(7)?,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn went(node: u8, at_ms: u64) -> Happening {
        Happening::new(NodeId([node; 16]), What::TieredForSpace, at_ms, 7)
    }

    fn times(happened: &[Happening]) -> Vec<u64> {
        happened.iter().map(|one| one.at_ms).collect()
    }

    #[test]
    fn of_parts_that_were_read_the_last_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = HistoryStore::bounded(&folder.path().join("history"), 3, 100);
        store.note([went(1, 1)]);
        for at_ms in 2..9 {
            store.note([Happening::new(NodeId([1; 16]), What::ReadInPart, at_ms, 7)]);
            store.write();
        }
        store.note([went(2, 9)]);
        assert_eq!(times(&store.of(NodeId([1; 16]))), [8, 1]);
    }

    #[test]
    fn what_happened_is_known_before_and_after_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let came = Happening {
            waited_ms: Some(12),
            program: Some("cat".to_owned()),
            process: Some(4_711),
            user: Some(u32::MAX),
            ..Happening::new(NodeId([1; 16]), What::RecalledByProgram, 2, u64::MAX / 2)
        };
        for is_written in [false, true] {
            let store = HistoryStore::open(&path);
            if !is_written {
                store.note([went(1, 1), went(2, 5), came.clone()]);
            }
            assert_eq!(store.of(NodeId([1; 16])), [came.clone(), went(1, 1)]);
            assert_eq!(times(&store.latest(2)), [2, 5]);
            assert_eq!(store.of(NodeId([3; 16])), []);
        }
    }

    #[test]
    fn each_node_has_its_latest_and_all_together_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = HistoryStore::bounded(&folder.path().join("history"), 3, 10);
        store.note((0..9).map(|at| went(1, at)));
        assert_eq!(times(&store.of(NodeId([1; 16]))), [8, 7, 6]);
        for at in 10..22 {
            store.note([went(u8::try_from(at).unwrap(), at)]);
            store.write();
        }
        assert_eq!(times(&store.latest(100)), (12..22).rev().collect::<Vec<u64>>());
        assert_eq!(store.of(NodeId([1; 16])), []);
    }

    #[test]
    fn memory_is_bounded_where_nobody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let store = HistoryStore::bounded(&folder.path().join("history"), 1_000_000, 1_000_000);
        store.note((0..FRESH_MAX as u64 + 3).map(|at| went(1, at)));
        let kept = store.of(NodeId([1; 16]));
        assert_eq!((kept.len(), kept.last().unwrap().at_ms), (FRESH_MAX, 3));
    }

    #[test]
    fn a_damaged_record_is_begun_anew_and_what_is_not_known_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        std::fs::write(&path, "not a database, and longer than a header of one would be").unwrap();
        let store = HistoryStore::open(&path);
        store.note([went(1, 1), went(1, 2)]);
        store.write();
        store.kept().as_ref().unwrap().execute("UPDATE happened SET what = 999 WHERE at_ms = 2", []).unwrap();
        assert_eq!(times(&store.of(NodeId([1; 16]))), [1]);
    }

    #[test]
    fn every_kind_has_a_number_of_its_own() {
        for (number, what) in What::NUMBERS {
            assert_eq!((what.number(), What::of(number)), (number, Some(what)));
        }
    }
}
