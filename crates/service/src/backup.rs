//! A copy of a data folder, made while a service works on it.
//!
//! The records are copied as of one moment, then the packs that they name. Packs never change, so a second run into the
//! same folder copies only what is new. A pack that went meanwhile was rewritten or collected: then the records are copied
//! once more. It asks the service nothing, and holds it up no more than any reader.
//!
//! **Invariant:** the folder always holds records whose packs are all there, as far as they were whole: those of this run, or
//! those of the one before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use isotherm_core::content::PackId;
use isotherm_store::{ChunkStore as _, FolderStore, PackStore};

use crate::fault::Fault;
use crate::folder::{self, DataFolder};
use crate::records::{self, PackRow};
use crate::{ServiceError, folder::RECORDS};

/// How often the records are copied again because packs went meanwhile. Collection runs a few times a day.
const ROUNDS: usize = 3;

/// What a backup has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// Packs that the records name, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub bytes: u64,
    /// Packs that this run copied, and their bytes.
    pub copied_packs: u64,
    /// See `copied_packs`.
    pub copied_bytes: u64,
    /// Packs of an earlier run that were damaged in the backup; they are copied anew where that is possible. Only known where
    /// the backup was read.
    pub damaged_copies: u64,
    /// Packs of an earlier run that nothing names any more.
    pub removed_packs: u64,
    /// Packs that are missing or damaged in the data folder and of which something is wanted: their content is not in the
    /// backup. A deep check puts what can be read of them into new packs.
    pub damaged: Vec<PackId>,
    /// Chunks that a check of the service has found damaged and no server has sent again: they are not in the backup.
    pub lost_chunks: u64,
}

/// How far it is: bytes that are done, of all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Copies the data folder `from` to the folder `to`, which is empty or holds an earlier backup. With `verify` the packs that
/// an earlier run has copied are read too, and those that are damaged are copied anew.
///
/// # Errors
/// `from` is no data folder, `to` is something else, the backup of another service or in use, or one of them cannot be read or
/// written.
pub async fn backup(from: &Path, to: &Path, verify: bool, progress: Progress<'_>) -> Result<Backup, ServiceError> {
    check_folders(from, to)?;
    // Locked like any data folder, so that nobody serves it meanwhile.
    let target = DataFolder::open(to)?;
    let (data, copy) = (from.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || check_owner(&data, &copy)).await.map_err(Fault::from)??;
    let objects = std::sync::Arc::new(FolderStore::open(target.objects()).await?);
    let (from_records, new_records) = (from.join(RECORDS), to.join(format!("{RECORDS}.new")));
    let mut done = Backup::default();
    let mut copying =
        Copying { from: from.to_owned(), to: to.to_owned(), objects: &objects, progress, verify, rotten: BTreeSet::new() };
    for round in 1..=ROUNDS {
        let (source, copy) = (from_records.clone(), new_records.clone());
        let packs = tokio::task::spawn_blocking(move || copy_records(&source, &copy)).await.map_err(Fault::from)??;
        (done.packs, done.bytes) = (packs.len() as u64, packs.iter().map(|(pack, _)| pack.len).sum());
        done.damaged = copying.copy(&packs, &mut done).await?;
        if done.damaged.is_empty() || round == ROUNDS {
            break;
        }
    }
    done.lost_chunks = count_lost(&new_records, &objects).await?;
    take_place(to, &new_records).map_err(failed(to, "cannot be written"))?;
    done.removed_packs = remove_unnamed(to, std::sync::Arc::clone(&objects)).await?;
    Ok(done)
}

/// The new records take the place of those of the run before.
fn take_place(to: &Path, new_records: &Path) -> std::io::Result<()> {
    // A log of a service that worked on an earlier backup belongs to that one's records.
    for log in ["-wal", "-shm"] {
        match fs::remove_file(to.join(format!("{RECORDS}{log}"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(new_records, to.join(RECORDS))?;
    File::open(to)?.sync_all()
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> ServiceError {
    let path = path.to_owned();
    move |source| ServiceError::Folder { path, what, source }
}

fn check_folders(from: &Path, to: &Path) -> Result<(), ServiceError> {
    folder::require_format(from)?;
    folder::make(to).map_err(failed(to, "cannot be made"))?;
    let real = |path: &Path| fs::canonicalize(path).map_err(failed(path, "cannot be read"));
    let (from, to) = (real(from)?, real(to)?);
    let inside = |source: &str| ServiceError::Folder {
        path: to.clone(),
        what: "cannot hold the backup",
        source: std::io::Error::new(ErrorKind::InvalidInput, source.to_owned()),
    };
    if to.starts_with(&from) || from.starts_with(&to) {
        return Err(inside("it lies in the data folder, or the data folder in it"));
    }
    let mut entries = fs::read_dir(&to).map_err(failed(&to, "cannot be read"))?;
    if entries.next().is_some() && folder::require_format(&to).is_err() {
        return Err(inside("it holds other files; give an empty folder, or that of an earlier backup"));
    }
    Ok(())
}

/// Copies the records as of one moment; gives the packs that they name.
fn copy_records(from: &Path, to: &Path) -> Result<Vec<(PackRow, bool)>, ServiceError> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(to, "cannot be written")(error)),
        _ => {}
    }
    records::copy(from, to)?;
    folder::make_private(to);
    File::open(to).and_then(|file| file.sync_all()).map_err(failed(to, "cannot be written"))?;
    Ok(records::packs_in(to)?)
}

/// Refuses a backup of another service: it may be the only thing that is left of that one, for instance where a service was
/// started on an empty folder because its disk was not mounted.
fn check_owner(from: &Path, to: &Path) -> Result<(), ServiceError> {
    let backed_up = to.join(RECORDS);
    if !backed_up.exists() {
        return Ok(());
    }
    let (own, other) = (records::owner_of(&from.join(RECORDS))?, records::owner_of(&backed_up)?);
    if own.is_same_as(&other) {
        return Ok(());
    }
    Err(ServiceError::OtherBackup {
        data: from.to_owned(),
        own: own.to_string(),
        backup: to.to_owned(),
        other: other.to_string(),
    })
}

/// Chunks that are set aside in the records and whose packs an earlier run has not copied when they were whole.
async fn count_lost(records: &Path, objects: &FolderStore) -> Result<u64, ServiceError> {
    let file = records.to_owned();
    let aside = tokio::task::spawn_blocking(move || records::aside_in(&file)).await.map_err(Fault::from)??;
    let mut lost = 0;
    for (pack, chunks) in aside {
        if !is_there(objects, &pack).await {
            lost += chunks;
        }
    }
    Ok(lost)
}

async fn is_there(objects: &FolderStore, pack: &PackRow) -> bool {
    objects.size(&PackStore::key_of(pack.id)).await.is_ok_and(|len| len == pack.len)
}

/// Copying packs, in one round or several.
struct Copying<'a> {
    from: PathBuf,
    to: PathBuf,
    objects: &'a FolderStore,
    progress: Progress<'a>,
    /// Whether the next round reads what is there already.
    verify: bool,
    /// Packs that are there and damaged.
    rotten: BTreeSet<PackId>,
}

impl Copying<'_> {
    /// One round; gives the packs of which something is wanted and that cannot be copied.
    async fn copy(&mut self, packs: &[(PackRow, bool)], done: &mut Backup) -> Result<Vec<PackId>, ServiceError> {
        let (mut damaged, mut passed) = (Vec::new(), 0);
        for (pack, is_wanted) in packs {
            (self.progress)(passed, done.bytes);
            passed += pack.len;
            if self.is_whole(pack, done).await {
                continue;
            }
            match read_pack(&self.from, pack).await {
                Some(bytes) => {
                    self.objects.replace(&PackStore::key_of(pack.id), bytes).await?;
                    self.rotten.remove(&pack.id);
                    done.copied_packs += 1;
                    done.copied_bytes += pack.len;
                }
                None if *is_wanted => damaged.push(pack.id),
                // Whatever was in it is elsewhere, or counts as lost already.
                None => {}
            }
        }
        self.verify = false;
        Ok(damaged)
    }

    async fn is_whole(&mut self, pack: &PackRow, done: &mut Backup) -> bool {
        if !is_there(self.objects, pack).await || self.rotten.contains(&pack.id) {
            return false;
        }
        if self.verify && read_pack(&self.to, pack).await.is_none() {
            self.rotten.insert(pack.id);
            done.damaged_copies += 1;
            return false;
        }
        true
    }
}

/// A pack of a data folder whose bytes are those that its name tells.
async fn read_pack(folder: &Path, pack: &PackRow) -> Option<Bytes> {
    let path = folder.join("objects").join(PackStore::key_of(pack.id).as_str());
    let (id, len) = (pack.id, pack.len);
    let reading = tokio::task::spawn_blocking(move || {
        let bytes = fs::read(path).ok()?;
        (bytes.len() as u64 == len && PackId::of(&bytes) == id).then(|| Bytes::from(bytes))
    });
    reading.await.ok().flatten()
}

async fn remove_unnamed(to: &Path, objects: std::sync::Arc<FolderStore>) -> Result<u64, ServiceError> {
    let named = records::packs_in(&to.join(RECORDS))?;
    let named: BTreeSet<PackId> = named.into_iter().map(|(pack, _)| pack.id).collect();
    let packs = PackStore::new(objects);
    let there: Vec<(PackId, u64)> = packs.list_packs().try_collect().await?;
    let old: Vec<PackId> = there.into_iter().map(|(pack, _)| pack).filter(|pack| !named.contains(pack)).collect();
    packs.delete_packs(&old).await?;
    Ok(old.len() as u64)
}
