//! The records: what the service knows, on SQLite. The only place with SQL.
//!
//! One thread writes and commits for many requests at once; readers have connections of their own and see the last
//! commit. The rules of a share are core's; this module only keeps what they decide.
//!
//! **Invariant:** whoever gets an answer from [`Database::write`] can pull the plug: the answer is on disk.

mod audit;
mod chunks;
mod codec;
#[cfg(test)]
mod conformance;
mod copy;
mod damage;
mod endpoints;
mod garbage;
mod groups;
mod horizon;
mod readers;
mod revisions;
mod schema;
mod servers;
mod share;
pub(crate) mod space;
mod statistics;
mod strays;
mod tree;
mod waiting;
mod writer;

pub(crate) use audit::{check_names, chunks_in, contents_with, hurt_files, known_packs};
pub(crate) use chunks::{PackRow, chunk_location, index_pack, manifest_bytes, pin, present, put_manifest};
pub(crate) use copy::{aside_in, copy, owner_of, packs_in};
pub(crate) use damage::{
    NodeKey, chunks_aside, count_damaged, damaged_nodes, end_round, keep_damage, next_round, set_aside, take_back, wanted,
};
pub(crate) use endpoints::{
    EndpointRow, change_endpoint, confirm_deletes, create_endpoint, delete_endpoint, endpoint, endpoints, endpoints_of, keep_off,
    remove_endpoint,
};
pub use garbage::Ages;
pub(crate) use garbage::{
    Mark, PackUse, condemn, forget_manifests, forget_packs, live_chunks, mark, pack_number, pack_uses, repack, unnamed_chunks,
};
pub(crate) use groups::{
    audit, audit_log, begin_life, begin_life_if_behind, change_group, create_group, delete_group, group, group_by_id, groups,
    revision, set_barrier,
};
pub(crate) use horizon::{advance_clock, forget_answers, forget_deleted, long_deleted};
pub(crate) use revisions::{Moment, Revision, expire, kept_since};
pub(crate) use servers::{
    ServerRow, attach, change_server, check_epoch, delete_server, ever_called, learn_epoch, server_name, servers,
};
pub(crate) use share::SqlRecords;
pub(crate) use strays::{any_strays, forget_strays, old_strays, remember_strays};
pub(crate) use tree::{Found, conflicts, find, list, snapshot};
pub(crate) use waiting::{end_wait, refuse_while_waiting, waits_since};

use std::path::Path;

use rusqlite::Connection;

use crate::fault::Fault;
use readers::Readers;
use writer::Writer;

/// The database: one writer, some readers.
#[derive(Debug)]
pub(crate) struct Database {
    writer: Writer,
    readers: Readers,
}

impl Database {
    /// Opens or makes the database.
    pub(crate) fn open(file: &Path) -> Result<Self, Fault> {
        let connection = schema::open(file)?;
        Ok(Self { writer: Writer::start(connection), readers: Readers::new(file) })
    }

    /// Runs `work` in a transaction of its own or shared with others' work, and `after` once that is durable. What
    /// fails leaves no trace. `work` runs to its end also when the caller goes away.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Fault> {
        self.writer.run(work, after).await
    }

    /// Runs `work` in one read transaction.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.readers.run(work).await
    }

    /// A connection for one long read, which must not keep the others waiting.
    pub(crate) fn long_reader(&self) -> Result<Connection, Fault> {
        self.readers.connect()
    }
}
