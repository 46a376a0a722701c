//! A simulated volume: inodes, names, and two images of them. What is live is lost at a power cut; what was
//! synced is durable.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::name::Name;
use isotherm_core::node::{Kind, Metadata};
use isotherm_core::observe::{Evidence, Liveness, PARKED_PREFIX, Seen};
use isotherm_core::trees::{Handle, Print};

/// An inode number; never used twice.
pub type Ino = u64;
/// A name in a directory.
pub type At = (Ino, Name);

/// The endpoint's root.
pub const ROOT: Ino = 1;
/// The agent's staging folder.
pub const STAGING: Ino = 2;
/// What is in a part of a content: nobody's work.
pub const PART: Bytes = Bytes::MAX;

/// Between two readings of a clock. Clocks of different servers never show the same: two writes at one nanosecond do
/// not happen, and nothing could tell them apart.
pub const TICK: i64 = 128;

/// What users put into files: a number that nobody wrote before.
pub type Bytes = u32;

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Sort.
    pub kind: Kind,
    /// Content of a file, target of a symlink.
    pub bytes: Bytes,
    /// Modification time.
    pub modified: i64,
    /// Change time.
    pub changed: i64,
    /// Mode and the rest.
    pub metadata: Metadata,
    /// Of a stub: the node that its record names. Its content is not here.
    pub stub: Option<NodeId>,
}

impl Inode {
    /// Whether its content is not here.
    #[must_use]
    pub fn is_stub(&self) -> bool {
        self.stub.is_some()
    }
}

#[derive(Clone, Debug)]
struct Image {
    inodes: BTreeMap<Ino, Inode>,
    names: BTreeMap<At, Ino>,
}

/// A volume with one endpoint on it.
#[derive(Clone, Debug)]
pub struct Volume {
    live: Image,
    durable: Image,
    next: Ino,
    clock: i64,
}

/// The content id of some bytes.
#[must_use]
pub fn manifest(bytes: Bytes) -> ManifestId {
    ManifestId::of(&bytes.to_be_bytes())
}

/// The handle of an inode.
#[must_use]
pub fn handle(ino: Ino) -> Handle {
    Handle(ino.to_be_bytes().into())
}

/// The inode of a handle.
#[must_use]
pub fn ino(handle: &Handle) -> Ino {
    (*handle.0).try_into().map_or(0, Ino::from_be_bytes)
}

impl Volume {
    /// An empty volume whose clock shows this.
    #[must_use]
    pub fn new(clock: i64) -> Self {
        let image = Image { inodes: BTreeMap::new(), names: BTreeMap::new() };
        let mut volume = Self { live: image.clone(), durable: image, next: ROOT, clock };
        volume.make(Kind::Directory, 0);
        volume.make(Kind::Directory, 0);
        volume.sync();
        volume
    }

    /// A part of a large content that is still to be fetched lies in the staging folder.
    pub fn leave_part(&mut self, node: NodeId) {
        let Ok(name) = Name::new(format!("part-{node}").as_bytes()) else { return };
        let part = self.make(Kind::File, PART);
        self.link((STAGING, name), part);
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        self.durable = self.live.clone();
    }

    /// Power fails: only what is durable is left.
    pub fn lose_power(&mut self) {
        self.live = self.durable.clone();
    }

    /// Goes back to an older copy of itself, as a snapshot revert does; inode numbers and the clock go on.
    pub fn roll_back(&mut self, to: &Self) {
        self.live = to.live.clone();
        self.sync();
    }

    fn tick(&mut self) -> i64 {
        self.clock += TICK;
        self.clock
    }

    /// A new inode without a name.
    pub fn make(&mut self, kind: Kind, bytes: Bytes) -> Ino {
        let ino = self.next;
        self.next += 1;
        let now = self.tick();
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        self.live.inodes.insert(ino, Inode { kind, bytes, modified: now, changed: now, metadata, stub: None });
        ino
    }

    /// An inode, if it is there.
    #[must_use]
    pub fn inode(&self, ino: Ino) -> Option<&Inode> {
        self.live.inodes.get(&ino)
    }

    /// Changes an inode; its change time moves.
    pub fn alter(&mut self, ino: Ino, change: impl FnOnce(&mut Inode, i64)) {
        let now = self.tick();
        if let Some(inode) = self.live.inodes.get_mut(&ino) {
            change(inode, now);
            inode.changed = now;
        }
    }

    /// What has this name.
    #[must_use]
    pub fn at(&self, at: &At) -> Option<Ino> {
        self.live.names.get(at).copied()
    }

    /// Names of an inode.
    #[must_use]
    pub fn links(&self, ino: Ino) -> u32 {
        let names = self.live.names.values().filter(|other| **other == ino).count();
        u32::try_from(names).unwrap_or(u32::MAX)
    }

    /// Gives an inode a name that must be free.
    pub fn link(&mut self, at: At, ino: Ino) {
        self.live.names.insert(at, ino);
        self.alter(ino, |_, _| ());
    }

    /// Takes a name away; an inode without names goes.
    pub fn unlink(&mut self, at: &At) {
        let Some(ino) = self.live.names.remove(at) else { return };
        if self.links(ino) == 0 {
            self.live.inodes.remove(&ino);
        } else {
            self.alter(ino, |_, _| ());
        }
    }

    /// Entries of a directory.
    #[must_use]
    pub fn entries(&self, directory: Ino) -> Vec<(Name, Ino)> {
        let own = self.live.names.iter().filter(|((parent, _), _)| *parent == directory);
        own.map(|((_, name), ino)| (name.clone(), *ino)).collect()
    }

    /// Every name below the root, with its inode.
    #[must_use]
    pub fn all(&self) -> Vec<(At, Ino)> {
        let below = self.live.names.iter().filter(|(at, _)| self.is_below(at.0, ROOT));
        below.map(|(at, ino)| (at.clone(), *ino)).collect()
    }

    /// Every file that has a name anywhere, those that the agent has put aside too.
    pub fn files(&self) -> impl Iterator<Item = (Ino, &Inode)> {
        let named: BTreeSet<&Ino> = self.live.names.values().collect();
        let files = self.live.inodes.iter().filter(move |(ino, _)| named.contains(ino));
        files.map(|(ino, inode)| (*ino, inode)).filter(|(_, inode)| inode.kind == Kind::File)
    }

    /// Every file whose name, or that of a directory above it, a step has taken away for the moment.
    pub fn parked(&self) -> impl Iterator<Item = &Inode> {
        let mut parked = self.entries(STAGING);
        parked.retain(|(name, _)| name.as_bytes().starts_with(PARKED_PREFIX.as_bytes()));
        let is_parked =
            move |ino: Ino, directory: Ino| parked.iter().any(|(_, above)| *above == ino || self.is_below(directory, *above));
        let named = self.live.names.iter().filter(move |((directory, _), ino)| is_parked(**ino, *directory));
        named.filter_map(|(_, ino)| self.inode(*ino)).filter(|inode| inode.kind == Kind::File)
    }

    /// Whether `at` is `above` or below it.
    #[must_use]
    pub fn is_below(&self, mut at: Ino, above: Ino) -> bool {
        loop {
            if at == above {
                return true;
            }
            match self.live.names.iter().find(|(_, ino)| **ino == at) {
                Some(((parent, _), _)) => at = *parent,
                None => return false,
            }
        }
    }

    /// `rename(2)`: false where the kernel would refuse, or where it would do nothing.
    pub fn rename(&mut self, from: &At, to: At) -> bool {
        let Some(ino) = self.at(from) else { return false };
        let directory = |ino: Ino| self.live.inodes[&ino].kind == Kind::Directory;
        if directory(ino) && self.is_below(to.0, ino) {
            return false;
        }
        if let Some(old) = self.at(&to) {
            if old == ino || directory(ino) != directory(old) || (directory(old) && !self.entries(old).is_empty()) {
                return false;
            }
            self.unlink(&to);
        }
        self.live.names.remove(from);
        self.live.names.insert(to, ino);
        self.alter(ino, |_, _| ());
        true
    }

    /// `RENAME_EXCHANGE`.
    pub fn exchange(&mut self, a: &At, b: &At) -> bool {
        let (Some(first), Some(second)) = (self.at(a), self.at(b)) else { return false };
        self.live.names.insert(a.clone(), second);
        self.live.names.insert(b.clone(), first);
        self.alter(first, |_, _| ());
        self.alter(second, |_, _| ());
        true
    }

    /// Removes a name and everything below it; calls back with each inode before it loses a name.
    pub fn remove_tree(&mut self, at: &At, seen: &mut dyn FnMut(&Self, &At, Ino)) {
        let Some(ino) = self.at(at) else { return };
        for (name, _) in self.entries(ino) {
            self.remove_tree(&(ino, name), seen);
        }
        seen(self, at, ino);
        self.unlink(at);
    }

    /// The state that tells whether an inode changed.
    #[must_use]
    pub fn print(&self, ino: Ino) -> Option<Print> {
        let inode = self.inode(ino)?;
        let links = self.links(ino);
        Some(Print { size: 1, modified: Timestamp(inode.modified), changed: Timestamp(inode.changed), links })
    }

    /// Whether an inode is there and has names.
    #[must_use]
    pub fn liveness(&self, ino: Ino) -> Liveness {
        match self.links(ino) {
            0 => Liveness::Gone,
            links if self.inode(ino).is_some_and(Inode::is_stub) => Liveness::Tiered(links),
            links => Liveness::Linked(links),
        }
    }

    /// A name as a look sees it.
    #[must_use]
    pub fn seen(&self, name: &Name, ino: Ino, evidence: Evidence) -> Option<Seen> {
        let inode = self.inode(ino)?;
        Some(Seen {
            name: name.clone(),
            handle: handle(ino),
            kind: inode.kind,
            print: self.print(ino)?,
            metadata: Some(inode.metadata.clone()),
            target: Some(inode.bytes.to_be_bytes().to_vec()),
            evidence,
        })
    }

    /// Every path below the root with what a user would see there.
    #[must_use]
    pub fn image(&self) -> BTreeMap<String, Shown> {
        let mut image = BTreeMap::new();
        self.collect(ROOT, "", &mut image);
        image
    }

    /// Paths that are names of one file, where it has several.
    #[must_use]
    pub fn linked(&self) -> BTreeSet<BTreeSet<String>> {
        let mut names: BTreeMap<Ino, BTreeSet<String>> = BTreeMap::new();
        self.name_files(ROOT, "", &mut names);
        names.into_values().filter(|names| names.len() > 1).collect()
    }

    fn name_files(&self, directory: Ino, prefix: &str, names: &mut BTreeMap<Ino, BTreeSet<String>>) {
        for (name, ino) in self.entries(directory) {
            let path = format!("{prefix}/{name}");
            match self.live.inodes[&ino].kind {
                Kind::Directory => self.name_files(ino, &path, names),
                Kind::File => {
                    names.entry(ino).or_default().insert(path);
                }
                Kind::Symlink => {}
            }
        }
    }

    fn collect(&self, directory: Ino, prefix: &str, image: &mut BTreeMap<String, Shown>) {
        for (name, ino) in self.entries(directory) {
            let path = format!("{prefix}/{name}");
            let inode = &self.live.inodes[&ino];
            let modified = if inode.kind == Kind::File { inode.modified } else { 0 };
            let bytes = if inode.kind == Kind::Directory { 0 } else { inode.bytes };
            image.insert(path.clone(), Shown { kind: inode.kind, bytes, modified, mode: inode.metadata.mode });
            if inode.kind == Kind::Directory {
                self.collect(ino, &path, image);
            }
        }
    }
}

/// What a user sees of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Sort.
    pub kind: Kind,
    /// Content.
    pub bytes: Bytes,
    /// Modification time of a file.
    pub modified: i64,
    /// Mode.
    pub mode: u32,
}
