//! Which files of a volume are stubs, or were: a list that only grows while it is used, and is written anew by a start that finds
//! many in it that are none any more.
//!
//! A file is in it, durably, before it gets its record, so that every stub can be found without walking over the volume. Entries
//! of files that are whole again cost a look at the next start. **Invariant:** a list that may lack a stub says so.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FallocateFlags, IFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Dir, Root, STAGE_DIR, open_beneath};
use crate::error::{ErrorKind, GateError, Result};
use crate::{FileHandle, Kind};

/// Name of the list in [`STAGE_DIR`] at the top of a volume.
const FILE: &str = "stubs";
/// Name of the next one while it is written.
const NEXT: &str = "stubs.new";
/// What a list begins with: format 2. The first entry is the list's own file: one that a backup brought back, or that somebody has put
/// there, is an older one, which lacks stubs.
const HEAD: &[u8; 8] = b"isoStub2";
/// Entries of files that are whole again which are not worth writing a list anew. A start that writes nothing also gets through
/// where the volume is about to be frozen, and somebody waits for an answer.
const SPARE: usize = 4_096;
/// Room that is kept behind the list, in bytes: on a volume that is full to the last block files become stubs to make some.
const KEPT: u64 = 64 << 10;
/// Bytes behind an entry that tell whether it is whole.
const CHECK: usize = 4;

/// The list of a volume.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: OwnedFd,
    end: u64,
    /// Up to where there is known to be room for it. A start writes nothing.
    kept: u64,
    known: BTreeSet<FileHandle>,
}

impl Ledger {
    /// Opens the list of the volume whose top is `root`, with the files that are stubs now. Where there is no list, or a damaged
    /// one, the whole volume is walked over.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn open(root: &Root) -> Result<Self> {
        let staging = root.staging()?;
        let home = staging.home();
        let (listed, old) = match read(home)? {
            Some((listed, old)) => (listed, Some(old)),
            None => (walk(root)?, None),
        };
        let entries = listed.len();
        let known: BTreeSet<FileHandle> = listed.into_iter().filter(|handle| may_be_stub(root, handle)).collect();
        let is_whole = old.as_ref().is_some_and(Old::is_whole);
        let goes_on = is_whole && entries <= 2 * known.len() + SPARE;
        let (file, end) = match (goes_on, old) {
            (true, Some(old)) => go_on(home, &old)?,
            (_, old) => match (write(home, &known), old) {
                // Where there is no room for another one, and room can be made only with a list.
                (Err(error), Some(old)) if error.kind() == ErrorKind::NoSpace => go_on(home, &old)?,
                (written, _) => written?,
            },
        };
        Ok(Self { state: Mutex::new(State { file, end, kept: end, known }) })
    }

    /// Files that users see and that may be stubs soon. Durable when it returns: a record becomes so on its own, whenever the file
    /// system writes its journal.
    ///
    /// # Errors
    /// A failure of the volume: then none of them may become one.
    pub fn add(&self, files: &[FileHandle]) -> Result<()> {
        self.add_staged(files)?;
        let mut state = self.state();
        rustix::fs::fdatasync(&state.file).map_err(|errno| {
            // Nobody is told of the same failed write twice: the next one must not count them as being there.
            files.iter().for_each(|file| {
                state.known.remove(file);
            });
            fail(errno, "write")
        })
    }

    /// Files in staging that may be stubs soon. Durable with the volume's next sync, and no user sees them before.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_staged(&self, files: &[FileHandle]) -> Result<()> {
        let mut state = self.state();
        let new: Vec<&FileHandle> = files.iter().filter(|file| !state.known.contains(*file)).collect();
        let bytes: Vec<u8> = new.iter().flat_map(|file| entry(file)).collect();
        put(&state.file, &bytes, state.end).map_err(|errno| fail(errno, "write"))?;
        state.end += bytes.len() as u64;
        if state.end + KEPT / 2 > state.kept {
            state.kept = keep_room(&state.file, state.end);
        }
        state.known.extend(files.iter().cloned());
        Ok(())
    }

    /// How many files are on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().known.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files on it.
    #[must_use]
    pub fn files(&self) -> Vec<FileHandle> {
        self.state().known.iter().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// False only where it is certain: an entry too many costs a look.
fn may_be_stub(root: &Root, handle: &FileHandle) -> bool {
    match root.inode(handle).and_then(|inode| inode.stub_record()) {
        Ok(record) => record.is_some(),
        Err(error) => error.kind() != ErrorKind::Stale,
    }
}

/// The list as it is, for a gate; none where it cannot be relied on.
pub(crate) fn listed(top: impl AsFd) -> Option<Vec<FileHandle>> {
    let home = open_beneath(top, OsStr::new(STAGE_DIR), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let home = home.ok()?;
    // Somebody else's folder of that name says nothing.
    let owner = rustix::fs::fstat(&home).ok()?;
    if owner.st_uid != rustix::process::geteuid().as_raw() || owner.st_mode & 0o077 != 0 {
        return None;
    }
    let (bytes, own) = contents(home, FILE).ok()??;
    parse(&bytes)?.of(&own)
}

fn entry(file: &FileHandle) -> Vec<u8> {
    let handle = file.to_bytes();
    // A handle has at most 132 bytes.
    let mut bytes = vec![u8::try_from(handle.len()).unwrap_or(u8::MAX)];
    bytes.extend(&handle);
    bytes.extend(check(&bytes));
    bytes
}

/// FNV-1a: it tells a torn entry from a whole one, and nobody but root can write here.
fn check(bytes: &[u8]) -> [u8; CHECK] {
    let sum = bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    sum.to_le_bytes()
}

/// What stands in a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    /// The file that the list was written to.
    pub(crate) own: FileHandle,
    /// Those on it.
    pub(crate) files: Vec<FileHandle>,
}

impl Entries {
    /// The files, if the list is that of this file.
    fn of(self, file: &FileHandle) -> Option<Vec<FileHandle>> {
        (self.own == *file).then_some(self.files)
    }
}

/// The entries. A last one that is cut off was not durable, so its file is no stub; anything else that is wrong makes the list
/// one that may lack something.
pub(crate) fn parse(bytes: &[u8]) -> Option<Entries> {
    let mut all = parse_all(bytes.strip_prefix(HEAD)?)?.into_iter();
    Some(Entries { own: all.next()?, files: all.collect() })
}

fn parse_all(mut rest: &[u8]) -> Option<Vec<FileHandle>> {
    let mut found = Vec::new();
    while let Some(len) = rest.first().map(|len| usize::from(*len)) {
        let Some((whole, after)) = rest.split_at_checked(1 + len + CHECK) else { break };
        let (body, sum) = whole.split_at(1 + len);
        if check(body) != sum {
            // A torn write of several entries leaves zeros.
            return rest.iter().all(|byte| *byte == 0).then_some(found);
        }
        found.push(FileHandle::from_bytes(&body[1..]).ok()?);
        rest = after;
    }
    Some(found)
}

/// A list that was found.
#[derive(Debug)]
struct Old {
    /// Its length, and that of what is whole of it: what follows was cut off before it was durable.
    len: u64,
    whole: u64,
}

impl Old {
    fn is_whole(&self) -> bool {
        self.len == self.whole
    }
}

/// The entries of the list, if it can be relied on.
fn read(home: &Dir) -> Result<Option<(Vec<FileHandle>, Old)>> {
    let found = contents(home.as_fd(), FILE).map_err(|errno| fail(errno, "read"))?;
    Ok(found.and_then(|(bytes, own)| {
        let listed = parse(&bytes)?.of(&own)?;
        let whole = HEAD.len() + std::iter::once(&own).chain(&listed).map(|file| entry(file).len()).sum::<usize>();
        Some((listed, Old { len: bytes.len() as u64, whole: whole as u64 }))
    }))
}

/// The list that is there, to be written on behind what is whole of it; gives the file and its length.
fn go_on(home: &Dir, old: &Old) -> Result<(OwnedFd, u64)> {
    let file = open_beneath(home.as_fd(), OsStr::new(FILE), OFlags::RDWR | OFlags::NOFOLLOW, Mode::empty());
    let file = file.map_err(|errno| fail(errno, "write"))?;
    if !old.is_whole() {
        // Zeros rather than a cut, which would give away the room that is kept behind the list; where even that has no room, a cut.
        let zeros = vec![0; (old.len - old.whole) as usize];
        let ended = put(&file, &zeros, old.whole).or_else(|_| rustix::fs::ftruncate(&file, old.whole));
        ended.and_then(|()| rustix::fs::fsync(&file)).map_err(|errno| fail(errno, "write"))?;
    }
    Ok((file, old.whole))
}

/// The bytes of a file, and which it is.
fn contents(home: impl AsFd, name: &str) -> std::result::Result<Option<(Vec<u8>, FileHandle)>, Errno> {
    let file = match open_beneath(home, OsStr::new(name), OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let own = FileHandle::of(&file)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Some((bytes, own)))
}

/// A whole list in the file `own`; [`parse`] reads it.
pub(crate) fn bytes_of<'a>(own: &FileHandle, files: impl IntoIterator<Item = &'a FileHandle>) -> Vec<u8> {
    let mut bytes = [&HEAD[..], &entry(own)].concat();
    files.into_iter().for_each(|file| bytes.extend(entry(file)));
    bytes
}

/// Writes a list anew, durably; gives the file and its length.
fn write(home: &Dir, known: &BTreeSet<FileHandle>) -> Result<(OwnedFd, u64)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let made = open_beneath(home.as_fd(), OsStr::new(NEXT), flags, Mode::RUSR | Mode::WUSR).and_then(|file| {
        let bytes = bytes_of(&FileHandle::of(&file)?, known);
        write_in_place(&file);
        put(&file, &bytes, 0)?;
        keep_room(&file, bytes.len() as u64);
        rustix::fs::fsync(&file)?;
        rustix::fs::renameat(home.as_fd(), NEXT, home.as_fd(), FILE)?;
        rustix::fs::fsync(home.as_fd())?;
        Ok((file, bytes.len() as u64))
    });
    made.map_err(|errno| {
        // Half a list is of no use, and takes room; the next try writes over it.
        let _ = rustix::fs::unlinkat(home.as_fd(), NEXT, AtFlags::empty());
        fail(errno, "write")
    })
}

/// On btrfs even a file that stays as long as it is takes new blocks for each write, and on a full volume the list could take no entry
/// although room is kept for it. Other file systems do not know the flag. The list has checks of its own.
fn write_in_place(file: &OwnedFd) {
    let set = rustix::fs::ioctl_getflags(file).and_then(|flags| rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW));
    if let Err(errno) = set {
        tracing::debug!(%errno, "The list of tiered files is not written in place");
    }
}

/// Keeps room behind the list, if there is any; gives its end.
fn keep_room(file: &OwnedFd, end: u64) -> u64 {
    let kept = rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, end, KEPT);
    // Without it the list grows as any file does.
    end + kept.map_or(0, |()| KEPT)
}

fn put(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> std::result::Result<(), Errno> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| rustix::io::pwrite(file, bytes, at))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

/// Every stub of a volume, by looking at each file. What goes away meanwhile is no stub any more; another file system has a list
/// of its own. Anything else that cannot be looked at is an error: it might be a stub.
fn walk(root: &Root) -> Result<Vec<FileHandle>> {
    let mut found = Vec::new();
    // By handle, for a directory may have more directories than a process may have descriptors.
    let mut open = vec![root.handle().clone()];
    while let Some(dir) = open.pop() {
        let Some(dir) = unless_gone(root.open_dir(&dir))? else { continue };
        let mut names: Vec<OsString> = Vec::new();
        dir.list(|entry| names.push(entry.name.to_owned()))?;
        for name in names {
            let Some(inode) = unless_gone(dir.inode(&name))? else { continue };
            let Some(stat) = unless_gone(inode.stat())? else { continue };
            match stat.kind {
                Kind::Directory if stat.dev == root.dev() => open.push(stat.handle),
                Kind::File if stat.dev == root.dev() && inode.stub_record()?.is_some() => found.push(stat.handle),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// None where it is gone, or was never part of this file system.
fn unless_gone<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Stale | ErrorKind::CrossDevice) => Ok(None),
        Err(error) => Err(error),
    }
}

fn fail(errno: Errno, operation: &'static str) -> GateError {
    let kind = ErrorKind::from(errno);
    GateError::new(kind, operation, "the list of tiered files")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn handle(byte: u8) -> FileHandle {
        FileHandle::new(1, &[byte; 8]).unwrap()
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_damage_is_noticed() {
        let files = [handle(1), handle(2), handle(3)];
        let bytes = bytes_of(&handle(9), &files);
        let of = |bytes: &[u8]| parse(bytes).and_then(|entries| entries.of(&handle(9)));
        assert_eq!(of(&bytes).unwrap(), files);
        assert_eq!(of(&bytes[..bytes.len() - 3]).unwrap(), files[..2], "the last one was cut off");
        let torn = [&bytes[..], &[0; 40]].concat();
        assert_eq!(of(&torn).unwrap().len(), 3);
        assert_eq!(parse(&bytes).unwrap().of(&handle(8)), None, "another file's");
        assert_eq!(parse(&bytes[..HEAD.len()]), None);
        let mut damaged = bytes.clone();
        damaged[HEAD.len() + 3] ^= 1;
        assert_eq!(parse(&damaged), None);
        assert_eq!(parse(b"isoStub3"), None);
        assert_eq!(parse(b""), None);
    }

    /// A start on a full volume has to get along with the list that it finds: room is made only by putting more files on it.
    #[test]
    fn where_there_is_no_room_a_torn_list_goes_on() {
        crate::testing::on_each_fs(64, |volume| {
            let root = Root::open(volume.path()).unwrap();
            let file = volume.path().join("file");
            std::fs::write(&file, "file").unwrap();
            let opened = std::fs::File::open(&file).unwrap();
            rustix::fs::fsetxattr(&opened, crate::volume::STUB_RECORD_XATTR, b"r", rustix::fs::XattrFlags::empty()).unwrap();
            let stub = root.dir().stat("file".as_ref()).unwrap().unwrap().handle;
            let home = root.staging().unwrap();
            let ledger = Ledger::open(&root).unwrap();
            ledger.add(std::slice::from_ref(&stub)).unwrap();
            drop(ledger);
            let list = volume.path().join(STAGE_DIR).join(FILE);
            let whole = std::fs::read(&list).unwrap();
            std::fs::write(&list, [&whole[..], &entry(&stub)[..7]].concat()).unwrap();
            let (_, old) = read(home.home()).unwrap().unwrap();
            assert!(!old.is_whole());
            let (opened, end) = go_on(home.home(), &old).unwrap();
            put(&opened, &entry(&handle(3)), end).unwrap();
            assert_eq!(listed(root.dir()).unwrap(), [stub.clone(), handle(3)], "{:?}", volume.fs());
            assert_eq!(Ledger::open(&root).unwrap().files(), [stub], "{:?}", volume.fs());
        });
    }

    /// A list that a backup has brought back is an older one.
    #[test]
    fn a_copy_of_a_list_is_not_believed() {
        crate::testing::on_each_fs(64, |volume| {
            let path = |name: &str| volume.path().join(name);
            let stub = |root: &Root, name: &str| {
                std::fs::write(path(name), name).unwrap();
                let file = std::fs::File::open(path(name)).unwrap();
                rustix::fs::fsetxattr(&file, crate::volume::STUB_RECORD_XATTR, b"r", rustix::fs::XattrFlags::empty()).unwrap();
                root.dir().stat(name.as_ref()).unwrap().unwrap().handle
            };
            let root = Root::open(volume.path()).unwrap();
            let first = stub(&root, "first");
            Ledger::open(&root).unwrap().add(std::slice::from_ref(&first)).unwrap();
            assert_eq!(listed(root.dir()).unwrap(), std::slice::from_ref(&first));
            let list = format!("{STAGE_DIR}/{FILE}");
            std::fs::copy(path(&list), path("backup")).unwrap();
            let second = stub(&root, "second");
            Ledger::open(&root).unwrap().add(std::slice::from_ref(&second)).unwrap();
            assert_eq!(listed(root.dir()).unwrap().len(), 2);
            std::fs::rename(path("backup"), path(&list)).unwrap();
            assert_eq!(listed(root.dir()), None, "{:?}", volume.fs());
            let known = Ledger::open(&root).unwrap();
            assert_eq!((known.len(), listed(root.dir()).map(|files| files.len())), (2, Some(2)), "{:?}", volume.fs());
        });
    }
}
