//! What is known of the uses of a volume's files, in a small database of its own.
//!
//! Reads of files must not cost durable writes, so uses are gathered in memory and written together now and then; what a crash
//! forgets makes some files look colder. **Invariant:** nothing else rests on it: one that is damaged is begun anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isotherm_core::tiering::Heat;
use isotherm_core::trees::Handle;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::beside::{self, Shape};
use crate::clock::wall_ms;

/// Uses in memory before they are written.
const FRESH_MAX: usize = 10_000;

/// A use that is so long ago is forgotten, in milliseconds: three years.
const FORGOTTEN_AFTER_MS: u64 = 3 * 365 * 24 * 3_600 * 1_000;

/// The application id is "IsoH".
const SHAPE: Shape = Shape {
    format: 1,
    application: 0x4973_6f48,
    tables: "
CREATE TABLE heat (
    file BLOB PRIMARY KEY, last_ms INTEGER NOT NULL, warmth INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
    cache_kib: 8 * 1024,
};

/// The uses of all files of a volume.
#[derive(Debug)]
pub(crate) struct HeatStore {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// None where it cannot be kept: then only what is in memory is known.
    kept: Option<Connection>,
    fresh: HashMap<Handle, Heat>,
}

impl HeatStore {
    /// Of the file at this path, which is made where there is none, and anew where it cannot be read.
    pub(crate) fn open(path: &Path) -> Self {
        let kept = beside::open(path, &SHAPE);
        if let Some(kept) = &kept {
            // Of files that are gone too, which nobody tells of here.
            let long_ago = i64::try_from(wall_ms().saturating_sub(FORGOTTEN_AFTER_MS)).unwrap_or(0);
            if let Err(error) = kept.execute("DELETE FROM heat WHERE last_ms < ?1", [long_ago]) {
                tracing::warn!(path = %path.display(), %error, "Uses of long ago are not forgotten");
            }
        }
        Self { inner: Mutex::new(Inner { path: path.to_owned(), kept, fresh: HashMap::new() }) }
    }

    /// Files were used.
    pub(crate) fn note(&self, files: impl IntoIterator<Item = Handle>, at_ms: u64) {
        let mut inner = self.lock();
        for file in files {
            inner.fresh.entry(file).and_modify(|heat| *heat = heat.and(at_ms)).or_insert_with(|| Heat::once(at_ms));
        }
        if inner.fresh.len() >= FRESH_MAX {
            inner.write();
        }
    }

    /// What is known of a file.
    pub(crate) fn get(&self, file: &Handle) -> Option<Heat> {
        let inner = self.lock();
        let kept = inner.kept.as_ref().and_then(|kept| read(kept, file).ok().flatten());
        match (inner.fresh.get(file), kept) {
            (Some(fresh), Some(kept)) => Some(fresh.join(kept)),
            (fresh, kept) => fresh.copied().or(kept),
        }
    }

    /// Keeps what is only in memory.
    pub(crate) fn write(&self) {
        self.lock().write();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeatStore {
    fn drop(&mut self) {
        self.write();
    }
}

impl Inner {
    fn write(&mut self) {
        let Self { path, kept, fresh } = self;
        if fresh.is_empty() {
            return;
        }
        let written = kept.as_mut().map(|kept| write(kept, fresh));
        if let Some(Err(error)) = written {
            tracing::warn!(path = %path.display(), %error, "Uses of files were not kept");
        }
        // Also where it failed: memory is not for what a full disk refuses.
        fresh.clear();
    }
}

fn read(connection: &Connection, file: &Handle) -> rusqlite::Result<Option<Heat>> {
    let mut query = connection.prepare_cached("SELECT last_ms, warmth FROM heat WHERE file = ?1")?;
    let found = query.query_row([&file.0[..]], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
    Ok(found.map(|(last_ms, warmth)| Heat { last_ms: last_ms.unsigned_abs(), warmth }))
}

fn write(connection: &mut Connection, fresh: &HashMap<Handle, Heat>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (file, heat) in fresh {
        let heat = read(&transaction, file)?.map_or(*heat, |kept| heat.join(kept));
        let sql = "INSERT INTO heat (file, last_ms, warmth) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET last_ms = ?2, warmth = ?3";
        let last_ms = i64::try_from(heat.last_ms).unwrap_or(i64::MAX);
        transaction.prepare_cached(sql)?.execute(params![&file.0[..], last_ms, heat.warmth])?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(number: u8) -> Handle {
        Handle(vec![number; 12].into())
    }

    #[test]
    fn uses_are_known_before_and_after_they_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heat");
        let (now, hour) = (wall_ms() / 1_000 * 1_000, 3_600_000);
        let expected = Heat::once(now).and(now + hour).and(now + 2 * hour);
        for is_written in [false, true] {
            let store = HeatStore::open(&path);
            if is_written {
                assert_eq!(store.get(&file(1)), Some(Heat::once(now).and(now + hour)));
                store.note([file(1)], now + 2 * hour);
                assert_eq!(store.get(&file(1)).unwrap().last_ms, now + 2 * hour);
                store.write();
                assert!((store.get(&file(1)).unwrap().warmth - expected.warmth).abs() < 5);
            } else {
                store.note([file(1), file(2)], now);
                store.note([file(1)], now + hour);
                assert_eq!(store.get(&file(2)), Some(Heat::once(now)));
            }
            assert_eq!(store.get(&file(3)), None);
        }
    }

    #[test]
    fn a_damaged_record_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heat");
        for content in [&b"not a database, and longer than a header of one would be"[..], b""] {
            std::fs::write(&path, content).unwrap();
            let store = HeatStore::open(&path);
            assert_eq!(store.get(&file(1)), None);
            let now = wall_ms();
            store.note([file(1), file(2)], now);
            store.note([file(3)], 7);
            drop(store);
            let store = HeatStore::open(&path);
            assert_eq!(
                (store.get(&file(1)), store.get(&file(3))),
                (Some(Heat::once(now)), None),
                "what is long ago is forgotten"
            );
        }
    }
}
