//! Looking at names and directories.
//!
//! It compares with what is recorded only to save reading metadata; it decides nothing. **Invariant:** a listing is
//! given only where everything it speaks of could be read (row 27), so that absence means absence.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use isotherm_core::exclude::Exclusions;
use isotherm_core::name::Name;
use isotherm_core::node::Kind;
use isotherm_core::observe::{Evidence, Listing, Scope, Seen};
use isotherm_core::trees::{Handle, Print};
use isotherm_gate::{Dir, ErrorKind, GateError, Stat};

use super::{Volume, handle_of, is_tiered, print_of};
use crate::catalog::{Recorded, RecordedState};
use crate::engine::{Look, LookRequest, Unfit};

/// How often a name that changes while it is looked at is looked at again.
const TRIES: usize = 4;

/// Looks at what a request names. `recorded` tells what the catalog has, so that metadata of unchanged inodes is not
/// read again.
#[must_use]
pub fn look(volume: &Volume, recorded: &impl Recorded, exclusions: &Exclusions, request: &LookRequest) -> Look {
    let mut looker = Looker { volume, exclusions, full: request.full, seen: Vec::new(), unfit: Vec::new(), moved: Vec::new() };
    let listing = match looker.listing(recorded, request) {
        Ok(listing) => Some(listing),
        Err(error) => {
            // Gone directories are the business of whoever looks at their parents.
            if error.kind() != ErrorKind::Stale && looker.unfit.is_empty() {
                looker.unfit.push((None, Unfit::Unreadable(error.to_string())));
            }
            None
        }
    };
    Look { directory: request.directory, listing, unfit: looker.unfit, moved: looker.moved }
}

struct Looker<'a> {
    volume: &'a Volume,
    exclusions: &'a Exclusions,
    full: bool,
    seen: Vec<Seen>,
    unfit: Vec<(Option<Name>, Unfit)>,
    moved: Vec<(Handle, bool)>,
}

type Known = BTreeMap<Name, RecordedState>;

impl Looker<'_> {
    fn listing(&mut self, recorded: &impl Recorded, request: &LookRequest) -> Result<Listing, GateError> {
        let dir = self.volume.dir(&request.handle)?;
        let handle = handle_of(&dir.stat_self()?.handle);
        let scope = match &request.names {
            None => {
                let known = recorded.names(request.directory);
                self.whole(&dir, &known, request.evidence)?
            }
            Some(names) => {
                let name_of = |(name, _): &(Name, Evidence)| Some((name.clone(), recorded.name(request.directory, name)?));
                let known: Known = names.iter().filter_map(name_of).collect();
                self.some(&dir, &known, names)?
            }
        };
        Ok(Listing { directory: request.directory, handle, scope, seen: std::mem::take(&mut self.seen) })
    }

    fn whole(&mut self, dir: &Dir, known: &Known, evidence: Evidence) -> Result<Scope, GateError> {
        let mut names = Vec::new();
        dir.list(|entry| {
            let bytes = entry.name.as_bytes();
            if !self.exclusions.excludes(bytes) {
                names.push(Name::new(bytes));
            }
        })?;
        for name in names.into_iter().flatten() {
            self.one(dir, &name, known.get(&name), evidence)?;
        }
        // Where something else is mounted over a recorded name, nothing is known of what lies below.
        // Neither of a name that was excluded after it was synced: that deletes nothing.
        let covered = self.covered();
        let exclusions = self.exclusions;
        let unspoken = |name: &Name| covered.contains(name) || exclusions.excludes(name.as_bytes());
        if !known.keys().any(unspoken) {
            return Ok(Scope::All);
        }
        let seen = self.seen.iter().map(|seen| &seen.name);
        Ok(Scope::Names(seen.chain(known.keys()).filter(|name| !unspoken(name)).cloned().collect()))
    }

    fn some(&mut self, dir: &Dir, known: &Known, names: &[(Name, Evidence)]) -> Result<Scope, GateError> {
        let taking_part = names.iter().filter(|(name, _)| !self.exclusions.excludes(name.as_bytes()));
        let taking_part: Vec<&(Name, Evidence)> = taking_part.collect();
        for (name, evidence) in &taking_part {
            self.one(dir, name, known.get(name), *evidence)?;
        }
        let covered = self.covered();
        let spoken_of = taking_part.iter().map(|(name, _)| name).filter(|name| !covered.contains(name));
        Ok(Scope::Names(spoken_of.cloned().collect()))
    }

    fn covered(&self) -> BTreeSet<Name> {
        let other = self.unfit.iter().filter(|(_, why)| *why == Unfit::OtherDevice);
        other.filter_map(|(name, _)| name.clone()).collect()
    }

    /// Looks at one name. What is not there any more is left out, which says that it is absent.
    fn one(&mut self, dir: &Dir, name: &Name, known: Option<&RecordedState>, evidence: Evidence) -> Result<(), GateError> {
        for _ in 0..TRIES {
            match self.attempt(dir, name, known, evidence) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                // Replaced between two calls: the next look finds the newer file.
                Err(error) if error.kind() == ErrorKind::Stale => {}
                Err(error) if error.kind() == ErrorKind::CrossDevice => {
                    self.unfit.push((Some(name.clone()), Unfit::OtherDevice));
                    return Ok(());
                }
                Err(error) => {
                    self.unfit.push((Some(name.clone()), Unfit::Unreadable(error.to_string())));
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
        // Neither seen nor absent: nothing may be said of this directory now.
        self.unfit.push((Some(name.clone()), Unfit::Unreadable("It is replaced again and again".to_owned())));
        Err(GateError::new(ErrorKind::Busy, "look at", OsStr::from_bytes(name.as_bytes())))
    }

    fn attempt(&mut self, dir: &Dir, name: &Name, known: Option<&RecordedState>, evidence: Evidence) -> Result<(), GateError> {
        let inode = dir.inode(OsStr::from_bytes(name.as_bytes()))?;
        // Before the metadata: what changes afterwards moves the change time, and the next look sees it.
        let stat = inode.stat()?;
        if stat.dev != self.volume.root().dev() {
            self.unfit.push((Some(name.clone()), Unfit::OtherDevice));
            return Ok(());
        }
        let Some(kind) = kind_of(&stat) else {
            self.unfit.push((Some(name.clone()), Unfit::Special));
            return Ok(());
        };
        let (handle, print) = (handle_of(&stat.handle), print_of(&stat));
        let is_recorded = known.is_some_and(|known| known.handle == handle && same_state(kind, &known.print, &print));
        let was_tiered = known.is_some_and(|known| known.handle == handle && known.is_tiered);
        let is_tiered = is_tiered(&inode, &stat, was_tiered);
        if is_tiered != was_tiered {
            self.moved.push((handle.clone(), is_tiered));
        }
        let metadata = if is_recorded && !self.full && evidence != Evidence::Written {
            None
        } else {
            Some(self.volume.read_metadata(&inode, &stat)?)
        };
        let target = if kind == Kind::Symlink { Some(inode.read_link()?) } else { None };
        self.seen.push(Seen { name: name.clone(), handle, kind, print, metadata, target, evidence });
        Ok(())
    }
}

/// Size and modification time of a directory move with its entries, which are nodes of their own.
fn same_state(kind: Kind, recorded: &Print, seen: &Print) -> bool {
    recorded == seen || (kind == Kind::Directory && recorded.changed == seen.changed)
}

fn kind_of(stat: &Stat) -> Option<Kind> {
    match stat.kind {
        isotherm_gate::Kind::Directory => Some(Kind::Directory),
        isotherm_gate::Kind::File => Some(Kind::File),
        isotherm_gate::Kind::Symlink => Some(Kind::Symlink),
        isotherm_gate::Kind::Other => None,
    }
}
