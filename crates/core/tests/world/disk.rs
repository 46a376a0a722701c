//! A file system small enough to copy: inodes, names, times that never repeat.

use std::collections::BTreeMap;

use isotherm_core::content::ManifestId;
use isotherm_core::ids::Timestamp;
use isotherm_core::name::Name;
use isotherm_core::node::{Kind, Metadata};
use isotherm_core::trees::{Handle, Print};

pub(crate) type Ino = u64;
pub(crate) const ROOT: Ino = 1;
pub(crate) const STAGING: Ino = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    pub(crate) bytes: u8,
    pub(crate) target: Vec<u8>,
    pub(crate) modified: i64,
    pub(crate) changed: i64,
    pub(crate) metadata: Metadata,
}

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) inodes: BTreeMap<Ino, Inode>,
    pub(crate) names: BTreeMap<(Ino, Name), Ino>,
    pub(crate) clock: i64,
    next: Ino,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) fn manifest(bytes: u8) -> ManifestId {
    ManifestId::from_bytes([bytes; 32])
}

pub(crate) fn handle(ino: Ino) -> Handle {
    Handle(ino.to_be_bytes().into())
}

pub(crate) fn ino(handle: &Handle) -> Ino {
    Ino::from_be_bytes((*handle.0).try_into().unwrap())
}

impl Disk {
    pub(crate) fn new(clock: i64) -> Self {
        let mut disk = Self { inodes: BTreeMap::new(), names: BTreeMap::new(), clock, next: ROOT };
        disk.make(Kind::Directory, 0);
        disk.make(Kind::Directory, 0);
        disk
    }

    fn tick(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn make(&mut self, kind: Kind, bytes: u8) -> Ino {
        let ino = self.next;
        self.next += 1;
        let now = self.tick();
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        let target = if kind == Kind::Symlink { vec![bytes] } else { Vec::new() };
        self.inodes.insert(ino, Inode { kind, bytes, target, modified: now, changed: now, metadata });
        ino
    }

    pub(crate) fn touch_change(&mut self, ino: Ino) {
        let now = self.tick();
        self.inodes.get_mut(&ino).unwrap().changed = now;
    }

    pub(crate) fn write(&mut self, ino: Ino, bytes: u8) {
        let now = self.tick();
        let inode = self.inodes.get_mut(&ino).unwrap();
        (inode.bytes, inode.modified, inode.changed) = (bytes, now, now);
    }

    pub(crate) fn links(&self, ino: Ino) -> u32 {
        u32::try_from(self.names.values().filter(|other| **other == ino).count()).unwrap()
    }

    pub(crate) fn at(&self, directory: Ino, text: &Name) -> Option<Ino> {
        self.names.get(&(directory, text.clone())).copied()
    }

    pub(crate) fn resolve(&self, path: &str) -> Option<Ino> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(ROOT, |at, part| self.at(at, &name(part)))
    }

    pub(crate) fn parent_and_name(&self, path: &str) -> Option<(Ino, Name)> {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.resolve(parent)?;
        (self.inodes[&parent].kind == Kind::Directory).then(|| (parent, name(last)))
    }

    pub(crate) fn link(&mut self, at: (Ino, Name), ino: Ino) {
        self.names.insert(at, ino);
        self.touch_change(ino);
    }

    pub(crate) fn unlink(&mut self, at: &(Ino, Name)) {
        let ino = self.names.remove(at).unwrap();
        if self.links(ino) == 0 {
            self.inodes.remove(&ino);
        } else {
            self.touch_change(ino);
        }
    }

    pub(crate) fn is_empty(&self, directory: Ino) -> bool {
        !self.names.keys().any(|(parent, _)| *parent == directory)
    }

    pub(crate) fn is_below(&self, mut at: Ino, above: Ino) -> bool {
        loop {
            if at == above {
                return true;
            }
            let up = self.names.iter().find(|(_, ino)| **ino == at).map(|((parent, _), _)| *parent);
            match up {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// rename(2): replaces a file, or an empty directory by a directory. False where the kernel would refuse.
    pub(crate) fn rename(&mut self, from: &(Ino, Name), to: (Ino, Name)) -> bool {
        let Some(ino) = self.names.get(from).copied() else { return false };
        if self.inodes[&ino].kind == Kind::Directory && self.is_below(to.0, ino) {
            return false;
        }
        if let Some(old) = self.names.get(&to).copied() {
            let directories = (self.inodes[&ino].kind == Kind::Directory, self.inodes[&old].kind == Kind::Directory);
            if old == ino || directories.0 != directories.1 || (directories.1 && !self.is_empty(old)) {
                return false;
            }
            self.unlink(&to);
        }
        self.names.remove(from);
        self.names.insert(to, ino);
        self.touch_change(ino);
        true
    }

    pub(crate) fn remove_tree(&mut self, at: &(Ino, Name)) {
        let ino = self.names[at];
        let inside: Vec<_> = self.names.keys().filter(|(parent, _)| *parent == ino).cloned().collect();
        inside.iter().for_each(|at| self.remove_tree(at));
        self.unlink(at);
    }

    pub(crate) fn print(&self, ino: Ino) -> Print {
        let inode = &self.inodes[&ino];
        Print { size: 1, modified: Timestamp(inode.modified), changed: Timestamp(inode.changed), links: self.links(ino) }
    }

    /// Every path with what a user would see there.
    pub(crate) fn image(&self) -> BTreeMap<String, (Kind, u8, i64, u32)> {
        let mut image = BTreeMap::new();
        self.collect(ROOT, "", &mut image);
        image
    }

    fn collect(&self, directory: Ino, prefix: &str, image: &mut BTreeMap<String, (Kind, u8, i64, u32)>) {
        for ((_, name), ino) in self.names.iter().filter(|((parent, _), _)| *parent == directory) {
            let path = format!("{prefix}/{name}");
            let inode = &self.inodes[ino];
            let modified = if inode.kind == Kind::File { inode.modified } else { 0 };
            image.insert(path.clone(), (inode.kind, inode.bytes, modified, inode.metadata.mode));
            if inode.kind == Kind::Directory {
                self.collect(*ino, &path, image);
            }
        }
    }
}
