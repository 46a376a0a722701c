//! The remote side: the change feed, and starting over.

use std::collections::BTreeSet;

use isotherm_core::ids::{Cursor, NodeId, Timestamp, Version};
use isotherm_core::namespace::{History, Page};
use isotherm_core::node::{Content, Kind, Node};
use isotherm_core::plan::settle;
use isotherm_core::trees::{Record, Synced};

use super::{Away, Catalog, Effect, Engine, Millis, SnapshotPart, Stop};

/// Nodes whose first difference is remembered; of more it is only known that there are some.
const SINCE_MAX: usize = 100_000;

/// Names of one file that are planned for again when one of them changes. Files with more names are rare, and the walk over
/// what is open finds the others.
const LINKS_WOKEN: usize = 256;

/// Everything the engine remembers about the feed.
#[derive(Debug, Default)]
pub(super) struct RemoteSide {
    /// The remote tree in the catalog is consistent: plans may be made.
    pub(super) at_head: bool,
    fetching: bool,
    /// Nodes of the snapshot that is being read.
    seen: Option<BTreeSet<NodeId>>,
    /// The lives of the share that it begins with.
    history: Option<History>,
    /// It lacks something that was known before: up to where versions mean the same as then.
    past: Option<Version>,
    retry_at: Option<Millis>,
    failures: u32,
}

impl<C: Catalog> Engine<C> {
    pub(super) fn advance_remote(&mut self, now: Millis) {
        if self.remote.fetching || self.remote.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.remote.retry_at = None;
        self.remote.fetching = true;
        self.effects.push(match self.catalog.cursor() {
            // After a failure the answer is wanted at once: it says that the service is back.
            Some(cursor) => Effect::Fetch { reader: self.reader(cursor), wait: self.remote.at_head && self.remote.failures == 0 },
            None => {
                self.remote.at_head = false;
                self.remote.seen = Some(BTreeSet::new());
                Effect::FetchSnapshot
            }
        });
    }

    pub(super) fn page(&mut self, page: Result<Page, Away>, now: Millis) {
        self.remote.fetching = false;
        match page {
            Err(away) => self.away(away, now),
            Ok(page) if page.start_over || self.is_beyond(&page) => {
                self.back();
                self.start_over();
            }
            Ok(page) => {
                self.back();
                self.note_life(&page);
                for node in &page.nodes {
                    if settle::learn(&mut self.catalog, node) {
                        self.learned(node);
                    }
                }
                // A position never goes back, whatever arrives late.
                if self.catalog.cursor().is_none_or(|known| known.version <= page.cursor.version) {
                    self.catalog.set_cursor(Some(page.cursor));
                }
                self.remote.at_head = page.at_head;
                self.mark_head(now);
            }
        }
    }

    pub(super) fn learned(&mut self, node: &Node) {
        self.around(node.id);
    }

    /// The service answers again.
    fn back(&mut self) {
        self.remote.failures = 0;
        self.remote.retry_at = None;
        self.status.away = None;
    }

    pub(super) fn away(&mut self, away: Away, now: Millis) {
        self.remote.at_head &= away.retry;
        let (first, most) = self.settings.limits.retry_ms;
        self.remote.failures = (self.remote.failures + 1).min(16);
        let wait = (first << (self.remote.failures - 1)).min(most.min(10_000));
        self.remote.retry_at = Some(now + wait);
        self.status.away.get_or_insert((away, now));
    }

    /// The cursor means nothing any more: the whole namespace is read again, and reconciled by content.
    pub(super) fn start_over(&mut self) {
        self.keep_standing();
        self.catalog.set_cursor(None);
        self.remote.at_head = false;
    }

    pub(super) fn snapshot(&mut self, part: Result<SnapshotPart, Away>, now: Millis) {
        let part = match part {
            Ok(part) => part,
            Err(away) => {
                self.remote.fetching = false;
                self.remote.seen = None;
                self.away(away, now);
                return;
            }
        };
        self.back();
        if let Some((history, head)) = part.history {
            self.remote.past = self.past_in(&history, head);
            self.remote.history = Some(history);
        }
        let mut seen = self.remote.seen.take().unwrap_or_default();
        for node in part.nodes {
            seen.insert(node.id);
            let id = node.id;
            self.replace_remote(node);
            self.wake([id]);
        }
        match part.complete {
            None => self.remote.seen = Some(seen),
            Some(cursor) => {
                self.remote.fetching = false;
                self.finish_snapshot(&seen, cursor);
            }
        }
    }

    /// In another life of the share, what was agreed before means something only where both lives have the same past. What
    /// was known of a node within it is a former state of what the share says now, and stays a base. Else what the share says
    /// may be a former state of what was agreed here, and this server's state a change of it.
    fn replace_remote(&mut self, node: Node) {
        let mut record = self.catalog.record(node.id).unwrap_or_else(|| Record::new(node.id));
        let is_common = |before: &Node, past: Version| before.versions.last <= past;
        if let Some(past) = self.remote.past.filter(|past| !record.remote.as_ref().is_some_and(|node| is_common(node, *past))) {
            let is_former = |before: &Node| before.versions.covers(&node.versions) && node.versions.last <= past;
            let agreed =
                matches!((&record.remote, &record.synced), (Some(before), Some(base)) if base.is(before) && is_former(before));
            record.synced = agreed.then(|| Synced::of(&node));
            record.searched = None;
        }
        record.remote = Some(node);
        self.catalog.put(record);
    }

    /// What the snapshot did not name is deleted in this life of the share (row 26); in another life only if nothing
    /// was known of it but what is of the common past; everything else is compared by content.
    fn finish_snapshot(&mut self, seen: &BTreeSet<NodeId>, cursor: Cursor) {
        let past = self.remote.past.take();
        let lives = self.remote.history.take().map(|history| history.lives).unwrap_or_default();
        if past.is_some() {
            // It was made on versions that mean something else now.
            self.drop_outgoing();
            self.unbound_authority();
        }
        let mut after = None;
        loop {
            let nodes = self.catalog.nodes(after, 1_000);
            let Some(last) = nodes.last() else { break };
            after = Some(*last);
            for node in nodes.into_iter().filter(|node| !node.is_anchor() && !seen.contains(node)) {
                self.settle_unnamed(node, past);
            }
        }
        self.take_standing(cursor, &lives);
        // Changes made since the snapshot was begun come with the first page.
        self.remote.at_head = false;
    }

    /// The snapshot does not name a node.
    fn settle_unnamed(&mut self, node: NodeId, past: Option<Version>) {
        let Some(mut record) = self.catalog.record(node) else { return };
        let before = record.clone();
        if past.is_some()
            && record.local.is_none()
            && let Some(other) = record.remote.as_ref().and_then(|remote| remote.conflict_of)
        {
            self.forget_settled(other);
        }
        let agreed = matches!((&record.remote, &record.synced), (Some(remote), Some(base)) if base.is(remote));
        // Which version deleted it is not known. Whoever wants it back learns that by the answer.
        let deleted = match (&record.remote, past) {
            (Some(_), None) => true,
            // What was changed after the common past is a change here, and beats the delete.
            (Some(remote), Some(past)) => agreed && remote.versions.last <= past,
            (None, _) => false,
        };
        if deleted {
            record.remote.iter_mut().for_each(|remote| remote.deleted = true);
        } else if past.is_some() {
            (record.remote, record.synced, record.searched) = (None, None, None);
        } else {
            record.remote = None;
        }
        if record != before {
            self.catalog.put(record);
            self.wake([node]);
        }
    }

    /// A copy that was made of what lost a conflict is in neither place any more: who won must not replace it unasked in this
    /// life too.
    fn forget_settled(&mut self, node: NodeId) {
        if let Some(mut record) = self.catalog.record(node).filter(|record| record.synced.is_some()) {
            (record.synced, record.searched) = (None, None);
            self.catalog.put(record);
            self.wake([node]);
        }
    }

    /// Row 15: the volume and the catalog are not of one moment. Nothing local is known to be newer than anything.
    pub(super) fn forget_bases(&mut self) {
        // What was sent and not answered spoke of files that may be gone now; its answer must not make a base.
        self.catalog.set_sent(&[]);
        let mut after = None;
        loop {
            let nodes = self.catalog.nodes(after, 1_000);
            let Some(last) = nodes.last() else { break };
            after = Some(*last);
            for node in nodes {
                let Some(mut record) = self.catalog.record(node).filter(|_| !node.is_anchor()) else { continue };
                record.synced = None;
                record.searched = None;
                if let Some(local) = &mut record.local {
                    if local.kind() == Kind::File {
                        local.content = isotherm_core::trees::LocalContent::Unread;
                    }
                    // A volume that went back may show an old mode under the print of a later one.
                    local.print.changed = Timestamp(i64::MIN);
                }
                self.catalog.put(record);
            }
        }
    }

    /// Remembers since when a node holds something that the share lacks.
    pub(super) fn note_owed(&mut self, node: NodeId, record: &Record) {
        let since = &mut self.work.since;
        if !record.owes() {
            since.remove(&node);
        } else if since.len() < SINCE_MAX {
            since.entry(node).or_insert(self.now);
        }
    }

    /// A node that may be planned for again, and the other names of its file, which may have waited for it.
    pub(super) fn wake_names(&mut self, node: NodeId) {
        let record = self.catalog.record(node);
        let link = record.as_ref().and_then(|record| record.live()?.content.file()?.link);
        if let Some(link) = link {
            let names = self.catalog.link_members(link);
            self.wake(names.into_iter().take(LINKS_WOKEN));
        }
        self.wake([node]);
    }

    /// A node and all whose next step may have waited for it.
    pub(super) fn around(&mut self, node: NodeId) {
        let Some(record) = self.catalog.record(node) else {
            self.work.since.remove(&node);
            self.wake([node]);
            return;
        };
        self.note_owed(node, &record);
        if record.is_lost() {
            // Work that was under way may have given a lost file to another node.
            self.look_for(node);
        }
        let mut nodes = vec![node];
        let key = |name: &isotherm_core::name::Name| name.key(self.settings.rules.case);
        for place in
            [record.here().map(|local| &local.place), record.remote.as_ref().map(|remote| &remote.place)].into_iter().flatten()
        {
            nodes.push(place.parent);
            nodes.extend(self.catalog.local_at(place));
            nodes.extend(self.catalog.remote_at(place.parent, &key(&place.name)));
        }
        // Names of one file elsewhere: they have to be one here too.
        if let Some(link) = record.live().and_then(|remote| remote.content.file()?.link) {
            nodes.extend(self.catalog.link_members(link).into_iter().take(LINKS_WOKEN));
        }
        let directory = record.live().is_some_and(|remote| remote.content == Content::Directory)
            || record.local.as_ref().is_some_and(|local| local.kind() == Kind::Directory);
        if directory && record.state() != isotherm_core::trees::State::Settled {
            self.work.families.insert(node);
        }
        self.wake(nodes);
    }

    /// The service says that this agent may not go on.
    pub(super) fn stop(&mut self, stop: Stop) {
        self.status.stop.get_or_insert(stop);
    }

    pub(super) fn next_remote(&self) -> Option<Millis> {
        self.remote.retry_at.filter(|_| !self.remote.fetching)
    }
}
