//! What a step took away from its name: kept in staging until it is proved to be what was expected, put back otherwise
//! (row 1).
//!
//! **Invariant:** whatever a displaced inode turns out to be, its bytes end under a name that users see, or they are the
//! ones that the share still holds.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use isotherm_core::name::Name;
use isotherm_core::plan::Expected;
use isotherm_core::trees::Print;
use isotherm_gate::{Dir, ErrorKind, GateError, Inode, Kind, Stat};

use super::super::{Volume, handle_of};
use super::place::os;
use super::refusal::Refusal;

/// Names that are tried for a file that cannot go back to its own.
const RESCUE_NAMES: u32 = 10_000;

/// An inode in staging that a user may still have open.
pub(super) struct Displaced {
    pub(super) staged: String,
    pub(super) expected: Expected,
    pub(super) dir: Arc<Dir>,
    /// What took its place, as it was then; none after a removal.
    pub(super) successor: Option<Stat>,
}

/// Why a displaced inode is not what was expected to go.
pub(super) enum Doubt {
    Other,
    Writer,
}

impl Displaced {
    /// Whether it is what the step expected, as far as can be told after a rename has moved its change time.
    pub(super) fn judge(&self, volume: &Volume) -> Result<(), Doubt> {
        let inode = volume.staging().dir().inode(OsStr::new(&self.staged)).map_err(|_| Doubt::Other)?;
        let stat = inode.stat().map_err(|_| Doubt::Other)?;
        if handle_of(&stat.handle) != self.expected.handle || !same_bytes(&self.expected.print, &stat) {
            return Err(Doubt::Other);
        }
        if is_written(&inode, &stat) { Err(Doubt::Writer) } else { Ok(()) }
    }

    /// Removes it once and for all, or puts it back; then the step was not done, and this is its result.
    pub(super) fn let_go(self, volume: &Volume) -> Option<Refusal> {
        if let Err(doubt) = self.judge(volume) {
            return Some(self.put_back(volume, doubt));
        }
        if let Err(error) = volume.staging().remove(OsStr::new(&self.staged)) {
            // It is in nobody's way there, and the next start looks at it.
            tracing::warn!(%error, "Displaced file stays in staging");
        }
        None
    }

    /// Gives a displaced inode its name again, or one beside it.
    pub(super) fn put_back(self, volume: &Volume, doubt: Doubt) -> Refusal {
        let put = match &self.successor {
            Some(successor) => self.exchange_back(volume, successor),
            None => self.rename_back(volume),
        };
        if let Err(error) = put.or_else(|_| rescue(volume, &self.staged, Some(&self.dir), &self.expected.spot.name).map(|_| ())) {
            tracing::error!(%error, staged = self.staged, "A file that was saved at the last moment waits in staging for the next start");
        }
        match doubt {
            Doubt::Other => Refusal::Surprise,
            Doubt::Writer => Refusal::Busy,
        }
    }

    fn exchange_back(&self, volume: &Volume, successor: &Stat) -> Result<(), GateError> {
        let (staging, staged, name) = (volume.staging().dir(), OsStr::new(&self.staged), os(&self.expected.spot.name));
        let holder = self.dir.stat(name)?.map(|stat| stat.handle);
        match holder {
            None => return self.rename_back(volume),
            // Saved again meanwhile: the newer file keeps the name.
            Some(holder) if holder != successor.handle => return Err(GateError::new(ErrorKind::Exists, "put back", name)),
            Some(_) => staging.rename_exchange(staged, &self.dir, name)?,
        }
        let back = staging.inode(staged)?;
        let stat = back.stat()?;
        if stat.handle == successor.handle {
            // While it had the name a user may have written to it.
            let untouched = stat.size == successor.size && stat.mtime_ns == successor.mtime_ns && !is_written(&back, &stat);
            drop(back);
            return if untouched {
                volume.staging().remove(staged)
            } else {
                rescue(volume, &self.staged, Some(&self.dir), &self.expected.spot.name).map(|_| ())
            };
        }
        // Saved again between the last two calls: give the newer file its name back; the older one goes beside it.
        staging.rename_exchange(staged, &self.dir, name)?;
        Err(GateError::new(ErrorKind::Exists, "put back", name))
    }

    fn rename_back(&self, volume: &Volume) -> Result<(), GateError> {
        volume.staging().dir().rename_noreplace(OsStr::new(&self.staged), &self.dir, os(&self.expected.spot.name))
    }
}

/// Size and time of the content. A directory has none of its own.
pub(super) fn same_bytes(expected: &Print, stat: &Stat) -> bool {
    stat.kind == Kind::Directory || (stat.size == expected.size && stat.mtime_ns == expected.modified.0)
}

/// Whether somebody may still write to an inode. Where the file system has no leases nobody can tell.
pub(super) fn is_written(inode: &Inode, stat: &Stat) -> bool {
    stat.kind == Kind::File
        && match inode.has_writer() {
            Ok(written) => written,
            // Another user's file, where this process is not root: it may be open.
            Err(error) => matches!(error.kind(), ErrorKind::Busy | ErrorKind::Denied),
        }
}

/// Gives something in staging a free name like `wanted`, in `dir` or else in the endpoint's root.
pub(in crate::volume) fn rescue(volume: &Volume, staged: &str, dir: Option<&Dir>, wanted: &Name) -> Result<OsString, GateError> {
    let root = volume.root().dir();
    let staging = volume.staging().dir();
    let mut last = GateError::new(ErrorKind::NotFound, "rescue", os(wanted));
    for dir in dir.into_iter().chain([root]) {
        for number in 0..RESCUE_NAMES {
            let name = wanted.conflict("rescued", number);
            match staging.rename_noreplace(OsStr::new(staged), dir, os(&name)) {
                Ok(()) => {
                    tracing::warn!(%name, "A file that was saved while it was being replaced is kept under another name");
                    return Ok(os(&name).to_owned());
                }
                Err(error) if error.kind() == ErrorKind::Exists => {}
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    Err(last)
}
