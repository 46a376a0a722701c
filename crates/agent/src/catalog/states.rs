//! The states of a directory's children, read from an index alone: a scan asks for those of every directory.

use std::collections::BTreeMap;

use isotherm_core::ids::NodeId;
use isotherm_core::name::Name;
use isotherm_core::trees::{Handle, Print};
use rusqlite::Connection;

use super::row;

/// What is recorded of a name that a look may find unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedState {
    /// Its inode.
    pub handle: Handle,
    /// The inode's state.
    pub print: Print,
    /// Whether its content was away when it was last looked at.
    pub is_tiered: bool,
}

/// Inode and state of each child that a look may find unchanged. What cannot be decoded is left out, and read in full.
pub(super) fn of_children(connection: &Connection, parent: NodeId) -> rusqlite::Result<BTreeMap<Name, RecordedState>> {
    let sql = "SELECT local_name, handle, print, tiered FROM node
        WHERE local_parent = ?1 AND local_lost = 0 AND print IS NOT NULL ORDER BY local_name, id";
    let mut query = connection.prepare_cached(sql)?;
    let mut rows = query.query([&parent.0[..]])?;
    let mut states = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let blob = |at| row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from);
        if let (Ok(name), Some(print)) = (Name::new(blob(0)?), row::decode_print(blob(2)?)) {
            states.insert(name, RecordedState { handle: row::handle_of(blob(1)?), print, is_tiered: row.get(3)? });
        }
    }
    Ok(states)
}
