//! What engines ask for, done in the world: looks, messages to the share, moves on the volume. Messages are late, lost
//! or repeated; users and failures come in between.

use isotherm_agent::engine::{Away, Catalog as _, Effect, Event, ReadResult, SnapshotPart, StepResult};
use isotherm_core::ids::{Cursor, Incarnation, Timestamp};
use isotherm_core::namespace::{Batch, Operation, Records, apply, check, page};
use isotherm_core::node::{FileContent, Node};
use isotherm_core::plan::{Action as Act, Step};
use isotherm_core::trees::Handle;

use crate::perform::{content_entry, look, perform};
use crate::users::User;
use crate::volume::{Volume, ino};
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
            Effect::Drain => {
                let (at, run) = (self.sites[number].reported_until.max(self.now) + 1, self.sites[number].run);
                self.at(at, Action::Deliver(number, run, Event::Drained));
            }
            Effect::Fetch { cursor, wait } => self.fetch(number, cursor, wait),
            Effect::FetchSnapshot => self.snapshot(number),
            Effect::Read(requests) => {
                let results = requests.into_iter().map(|request| (request.node, self.read(number, &request.handle))).collect();
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

    fn read(&mut self, number: usize, handle: &Handle) -> ReadResult {
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
        // What is uploaded was made durable first (row 7).
        volume.sync();
        let (manifest, bytes) = content_entry(inode.bytes);
        self.records.add_content(manifest);
        self.uploaded.insert(manifest, self.now);
        self.contents.insert(manifest, bytes);
        let content = FileContent { manifest, size: 1, modified: Timestamp(inode.modified), link: None };
        ReadResult::Content { content, print }
    }

    fn fetch(&mut self, number: usize, cursor: Cursor, wait: bool) {
        let run = self.sites[number].run;
        if self.lost(number) {
            self.deliver(number, Event::Page(Err(away())));
            return;
        }
        let limit = usize::try_from(1 + self.rng.below(6)).unwrap_or(1);
        let Ok(page) = page(&self.records, cursor, limit);
        if wait && page.nodes.is_empty() && !page.start_over {
            self.soon(150, Action::Do(number, run, Effect::Fetch { cursor, wait }));
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
        let Ok(share) = self.records.share();
        let mut nodes: Vec<Node> = self.records.nodes().filter(|node| node.is_live()).cloned().collect();
        nodes.sort_by_key(|node| node.versions.created);
        let cursor = Cursor { incarnation: share.incarnation, version: share.head };
        let run = self.sites[number].run;
        let mut at = self.now;
        let lives = Some((share.incarnation, self.records.lives().to_vec()));
        let first = SnapshotPart { lives, nodes: Vec::new(), complete: None };
        self.at(at, Action::Deliver(number, run, Event::Snapshot(Ok(first))));
        for part in nodes.chunks(5) {
            at += 1 + self.rng.below(20);
            let part = SnapshotPart { lives: None, nodes: part.to_vec(), complete: None };
            self.at(at, Action::Deliver(number, run, Event::Snapshot(Ok(part))));
        }
        let last = SnapshotPart { lives: None, nodes: Vec::new(), complete: Some(cursor) };
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
        let Ok(answers) = apply(&mut self.records, &batch);
        self.check_namespace();
        if self.options.faults && self.rng.chance(3) {
            self.soon(5_000, Action::Repeat(batch));
        }
        let answer = if self.lost(number) { Err(away()) } else { Ok(answers) };
        self.deliver(number, Event::Answered(answer));
    }

    pub(crate) fn commit(&mut self, batch: &Batch) {
        let Ok(_) = apply(&mut self.records, batch);
        self.check_namespace();
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
        let collected = steps.iter().filter_map(content).any(|manifest| !self.records.has_content(manifest));
        if self.lost(number) || collected {
            let results = steps.iter().map(|step| (step.clone(), StepResult::Away(away()))).collect();
            self.deliver(number, Event::Performed(results));
            return;
        }
        let disturbed = self.options.faults && !self.calm();
        let (ledger, rng) = (&mut self.ledger, &mut self.rng);
        let trace = self.options.trace;
        let (mut reports, mut notes) = (Vec::new(), Vec::new());
        let mut between = |volume: &mut Volume| {
            if disturbed && rng.chance(6) {
                let mut user = User { site: number, volume, ledger, rng, reports: Vec::new() };
                user.act();
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
        let done = perform(&mut self.sites[number].volume, steps, &self.contents, &mut between);
        self.report(number, reports);
        self.outcome.trace.append(&mut notes);
        self.trace_image(number);
        match done {
            Ok(results) => self.deliver(number, Event::Performed(results)),
            Err(_) => {
                let power = self.rng.chance(50);
                self.crash(number, power);
            }
        }
    }
}

pub(crate) fn away() -> Away {
    Away { text: "The service cannot be reached".to_owned(), retry: true }
}
