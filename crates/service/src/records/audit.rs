//! Looking through the records for what does not fit together.
//!
//! **Invariant:** it only reads.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_api::check::HurtFile;
use isotherm_api::path::ShownPath;
use isotherm_core::content::{ChunkId, Decoded, Manifest, ManifestId, PackId};
use isotherm_core::ids::NodeId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::chunks::listed_chunks;
use super::codec::{decode_node, unsigned};
use super::share::SqlRecords;
use crate::fault::Fault;

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) nodes: u64,
    pub(crate) contents: u64,
    pub(crate) chunks: u64,
    pub(crate) findings: Vec<String>,
    /// Chunks that are named and condemned, by the packs that they lie in.
    pub(crate) missing: BTreeMap<PackId, BTreeSet<ChunkId>>,
    /// Contents that lack something.
    pub(crate) broken: BTreeSet<ManifestId>,
}

/// Looks at all nodes, and at all content that live nodes and kept versions name.
pub(crate) fn check_names(connection: &Connection) -> Result<Names, Fault> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(unsigned);
    let mut names = Names {
        nodes: count("SELECT count(*) FROM node WHERE deleted = 0")?,
        chunks: count("SELECT count(*) FROM chunk")?,
        ..Names::default()
    };
    orphans(connection, &mut names)?;
    let sql = "SELECT DISTINCT manifest FROM node WHERE manifest IS NOT NULL AND deleted = 0
        UNION SELECT manifest FROM revision WHERE manifest IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut content = connection.prepare("SELECT bytes, chunks FROM manifest WHERE id = ?1")?;
    let mut chunk =
        connection.prepare("SELECT condemned, pack.id FROM chunk JOIN pack ON pack.num = pack WHERE chunk.id = ?1")?;
    while let Some(row) = rows.next()? {
        names.contents += 1;
        let id = ManifestId::from_bytes(row.get(0)?);
        let found: Option<(Vec<u8>, Option<Vec<u8>>)> =
            content.query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found.map(|(bytes, listed)| chunks_of(id, &bytes, listed)) {
            None => names.broken(id, format!("Manifest {id} is named and not kept")),
            Some(Err(why)) => names.broken(id, why),
            Some(Ok(chunks)) => {
                for one in chunks {
                    let found = chunk.query_row([one.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
                    match found {
                        Some((0, _)) => {}
                        Some((_, pack)) => {
                            names.missing.entry(PackId::from_bytes(pack)).or_default().insert(one);
                            names.broken.insert(id);
                        }
                        None => names.broken(id, format!("Chunk {one} of manifest {id} is named and not kept")),
                    }
                }
            }
        }
    }
    Ok(names)
}

impl Names {
    fn broken(&mut self, id: ManifestId, why: String) {
        self.findings.push(why);
        self.broken.insert(id);
    }
}

fn orphans(connection: &Connection, names: &mut Names) -> Result<(), Fault> {
    let sql = "SELECT node.id, share.name FROM node JOIN share ON share.num = node.share
        WHERE node.deleted = 0 AND node.parent <> ?1 AND NOT EXISTS (SELECT 1 FROM node AS above
            WHERE above.share = node.share AND above.id = node.parent AND above.deleted = 0 AND above.kind = 0)";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([NodeId::ROOT.0])?;
    while let Some(row) = rows.next()? {
        let (node, group): (NodeId, String) = (NodeId(row.get(0)?), row.get(1)?);
        names.findings.push(format!("Node {node} of group {group} lies in no directory"));
    }
    Ok(())
}

fn chunks_of(id: ManifestId, bytes: &[u8], listed: Option<Vec<u8>>) -> Result<Vec<ChunkId>, String> {
    if ManifestId::of(bytes) != id {
        return Err(format!("Manifest {id} is damaged"));
    }
    match (Manifest::decode(id, bytes), listed) {
        (Err(error), _) => Err(format!("Manifest {id}: {error}")),
        (Ok(Decoded::Whole(whole)), _) => Ok(whole.chunks().map(|(chunk, _)| chunk).collect()),
        (Ok(Decoded::Index(_)), Some(listed)) => listed_chunks(&listed).map_err(|fault| fault.message),
        (Ok(Decoded::Index(_)), None) => Err(format!("Manifest {id} is kept without its list of chunks")),
    }
}

/// All packs that are known, with their lengths, and whether anything in them is still wanted.
pub(crate) fn known_packs(connection: &Connection) -> Result<BTreeMap<PackId, (u64, bool)>, Fault> {
    let sql = "SELECT id, len, EXISTS (SELECT 1 FROM chunk WHERE chunk.pack = pack.num AND condemned = 0) FROM pack";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((PackId::from_bytes(row.get(0)?), (unsigned(row.get(1)?), row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The wanted chunks of a pack with where the records say that they lie.
pub(crate) fn chunks_in(connection: &Connection, pack: PackId) -> Result<Vec<ChunkId>, Fault> {
    let sql = "SELECT chunk.id FROM chunk JOIN pack ON pack.num = chunk.pack WHERE pack.id = ?1 AND condemned = 0";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([pack.as_bytes()], |row| row.get(0).map(ChunkId::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Contents that need one of these chunks.
pub(crate) fn contents_with(connection: &Connection, lost: &BTreeSet<ChunkId>) -> Result<BTreeSet<ManifestId>, Fault> {
    let mut found = BTreeSet::new();
    if lost.is_empty() {
        return Ok(found);
    }
    let mut statement = connection.prepare("SELECT id, bytes, chunks FROM manifest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = ManifestId::from_bytes(row.get(0)?);
        let bytes: Vec<u8> = row.get(1)?;
        if chunks_of(id, &bytes, row.get(2)?).is_ok_and(|chunks| chunks.iter().any(|chunk| lost.contains(chunk))) {
            found.insert(id);
        }
    }
    Ok(found)
}

/// Files and old versions that hold one of these contents, at most `limit` of them, and how many there are.
pub(crate) fn hurt_files(
    connection: &Connection,
    contents: &BTreeSet<ManifestId>,
    limit: usize,
) -> Result<(Vec<HurtFile>, u64), Fault> {
    let (mut files, mut count) = (Vec::new(), 0);
    if contents.is_empty() {
        return Ok((files, count));
    }
    for group in super::groups(connection)? {
        let records = SqlRecords::open(connection, group.id, 0)?;
        let mut paths = BTreeMap::new();
        for (sql, old) in [
            ("SELECT manifest, data FROM node WHERE share = ?1 AND manifest IS NOT NULL AND deleted = 0", false),
            ("SELECT manifest, data FROM revision WHERE share = ?1 AND manifest IS NOT NULL", true),
        ] {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query(params![records.num()])?;
            while let Some(row) = rows.next()? {
                if !contents.contains(&ManifestId::from_bytes(row.get(0)?)) {
                    continue;
                }
                count += 1;
                if files.len() < limit {
                    let node = decode_node(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
                    let path = ShownPath::new(&records.path_now(&node, &mut paths)?);
                    files.push(HurtFile { group: group.name.clone(), path, old });
                }
            }
        }
    }
    Ok((files, count))
}
