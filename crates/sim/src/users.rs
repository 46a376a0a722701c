//! What users do to a volume, what the watch reports of it, and what nobody may lose.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::engine::Changed;
use isotherm_core::content::ManifestId;
use isotherm_core::name::Name;
use isotherm_core::node::Kind;
use isotherm_core::trees::Handle;

use crate::rng::Rng;
use crate::volume::{At, Bytes, Ino, Inode, ROOT, Volume, handle, manifest};

/// Contents that somebody wrote and nobody who saw them has replaced or deleted. A user sees what is on his volume.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    next: Bytes,
    /// What must be in some live file at the end.
    pub owed: BTreeSet<Bytes>,
    /// At which servers somebody changed a file with this content, or something else gave it back.
    touched: BTreeMap<Bytes, BTreeSet<Toucher>>,
    /// What was in the file before: under the same name, or in the same inode.
    earlier: BTreeMap<Bytes, BTreeSet<Bytes>>,
    /// What the last user who had it deleted or replaced.
    ended: BTreeSet<Bytes>,
}

/// Who changed a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Toucher {
    /// A user of this server.
    Site(usize),
    /// A volume that went back to an older state.
    Fault,
}

/// The files of a volume by their names.
type Census = BTreeMap<At, (Ino, Inode)>;

fn census(volume: &Volume) -> Census {
    let all = volume.all().into_iter();
    all.filter_map(|(at, ino)| volume.inode(ino).filter(|inode| inode.kind == Kind::File).map(|inode| (at, (ino, inode.clone()))))
        .collect()
}

impl Ledger {
    fn fresh(&mut self) -> Bytes {
        self.next += 1;
        self.owed.insert(self.next);
        self.next
    }

    /// A user of a server did something.
    fn note(&mut self, site: usize, before: &Census, volume: &Volume) {
        let after = &census(volume);
        let changed = |one: &Census, other: &Census| -> Vec<Bytes> {
            one.iter().filter(|(at, file)| other.get(*at) != Some(file)).map(|(_, (_, inode))| inode.bytes).collect()
        };
        for bytes in changed(before, after).into_iter().chain(changed(after, before)) {
            self.touched.entry(bytes).or_default().insert(Toucher::Site(site));
        }
        for (at, (ino, inode)) in after {
            let named = before.get(at).into_iter();
            let same = before.values().filter(|(other, _)| other == ino);
            let earlier = named.chain(same).map(|(_, inode)| inode.bytes).filter(|bytes| *bytes != inode.bytes);
            self.earlier.entry(inode.bytes).or_default().extend(earlier);
        }
        // A name that is out of sight because its directory is being renamed was not given up with another name of the file.
        let parked = volume.parked().map(|inode| inode.bytes);
        let left: BTreeSet<Bytes> = after.values().map(|(_, inode)| inode.bytes).chain(parked).collect();
        self.ended.extend(before.values().map(|(_, inode)| inode.bytes).filter(|bytes| !left.contains(bytes)));
    }

    /// A fault gave a content back to a volume that had lost it.
    pub fn given_back(&mut self, bytes: Bytes) {
        self.touched.entry(bytes).or_default().insert(Toucher::Fault);
    }

    /// Somebody at a server renamed the file that has this content in the share. Who had given it up by then did not know that.
    pub fn renamed(&mut self, site: usize, bytes: Bytes) {
        if self.ended.contains(&bytes) {
            self.touched.entry(bytes).or_default().insert(Toucher::Site(site));
        }
    }

    /// Contents that must be in no live file at the end: the only server where anybody touched the file has given them up.
    /// If somebody elsewhere did something to it, both are right in some way, and it may come back.
    #[must_use]
    pub fn over(&self) -> BTreeSet<Bytes> {
        self.ended.iter().copied().filter(|bytes| self.touchers(*bytes).len() == 1).collect()
    }

    fn touchers(&self, bytes: Bytes) -> BTreeSet<Toucher> {
        let (mut seen, mut open, mut who) = (BTreeSet::new(), vec![bytes], BTreeSet::new());
        while let Some(bytes) = open.pop() {
            if seen.insert(bytes) {
                who.extend(self.touched.get(&bytes).into_iter().flatten().copied());
                open.extend(self.earlier.get(&bytes).into_iter().flatten().copied());
            }
        }
        who
    }

    /// A user gives a content up. One of several names of it counts as all of them: each name is a node of its own, and
    /// two users may give up one each.
    fn gone(&mut self, volume: &Volume, ino: Ino) {
        if let Some(inode) = volume.inode(ino).filter(|inode| inode.kind == Kind::File) {
            self.owed.remove(&inode.bytes);
        }
    }
}

/// A user at work: an action on a volume, and the reports of the kernel about it.
#[derive(Debug)]
pub struct User<'a> {
    /// The number of his server.
    pub site: usize,
    /// Where he works.
    pub volume: &'a mut Volume,
    /// What is owed.
    pub ledger: &'a mut Ledger,
    /// Chance.
    pub rng: &'a mut Rng,
    /// He leaves alone what others made; then nothing can be in conflict.
    pub apart: bool,
    /// Contents of stubs that come when he opens one.
    pub there: &'a BTreeSet<ManifestId>,
    /// Stubs whose content came.
    pub recalled: Vec<Handle>,
    /// What the kernel reports.
    pub reports: Vec<Changed>,
}

const NAMES: &[&str] = &["a", "b", "c", "A", "report.doc", "x"];

impl User<'_> {
    fn name(&mut self) -> Name {
        let text = self.rng.pick(NAMES).copied().unwrap_or("a");
        self.own(text)
    }

    fn own(&self, text: &str) -> Name {
        let text = if self.apart { format!("{}{}", self.prefix(), text.to_lowercase()) } else { text.to_owned() };
        Name::new(text.as_bytes()).expect("a fixed name is valid")
    }

    fn prefix(&self) -> String {
        format!("{} ", self.site)
    }

    fn report(&mut self, at: &At, written: bool) {
        let target = self.volume.at(at).map(handle);
        self.reports.push(Changed { directory: handle(at.0), name: Some(at.1.clone()), target, written });
    }

    fn directory(&mut self) -> Ino {
        let all = self.volume.all();
        let directories =
            all.iter().filter(|(_, ino)| self.volume.inode(*ino).is_some_and(|inode| inode.kind == Kind::Directory));
        let mut directories: Vec<Ino> = directories.map(|(_, ino)| *ino).collect();
        directories.push(ROOT);
        self.rng.pick(&directories).copied().unwrap_or(ROOT)
    }

    fn any(&mut self, kind: Option<Kind>) -> Option<(At, Ino)> {
        let all = self.volume.all();
        let fitting: Vec<_> = all
            .into_iter()
            .filter(|(_, ino)| kind.is_none() || self.volume.inode(*ino).map(|inode| inode.kind) == kind)
            .filter(|(at, _)| !self.apart || at.1.as_bytes().starts_with(self.prefix().as_bytes()))
            .collect();
        self.rng.pick(&fitting).cloned()
    }

    /// Does something.
    pub fn act(&mut self) {
        let before = census(self.volume);
        self.act_somehow();
        self.ledger.note(self.site, &before, self.volume);
    }

    fn act_somehow(&mut self) {
        match self.rng.below(100) {
            0..=19 => self.create(),
            20..=37 => self.write(),
            38..=45 => self.save_by_rename(),
            46..=51 => self.save_with_backup(),
            52..=55 => self.chmod(),
            56..=59 => self.touch(),
            60..=71 => self.rename(),
            72..=75 => self.swap(),
            76..=83 => self.delete(),
            84..=91 => self.mkdir(),
            92..=95 => self.hard_link(),
            96..=97 => self.symlink(),
            _ => self.replace_kind(),
        }
    }

    fn free_place(&mut self) -> Option<At> {
        let at = (self.directory(), self.name());
        self.volume.at(&at).is_none().then_some(at)
    }

    fn create(&mut self) {
        let Some(at) = self.free_place() else { return };
        let bytes = self.ledger.fresh();
        let ino = self.volume.make(Kind::File, bytes);
        self.volume.link(at.clone(), ino);
        self.report(&at, true);
    }

    fn write(&mut self) {
        let Some((at, ino)) = self.any(Some(Kind::File)) else { return };
        self.write_to(&at, ino);
    }

    /// Opens a file for writing; false if its content cannot be had.
    fn opens(&mut self, ino: Ino) -> bool {
        let Some(inode) = self.volume.inode(ino).filter(|inode| inode.is_stub()) else { return true };
        if !self.there.contains(&manifest(inode.bytes)) {
            return false;
        }
        self.volume.alter(ino, |inode, _| inode.stub = None);
        self.recalled.push(handle(ino));
        true
    }

    fn write_to(&mut self, at: &At, ino: Ino) {
        if !self.opens(ino) {
            return;
        }
        if let Some(inode) = self.volume.inode(ino) {
            self.ledger.owed.remove(&inode.bytes);
        }
        let bytes = self.ledger.fresh();
        self.volume.alter(ino, |inode, now| (inode.bytes, inode.modified) = (bytes, now));
        // Every name of the inode may be reported, or only the one that was used.
        self.report(at, true);
    }

    /// Writes to a file once more: to the given one while it has a name here, else to any. Returns which.
    pub fn scribble(&mut self, ino: Option<Ino>) -> Option<Ino> {
        let known = self.volume.all().into_iter().find(|(_, other)| Some(*other) == ino);
        let (at, ino) = known.or_else(|| self.any(Some(Kind::File)))?;
        let before = census(self.volume);
        self.write_to(&at, ino);
        self.ledger.note(self.site, &before, self.volume);
        Some(ino)
    }

    fn save_by_rename(&mut self) {
        let Some((at, old)) = self.any(Some(Kind::File)) else { return };
        self.ledger.gone(self.volume, old);
        let bytes = self.ledger.fresh();
        let ino = self.volume.make(Kind::File, bytes);
        self.volume.unlink(&at);
        self.volume.link(at.clone(), ino);
        self.report(&at, true);
    }

    /// As some editors do: the old file becomes the backup, the new one gets the name, the backup goes or stays.
    fn save_with_backup(&mut self) {
        let Some((at, old)) = self.any(Some(Kind::File)) else { return };
        let backup = (at.0, self.own("backup~"));
        if self.volume.at(&backup).is_some() {
            return;
        }
        self.volume.rename(&at, backup.clone());
        let bytes = self.ledger.fresh();
        let ino = self.volume.make(Kind::File, bytes);
        self.volume.link(at.clone(), ino);
        if self.rng.chance(60) {
            self.ledger.gone(self.volume, old);
            self.volume.unlink(&backup);
        }
        self.report(&backup, false);
        self.report(&at, true);
    }

    fn chmod(&mut self) {
        let Some((at, ino)) = self.any(None) else { return };
        let mode = 0o600 + u32::try_from(self.rng.below(64)).unwrap_or(0);
        if self.volume.inode(ino).is_some_and(|inode| inode.kind != Kind::Symlink) {
            self.volume.alter(ino, |inode, _| inode.metadata.mode = mode);
            self.report(&at, false);
        }
    }

    fn touch(&mut self) {
        let Some((at, ino)) = self.any(Some(Kind::File)) else { return };
        self.volume.alter(ino, |inode, now| inode.modified = now);
        self.report(&at, true);
    }

    fn rename(&mut self) {
        let Some((from, ino)) = self.any(None) else { return };
        let to = (self.directory(), self.name());
        if let Some(old) = self.volume.at(&to).filter(|old| *old != ino) {
            if self.apart && self.is_directory(old) {
                return;
            }
            let mut probe = self.volume.clone();
            if !probe.rename(&from, to.clone()) {
                return;
            }
            self.ledger.gone(self.volume, old);
        }
        if self.volume.rename(&from, to.clone()) {
            self.report(&from, false);
            self.report(&to, false);
        }
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.volume.inode(ino).is_some_and(|inode| inode.kind == Kind::Directory)
    }

    fn swap(&mut self) {
        let (Some((a, first)), Some((b, second))) = (self.any(None), self.any(None)) else { return };
        let nested = self.volume.is_below(b.0, first) || self.volume.is_below(a.0, second);
        if first != second && !nested && self.volume.exchange(&a, &b) {
            self.report(&a, false);
            self.report(&b, false);
        }
    }

    fn delete(&mut self) {
        let Some((at, ino)) = self.any(None) else { return };
        if self.is_directory(ino) && (self.apart || self.rng.chance(50)) {
            return;
        }
        let (ledger, reports) = (&mut *self.ledger, &mut self.reports);
        self.volume.remove_tree(&at, &mut |volume, at, ino| {
            ledger.gone(volume, ino);
            reports.push(Changed {
                directory: handle(at.0),
                name: Some(at.1.clone()),
                target: Some(handle(ino)),
                written: false,
            });
        });
    }

    fn mkdir(&mut self) {
        let Some(at) = self.free_place() else { return };
        let ino = self.volume.make(Kind::Directory, 0);
        self.volume.link(at.clone(), ino);
        self.report(&at, false);
    }

    fn hard_link(&mut self) {
        if self.apart {
            return;
        }
        let (Some((old, ino)), Some(at)) = (self.any(Some(Kind::File)), self.free_place()) else { return };
        self.volume.link(at.clone(), ino);
        self.report(&old, false);
        self.report(&at, false);
    }

    fn symlink(&mut self) {
        let Some(at) = self.free_place() else { return };
        let target = Bytes::try_from(self.rng.below(5)).unwrap_or(0);
        let ino = self.volume.make(Kind::Symlink, target);
        self.volume.link(at.clone(), ino);
        self.report(&at, false);
    }

    /// A file becomes a directory of the same name, or the other way round.
    fn replace_kind(&mut self) {
        let Some((at, ino)) = self.any(self.apart.then_some(Kind::File)) else { return };
        let was_directory = self.volume.inode(ino).is_some_and(|inode| inode.kind == Kind::Directory);
        let (ledger, reports) = (&mut *self.ledger, &mut self.reports);
        self.volume.remove_tree(&at, &mut |volume, at, ino| {
            ledger.gone(volume, ino);
            reports.push(Changed {
                directory: handle(at.0),
                name: Some(at.1.clone()),
                target: Some(handle(ino)),
                written: false,
            });
        });
        let (kind, bytes) = if was_directory { (Kind::File, self.ledger.fresh()) } else { (Kind::Directory, 0) };
        let ino = self.volume.make(kind, bytes);
        self.volume.link(at.clone(), ino);
        self.report(&at, true);
    }
}
