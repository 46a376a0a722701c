//! Servers with tiny disks around one share, driven straight through the rules: no engine, no network, no time.
#![allow(dead_code)]

pub(crate) mod deeds;
pub(crate) mod disk;
pub(crate) mod people;

use std::collections::{BTreeMap, BTreeSet};

use disk::{Disk, Ino, handle, ino, manifest, name};
use isotherm_core::ids::{Cursor, Epoch, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{Answer, Batch, MemoryRecords, Operation, Records, apply, check, page};
use isotherm_core::node::{Content, FileContent, Kind};
use isotherm_core::observe::{Evidence, Listing, Liveness, Scope, Seen, displace, link_of, mirror, observe, resolve_lost};
use isotherm_core::plan::settle::{self, Commit};
use isotherm_core::plan::{Action, Authority, Expected, Parent, Plan, Rules, Step, plan};
use isotherm_core::trees::{Local, LocalContent, MemoryTrees, Record, Trees, TreesMut};

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) disk: Disk,
    pub(crate) trees: MemoryTrees,
    pub(crate) cursor: Cursor,
    pub(crate) epoch: Epoch,
    pub(crate) rules: Rules,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) records: MemoryRecords,
    pub(crate) servers: Vec<Server>,
    ids: u64,
    /// Contents that somebody wrote and nobody who saw them replaced or deleted.
    pub(crate) owed: BTreeSet<u8>,
    /// Plans need not be performed whole. In long stories a group can still be refused for a ring that only the share sees, and
    /// a step come too late for one that changed its inode through another name; the next plan goes on from there.
    pub(crate) is_lenient: bool,
}

fn next_id(ids: &mut u64) -> [u8; 16] {
    *ids += 1;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&ids.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&ids.to_be_bytes());
    bytes
}

impl World {
    pub(crate) fn new(count: u8, case: Case) -> Self {
        let mut records = MemoryRecords::new(Incarnation(1), case);
        let names: BTreeMap<ServerId, String> = (0..count).map(|number| (ServerId([number; 16]), format!("s{number}"))).collect();
        let servers = names.keys().map(|id| {
            let mut trees = MemoryTrees::new(case);
            let disk = Disk::new(1000 + i64::from(id.0[0]));
            for (node, at) in [(NodeId::ROOT, disk::ROOT), (NodeId::PARKED, disk::STAGING)] {
                let mut record = Record::new(node);
                record.local = Some(local_of(&disk, at, isotherm_core::node::Place { parent: node, name: name("root") }));
                trees.put(record);
            }
            let rules = Rules {
                case,
                server: *id,
                servers: names.clone(),
                authority: Authority::Merge,
                authority_until: None,
                hold_local_deletes: false,
                hold_remote_deletes: false,
            };
            let cursor = Cursor { incarnation: Incarnation(1), version: Version(0) };
            Server { id: *id, disk, trees, cursor, epoch: records.attach(*id), rules }
        });
        Self { servers: servers.collect(), records, ids: 0, owed: BTreeSet::new(), is_lenient: false }
    }

    /// Looks at everything on a server's disk.
    pub(crate) fn scan(&mut self, number: usize) {
        let displaced = self.servers[number].trees.records().filter(|record| record.is_lost()).map(|record| record.node);
        let mut lost: BTreeSet<NodeId> = displaced.collect();
        lost.extend(self.list_all(number));
        let server = &mut self.servers[number];
        while let Some(node) = lost.pop_first() {
            let Some(record) = server.trees.record(node).filter(Record::is_lost) else { continue };
            let at = ino(&record.local.unwrap().handle);
            let liveness =
                if server.disk.inodes.contains_key(&at) { Liveness::Linked(server.disk.links(at)) } else { Liveness::Gone };
            lost.extend(resolve_lost(&mut server.trees, node, liveness, true).lost);
        }
    }

    /// The trees after a look, before it is found out what became of what was not found.
    pub(crate) fn looked(&mut self, number: usize) -> MemoryTrees {
        self.list_all(number);
        self.servers[number].trees.clone()
    }

    /// Returns what was not found.
    fn list_all(&mut self, number: usize) -> BTreeSet<NodeId> {
        let server = &mut self.servers[number];
        let ids = &mut self.ids;
        let mut lost = BTreeSet::new();
        let mut queue = vec![NodeId::ROOT, NodeId::PARKED];
        let mut done = BTreeSet::new();
        let mut listings = Vec::new();
        // Directories that are new are listed in a further round, as the agent does.
        while !queue.is_empty() {
            while let Some(node) = queue.pop() {
                if !done.insert(node) {
                    continue;
                }
                if let Some(listing) = server.list(node) {
                    listings.push(listing);
                }
            }
            let observed = observe(&mut server.trees, &listings, &BTreeSet::new(), &mut || NodeId(next_id(ids)));
            assert!(observed.again.is_empty());
            lost.extend(observed.lost);
            listings.clear();
            let known =
                server.trees.records().filter(|record| record.here().is_some_and(|local| local.kind() == Kind::Directory));
            queue.extend(known.map(|record| record.node).filter(|node| !done.contains(node)));
        }
        lost
    }

    /// Reads the feed to its head.
    pub(crate) fn learn(&mut self, number: usize) {
        let server = &mut self.servers[number];
        loop {
            let page = page(&self.records, server.cursor, 3).unwrap();
            page.nodes.iter().for_each(|node| {
                settle::learn(&mut server.trees, node);
            });
            server.cursor = page.cursor;
            if page.at_head {
                return;
            }
        }
    }

    /// One plan for everything unsettled, performed; returns the plan.
    pub(crate) fn round(&mut self, number: usize, order: &dyn Fn(&mut Vec<NodeId>)) -> Plan {
        let plan = self.planned(number, order, &|_| false);
        self.perform(number, &plan);
        plan
    }

    /// A plan for everything unsettled, while the `busy` nodes are being worked on.
    pub(crate) fn planned(&mut self, number: usize, order: &dyn Fn(&mut Vec<NodeId>), busy: &dyn Fn(&Record) -> bool) -> Plan {
        let server = &self.servers[number];
        let ids = &mut self.ids;
        let mut nodes = server.trees.unsettled(None, usize::MAX);
        order(&mut nodes);
        plan(&server.trees, &server.rules, nodes, busy, &mut || NodeId(next_id(ids)))
    }

    /// Works on one server until it has nothing to do, while the others stand still.
    pub(crate) fn alone(&mut self, number: usize) {
        for _ in 0..60 {
            self.scan(number);
            self.learn(number);
            if self.round(number, &|_| {}).is_empty() {
                return;
            }
        }
        panic!("no end");
    }

    /// Performs a plan. Nothing happened since it was made, so each step must find what it expects.
    pub(crate) fn perform(&mut self, number: usize, plan: &Plan) {
        let late = self.attempt(number, plan);
        assert!(self.is_lenient || late.is_empty(), "steps that cannot be performed: {late:?}");
    }

    /// Performs what can still be performed of a plan; returns the steps that came too late.
    pub(crate) fn attempt(&mut self, number: usize, plan: &Plan) -> Vec<Step> {
        for fact in &plan.facts {
            settle::establish(&mut self.servers[number].trees, fact);
        }
        for node in &plan.reads {
            self.read(number, *node);
        }
        for node in &plan.searches {
            let history = self.records.history(*node, 100).unwrap();
            settle::searched(&mut self.servers[number].trees, *node, &history);
        }
        self.commit(number, plan);
        plan.steps.iter().filter(|step| !self.servers[number].step(step)).cloned().collect()
    }

    fn read(&mut self, number: usize, node: NodeId) {
        let server = &mut self.servers[number];
        let Some(mut record) = server.trees.record(node) else { return };
        let Some(local) = &mut record.local else { return };
        let at = ino(&local.handle);
        let Some(inode) = server.disk.inodes.get(&at) else { return };
        self.records.add_content(manifest(inode.bytes));
        local.print = server.disk.print(at);
        local.content = LocalContent::Known(Content::File(FileContent {
            manifest: manifest(inode.bytes),
            size: 1,
            modified: Timestamp(inode.modified),
            link: link_of(&server.trees, node, local.print.links),
        }));
        server.trees.put(record);
        mirror(&mut server.trees, node);
    }

    fn commit(&mut self, number: usize, plan: &Plan) {
        let server = &mut self.servers[number];
        let mut operations = Vec::new();
        for (group, intent) in plan.intents.iter().enumerate() {
            let group = (intent.changes.len() > 1).then_some(u32::try_from(group).unwrap());
            for change in &intent.changes {
                operations.push(Operation { id: OperationId(next_id(&mut self.ids)), group, change: change.clone() });
            }
        }
        let batch = Batch { server: server.id, epoch: server.epoch, incarnation: Incarnation(1), operations };
        let answers = apply(&mut self.records, &batch).unwrap();
        let problems = check(self.records.share().unwrap(), self.records.nodes());
        assert!(problems.is_empty(), "{problems:?}");
        let mut at = 0;
        for intent in &plan.intents {
            let mut is_applied = true;
            for change in &intent.changes {
                if let Answer::Applied(version) = answers[at] {
                    let commit = Commit { author: server.id, operation: batch.operations[at].id, version };
                    settle::committed(&mut server.trees, intent, change, commit);
                } else {
                    assert!(self.is_lenient, "{:?} to {change:?}", answers[at]);
                    is_applied = false;
                }
                at += 1;
            }
            if is_applied {
                settle::rebound(&mut server.trees, intent);
            }
        }
    }

    /// Works until nobody has anything to do.
    pub(crate) fn converge(&mut self, first: usize) -> Result<(), String> {
        let count = self.servers.len();
        let mut trace = Vec::new();
        for round in 0..60 {
            let mut idle = true;
            for offset in 0..count {
                let number = (first + offset) % count;
                self.scan(number);
                self.learn(number);
                let plan = self.round(number, &|_| {});
                if !plan.is_empty() {
                    trace.push(format!("round {round} server {number}: {plan:#?}"));
                }
                idle &= plan.is_empty();
            }
            if idle {
                return self.check().map_err(|what| format!("{what}\n{}", trace.join("\n")));
            }
        }
        Err(format!("no end after 60 rounds:\n{}", trace[trace.len().saturating_sub(6)..].join("\n")))
    }

    /// What must hold when all is quiet.
    fn check(&self) -> Result<(), String> {
        let first = self.servers[0].disk.image();
        for server in &self.servers {
            let image = server.disk.image();
            if image != first {
                return Err(format!("disks differ:\n{first:?}\n{image:?}"));
            }
            let open = server.trees.unsettled(None, usize::MAX);
            if !open.is_empty() {
                let records: Vec<_> = open.iter().map(|node| server.trees.record(*node)).collect();
                return Err(format!("not settled: {records:#?}"));
            }
            if !server.disk.is_empty(disk::STAGING) {
                return Err("something stayed parked".to_owned());
            }
        }
        let live: BTreeSet<u8> = first.values().filter(|(kind, ..)| *kind == Kind::File).map(|(_, bytes, ..)| *bytes).collect();
        let lost: Vec<_> = self.owed.difference(&live).collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("content lost: {lost:?}; left: {first:?}")) }
    }
}

fn local_of(disk: &Disk, at: Ino, place: isotherm_core::node::Place) -> Local {
    let inode = &disk.inodes[&at];
    let content = match inode.kind {
        Kind::Directory => LocalContent::Known(Content::Directory),
        Kind::Symlink => LocalContent::Known(Content::Symlink { target: inode.target.clone() }),
        Kind::File => LocalContent::Unread,
    };
    Local { place, handle: handle(at), print: disk.print(at), metadata: inode.metadata.clone(), raw: None, content, lost: false }
}

impl Server {
    fn list(&self, node: NodeId) -> Option<Listing> {
        let local = self.trees.record(node)?.here()?.clone();
        let directory = ino(&local.handle);
        self.disk.inodes.get(&directory)?;
        let entries = self.disk.names.iter().filter(|((parent, _), _)| *parent == directory);
        let seen = entries.map(|((_, name), at)| self.seen(name, *at)).collect();
        Some(Listing { directory: node, handle: local.handle, scope: Scope::All, seen })
    }

    fn seen(&self, name: &Name, at: Ino) -> Seen {
        let inode = &self.disk.inodes[&at];
        Seen {
            name: name.clone(),
            handle: handle(at),
            kind: inode.kind,
            print: self.disk.print(at),
            metadata: Some(inode.metadata.clone()),
            target: Some(inode.target.clone()),
            evidence: Evidence::Unwatched,
        }
    }

    fn directory(&self, parent: &Parent) -> Option<Ino> {
        let found = match parent {
            Parent::Inode(handle) => ino(handle),
            Parent::Planned(node) => ino(&self.trees.record(*node)?.here()?.handle),
        };
        self.disk.inodes.contains_key(&found).then_some(found)
    }

    fn find(&self, expected: &Expected) -> Option<(Ino, Name)> {
        let at = (self.directory(&expected.spot.parent)?, expected.spot.name.clone());
        (self.disk.names.get(&at) == Some(&ino(&expected.handle))).then_some(at)
    }

    /// Performs a step unless what it expects is not there.
    fn step(&mut self, step: &Step) -> bool {
        let Some(after) = self.act(step) else { return false };
        if let Some(local) = &after {
            displace(&mut self.trees, &local.place, step.node);
        }
        let strays = settle::performed(&mut self.trees, step, after);
        assert!(strays.is_empty(), "nothing is looked at between a plan and its steps here");
        mirror(&mut self.trees, step.node);
        true
    }

    fn act(&mut self, step: &Step) -> Option<Option<Local>> {
        match &step.action {
            Action::Create { at, content, metadata, link_to } => {
                let spot = (self.directory(&at.parent)?, at.name.clone());
                if self.disk.names.contains_key(&spot) {
                    return None;
                }
                let made = self.materialise(content, metadata, link_to.as_ref())?;
                self.disk.link(spot, made);
                Some(Some(self.after(made, at.place(), content)))
            }
            Action::Replace { expected, content, metadata, link_to } => {
                let spot = self.find(expected)?;
                let old = ino(&expected.handle);
                if self.disk.print(old) != expected.print {
                    return None;
                }
                let made = self.materialise(content, metadata, link_to.as_ref())?;
                self.disk.unlink(&spot);
                self.disk.link(spot, made);
                Some(Some(self.after(made, expected.spot.place(), content)))
            }
            Action::SetMetadata { expected, metadata, before, content, .. } => {
                self.find(expected)?;
                let at = ino(&expected.handle);
                let known = self.disk.print(at) == expected.print;
                if self.disk.inodes[&at].metadata != *before || (content.is_some() && !known) {
                    return None;
                }
                let mut local = self.trees.record(step.node)?.here()?.clone();
                self.disk.touch_change(at);
                let inode = self.disk.inodes.get_mut(&at)?;
                inode.metadata = metadata.clone();
                if let Some(file) = content {
                    inode.modified = file.modified.0;
                    local.content = LocalContent::Known(Content::File(file.clone()));
                }
                local.metadata = metadata.clone();
                // Changed since it was planned for: the old print stays, so that the change is found.
                local.print = if known { self.disk.print(at) } else { expected.print };
                Some(Some(local))
            }
            Action::Move { expected, to, .. } => {
                let from = self.find(expected)?;
                let at = ino(&expected.handle);
                let known = self.disk.print(at) == expected.print;
                let target = (self.directory(&to.parent)?, to.name.clone());
                if self.disk.names.contains_key(&target) || !self.disk.rename(&from, target) {
                    return None;
                }
                let mut local = self.trees.record(step.node)?.here()?.clone();
                local.place = to.place();
                local.print = if known { self.disk.print(at) } else { expected.print };
                Some(Some(local))
            }
            Action::Remove { expected, .. } => {
                let from = self.find(expected)?;
                let at = ino(&expected.handle);
                let inode = &self.disk.inodes[&at];
                let changed = inode.kind != Kind::Directory && self.disk.print(at) != expected.print;
                if changed || (inode.kind == Kind::Directory && !self.disk.is_empty(at)) {
                    return None;
                }
                self.disk.unlink(&from);
                Some(None)
            }
        }
    }

    fn materialise(
        &mut self,
        content: &Content,
        metadata: &isotherm_core::node::Metadata,
        link_to: Option<&Expected>,
    ) -> Option<Ino> {
        if let Some(target) = link_to {
            self.find(target)?;
            return Some(ino(&target.handle));
        }
        let bytes = match content {
            Content::Directory => 0,
            Content::File(file) => file.manifest.as_bytes()[0],
            Content::Symlink { target } => target[0],
        };
        let made = self.disk.make(content.kind(), bytes);
        let inode = self.disk.inodes.get_mut(&made)?;
        inode.metadata = metadata.clone();
        if let Some(file) = content.file() {
            inode.modified = file.modified.0;
        }
        Some(made)
    }

    fn after(&self, made: Ino, place: isotherm_core::node::Place, content: &Content) -> Local {
        if self.disk.links(made) > 1 {
            let owners = self.trees.by_handle(&handle(made)).into_iter().filter_map(|node| self.trees.record(node));
            if let Some(other) = owners.filter_map(|record| record.here().cloned()).next() {
                let mut print = self.disk.print(made);
                // Somebody may have changed the inode since its other name was looked at; a look has to find that.
                if self.disk.inodes[&made].metadata != other.metadata {
                    print.changed = other.print.changed;
                }
                let content = if print.modified == other.print.modified { other.content } else { LocalContent::Unread };
                return Local { place, print, content, ..other };
            }
        }
        let mut local = local_of(&self.disk, made, place);
        local.content = LocalContent::Known(content.clone());
        local
    }
}
