//! A view of what the catalog holds, for those who only look: the looker, the watcher and the control socket.
//!
//! It sees what was committed and never waits for the writer. **Invariant:** a failure looks like "nothing is
//! recorded", which costs its users work and never correctness.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use isotherm_core::content::ManifestId;
use isotherm_core::ids::NodeId;
use isotherm_core::name::{Case, Name};
use isotherm_core::node::Content;
use isotherm_core::trees::{Handle, Record};
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::{RecordedState, row, schema, states};
use crate::engine::{COMING, CatalogFailure, PINNED, PLACING, coming_name, coming_node, contents_on_the_way};
use crate::volume::KnownContent;

/// What the looker wants to know of a directory before it reads metadata.
pub trait Recorded {
    /// The recorded names of a directory, each with its inode and state.
    fn names(&self, directory: NodeId) -> BTreeMap<Name, RecordedState>;
    /// One name of it.
    fn name(&self, directory: NodeId, name: &Name) -> Option<RecordedState>;
}

impl KnownContent for CatalogReader {
    fn safe_contents(&self, node: NodeId) -> Vec<Content> {
        let mut contents: Vec<Content> = self.record(node).iter().flat_map(Record::safe_contents).cloned().collect();
        let sql = "SELECT value FROM fact WHERE key = ?1";
        let kept = self.connection.query_row(sql, [super::value_key(PLACING)], |row| row.get::<_, Vec<u8>>(0)).optional();
        contents.extend(contents_on_the_way(kept.ok().flatten().as_deref(), node));
        contents
    }

    fn wanted(&self, node: NodeId) -> Option<ManifestId> {
        let record = self.record(node)?;
        let wanted = record.live()?.content.file()?.manifest;
        let here = record.here().and_then(|local| local.known()?.file().map(|file| file.manifest));
        (here != Some(wanted)).then_some(wanted)
    }

    fn place(&self, node: NodeId) -> Option<(Handle, Name)> {
        let record = self.record(node)?;
        let local = record.local.map(|local| local.place);
        let place = local.or(record.synced.map(|synced| synced.place)).or(record.remote.map(|node| node.place))?;
        let parent = self.record(place.parent)?.local?;
        Some((parent.handle, place.name))
    }
}

/// A read-only connection of its own.
#[derive(Debug)]
pub struct CatalogReader {
    connection: Connection,
}

impl CatalogReader {
    /// Opens a catalog that exists.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, CatalogFailure> {
        let connection = schema::open_reader(path).map_err(|error| schema::failure(path, &error))?;
        Ok(Self { connection })
    }

    /// What is recorded of a node.
    #[must_use]
    pub fn record(&self, node: NodeId) -> Option<Record> {
        self.records("SELECT record FROM node WHERE id = ?1", [&node.0[..]]).pop()
    }

    /// The nodes in a directory on this server.
    #[must_use]
    pub fn children(&self, directory: NodeId) -> Vec<Record> {
        self.records("SELECT record FROM node WHERE local_parent = ?1 AND local_lost = 0", [&directory.0[..]])
    }

    /// Files whose content is here and that are as the share has them, in the order of their nodes: at most `limit` after one.
    #[must_use]
    pub fn whole_files(&self, after: NodeId, limit: usize) -> Vec<Record> {
        let sql = format!(
            "SELECT record FROM node WHERE id > ?1 AND kind = {} AND state = {} AND tiered = 0 ORDER BY id LIMIT {limit}",
            row::FILE,
            row::SETTLED
        );
        self.records(&sql, [&after.0[..]])
    }

    /// Nodes whose content, and that of everything below them, an administrator wants to stay here; none where that cannot be told.
    #[must_use]
    pub fn pinned(&self) -> Option<BTreeSet<NodeId>> {
        let sql = "SELECT value FROM fact WHERE key = ?1";
        let kept = self.connection.query_row(sql, [super::value_key(PINNED)], |row| row.get::<_, Vec<u8>>(0)).optional();
        kept.ok()?.map_or_else(|| Some(BTreeSet::new()), |bytes| postcard::from_bytes(&bytes).ok())
    }

    /// Nodes whose content is to come by itself, in their order: at most `limit` after one.
    #[must_use]
    pub fn coming(&self, after: Option<NodeId>, limit: usize) -> Vec<NodeId> {
        let key = |node: Option<NodeId>| super::value_key(&node.map_or_else(|| COMING.to_owned(), coming_name));
        // The character after the last one of the prefix ends the range.
        let end = super::value_key(&COMING.replace(':', ";"));
        let sql = "SELECT key FROM fact WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3";
        let found = self.connection.prepare_cached(sql).and_then(|mut query| {
            query.query_map(rusqlite::params![key(after), end, super::bounded(limit)], |row| row.get::<_, String>(0))?.collect()
        });
        let found: Vec<String> = found.unwrap_or_default();
        found.iter().filter_map(|key| coming_node(key.strip_prefix("value:")?)).collect()
    }

    /// Whether the content of a node is to come by itself.
    #[must_use]
    pub fn is_coming(&self, node: NodeId) -> bool {
        let key = super::value_key(&coming_name(node));
        let found = self.connection.query_row("SELECT 1 FROM fact WHERE key = ?1", [key], |_| Ok(())).optional();
        found.is_ok_and(|found| found.is_some())
    }

    /// The nodes whose inode this is.
    #[must_use]
    pub fn by_handle(&self, handle: &Handle) -> Vec<Record> {
        self.records("SELECT record FROM node WHERE handle = ?1", [&row::handle_key(handle)[..]])
    }

    /// The path of a node on this server, else in the share, below the endpoint.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = node;
        // No real tree is deeper.
        while !at.is_anchor() && names.len() < 4_096 {
            let Some(record) = self.record(at) else { break };
            let place = record.here().map(|local| &local.place).or(record.remote.as_ref().map(|node| &node.place));
            let Some(place) = place else { break };
            names.push(place.name.as_bytes().to_vec());
            at = place.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The node with this name on this server, else in the share.
    #[must_use]
    pub fn child(&self, parent: NodeId, name: &Name, case: Case) -> Option<Record> {
        let local = "SELECT record FROM node WHERE local_parent = ?1 AND local_name = ?2 ORDER BY local_lost, id LIMIT 1";
        let remote = "SELECT record FROM node WHERE remote_parent = ?1 AND remote_key = ?2 ORDER BY id LIMIT 1";
        let mut found = self.records(local, [&parent.0[..], name.as_bytes()]);
        if found.is_empty() {
            found = self.records(remote, [&parent.0[..], &name.key(case)[..]]);
        }
        found.pop()
    }

    fn records<const N: usize>(&self, sql: &str, values: [&[u8]; N]) -> Vec<Record> {
        let read = |row: &Row<'_>| row.get::<_, Vec<u8>>(0);
        let blobs: rusqlite::Result<Vec<Vec<u8>>> =
            self.connection.prepare_cached(sql).and_then(|mut query| query.query_map(params_from_iter(values), read)?.collect());
        match blobs {
            Ok(blobs) => blobs.iter().filter_map(|blob| row::decode(blob).ok()).collect(),
            Err(error) => {
                tracing::warn!(%error, "Catalog cannot be read beside its writer");
                Vec::new()
            }
        }
    }
}

impl Recorded for CatalogReader {
    fn names(&self, directory: NodeId) -> BTreeMap<Name, RecordedState> {
        states::of_children(&self.connection, directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "Catalog cannot be read beside its writer");
            BTreeMap::new()
        })
    }

    fn name(&self, directory: NodeId, name: &Name) -> Option<RecordedState> {
        let sql =
            "SELECT record, tiered FROM node WHERE local_parent = ?1 AND local_name = ?2 AND local_lost = 0 ORDER BY id LIMIT 1";
        let found = self.connection.prepare_cached(sql).and_then(|mut query| {
            query.query_row([&directory.0[..], name.as_bytes()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?))).optional()
        });
        let (record, is_tiered) = found.ok()??;
        let record: Record = row::decode(&record).ok()?;
        record.local.map(|local| RecordedState { handle: local.handle, print: local.print, is_tiered })
    }
}
