//! The data folder: its lock, its format version, and where things lie in it.
//!
//! It does not look into the database or the packs.
//!
//! **Invariant:** at most one service works on a data folder, and none on a folder of another format.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use isotherm_api::folder::{FORMAT_FILE, FORMAT_PREFIX};

use crate::ServiceError;

/// The format that this release writes and reads: the database's tables and the place of the packs.
pub(crate) const FORMAT: u32 = 1;

/// The database, in the data folder.
pub(crate) const RECORDS: &str = "records.sqlite";
/// Longest format file that is read, in bytes.
const FORMAT_LEN_MAX: u64 = 256;

/// A data folder that belongs to this process.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Dropping it gives the folder free; the kernel does so too when the process dies.
    _lock: File,
}

impl DataFolder {
    pub(crate) fn open(path: &Path) -> Result<Self, ServiceError> {
        let io = |what: &'static str| {
            let path = path.to_owned();
            move |source| ServiceError::Folder { path, what, source }
        };
        make_private(path).map_err(io("cannot be made"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(io("cannot be locked"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ServiceError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io("cannot be locked")(source)),
        }
        check_format(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is, without symlinks as far as that can be told.
    pub(crate) fn real_path(&self) -> PathBuf {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        absolute.canonicalize().unwrap_or(absolute)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(RECORDS)
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }
}

/// Makes a folder that only this user can look into: all content of all shares is in it.
pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Refuses what is not a data folder of this format; makes nothing.
pub(crate) fn require_format(path: &Path) -> Result<(), ServiceError> {
    let file = path.join(FORMAT_FILE);
    match fs::metadata(&file) {
        Ok(_) => check_format(path),
        Err(source) => Err(ServiceError::Folder { path: path.to_owned(), what: "is no data folder of a service", source }),
    }
}

/// Reads the format file, or writes it where the folder is new.
fn check_format(path: &Path) -> Result<(), ServiceError> {
    let file = path.join(FORMAT_FILE);
    let io = |what: &'static str| {
        let path = path.to_owned();
        move |source| ServiceError::Folder { path, what, source }
    };
    let mut text = String::new();
    match File::open(&file) {
        Ok(open) => open.take(FORMAT_LEN_MAX).read_to_string(&mut text).map_err(io("cannot be read"))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_new = !path.join(RECORDS).exists();
            if !is_new {
                return Err(ServiceError::Format { path: file, found: "nothing".to_owned() });
            }
            // A folder that died before this is still new.
            let text = format!("{FORMAT_PREFIX}{FORMAT}\n");
            return write_whole(path, FORMAT_FILE, &text).map_err(io("cannot be written"));
        }
        Err(error) => return Err(io("cannot be read")(error)),
    };
    let found = text.trim_end().strip_prefix(FORMAT_PREFIX).unwrap_or("an unknown text");
    if found.parse() == Ok(FORMAT) {
        return Ok(());
    }
    Err(ServiceError::Format { path: file, found: found.to_owned() })
}

/// The file appears whole and durable, or not at all.
fn write_whole(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut out = File::create(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}
