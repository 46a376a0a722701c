//! What a group takes in the store: measured now and then, and kept beside it.
//!
//! **Invariant:** what is shown says when it was measured; it never holds up a request.

use std::collections::{BTreeSet, HashMap};

use isotherm_api::management::Space;
use isotherm_core::content::{Decoded, Manifest, ManifestId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::chunks::listed_chunks;
use super::codec::{signed, unsigned};
use super::garbage::first;
use crate::fault::Fault;

/// Measures every group in one pass, in the connection's read transaction. Content that groups share counts for each of them.
pub(crate) fn measure(connection: &Connection, now_ms: u64) -> Result<Vec<(i64, Space)>, Fault> {
    let mut statement = connection.prepare("SELECT num, used FROM share ORDER BY num")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, unsigned(row.get(1)?))))?;
    let shares: Vec<(i64, u64)> = rows.collect::<Result<_, _>>()?;
    let mut owners = Owners::default();
    let manifests = named_manifests(connection, &mut owners)?;
    let chunks = named_chunks(connection, &manifests, &mut owners)?;
    drop(manifests);
    let mut taken: HashMap<OwnerSet, (u64, u64)> = HashMap::new();
    let mut statement = connection.prepare("SELECT id, raw_len, stored_len FROM chunk")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(set) = chunks.get(&first(&row.get::<_, [u8; 32]>(0)?)) {
            let (distinct, stored) = taken.entry(*set).or_default();
            *distinct += unsigned(row.get(1)?);
            *stored += unsigned(row.get(2)?);
        }
    }
    let space = |(num, files)| {
        let mut space = Space { files, distinct: 0, stored: 0, measured_ms: now_ms };
        for (_, (distinct, stored)) in taken.iter().filter(|(set, _)| owners.sets[**set as usize].contains(&num)) {
            space.distinct += distinct;
            space.stored += stored;
        }
        (num, space)
    };
    Ok(shares.into_iter().map(space).collect())
}

/// A set of groups by its place in [`Owners::sets`].
type OwnerSet = u32;

/// The sets of groups that name something. There are few of them, however much is named, so each is kept once.
#[derive(Debug, Default)]
struct Owners {
    sets: Vec<BTreeSet<i64>>,
    known: HashMap<BTreeSet<i64>, OwnerSet>,
    /// Unions that were made before.
    unions: HashMap<(OwnerSet, OwnerSet), OwnerSet>,
}

impl Owners {
    fn set(&mut self, groups: BTreeSet<i64>) -> OwnerSet {
        if let Some(set) = self.known.get(&groups) {
            return *set;
        }
        let set = self.sets.len() as OwnerSet;
        self.sets.push(groups.clone());
        self.known.insert(groups, set);
        set
    }

    fn union(&mut self, one: OwnerSet, other: OwnerSet) -> OwnerSet {
        if one == other {
            return one;
        }
        if let Some(set) = self.unions.get(&(one, other)) {
            return *set;
        }
        let both = &self.sets[one as usize] | &self.sets[other as usize];
        let set = self.set(both);
        self.unions.insert((one, other), set);
        set
    }

    /// Notes that these groups, too, name what begins with `id`.
    fn note(&mut self, named: &mut HashMap<u64, OwnerSet>, id: u64, set: OwnerSet) {
        let known = named.get(&id).copied();
        let set = known.map_or(set, |known| self.union(known, set));
        if known != Some(set) {
            named.insert(id, set);
        }
    }
}

fn named_manifests(connection: &Connection, owners: &mut Owners) -> Result<HashMap<u64, OwnerSet>, Fault> {
    let mut named = HashMap::new();
    for sql in [
        "SELECT share, manifest FROM node WHERE manifest IS NOT NULL AND deleted = 0",
        "SELECT share, manifest FROM revision WHERE manifest IS NOT NULL",
    ] {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        // Rows come share by share.
        let mut last: Option<(i64, OwnerSet)> = None;
        while let Some(row) = rows.next()? {
            let num: i64 = row.get(0)?;
            let set = match last {
                Some((share, set)) if share == num => set,
                _ => owners.set(BTreeSet::from([num])),
            };
            last = Some((num, set));
            owners.note(&mut named, first(&row.get::<_, [u8; 32]>(1)?), set);
        }
    }
    Ok(named)
}

fn named_chunks(
    connection: &Connection,
    manifests: &HashMap<u64, OwnerSet>,
    owners: &mut Owners,
) -> Result<HashMap<u64, OwnerSet>, Fault> {
    let mut chunks = HashMap::new();
    let mut statement = connection.prepare("SELECT id, bytes, chunks FROM manifest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = ManifestId::from_bytes(row.get(0)?);
        let Some(set) = manifests.get(&first(id.as_bytes())) else { continue };
        if let Some(listed) = row.get::<_, Option<Vec<u8>>>(2)? {
            listed_chunks(&listed)?.iter().for_each(|chunk| owners.note(&mut chunks, first(chunk.as_bytes()), *set));
        } else if let Ok(Decoded::Whole(whole)) = Manifest::decode(id, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)
        {
            whole.chunks().for_each(|(chunk, _)| owners.note(&mut chunks, first(chunk.as_bytes()), *set));
        }
    }
    Ok(chunks)
}

/// Keeps what was measured.
pub(crate) fn keep(connection: &Connection, measured: &[(i64, Space)]) -> Result<(), Fault> {
    // A group that was deleted meanwhile has no row to belong to.
    let sql = "INSERT OR REPLACE INTO space (share, files, distinct_bytes, stored, measured_ms)
        SELECT num, ?2, ?3, ?4, ?5 FROM share WHERE num = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    for (num, space) in measured {
        let numbers = (signed(space.files), signed(space.distinct), signed(space.stored), signed(space.measured_ms));
        statement.execute(params![num, numbers.0, numbers.1, numbers.2, numbers.3])?;
    }
    Ok(())
}

/// What was measured last of a group.
pub(crate) fn last(connection: &Connection, num: i64) -> Result<Option<Space>, Fault> {
    let sql = "SELECT files, distinct_bytes, stored, measured_ms FROM space WHERE share = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Space {
            files: unsigned(row.get(0)?),
            distinct: unsigned(row.get(1)?),
            stored: unsigned(row.get(2)?),
            measured_ms: unsigned(row.get(3)?),
        })
    };
    Ok(statement.query_row([num], read).optional()?)
}
