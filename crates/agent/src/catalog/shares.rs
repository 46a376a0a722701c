//! Which bytes are where on a volume whose equal contents share blocks, in a small database of its own.
//!
//! **Invariant:** nothing rests on it. What it says is where to look: the kernel compares before anything is shared, and what is written,
//! or goes, since then only makes a look be in vain.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isotherm_core::dedup::Key;
use isotherm_core::stub::ContentPrefix;
use isotherm_core::trees::Handle;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::beside::{self, Shape};

/// Places of one name that are looked at; of more, the oldest are as good as any.
const SPOTS: usize = 4;

/// Files that share blocks are of one family, and so are all that share with any of them: of what they share nothing gets free before the
/// last of them goes. A file is one row, with a number of its own: whatever was known of an earlier state of it has another number and is found no more.
/// The application id is "IsoD".
const SHAPE: Shape = Shape {
    format: 1,
    application: 0x4973_6f44,
    tables: "
CREATE TABLE file (
    number INTEGER PRIMARY KEY AUTOINCREMENT, handle BLOB NOT NULL UNIQUE, content BLOB NOT NULL, changed INTEGER NOT NULL,
    size INTEGER NOT NULL, shared INTEGER NOT NULL, family INTEGER NOT NULL
) STRICT;
CREATE INDEX file_family ON file (family);
CREATE TABLE spot (
    key INTEGER NOT NULL, number INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (key, number, offset)
) STRICT, WITHOUT ROWID;
",
    cache_kib: 16 * 1024,
};

const COLUMNS: &str = "file.handle, file.content, file.changed, file.size";

/// A file whose equal contents were looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedFile {
    pub(crate) handle: Handle,
    pub(crate) content: ContentPrefix,
    /// When its inode changed last, in nanoseconds since 1970: if that is so still, its content is that.
    pub(crate) changed_ns: i64,
    /// Its length in bytes.
    pub(crate) size: u64,
}

/// What is known of a volume. A failure of the database looks like "nothing is known".
#[derive(Debug)]
pub(crate) struct ShareStore {
    path: PathBuf,
    /// None where it cannot be kept: then nothing is shared.
    kept: Mutex<Option<Connection>>,
}

impl ShareStore {
    /// Of the file at this path, which is made where there is none, and anew where it cannot be read.
    pub(crate) fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), kept: Mutex::new(beside::open(path, &SHAPE)) }
    }

    /// Whether this was done already: a file in this state.
    pub(crate) fn has(&self, file: &SharedFile) -> bool {
        let sql = "SELECT 1 FROM file WHERE handle = ?1 AND content = ?2 AND changed = ?3";
        self.ask(false, |kept| {
            kept.prepare_cached(sql)?.exists(params![&file.handle.0[..], &file.content.0[..], file.changed_ns])
        })
    }

    /// Files that had bytes of this name, and where.
    pub(crate) fn spots(&self, key: Key) -> Vec<(SharedFile, u64)> {
        let sql = format!(
            "SELECT {COLUMNS}, spot.offset FROM spot JOIN file USING (number) WHERE spot.key = ?1 ORDER BY number LIMIT {SPOTS}"
        );
        self.ask(Vec::new(), |kept| {
            let read = |row: &Row<'_>| Ok((file_of(row)?, row.get::<_, i64>(4)?.unsigned_abs()));
            kept.prepare_cached(&sql)?.query_map([key.number()], read)?.collect()
        })
    }

    /// The number of the family of a file; none of a file that was not done in this state.
    pub(crate) fn family(&self, file: &Handle, changed_ns: i64) -> Option<i64> {
        let sql = "SELECT family FROM file WHERE handle = ?1 AND changed = ?2";
        self.ask(None, |kept| {
            kept.prepare_cached(sql)?.query_row(params![&file.0[..], changed_ns], |row| row.get::<_, i64>(0)).optional()
        })
    }

    /// All of a family.
    pub(crate) fn members(&self, family: i64) -> Vec<SharedFile> {
        let sql = format!("SELECT {COLUMNS} FROM file WHERE family = ?1");
        self.ask(Vec::new(), |kept| kept.prepare_cached(&sql)?.query_map([family], file_of)?.collect())
    }

    /// A file was done: so many of its bytes are those of these others, and more can be shared with it under these names.
    pub(crate) fn note(&self, file: &SharedFile, (shared, others): (u64, &BTreeSet<Handle>), spots: &[(Key, u64)]) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.write(|kept| {
            let transaction = kept.unchecked_transaction()?;
            transaction.prepare_cached("DELETE FROM file WHERE handle = ?1")?.execute([&file.handle.0[..]])?;
            let sql = "INSERT INTO file (handle, content, changed, size, shared, family) VALUES (?1, ?2, ?3, ?4, ?5, 0)";
            let (handle, content) = (&file.handle.0[..], &file.content.0[..]);
            transaction.prepare_cached(sql)?.execute(params![
                handle,
                content,
                file.changed_ns,
                number(file.size),
                number(shared)
            ])?;
            let of = transaction.last_insert_rowid();
            // Whoever begins a family gives it his number; families that are related become one.
            let mut family = of;
            for other in others {
                let sql = "SELECT family FROM file WHERE handle = ?1";
                let theirs = transaction.prepare_cached(sql)?.query_row([&other.0[..]], |row| row.get::<_, i64>(0)).optional()?;
                match theirs {
                    Some(theirs) if family != of && theirs != family => {
                        let sql = "UPDATE file SET family = ?1 WHERE family = ?2";
                        transaction.prepare_cached(sql)?.execute([family, theirs])?;
                    }
                    Some(theirs) => family = theirs,
                    None => {}
                }
            }
            transaction.prepare_cached("UPDATE file SET family = ?1 WHERE number = ?2")?.execute([family, of])?;
            for (key, offset) in spots {
                let sql = "INSERT OR IGNORE INTO spot (key, number, offset) VALUES (?1, ?2, ?3)";
                transaction.prepare_cached(sql)?.execute(params![key.number(), of, number(*offset)])?;
            }
            transaction.commit()
        });
    }

    /// Nothing of this file is there to share with any more.
    pub(crate) fn forget(&self, file: &Handle) {
        self.write(|kept| kept.prepare_cached("DELETE FROM file WHERE handle = ?1")?.execute([&file.0[..]]).map(drop));
    }

    /// Forgets files that are not what they were, asking `is_as_it_was` of each.
    pub(crate) fn retain(&self, mut is_as_it_was: impl FnMut(&SharedFile) -> bool) {
        let sql = format!("SELECT {COLUMNS} FROM file");
        // Without the lock that others may wait for; a handle is unique, so this is some 100 bytes for each file.
        let all: Vec<SharedFile> = self.ask(Vec::new(), |kept| kept.prepare_cached(&sql)?.query_map([], file_of)?.collect());
        let gone: BTreeSet<Handle> = all.into_iter().filter(|file| !is_as_it_was(file)).map(|file| file.handle).collect();
        gone.iter().for_each(|file| self.forget(file));
        self.write(|kept| kept.execute("DELETE FROM spot WHERE number NOT IN (SELECT number FROM file)", []).map(drop));
    }

    /// How many files have blocks of others, and how many bytes these are, as of when each was done.
    pub(crate) fn shared(&self) -> (u64, u64) {
        let sql = "SELECT count(*), coalesce(sum(shared), 0) FROM file WHERE shared > 0";
        self.ask((0, 0), |kept| {
            kept.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs())))
        })
    }

    fn ask<T>(&self, nothing: T, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        let kept = self.lock();
        let Some(connection) = kept.as_ref() else { return nothing };
        ask(connection).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "What shares blocks cannot be read");
            nothing
        })
    }

    fn write(&self, write: impl FnOnce(&Connection) -> rusqlite::Result<()>) {
        let kept = self.lock();
        if let Some(Err(error)) = kept.as_ref().map(write) {
            tracing::warn!(path = %self.path.display(), %error, "What shares blocks was not kept");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_of(row: &Row<'_>) -> rusqlite::Result<SharedFile> {
    let (handle, content): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
    let content = content.try_into().map_err(|_| rusqlite::Error::InvalidQuery)?;
    let size = row.get::<_, i64>(3)?.unsigned_abs();
    Ok(SharedFile { handle: Handle(handle.into()), content: ContentPrefix(content), changed_ns: row.get(2)?, size })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use isotherm_core::content::ManifestId;

    use super::*;

    fn file(number: u8, content: u8, changed_ns: i64) -> SharedFile {
        SharedFile { handle: Handle(vec![number; 12].into()), content: ContentPrefix([content; 16]), changed_ns, size: 9_000 }
    }

    #[test]
    fn a_file_is_found_by_what_it_holds_now_and_by_nothing_it_held() {
        let folder = tempfile::tempdir().unwrap();
        let store = ShareStore::open(&folder.path().join("shares"));
        let [old, new] = [b"old", b"new"].map(|text| Key::of_content(&ManifestId::of(text)));
        let with = |others: &[u8]| others.iter().map(|number| file(*number, 0, 0).handle).collect();
        store.note(&file(1, 1, 10), (0, &with(&[])), &[(old, 0)]);
        store.note(&file(2, 1, 11), (9_000, &with(&[1])), &[(old, 0)]);
        assert!(store.has(&file(1, 1, 10)) && !store.has(&file(1, 1, 12)) && !store.has(&file(1, 2, 10)));
        assert_eq!(store.spots(old), [(file(1, 1, 10), 0), (file(2, 1, 11), 0)]);
        assert_eq!(store.shared(), (1, 9_000));

        store.note(&file(1, 2, 20), (0, &with(&[])), &[(new, 4_096)]);
        assert_eq!(store.spots(old), [(file(2, 1, 11), 0)]);
        assert_eq!(store.spots(new), [(file(1, 2, 20), 4_096)]);

        store.retain(|file| file.handle == Handle(vec![1; 12].into()));
        assert_eq!((store.spots(old), store.shared()), (Vec::new(), (0, 0)));
        store.forget(&Handle(vec![1; 12].into()));
        assert_eq!(store.spots(new), []);
    }

    #[test]
    fn whoever_shares_with_two_families_makes_them_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = ShareStore::open(&folder.path().join("shares"));
        let note = |number: u8, others: &[u8]| {
            let others = others.iter().map(|other| file(*other, 0, 0).handle).collect();
            store.note(&file(number, number, 1), (1, &others), &[]);
        };
        let family = |number: u8| -> Vec<u8> {
            let files = store.members(store.family(&file(number, 0, 0).handle, 1).unwrap());
            files.iter().map(|file| file.handle.0[0]).collect()
        };
        [(1, &[][..]), (2, &[1]), (3, &[]), (4, &[3]), (5, &[])].into_iter().for_each(|(number, others)| note(number, others));
        assert_eq!((family(1), family(4), family(5)), (vec![1, 2], vec![3, 4], vec![5]));
        note(6, &[2, 3]);
        assert_eq!((family(4), family(6), family(5)), (vec![1, 2, 3, 4, 6], vec![1, 2, 3, 4, 6], vec![5]));
        // It was written to, and shares nothing now.
        note(2, &[]);
        assert_eq!((family(1), family(2)), (vec![1, 3, 4, 6], vec![2]));
        assert_eq!(store.family(&file(2, 0, 0).handle, 2), None);
    }
}
