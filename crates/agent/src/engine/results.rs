//! What came of the work that was handed out.

use isotherm_core::ids::NodeId;
use isotherm_core::namespace::Change;
use isotherm_core::node::{Content, FileContent, Kind, Place};
use isotherm_core::observe::{link_of, lose, mirror};
use isotherm_core::plan::settle;
use isotherm_core::plan::{Action, Expected, Step};
use isotherm_core::trees::{Handle, Local, LocalContent, Print, path, same_metadata};

use super::work::{Wait, places};
use super::{After, Away, Catalog, Engine, Millis, ReadResult, StepResult, Transfer};

/// Refused removals of a directory in which nothing is known, after which it is taken to hold something unknown.
const HOLDS_AFTER: u32 = 3;
/// What to do about a stub that was changed without its content.
const UNSPOIL: &str = "`isotherm recall --mend` brings its content back and undoes that; or write the file anew, or delete it";

impl<C: Catalog> Engine<C> {
    pub(super) fn read(&mut self, results: Vec<(NodeId, ReadResult)>, now: Millis) {
        self.reads_ended(results.iter().map(|(node, _)| *node));
        for (node, result) in results {
            self.work.busy.remove(&node);
            let Some(handle) = self.work.reading.remove(&node) else { continue };
            let stale = self.work.stale_reads.remove(&node);
            match result {
                ReadResult::Content { content, print } => {
                    let place = self.catalog.record(node).and_then(|record| record.here().map(|local| local.place.clone()));
                    let restless = place.as_ref().is_some_and(|place| self.local.is_restless(place));
                    let moved_on = stale || place.as_ref().is_some_and(|place| self.local.is_written(place));
                    let same =
                        self.catalog.record(node).and_then(|record| record.local).is_some_and(|local| local.handle == handle);
                    if same && (!stale || restless) {
                        self.work.waits.remove(&node);
                        // That it can be read says nothing about whether the share keeps it.
                        if !self.work.unkept.contains_key(&node) {
                            self.resolved(node);
                        }
                        self.take_content(node, content, print, restless && moved_on, now);
                    }
                }
                ReadResult::Changed => self.changed_while_read(node, now),
                ReadResult::Gone => {
                    self.gone(node, &handle);
                    self.back_off(node, now);
                }
                ReadResult::Away(away) => {
                    self.back_off(node, now);
                    self.unavailable(node, away, now);
                }
                ReadResult::Spoilt(text) => {
                    self.problem(node, "changed_while_tiered", &text, UNSPOIL, now);
                    self.back_off(node, now);
                }
                ReadResult::Failed(text) => {
                    self.problem(node, "unreadable", &text, "Make the file readable, or remove it", now);
                    self.back_off(node, now);
                }
            }
            self.wake([node]);
        }
    }

    /// After some tries a snapshot or a prefix was tried too; then the file has to come to rest first.
    fn changed_while_read(&mut self, node: NodeId, now: Millis) {
        let (quiet, tries) = (self.settings.limits.quiet_ms, self.settings.limits.restless_tries);
        let attempts = self.work.waits.get(&node).map_or(0, |wait| wait.attempts);
        if attempts <= tries {
            self.wait(node, now, quiet);
            return;
        }
        let text = "The file is written to without a pause, so that no moment of it can be read";
        self.problem(
            node,
            "restless",
            text,
            "It is sent when it rests; on XFS and btrfs such files are read from a snapshot",
            now,
        );
        self.back_off(node, now);
    }

    /// An inode that was to be read does not live any more.
    fn gone(&mut self, node: NodeId, handle: &Handle) {
        let place = self
            .catalog
            .record(node)
            .and_then(|record| record.here().filter(|local| local.handle == *handle).map(|local| local.place.clone()));
        if let Some(place) = place {
            self.look_at(&place);
            lose(&mut self.catalog, node);
            self.look_for_successor(node);
        }
    }

    /// Takes what was read. `passing`: the file has been written to since, and is never at rest.
    fn take_content(&mut self, node: NodeId, content: FileContent, print: Print, passing: bool, now: Millis) {
        let Some(mut record) = self.catalog.record(node) else { return };
        let Some(local) = record.local.as_mut().filter(|local| local.kind() == Kind::File) else { return };
        let link = link_of(&self.catalog, node, print.links);
        // The reader saw the bytes, not the metadata: a change time that moved in between stands for something unseen.
        let unseen = local.print.changed != print.changed;
        local.print = Print { changed: local.print.changed, links: local.print.links, ..print };
        let place = local.place.clone();
        let content = Content::File(FileContent { link, ..content });
        local.content = if passing { LocalContent::Passing(content) } else { LocalContent::Known(content) };
        if passing {
            self.local.suspect(&place, now);
        } else if unseen {
            self.glance_at(&place, now);
        }
        self.catalog.put(record);
        self.mirrored(node);
        self.around(node);
    }

    /// What was found out through one name of an inode holds for all of them.
    pub(super) fn mirrored(&mut self, node: NodeId) {
        for other in mirror(&mut self.catalog, node) {
            self.around(other);
        }
    }

    pub(super) fn performed(&mut self, results: Vec<(Step, StepResult)>, now: Millis) {
        self.work.lane_ended(results.first().map(|(step, _)| step.node));
        for (step, _) in &results {
            self.work.lanes.remove(&step.node);
            for place in places(step) {
                self.work.held.remove(&place);
                self.local.touched.insert(place);
            }
            let others = other_names(step).flat_map(|handle| self.catalog.by_handle(handle));
            let others = others.filter_map(|node| self.catalog.record(node)?.here().map(|local| local.place.clone()));
            self.local.touched.extend(others.collect::<Vec<_>>());
        }
        self.end_placing(results.iter().map(|(step, _)| step));
        for (step, result) in results {
            self.work.busy.remove(&step.node);
            self.step_ended(&step, result, now);
            self.around(step.node);
        }
        if !self.work.is_performing() {
            self.forget_strays();
        }
        self.wake_left_over();
    }

    fn step_ended(&mut self, step: &Step, result: StepResult, now: Millis) {
        match result {
            StepResult::Done(after) => self.step_done(step, after, now),
            StepResult::Surprise => {
                places(step).iter().for_each(|place| self.look_at(place));
                if let Action::Replace { expected, .. } | Action::Remove { expected, .. } = &step.action {
                    // A file that could not get its name back lies beside it, or in the root.
                    self.list_again(expected.spot.node);
                }
                if let Action::Remove { content: Content::Directory, .. } = &step.action {
                    // Something is in it that is not known.
                    self.list_again(step.node);
                }
                let attempts = self.back_off(step.node, now);
                if attempts >= HOLDS_AFTER && matches!(&step.action, Action::Remove { content: Content::Directory, .. }) {
                    self.keep_directory(step.node);
                }
            }
            StepResult::Occupied => {
                places(step).iter().for_each(|place| self.look_at(place));
                let attempts = self.back_off(step.node, now);
                if attempts > 3 {
                    let text = "The name is taken on this server by something that does not take part in sync";
                    self.problem(step.node, "name_taken", text, "Rename or remove what is there", now);
                }
            }
            StepResult::Busy => {
                let wait = self.wait(step.node, now, 2_000);
                if now >= wait.since + self.settings.limits.busy_problem_ms {
                    let text = "A new version cannot be put in place, because a program has kept the file open for writing";
                    self.problem(step.node, "open_for_writing", text, "Close the file in that program", now);
                }
            }
            StepResult::Skipped => {}
            StepResult::Away(away) => {
                self.back_off(step.node, now);
                self.unavailable(step.node, away, now);
            }
            StepResult::Failed { text, remedy } => {
                self.problem(step.node, "cannot_apply", &text, &remedy, now);
                self.back_off(step.node, now);
            }
        }
    }

    /// A directory that was deleted elsewhere holds something that does not take part in sync, which its author had not
    /// seen: it stays, and comes back to the share.
    fn keep_directory(&mut self, node: NodeId) {
        if !self.catalog.local_children(node, 1).is_empty() {
            return;
        }
        if let Some(mut record) = self.catalog.record(node) {
            record.synced = None;
            self.catalog.put(record);
            self.around(node);
        }
    }

    fn step_done(&mut self, step: &Step, after: Option<After>, now: Millis) {
        let old = self.catalog.record(step.node).and_then(|record| record.here().map(|local| local.place.clone()));
        let shown = after.as_ref().map(|after| after.print);
        let moved = after.as_ref().and_then(|after| Some((after.handle.clone(), after.is_tiered?)));
        let local = after.and_then(|after| self.local_after(step, after));
        if let Some(local) = &local {
            self.displaced(&local.place, step.node);
            if local.kind() == Kind::Directory {
                self.made_directory(step.node, &local.handle);
                self.moved_directory(step.node);
            }
        }
        if let (Action::Move { expected, to, .. }, Some(local)) = (&step.action, &local)
            && local.print == expected.print
        {
            // A rename moves the change time, so this print is the planned one on purpose: something else had changed.
            self.look_at(&to.place());
        }
        if let Some(local) = local.as_ref().filter(|local| Some(local.print) != shown) {
            self.glance_at(&local.place, now);
        }
        self.count_remote(step, now);
        let strays = settle::performed(&mut self.catalog, step, local);
        strays.into_iter().for_each(|stray| self.around(stray));
        if let Some((handle, is_tiered)) = moved {
            self.made_file(step.node, &handle);
            self.note_coming(step, is_tiered);
            self.note_moved([(handle, is_tiered)]);
        }
        self.mirrored(step.node);
        self.work.waits.remove(&step.node);
        self.resolved(step.node);
        self.tell_what_is_missing(step.node, now);
        self.downloaded(step, now);
        if let Some(old) = old {
            self.freed(&old);
        }
    }

    /// The local observation that a performed step implies.
    fn local_after(&self, step: &Step, after: After) -> Option<Local> {
        let before = self.catalog.record(step.node).and_then(|record| record.local);
        match &step.action {
            Action::Create { at, link_to: Some(_), .. } => return Some(self.linked(at.place(), after)),
            Action::Replace { expected, link_to: Some(_), .. } => return Some(self.linked(expected.spot.place(), after)),
            _ => {}
        }
        let (place, metadata, content) = match &step.action {
            Action::Create { at, content, metadata, .. } => (at.place(), metadata.clone(), LocalContent::Known(content.clone())),
            Action::Replace { expected, content, metadata, .. } => {
                (expected.spot.place(), metadata.clone(), LocalContent::Known(content.clone()))
            }
            Action::SetMetadata { expected, metadata, content, .. } => {
                let content = content.clone().map(|file| LocalContent::Known(Content::File(file)));
                (
                    expected.spot.place(),
                    metadata.clone(),
                    content.or_else(|| before.map(|before| untouched(&before, expected, &after)))?,
                )
            }
            Action::Move { expected, to, .. } => {
                let before = before?;
                let content = untouched(&before, expected, &after);
                return Some(Local { place: to.place(), print: after.print, content, ..before });
            }
            Action::Remove { .. } => return None,
        };
        let raw = (!same_metadata(&after.shown, &metadata)).then_some(after.shown);
        Some(Local { place, handle: after.handle, print: after.print, metadata, raw, content, lost: false })
    }

    /// Another name of an inode that is known: nothing was written, so it is what its other names are.
    pub(super) fn linked(&self, place: Place, after: After) -> Local {
        let owners = self.catalog.by_handle(&after.handle).into_iter().filter_map(|node| self.catalog.record(node));
        let other = owners.filter_map(|record| record.here().cloned()).next();
        let Some(other) = other else {
            let content = LocalContent::Unread;
            return Local {
                place,
                handle: after.handle,
                print: after.print,
                metadata: after.shown,
                raw: None,
                content,
                lost: false,
            };
        };
        let known = other.raw.as_ref().unwrap_or(&other.metadata);
        // Somebody changed its metadata in the meantime: the old change time stays, so that a look finds that.
        let changed = if same_metadata(known, &after.shown) { after.print.changed } else { other.print.changed };
        let print = Print { changed, ..after.print };
        let same = print.size == other.print.size && print.modified == other.print.modified;
        let content = if same { other.content } else { LocalContent::Unread };
        Local { place, print, content, ..other }
    }

    /// A name became free, on either side.
    pub(super) fn freed(&mut self, place: &Place) {
        let key = place.name.key(self.settings.rules.case);
        let waiting: Vec<NodeId> =
            self.catalog.local_at(place).into_iter().chain(self.catalog.remote_at(place.parent, &key)).collect();
        self.wake(waiting);
        self.wake([place.parent]);
    }

    /// Leaves a node alone for a growing while; returns how often that happened in a row.
    pub(super) fn back_off(&mut self, node: NodeId, now: Millis) -> u32 {
        let (first, most) = self.settings.limits.retry_ms;
        let attempts = self.work.waits.get(&node).map_or(0, |wait| wait.attempts);
        let pause = (first << attempts.min(10)).min(most);
        self.wait(node, now, if attempts == 0 { first / 10 } else { pause });
        attempts + 1
    }

    pub(super) fn wait(&mut self, node: NodeId, now: Millis, pause: Millis) -> Wait {
        let wait = self.work.waits.entry(node).or_insert(Wait { until: 0, attempts: 0, since: now });
        wait.attempts += 1;
        wait.until = now + pause.max(1);
        *wait
    }

    /// Content could not be sent or fetched. If the service is away altogether, that is said once, not for each file.
    fn unavailable(&mut self, node: NodeId, away: Away, now: Millis) {
        if away.retry {
            self.away(away, now);
        } else {
            self.problem(
                node,
                "content_unavailable",
                &away.text,
                "See the service's log for the content that it cannot read or keep",
                now,
            );
        }
    }

    pub(super) fn uploaded(&mut self, change: &Change, now: Millis) {
        let node = change.node();
        let since = self.work.since.remove(&node).unwrap_or(now);
        let path = path(&self.catalog, node);
        self.status.moved(Transfer { path, up: true, delay_ms: Some(now.saturating_sub(since)), modified: None });
    }

    fn downloaded(&mut self, step: &Step, _now: Millis) {
        let path = path(&self.catalog, step.node);
        let modified = match &step.action {
            Action::Create { content, .. } | Action::Replace { content, .. } => content.file().map(|file| file.modified),
            _ => None,
        };
        self.status.moved(Transfer { path, up: false, delay_ms: None, modified });
    }
}

/// Inodes with further names that a step changes: what was seen under any of these may be from before it.
fn other_names(step: &Step) -> impl Iterator<Item = &Handle> {
    let (expected, link_to) = match &step.action {
        Action::Create { link_to, .. } => (None, link_to.as_ref()),
        Action::Replace { expected, link_to, .. } => (Some(expected), link_to.as_ref()),
        Action::SetMetadata { expected, .. } | Action::Move { expected, .. } | Action::Remove { expected, .. } => {
            (Some(expected), None)
        }
    };
    let several = expected.filter(|expected| expected.print.links > 1);
    several.into_iter().chain(link_to).map(|expected| &expected.handle)
}

/// What is known of the content after a step that does not concern it: if the file was written to since the step was
/// planned, nothing.
fn untouched(before: &Local, expected: &Expected, after: &After) -> LocalContent {
    let same = expected.print.size == after.print.size && expected.print.modified == after.print.modified;
    if before.kind() != Kind::File || same { before.content.clone() } else { LocalContent::Unread }
}
