//! Files that give up their content and get it back. A stub of these worlds keeps its number, which stands for its record; the
//! content itself is only in the share, and only there for as long as the service keeps it.

use std::collections::BTreeSet;
use std::convert::Infallible;

use isotherm_agent::engine::{Engine, Event, ReadResult};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::namespace::Records;
use isotherm_core::node::{Content, FileContent, Kind};
use isotherm_core::plan::{Action as Act, Step};
use isotherm_core::stub::{ContentPrefix, Sought};
use isotherm_core::trees::{Handle, Print, Record, Trees as _};

use crate::rng::Rng;
use crate::volume::{Bytes, Ino, Inode, Volume, handle, ino, manifest};
use crate::world::{Action, CALM_AFTER, World};

/// Versions of a node that the share tells of.
const HISTORY: usize = 100;

/// Whether a content is worth a stub; small ones are not.
pub(crate) fn is_large(bytes: Bytes) -> bool {
    !bytes.is_multiple_of(5)
}

/// Whether what a step brings comes as a stub: a new file where the endpoint tiers, a new content where the file is a stub.
pub(crate) fn comes_as_stub(volume: &Volume, tiers: bool, step: &Step, bytes: Bytes) -> bool {
    let is_alone = |content: &Content| content.file().is_some_and(|file| file.link.is_none());
    is_large(bytes)
        && match &step.action {
            Act::Create { content, link_to: None, .. } => tiers && is_alone(content),
            Act::Replace { expected, content, link_to: None, .. } => {
                is_alone(content) && volume.inode(ino(&expected.handle)).is_some_and(Inode::is_stub)
            }
            _ => false,
        }
}

impl World {
    /// In worlds with tiering some endpoints tier, and people open what was tiered.
    pub(crate) fn plan_tiering(&mut self) {
        if !self.options.tiers {
            return;
        }
        let mut rng = Rng::new(self.options.seed.rotate_left(8));
        for site in &mut self.sites {
            site.tiers = rng.chance(60);
        }
        for _ in 0..20 + rng.below(60) {
            let number = usize::try_from(rng.below(self.options.agents as u64)).unwrap_or(0);
            let at = rng.below(CALM_AFTER + 5_000);
            self.at(at, if rng.chance(60) { Action::Tier(number) } else { Action::Open(number) });
        }
    }

    /// Contents that a reader at this server would get now: none while nobody answers for its stubs.
    pub(crate) fn recallable(&self, number: usize) -> BTreeSet<ManifestId> {
        let site = &self.sites[number];
        if !self.options.tiers || site.engine.is_none() || site.parted || self.down {
            return BTreeSet::new();
        }
        let mut there = BTreeSet::new();
        for (file, inode) in site.volume.files() {
            let Some(node) = inode.stub else { continue };
            let content = manifest(inode.bytes);
            let mut nodes = vec![node];
            nodes.extend(site.engine.as_ref().map(|engine| engine.catalog().by_handle(&handle(file))).unwrap_or_default());
            if self.records.has_content(content) && self.knows(number, &nodes, content) {
                there.insert(content);
            }
        }
        there
    }

    /// Some files that are as the share has them give up their content.
    pub(crate) fn tier(&mut self, number: usize) {
        let site = &mut self.sites[number];
        let Some(engine) = site.engine.as_ref() else { return };
        let files: Vec<Ino> = site.volume.files().map(|(ino, _)| ino).collect();
        let mut tiered = Vec::new();
        for file in files {
            let Some(record) = may_go(engine.catalog(), &site.volume, file) else { continue };
            if self.rng.chance(60) {
                let wanted = record.stands_for().map(|(_, content)| content.manifest);
                let bytes = site.volume.inode(file).map(|inode| manifest(inode.bytes));
                if wanted != bytes {
                    self.outcome.wrong.push(format!("inode {file} of server {number} would stand for what it does not hold"));
                }
                site.volume.alter(file, |inode, _| inode.stub = Some(record.node));
                tiered.push(handle(file));
            }
        }
        // The records were made durable before any content went.
        site.volume.sync();
        self.touched(number, tiered);
    }

    /// Somebody opens a file.
    pub(crate) fn open(&mut self, number: usize) {
        let stubs = self.sites[number].volume.files().filter(|(_, inode)| inode.is_stub());
        let stubs: Vec<Ino> = stubs.map(|(file, _)| file).collect();
        if let Some(file) = self.rng.pick(&stubs).copied() {
            self.bring_back(number, &[handle(file)]);
        }
    }

    /// The content of stubs comes, where it can.
    pub(crate) fn bring_back(&mut self, number: usize, files: &[Handle]) {
        let there = self.recallable(number);
        let mut came = Vec::new();
        for file in files {
            let volume = &mut self.sites[number].volume;
            let wanted = volume.inode(ino(file)).filter(|inode| inode.is_stub()).map(|inode| manifest(inode.bytes));
            match wanted {
                Some(content) if there.contains(&content) => {
                    volume.alter(ino(file), |inode, _| inode.stub = None);
                    came.push(file.clone());
                }
                Some(_) => {
                    let run = self.sites[number].run;
                    let event = Event::NotRecalled(file.clone(), "It cannot be had".to_owned());
                    self.soon(40, Action::Deliver(number, run, event));
                }
                None => {}
            }
        }
        self.touched(number, came);
    }

    /// The agent tells its engine what it did itself, unless it ends before that.
    pub(crate) fn touched(&mut self, number: usize, files: Vec<Handle>) {
        if !files.is_empty() {
            let is_stub = |file: &Handle| self.sites[number].volume.inode(ino(file)).is_some_and(Inode::is_stub);
            let tiered = files.iter().filter(|file| is_stub(file)).count() as u64;
            self.outcome.tiered += tiered;
            self.outcome.recalled += files.len() as u64 - tiered;
            let run = self.sites[number].run;
            self.soon(40, Action::Deliver(number, run, Event::Touched(files)));
        }
    }

    /// Whether the catalog of a server, or the share, knows of this content at one of these nodes.
    fn knows(&self, number: usize, nodes: &[NodeId], content: ManifestId) -> bool {
        let catalog = self.sites[number].engine.as_ref().map(Engine::catalog);
        let known = |node| catalog.and_then(|catalog| catalog.record(node));
        let had = |nodes: &[NodeId]| -> Result<Vec<ManifestId>, Infallible> {
            Ok(nodes.iter().flat_map(|node| self.records.history(*node, HISTORY).unwrap_or_default()).collect())
        };
        let Ok(found) = Sought::at(ContentPrefix::of(&content), nodes.iter().copied()).find(known, had);
        found == Some(content)
    }

    /// What a stub holds, told by its record and by what catalog and share know of its node.
    pub(crate) fn read_stub(&self, number: usize, inode: &Inode, nodes: [NodeId; 2], print: Print) -> ReadResult {
        let content = manifest(inode.bytes);
        if !self.knows(number, &nodes, content) {
            return ReadResult::Failed("It is tiered, and the share does not know its content".to_owned());
        }
        let content = FileContent { manifest: content, size: 1, modified: Timestamp(inode.modified), link: None };
        ReadResult::Content { content, print }
    }

    /// Stubs whose content is nowhere any more.
    pub(crate) fn dead_stubs(&self) -> Vec<(usize, Ino, Bytes)> {
        let sites = self.sites.iter().enumerate();
        let stubs = sites.flat_map(|(number, site)| site.volume.files().map(move |(ino, inode)| (number, ino, inode)));
        let dead = stubs.filter(|(.., inode)| inode.is_stub() && !self.records.has_content(manifest(inode.bytes)));
        dead.map(|(number, ino, inode)| (number, ino, inode.bytes)).collect()
    }
}

/// What is known of a file that may become a stub: it is exactly what the share has, and has one name.
fn may_go(catalog: &impl isotherm_core::trees::Trees, volume: &Volume, file: Ino) -> Option<Record> {
    volume.inode(file).filter(|inode| inode.kind == Kind::File && !inode.is_stub() && is_large(inode.bytes))?;
    let [node] = catalog.by_handle(&handle(file))[..] else { return None };
    let record = catalog.record(node)?;
    record.stands_for()?;
    // What the hands look at before they give anything up. Nobody compares the content.
    let is_same = volume.links(file) == 1 && record.here().is_some_and(|local| volume.print(file) == Some(local.print));
    is_same.then_some(record)
}
