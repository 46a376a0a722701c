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
/// The folder of the packs, in the data folder.
const OBJECTS: &str = "objects";
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
        make(path).map_err(io("cannot be made"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(io("cannot be locked"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ServiceError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io("cannot be locked")(source)),
        }
        check_format(path)?;
        make(&path.join(OBJECTS)).map_err(io("cannot be written"))?;
        for name in [RECORDS.to_owned(), format!("{RECORDS}-wal"), format!("{RECORDS}-shm"), OBJECTS.to_owned()] {
            make_private(&path.join(name));
        }
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
        self.path.join(OBJECTS)
    }
}

/// Makes a folder into which only this user can look, unless it is there; then it stays as somebody made it.
pub(crate) fn make(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

/// Lets nobody else look into something of ours: all content of all shares is in it. Of the folder that was given only what this
/// service has made is its own.
pub(crate) fn make_private(path: &Path) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let Ok(found) = fs::symlink_metadata(path) else { return };
    if found.mode() & 0o077 == 0 || found.is_symlink() {
        return;
    }
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7700)) {
        tracing::warn!(path = %path.display(), %error, "Others may look into what the service keeps");
    }
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
