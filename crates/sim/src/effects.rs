//! What engines ask for, done in the world: looks, messages to the share, moves on the volume. Messages are late, lost
//! or repeated; users and failures come in between.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_agent::engine::{Away, Catalog as _, Effect, Engine, Event, ReadResult, SnapshotPart, StepResult};
use isotherm_core::ids::{Cursor, Incarnation, NodeId, Timestamp, Version};
use isotherm_core::namespace::{Answer, Batch, Change, History, Operation, Reader, Records, apply, check, page};
use isotherm_core::node::{FileContent, Node};
use isotherm_core::plan::{Action as Act, Step};
use isotherm_core::trees::{Handle, Record, Trees as _};

use crate::faults::live_files;
use crate::perform::{content_entry, look, perform};
use crate::tiering::comes_as_stub;
use crate::users::User;
use crate::volume::{Bytes, Ino, Volume, handle, ino};
use crate::world::{Action, World};

impl World {
    fn deliver(&mut self, number: usize, event: Event) {
        let run = self.sites[number].run;
        self.soon(40, Action::Deliver(number, run, event));
    }

    /// Whether a message is lost on its way.
    fn lost(&mut self, number: usize) -> bool {
        self.down || self.sites[number].parted || (self.options.faults && !self.calm() && self.rng.chance(4))
    }

    pub(crate) fn perform(&mut self, number: usize, effect: Effect) {
        match effect {
            Effect::Look(requests) => {
                let mut looks = Vec::new();
                for request in requests {
                    if self.options.faults && !self.calm() && self.rng.chance(3) {
                        let reports = self.user(number);
                        self.report(number, reports);
                    }
                    looks.push(look(&self.sites[number].volume, &request));
                }
                self.deliver(number, Event::Looked(looks));
            }
            Effect::Probe(nodes) => {
                let volume = &self.sites[number].volume;
                let found = nodes.into_iter().map(|(node, handle)| (node, volume.liveness(ino(&handle)))).collect();
                self.deliver(number, Event::Probed(found));
            }
            Effect::BringBack(files) => self.bring_back(number, &files),
            Effect::Drain => {
                let (at, run) = (self.sites[number].reported_until.max(self.now) + 1, self.sites[number].run);
                self.at(at, Action::Deliver(number, run, Event::Drained));
            }
            Effect::Fetch { reader, wait } => self.fetch(number, reader, wait),
            Effect::FetchSnapshot => self.snapshot(number),
            Effect::Read(requests) => {
                let results = requests
                    .into_iter()
                    .map(|request| (request.node, self.read(number, request.node, &request.handle)))
                    .collect();
                self.deliver(number, Event::Read(results));
            }
            Effect::Commit(operations) => self.send(number, operations),
            Effect::History(nodes) => {
                let histories = if self.lost(number) {
                    Err(away())
                } else {
                    Ok(nodes.into_iter().map(|node| (node, self.records.history(node, 100).unwrap_or_default())).collect())
                };
                self.deliver(number, Event::Histories(histories));
            }
            Effect::Perform(steps) => self.perform_steps(number, &steps),
        }
    }

    fn read(&mut self, number: usize, asked: NodeId, handle: &Handle) -> ReadResult {
        if self.lost(number) {
            return ReadResult::Away(away());
        }
        if self.options.faults && !self.calm() && self.rng.chance(3) {
            let reports = self.user(number);
            self.report(number, reports);
            return ReadResult::Changed;
        }
        let volume = &mut self.sites[number].volume;
        let (Some(inode), Some(print)) = (volume.inode(ino(handle)).cloned(), volume.print(ino(handle))) else {
            return ReadResult::Gone;
        };
        if let Some(node) = inode.stub {
            return self.read_stub(number, &inode, [node, asked], print);
        }
        // What is uploaded was made durable first (row 7).
        volume.sync();
        let (manifest, bytes) = content_entry(inode.bytes);
        self.records.add_content(manifest);
        self.uploaded.insert(manifest, self.now);
        self.contents.insert(manifest, bytes);
        let content = FileContent { manifest, size: 1, modified: Timestamp(inode.modified), link: None };
        ReadResult::Content { content, print }
    }

    fn fetch(&mut self, number: usize, reader: Reader, wait: bool) {
        let run = self.sites[number].run;
        if self.lost(number) {
            self.deliver(number, Event::Page(Err(away())));
            return;
        }
        let limit = usize::try_from(1 + self.rng.below(6)).unwrap_or(1);
        let cursor = reader.cursor;
        let Ok(page) = page(&self.records, reader, limit);
        if page.start_over && self.records_are_behind(reader) {
            self.begin_life();
        }
        if wait && page.nodes.is_empty() && !page.start_over && page.cursor == cursor {
            self.soon(150, Action::Do(number, run, Effect::Fetch { reader, wait }));
            return;
        }
        // Within a run a position never goes back; a crash may take a catalog back to an older one.
        let asked = &mut self.sites[number].cursor;
        if let Some(before) = asked.filter(|asked| asked.incarnation == cursor.incarnation && cursor.version < asked.version) {
            self.outcome.wrong.push(format!("server {number} asked from {} after {}", cursor.version, before.version));
        }
        *asked = Some(cursor);
        self.deliver(number, Event::Page(Ok(page)));
    }

    fn snapshot(&mut self, number: usize) {
        if self.lost(number) {
            self.deliver(number, Event::Snapshot(Err(away())));
            return;
        }
        // Whoever starts over may stand before where he stood.
        self.sites[number].cursor = None;
        let Ok(share) = self.records.share();
        let mut nodes: Vec<Node> = self.records.nodes().filter(|node| node.is_live()).cloned().collect();
        nodes.sort_by_key(|node| node.versions.created);
        let cursor = Cursor { incarnation: share.incarnation, version: share.head };
        let run = self.sites[number].run;
        let mut at = self.now;
        let Ok(lives) = self.records.lives();
        let history = Some((History { lives, present: share.incarnation }, share.head));
        let first = SnapshotPart { history, nodes: Vec::new(), complete: None };
        self.at(at, Action::Deliver(number, run, Event::Snapshot(Ok(first))));
        for part in nodes.chunks(5) {
            at += 1 + self.rng.below(20);
            let part = SnapshotPart { history: None, nodes: part.to_vec(), complete: None };
            self.at(at, Action::Deliver(number, run, Event::Snapshot(Ok(part))));
        }
        let last = SnapshotPart { history: None, nodes: Vec::new(), complete: Some(cursor) };
        self.at(at + 1, Action::Deliver(number, run, Event::Snapshot(Ok(last))));
    }

    fn send(&mut self, number: usize, operations: Vec<Operation>) {
        let site = &self.sites[number];
        let known = site.engine.as_ref().and_then(|engine| engine.catalog().cursor());
        let incarnation = known.map_or(Incarnation(0), |cursor| cursor.incarnation);
        let batch = Batch { server: site.id, epoch: site.epoch, incarnation, operations };
        if self.lost(number) {
            // The request may have arrived all the same, now or much later; only the answer is lost for sure.
            if self.rng.chance(50) {
                self.soon(5_000, Action::Repeat(batch));
            }
            self.deliver(number, Event::Answered(Err(away())));
            return;
        }
        let answers = self.commit(&batch);
        if self.options.faults && self.rng.chance(3) {
            self.soon(5_000, Action::Repeat(batch));
        }
        let answer = if self.lost(number) { Err(away()) } else { Ok(answers) };
        self.deliver(number, Event::Answered(answer));
    }

    /// A rename elsewhere beats a delete by somebody who had not seen it: what the share has of the file is there again. The
    /// delete comes late, or the rename does; versions after `head` are of this batch.
    fn note_moves(&mut self, batch: &Batch, answers: &[Answer], head: Version) {
        let author = self.sites.iter().position(|site| site.id == batch.server);
        for (operation, answer) in batch.operations.iter().zip(answers) {
            match (&operation.change, answer) {
                (Change::Delete { place, .. }, Answer::Conflict(node)) if node.versions.place > *place => {
                    self.bytes_of(node).into_iter().for_each(|bytes| self.ledger.given_back(bytes));
                }
                (Change::Move { node, .. }, Answer::Applied(version)) if *version > head => {
                    let Ok(node) = self.records.node(*node);
                    if let Some((author, bytes)) = author.zip(node.and_then(|node| self.bytes_of(&node))) {
                        self.ledger.renamed(author, bytes);
                    }
                }
                _ => {}
            }
        }
    }

    fn bytes_of(&self, node: &Node) -> Option<Bytes> {
        node.content.file().and_then(|file| self.contents.get(&file.manifest)).copied()
    }

    /// The same where a user deletes the file when the rename was made in the share, and was not made here yet.
    pub(crate) fn note_moved_before(&mut self, number: usize, before: &BTreeMap<Ino, Bytes>) {
        let site = &self.sites[number];
        let Some(catalog) = site.engine.as_ref().map(Engine::catalog).or(site.catalog.as_ref()) else { return };
        let elsewhere = |node: NodeId| {
            let (Ok(there), Some(Record { synced: Some(base), local: Some(local), .. })) =
                (self.records.node(node), catalog.record(node))
            else {
                return None;
            };
            // Where the share has it at the place where it is here, the rename was his own.
            there.filter(|there| there.place != base.place && there.place != local.place)
        };
        let left = live_files(&site.volume);
        let mut back = BTreeSet::new();
        for (ino, bytes) in before.iter().filter(|(ino, _)| !left.contains_key(ino)) {
            for there in catalog.by_handle(&handle(*ino)).into_iter().filter_map(elsewhere) {
                // What he wrote last never came to the share.
                back.extend([Some(*bytes), self.bytes_of(&there)].into_iter().flatten());
            }
        }
        back.into_iter().for_each(|bytes| self.ledger.given_back(bytes));
    }

    pub(crate) fn commit(&mut self, batch: &Batch) -> Vec<Answer> {
        self.begin_own_life();
        let Ok(share) = self.records.share();
        let Ok(answers) = apply(&mut self.records, batch);
        self.note_moves(batch, &answers, share.head);
        self.check_namespace();
        answers
    }

    pub(crate) fn check_namespace(&mut self) {
        let Ok(share) = self.records.share();
        self.outcome.wrong.extend(check(share, self.records.nodes()));
        let named = self.records.nodes().filter(|node| node.place.name.as_bytes().windows(2).any(|pair| pair == b"-s"));
        self.copied.extend(named.filter_map(|node| node.content.file()).map(|file| file.manifest));
    }

    fn perform_steps(&mut self, number: usize, steps: &[Step]) {
        let content = |step: &Step| match &step.action {
            Act::Create { content, .. } | Act::Replace { content, .. } => content.file().map(|file| file.manifest),
            _ => None,
        };
        // What was replaced long ago cannot be fetched any more; the feed tells what is there instead.
        let (there, tiers) = (self.recallable(number), self.sites[number].tiers);
        let volume = &self.sites[number].volume;
        let is_fetched = |step: &&Step| {
            let bytes = content(step).and_then(|manifest| self.contents.get(&manifest)).copied();
            bytes.is_some_and(|bytes| !comes_as_stub(volume, tiers, step, bytes))
        };
        let fetched = steps.iter().filter(is_fetched).filter_map(content);
        let collected = fetched.into_iter().any(|manifest| !self.records.has_content(manifest));
        if self.lost(number) || collected {
            let results = steps.iter().map(|step| (step.clone(), StepResult::Away(away()))).collect();
            self.deliver(number, Event::Performed(results));
            return;
        }
        let disturbed = self.options.faults && !self.calm();
        let before = live_files(&self.sites[number].volume);
        let (ledger, rng, apart) = (&mut self.ledger, &mut self.rng, self.options.apart);
        let trace = self.options.trace;
        let (mut reports, mut notes, mut recalled) = (Vec::new(), Vec::new(), Vec::new());
        let mut between = |volume: &mut Volume| {
            if disturbed && rng.chance(6) {
                let mut user =
                    User { site: number, volume, ledger, rng, apart, there: &there, recalled: Vec::new(), reports: Vec::new() };
                user.act();
                recalled.extend(user.recalled);
                reports.extend(user.reports);
                if trace {
                    notes.push(format!("       between two moves: {:?}", reports.last()));
                    notes.push(format!(
                        "       {:?}",
                        volume.image().iter().map(|(path, shown)| (path.clone(), shown.bytes)).collect::<Vec<_>>()
                    ));
                }
            }
            disturbed && rng.chance(1)
        };
        let done = perform(&mut self.sites[number].volume, steps, (&self.contents, tiers), &mut between);
        self.touched(number, recalled);
        self.note_moved_before(number, &before);
        self.report(number, reports);
        self.outcome.trace.append(&mut notes);
        self.trace_image(number);
        match done {
            Ok(results) => self.deliver(number, Event::Performed(results)),
            Err(_) => {
                if let Some(step) = steps.iter().find(|step| content(step).is_some()) {
                    self.sites[number].volume.leave_part(step.node);
                }
                let power = self.rng.chance(50) && !self.options.apart;
                self.crash(number, power);
            }
        }
    }
}

pub(crate) fn away() -> Away {
    Away { text: "The service cannot be reached".to_owned(), retry: true }
}
