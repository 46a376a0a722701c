//! The blocking half of the folder store: one system call after the other, in the order that survives a power cut.
//!
//! It runs on threads that may block and knows nothing of tasks.
//!
//! Invariant: see [`super`]. A temporary file never outlives the call that made it, or else the next opening.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{StoreError, StoreErrorKind};
use crate::key::Key;
use crate::seam::{Listed, exists, range_within};

/// Where objects are written before they get their name. No key begins with a dot.
const TEMPORARY: &str = ".tmp";
/// Held while a process uses the folder.
const LOCK: &str = ".lock";
/// Piece in which an object is compared with bytes, so that a repeated put of a pack takes no memory for a second one.
const COMPARE_LEN: usize = 1 << 20;

/// An open folder.
#[derive(Debug)]
pub(super) struct Disk {
    root: OwnedFd,
    temporary: OwnedFd,
    /// Keeps the lock.
    _lock: OwnedFd,
    /// Number of the next temporary file.
    next: AtomicU64,
    /// Folders whose own names are known to be durable. A folder that another process or call made may not be yet.
    durable: Mutex<BTreeSet<String>>,
}

impl Disk {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let failed = |what| move |error: io::Error| StoreError::from_io("", what, error);
        std::fs::create_dir_all(folder).map_err(failed("cannot make its folder"))?;
        let opened = fs::openat(CWD, folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = opened.map_err(|error| failed("cannot open its folder")(error.into()))?;
        let lock = beneath(&root, LOCK, OFlags::CREATE | OFlags::RDWR).map_err(failed("cannot open its lock"))?;
        fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::new(StoreErrorKind::Denied, "", "is in use by another process"))?;
        make_folder(&root, TEMPORARY).map_err(failed("cannot make its temporary folder"))?;
        let temporary = beneath(&root, TEMPORARY, OFlags::DIRECTORY).map_err(failed("cannot open its temporary folder"))?;
        sweep(&temporary).map_err(failed("cannot remove left-over temporary files"))?;
        // Folders above the root may be new as well; `put` makes durable only what lies in it.
        fs::syncfs(&root).map_err(|error| failed("cannot sync its folder")(error.into()))?;
        Ok(Self { root, temporary, _lock: lock, next: AtomicU64::new(0), durable: Mutex::default() })
    }

    /// Writes the object; see the trait.
    pub(super) fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::from_io(key, "cannot be written", error);
        let folder = self.make_folders(key).map_err(failed)?;
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let named = self.write_temporary(&name, bytes).and_then(|()| give_name(&self.temporary, &name, &folder, key.last()));
        let named = match named {
            Ok(()) => Ok(()),
            Err(error) => {
                // Best effort: if this fails too, the next opening sweeps it.
                let _ = fs::unlinkat(&self.temporary, &name, AtFlags::empty());
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(failed(error));
                }
                if self.holds(key, bytes)? { Ok(()) } else { Err(exists(key)) }
            }
        };
        // Also for an object that was there: whoever wrote it may not have come this far.
        fs::fsync(&folder).map_err(|error| failed(error.into()))?;
        named
    }

    /// Writes the object in the place of another; see the trait.
    pub(super) fn replace(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::from_io(key, "cannot be replaced", error);
        let folder = self.make_folders(key).map_err(failed)?;
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let renamed =
            self.write_temporary(&name, bytes).and_then(|()| Ok(fs::renameat(&self.temporary, &name, &folder, key.last())?));
        if let Err(error) = renamed {
            let _ = fs::unlinkat(&self.temporary, &name, AtFlags::empty());
            return Err(failed(error));
        }
        fs::fsync(&folder).map_err(|error| failed(error.into()))
    }

    /// The object's bytes, or those of a range.
    pub(super) fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let (mut file, len) = self.open_object(key)?;
        let range = range.unwrap_or(0..len);
        let within = range_within(key, range.clone(), len)?;
        let failed = |error| StoreError::from_io(key, "cannot be read", error);
        let mut bytes = vec![0; within.len()];
        file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }

    /// Opens the object and tells its length. What is not a regular file is no object.
    pub(super) fn open_object(&self, key: &Key) -> Result<(File, u64), StoreError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::not_found(key),
            _ => StoreError::from_io(key, "cannot be opened", error),
        };
        // Without NONBLOCK a FIFO that somebody put there would hold the thread for ever.
        let fd = beneath(&self.root, key.as_str(), OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed)?;
        let stat = fs::fstat(&fd).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::new(StoreErrorKind::Denied, key, "is not a regular file"));
        }
        Ok((File::from(fd), stat.st_size as u64))
    }

    /// Deletes objects and makes that durable, once for each folder.
    pub(super) fn delete_many(&self, keys: &[Key]) -> Result<(), StoreError> {
        let mut touched = std::collections::BTreeMap::new();
        for key in keys {
            let failed = |error: io::Error| StoreError::from_io(key, "cannot be deleted", error);
            let folder = key.folder().unwrap_or(".");
            if !touched.contains_key(folder) {
                match beneath(&self.root, folder, OFlags::DIRECTORY) {
                    Ok(fd) => touched.insert(folder, fd),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                };
            }
            match fs::unlinkat(&touched[folder], key.last(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        for (folder, fd) in touched {
            fs::fsync(fd).map_err(|error| StoreError::from_io(folder, "cannot be synced", error))?;
        }
        Ok(())
    }

    /// The objects right in a folder, and its folders. A folder that is gone is empty.
    pub(super) fn list_one(&self, folder: &str) -> Result<(Vec<Listed>, Vec<String>), StoreError> {
        let failed = |error: io::Error| StoreError::from_io(folder, "cannot be listed", error);
        let path = if folder.is_empty() { "." } else { folder };
        let fd = match beneath(&self.root, path, OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok((Vec::new(), Vec::new()));
            }
            Err(error) => return Err(failed(error)),
        };
        let (mut objects, mut folders) = (Vec::new(), Vec::new());
        for entry in Dir::read_from(&fd).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            // Names that are no keys, such as the lock, are not ours to show.
            let Ok(key) = Key::new(path) else { continue };
            let stat = match fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error.into())),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => objects.push(Listed { key, len: stat.st_size as u64 }),
                FileType::Directory => folders.push(key.to_string()),
                _ => {}
            }
        }
        Ok((objects, folders))
    }

    fn write_temporary(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fd = beneath(&self.temporary, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)?;
        let mut file = File::from(fd);
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Whether the object has exactly these bytes.
    fn holds(&self, key: &Key, bytes: &[u8]) -> Result<bool, StoreError> {
        let (mut file, len) = self.open_object(key)?;
        if len != bytes.len() as u64 {
            return Ok(false);
        }
        let mut piece = vec![0; COMPARE_LEN.min(bytes.len())];
        for wanted in bytes.chunks(COMPARE_LEN) {
            let piece = &mut piece[..wanted.len()];
            match file.read_exact(piece) {
                // What the medium does not give back is not there: whoever has the bytes may replace it.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(false),
                read => read.map_err(|error| StoreError::from_io(key, "cannot be read", error))?,
            }
            if piece != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the folders of a key, each durable before what lies in it, and opens the last.
    fn make_folders(&self, key: &Key) -> io::Result<OwnedFd> {
        let Some(folder) = key.folder() else { return beneath(&self.root, ".", OFlags::DIRECTORY) };
        let known = |path: &str| self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        if !known(folder) {
            let mut parent = beneath(&self.root, ".", OFlags::DIRECTORY)?;
            let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
            for path in ends.map(|end| &folder[..end]) {
                let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
                if !known(path) {
                    make_folder(&parent, name)?;
                    fs::fsync(&parent)?;
                    self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
                }
                parent = beneath(&parent, name, OFlags::DIRECTORY)?;
            }
        }
        beneath(&self.root, folder, OFlags::DIRECTORY)
    }
}

/// Opens a path beneath a folder; a symlink anywhere in it is refused.
fn beneath(folder: impl AsFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    Ok(fs::openat2(folder, path, flags | OFlags::CLOEXEC, mode, resolve)?)
}

fn make_folder(parent: impl AsFd, name: &str) -> io::Result<()> {
    match fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Moves a finished file to its name, never over another.
fn give_name(from: &OwnedFd, temporary: &str, to: &OwnedFd, name: &str) -> io::Result<()> {
    match fs::renameat_with(from, temporary, to, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Some file systems do not know the flag; a link never replaces either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::linkat(from, temporary, to, name, AtFlags::empty())?;
            Ok(fs::unlinkat(from, temporary, AtFlags::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes what a process that died has left in the temporary folder.
fn sweep(temporary: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(temporary)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match fs::unlinkat(temporary, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
