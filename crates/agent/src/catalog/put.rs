//! Writing one record: only the indexes that it changes are written.
//!
//! **Invariant:** the row is the one that [`Columns`] makes of the record, whatever stood there before.

use std::sync::LazyLock;

use isotherm_core::ids::NodeId;
use isotherm_core::trees::{Record, State, TreesMut};
use rusqlite::{Row, params};

use super::row::{self, Columns};
use super::{SqlCatalog, Weight};

/// Columns that an index holds, in groups that change together.
const GROUPS: [&str; 4] = [
    "tiered = tiered AND handle IS ?5, local_parent = ?2, local_name = ?3, local_lost = ?4, handle = ?5, print = ?6, ",
    "remote_parent = ?7, remote_key = ?8, ",
    "link = ?9, ",
    "state = ?10, ",
];

/// A statement for each set of groups that differ. A row of millions changes a few times on its way into the share, and most
/// of its indexes stay as they are.
static UPDATES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let update = |set: usize| {
        let groups = GROUPS.iter().enumerate().filter(|(number, _)| set >> number & 1 == 1);
        let groups: String = groups.map(|(_, columns)| *columns).collect();
        format!("UPDATE node SET {groups}kind = ?11, size = ?12, owed = ?13, up = ?14, down = ?15, record = ?16 WHERE id = ?1")
    };
    (0..1 << GROUPS.len()).map(update).collect()
});

const INSERT: &str = "INSERT INTO node
    (id, local_parent, local_name, local_lost, handle, print, remote_parent, remote_key, link, state, kind, size, owed, up, down,
        record)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";

/// What stood there before.
struct Before {
    weight: Weight,
    same_inode: bool,
    /// The groups that differ from the new row, as bits.
    differ: usize,
}

impl TreesMut for SqlCatalog {
    fn put(&mut self, record: Record) {
        let node = record.node;
        let columns = Columns::of(&record, self.case);
        let before = self.before(node, &columns);
        if record.state() == State::Gone && !node.is_anchor() {
            self.change("DELETE FROM node WHERE id = ?1", [&node.0[..]]);
            self.recount(node, before.map(|before| before.weight), None);
            return;
        }
        let (kind, size) = columns.here.unzip();
        let (up, down) = columns.to_move;
        let weight = Weight {
            rows: 1,
            state: columns.state,
            kind,
            size: size.unwrap_or(0).unsigned_abs(),
            up: up.unsigned_abs(),
            down: down.unsigned_abs(),
            owed: u64::from(columns.owed),
            // Of another inode nothing is known yet.
            tiered: before.as_ref().is_some_and(|before| before.weight.tiered && before.same_inode),
        };
        let sql = before.as_ref().map_or(INSERT, |before| &UPDATES[before.differ]);
        self.change(
            sql,
            params![
                &node.0[..],
                columns.local_parent,
                columns.local_name,
                columns.local_lost,
                columns.handle,
                columns.print,
                columns.remote_parent,
                columns.remote_key,
                columns.link,
                columns.state,
                kind,
                size,
                columns.owed,
                up,
                down,
                row::encode(&record),
            ],
        );
        self.recount(node, before.map(|before| before.weight), Some(weight));
    }
}

impl SqlCatalog {
    fn before(&self, node: NodeId, new: &Columns<'_>) -> Option<Before> {
        let sql = "SELECT state, kind, 1, ifnull(size, 0) + 0.0, up + 0.0, down + 0.0, owed + 0.0, tiered,
                local_parent, local_name, handle, print, remote_parent, remote_key, link, local_lost
            FROM node WHERE id = ?1";
        self.one(sql, [&node.0[..]], |row| {
            let weight = Weight::read(row)?;
            let same_inode = is(row, 10, new.handle.as_deref())?;
            let local = is(row, 8, new.local_parent)?
                && is(row, 9, new.local_name)?
                && same_inode
                && is(row, 11, new.print.as_deref())?
                && row.get::<_, bool>(15)? == new.local_lost;
            let remote = is(row, 12, new.remote_parent)? && is(row, 13, new.remote_key.as_deref())?;
            let same = [local, remote, is(row, 14, new.link)?, weight.state == new.state];
            let differ = same.iter().enumerate().map(|(number, same)| usize::from(!same) << number).sum();
            Ok(Before { weight, same_inode, differ })
        })
    }
}

/// Whether a column holds just this.
fn is(row: &Row<'_>, at: usize, value: Option<&[u8]>) -> rusqlite::Result<bool> {
    Ok(row.get_ref(at)?.as_blob_or_null()? == value)
}
