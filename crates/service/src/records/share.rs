//! Core's records of one share, on SQLite.
//!
//! It decides nothing. It lives inside one transaction of the caller and keeps head and use in memory until
//! [`SqlRecords::flush`], because the rules read and write them for every operation.
//!
//! **Invariant:** it answers what `MemoryRecords` answers; the suite in `conformance` holds both to that.

use std::cell::RefCell;
use std::collections::BTreeSet;

use isotherm_core::content::{ChunkId, Decoded, Manifest, ManifestId};
use isotherm_core::ids::{Epoch, GroupId, Incarnation, NodeId, OperationId, ServerId, Version};
use isotherm_core::name::Case;
use isotherm_core::namespace::{Answer, Digest, LIVES_MAX, Life, Records, Share};
use isotherm_core::node::Node;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::chunks::{PIN_MS, listed_chunks};
use super::codec::{decode_answer, decode_node, encode_answer, encode_node, kind_code, signed, unsigned};
use crate::fault::Fault;

/// The records of one share inside one transaction.
#[derive(Debug)]
pub(crate) struct SqlRecords<'c> {
    connection: &'c Connection,
    num: i64,
    now_ms: u64,
    share: RefCell<Share>,
}

impl<'c> SqlRecords<'c> {
    /// The records of this share; `now_ms` becomes the time of what is written.
    ///
    /// # Errors
    /// `not_found`: there is no such share.
    pub(crate) fn open(connection: &'c Connection, group: GroupId, now_ms: u64) -> Result<Self, Fault> {
        let sql = "SELECT num, incarnation, head, horizon, insensitive, quota, used FROM share WHERE id = ?1";
        let found = connection.prepare_cached(sql)?.query_row([&group.0], |row| {
            let share = Share {
                incarnation: Incarnation(unsigned(row.get(1)?)),
                head: Version(unsigned(row.get(2)?)),
                horizon: Version(unsigned(row.get(3)?)),
                case: if row.get(4)? { Case::Insensitive } else { Case::Sensitive },
                quota: row.get::<_, Option<i64>>(5)?.map(unsigned),
                used: unsigned(row.get(6)?),
            };
            Ok((row.get(0)?, share))
        });
        let (num, share) = found.optional()?.ok_or_else(|| Fault::not_found("Share", group))?;
        Ok(Self { connection, num, now_ms, share: RefCell::new(share) })
    }

    /// The same before a change: where `fresh` is given, the share's next life begins first.
    ///
    /// # Errors
    /// As those of [`SqlRecords::open`].
    pub(crate) fn open_for_change(
        connection: &'c Connection,
        group: GroupId,
        now_ms: u64,
        fresh: Option<Incarnation>,
    ) -> Result<Self, Fault> {
        if let Some(fresh) = fresh {
            super::begin_life(connection, group, fresh, now_ms)?;
        }
        Self::open(connection, group, now_ms)
    }

    /// Writes head and use. To be called before the transaction is committed.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        let share = *self.share.borrow();
        let mut statement = self.connection.prepare_cached("UPDATE share SET head = ?2, used = ?3 WHERE num = ?1")?;
        statement.execute(params![self.num, signed(share.head.0), signed(share.used)])?;
        Ok(())
    }

    /// The share's number in the tables.
    pub(super) fn num(&self) -> i64 {
        self.num
    }

    /// The transaction.
    pub(super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// Moves the present version of a node, if there is one, to the revisions.
    fn keep_revision(&self, node: NodeId) -> Result<(), Fault> {
        let sql = "INSERT INTO revision (share, id, last, manifest, at_ms, replaced_ms, data, parent, key)
            SELECT share, id, last, manifest, at_ms, ?3, data, parent, key FROM node WHERE share = ?1 AND id = ?2";
        self.connection.prepare_cached(sql)?.execute(params![self.num, node.0, signed(self.now_ms)])?;
        Ok(())
    }

    fn write(&self, node: &Node, key: &[u8]) -> Result<(), rusqlite::Error> {
        let sql = "INSERT INTO node
            (share, id, parent, key, name, kind, deleted, last, size, manifest, conflict_of, at_ms, data)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
            ON CONFLICT (share, id) DO UPDATE SET parent = ?3, key = ?4, name = ?5, kind = ?6, deleted = ?7,
            last = ?8, size = ?9, manifest = ?10, conflict_of = ?11, at_ms = ?12, data = ?13";
        self.connection.prepare_cached(sql)?.execute(params![
            self.num,
            node.id.0,
            node.place.parent.0,
            key,
            node.place.name.as_bytes(),
            kind_code(node.kind()),
            node.deleted,
            signed(node.versions.last.0),
            signed(node.content.size()),
            node.content.file().map(|file| file.manifest.as_bytes()),
            node.conflict_of.map(|other| other.0),
            signed(self.now_ms),
            encode_node(node),
        ])?;
        Ok(())
    }
}

impl Records for SqlRecords<'_> {
    type Error = Fault;

    fn share(&self) -> Result<Share, Fault> {
        Ok(*self.share.borrow())
    }

    fn lives(&self) -> Result<Vec<Life>, Fault> {
        let sql = "SELECT incarnation, ended FROM life WHERE share = ?1 ORDER BY num DESC LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![self.num, LIVES_MAX as i64], |row| {
            Ok(Life { incarnation: Incarnation(unsigned(row.get(0)?)), ended: Version(unsigned(row.get(1)?)) })
        })?;
        let mut lives = rows.collect::<Result<Vec<_>, _>>()?;
        lives.reverse();
        Ok(lives)
    }

    fn set_share(&mut self, share: Share) -> Result<(), Fault> {
        *self.share.borrow_mut() = share;
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<Option<Node>, Fault> {
        let mut statement = self.connection.prepare_cached("SELECT data FROM node WHERE share = ?1 AND id = ?2")?;
        let mut rows = statement.query(params![self.num, node.0])?;
        rows.next()?.map(|row| decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)).transpose()
    }

    fn child(&self, parent: NodeId, key: &[u8]) -> Result<Option<NodeId>, Fault> {
        let sql = "SELECT id FROM node WHERE share = ?1 AND parent = ?2 AND key = ?3 AND deleted = 0";
        let found = self.connection.prepare_cached(sql)?.query_row(params![self.num, parent.0, key], |row| row.get(0));
        Ok(found.optional()?.map(NodeId))
    }

    fn children(&self, parent: NodeId, limit: usize) -> Result<Vec<NodeId>, Fault> {
        let sql = "SELECT id FROM node WHERE share = ?1 AND parent = ?2 AND deleted = 0 LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![self.num, parent.0, limit as i64], |row| row.get(0).map(NodeId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn put(&mut self, node: Node) -> Result<(), Fault> {
        let key = node.place.name.key(self.share.borrow().case);
        self.keep_revision(node.id)?;
        match self.write(&node, &key) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                // The name still belongs to a node that this group moves away and puts after this one.
                let sql = "UPDATE node SET key = NULL
                    WHERE share = ?1 AND parent = ?2 AND key = ?3 AND deleted = 0 AND id <> ?4";
                let mut statement = self.connection.prepare_cached(sql)?;
                statement.execute(params![self.num, node.place.parent.0, key, node.id.0])?;
                Ok(self.write(&node, &key)?)
            }
            other => Ok(other?),
        }
    }

    fn changed_after(&self, after: Version, limit: usize) -> Result<Vec<Node>, Fault> {
        let sql = "SELECT data FROM node WHERE share = ?1 AND last > ?2 ORDER BY last LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![self.num, signed(after.0), limit as i64])?;
        let mut nodes = Vec::new();
        while let Some(row) = rows.next()? {
            nodes.push(decode_node(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?);
        }
        Ok(nodes)
    }

    fn history(&self, node: NodeId, limit: usize) -> Result<Vec<ManifestId>, Fault> {
        let sql = "SELECT manifest FROM (
                SELECT last, manifest FROM node WHERE share = ?1 AND id = ?2
                UNION ALL SELECT last, manifest FROM revision WHERE share = ?1 AND id = ?2)
            WHERE manifest IS NOT NULL ORDER BY last DESC LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![self.num, node.0, limit as i64], |row| row.get(0).map(ManifestId::from_bytes))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn answered(&self, operation: OperationId) -> Result<Option<(Digest, Answer)>, Fault> {
        let mut statement =
            self.connection.prepare_cached("SELECT digest, answer FROM operation WHERE share = ?1 AND id = ?2")?;
        let mut rows = statement.query(params![self.num, operation.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let answer = decode_answer(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        Ok(Some((Digest(row.get(0)?), answer)))
    }

    fn remember(&mut self, operation: OperationId, digest: Digest, answer: &Answer) -> Result<(), Fault> {
        let sql = "INSERT OR REPLACE INTO operation (share, id, digest, answer, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![self.num, operation.0, digest.0, encode_answer(answer), signed(self.now_ms)])?;
        Ok(())
    }

    fn epoch(&self, server: ServerId) -> Result<Epoch, Fault> {
        let mut statement = self.connection.prepare_cached("SELECT epoch FROM server WHERE id = ?1")?;
        let epoch = statement.query_row([&server.0], |row| row.get(0)).optional()?;
        Ok(Epoch(epoch.map_or(0, unsigned)))
    }

    fn missing(&self, manifest: ManifestId) -> Result<Vec<ChunkId>, Fault> {
        missing_chunks(self.connection, manifest, self.now_ms)
    }
}

/// Chunks of a content that are not there; the content itself where it is not kept. With a time, the content also counts as
/// uploaded then.
pub(super) fn missing_chunks(connection: &Connection, manifest: ManifestId, now_ms: u64) -> Result<Vec<ChunkId>, Fault> {
    let sql = "SELECT bytes, chunks, complete_at, (SELECT value FROM meta WHERE key = 'condemnations'), at_ms
        FROM manifest WHERE id = ?1";
    type Row = (Vec<u8>, Option<Vec<u8>>, Option<i64>, i64, i64);
    let found: Option<Row> = connection
        .prepare_cached(sql)?
        .query_row([manifest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    let Some((bytes, listed, complete_at, condemnations, at_ms)) = found else {
        return Ok(vec![ChunkId::from_bytes(*manifest.as_bytes())]);
    };
    // A collection that has begun does not see the commit that asks; it sees this.
    if now_ms > 0 && unsigned(at_ms) + PIN_MS / 2 < now_ms {
        let mut statement = connection.prepare_cached("UPDATE manifest SET at_ms = ?2 WHERE id = ?1")?;
        statement.execute(params![manifest.as_bytes(), signed(now_ms)])?;
    }
    // Found complete, and nothing was condemned since then.
    if complete_at == Some(condemnations) {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    let mut statement = connection.prepare_cached("SELECT 1 FROM chunk WHERE id = ?1 AND condemned = 0")?;
    for chunk in chunks_of(&bytes, listed, manifest)? {
        if !statement.exists([chunk.as_bytes()])? {
            missing.push(chunk);
        }
    }
    if missing.is_empty() {
        let mut statement = connection.prepare_cached("UPDATE manifest SET complete_at = ?2 WHERE id = ?1")?;
        statement.execute(params![manifest.as_bytes(), condemnations])?;
    }
    Ok(missing)
}

/// The chunks of a content, those of a large manifest's own encoding among them.
fn chunks_of(bytes: &[u8], listed: Option<Vec<u8>>, manifest: ManifestId) -> Result<BTreeSet<ChunkId>, Fault> {
    if let Some(listed) = listed {
        return Ok(listed_chunks(&listed)?.into_iter().collect());
    }
    match Manifest::decode(manifest, bytes) {
        Ok(Decoded::Whole(manifest)) => Ok(manifest.chunks().map(|(chunk, _)| chunk).collect()),
        Ok(Decoded::Index(_)) => Err(Fault::corrupt(format!("Manifest {manifest} is kept without its list of chunks"))),
        Err(error) => Err(Fault::corrupt(format!("Manifest {manifest} in the records: {error}"))),
    }
}
