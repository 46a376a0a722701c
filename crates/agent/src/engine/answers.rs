//! What the share answered to what was sent.

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::namespace::{Answer, Change, Refusal};
use isotherm_core::node::Kind;
use isotherm_core::plan::settle::{self, Commit};
use isotherm_core::trees::LocalContent;

use super::work::intent_nodes;
use super::{Away, Catalog, Engine, Millis, Sent, Stop};

impl<C: Catalog> Engine<C> {
    pub(super) fn answered(&mut self, answers: Result<Vec<Answer>, Away>, now: Millis) {
        self.work.committing = false;
        let answers = match answers {
            Ok(answers) => answers,
            Err(away) => {
                self.work.commit_retry = Some(now + self.settings.limits.retry_ms.0);
                self.away(away, now);
                return;
            }
        };
        // Once for all of them: each would be a write.
        let known = answers.iter().filter_map(|answer| match answer {
            Answer::Applied(version) => Some(*version),
            Answer::Conflict(node) => Some(node.versions.last),
            _ => None,
        });
        if let Some(newest) = known.max() {
            self.note_version(newest);
        }
        let sent = self.catalog.sent();
        self.catalog.set_sent(&[]);
        let mut answers = answers.into_iter();
        for sent in sent {
            let own: Vec<Answer> = answers.by_ref().take(sent.ids.len()).collect();
            self.conclude(&sent, own, now);
        }
    }

    fn conclude(&mut self, sent: &Sent, answers: Vec<Answer>, now: Millis) {
        let nodes = intent_nodes(&sent.intent);
        nodes.iter().for_each(|node| {
            self.work.busy.remove(node);
        });
        let mut all = answers.len() == sent.ids.len();
        for ((change, operation), answer) in sent.intent.changes.iter().zip(&sent.ids).zip(answers) {
            match answer {
                Answer::Applied(version) => {
                    let author = self.settings.rules.server;
                    let record = self.catalog.record(change.node());
                    self.count_local(change, record.as_ref(), now);
                    let before = record.and_then(|record| record.remote);
                    let commit = Commit { author, operation: *operation, version };
                    settle::committed(&mut self.catalog, &sent.intent, change, commit);
                    self.work.waits.remove(&change.node());
                    let from = sent.intent.rebind.map(|(from, _)| from);
                    from.into_iter().chain([change.node()]).for_each(|node| {
                        self.work.unkept.remove(&node);
                    });
                    self.resolved(change.node());
                    self.uploaded(change, now);
                    match before {
                        Some(before) => self.freed(&before.place),
                        None => self.note_deleted_since(change.node(), version),
                    }
                }
                Answer::Missing(_) => {
                    all = false;
                    // A conflict copy has no file yet: the losing one still belongs to the node that it is a copy of.
                    let from = sent.intent.rebind.map(|(from, _)| from);
                    from.into_iter().chain([change.node()]).for_each(|node| self.unread(node, now));
                }
                other => {
                    all = false;
                    self.not_applied(change, other, now);
                }
            }
        }
        if all {
            if let Some((from, to)) = sent.intent.rebind {
                self.local.rename_node(from, to);
            }
            settle::rebound(&mut self.catalog, &sent.intent).into_iter().for_each(|node| self.around(node));
            if let Some((_, to)) = sent.intent.rebind {
                self.look_whether_here(to);
            }
        }
        nodes.into_iter().for_each(|node| self.around(node));
    }

    /// The share is known beyond the version at which a node was created, and has no such node: it was deleted since.
    fn note_deleted_since(&mut self, node: NodeId, version: Version) {
        let passed = self.catalog.cursor().is_some_and(|cursor| version <= cursor.version);
        if let Some(mut record) = self.catalog.record(node).filter(|_| passed) {
            record.remote.iter_mut().for_each(|remote| remote.deleted = true);
            self.catalog.put(record);
        }
    }

    fn not_applied(&mut self, change: &Change, answer: Answer, now: Millis) {
        let node = change.node();
        match answer {
            Answer::Applied(_) | Answer::Skipped | Answer::Missing(_) => {}
            Answer::Conflict(current) => {
                // An operation that was sent before is answered as it was then. What the feed has passed is known here,
                // and a node that is not was deleted since and forgotten.
                let passed = self.catalog.cursor().is_some_and(|cursor| current.versions.last <= cursor.version);
                if (current.deleted || !passed) && settle::learn(&mut self.catalog, &current) {
                    self.learned(&current);
                }
                self.back_off(node, now);
            }
            Answer::Refused(Refusal::Fenced) => self.stop(Stop::Fenced),
            // The feed says whether it goes on in another life, or has to be read from the beginning; it may have done so
            // since this was sent.
            Answer::Refused(Refusal::Incarnation) => {
                self.remote.at_head &= self.catalog.cursor().is_some_and(|cursor| cursor.incarnation != self.work.committing_in);
            }
            Answer::Refused(Refusal::NoNode) if matches!(change, Change::Create { .. }) => {
                if let Some(mut record) = self.catalog.record(node) {
                    record.remote = None;
                    self.catalog.put(record);
                }
            }
            Answer::Refused(refusal) => {
                if matches!(refusal, Refusal::Quota { .. }) {
                    let remedy =
                        "Raise the quota with `isotherm group set --quota`, or delete files; the upload goes on by itself";
                    self.problem(node, "quota", &refusal.to_string(), remedy, now);
                    self.wait(node, now, 10 * self.settings.limits.retry_ms.0);
                } else {
                    self.back_off(node, now);
                }
            }
        }
    }

    /// What was read is not in the share any more: the file is read and sent again, whichever name it is read by.
    fn unread(&mut self, node: NodeId, now: Millis) {
        let handle = self.catalog.record(node).and_then(|record| record.local).map(|local| local.handle);
        for node in handle.map(|handle| self.catalog.by_handle(&handle)).unwrap_or_default() {
            if let Some(mut record) = self.catalog.record(node)
                && let Some(local) = record.local.as_mut().filter(|local| local.kind() == Kind::File)
            {
                local.content = LocalContent::Unread;
                self.catalog.put(record);
                self.around(node);
            }
        }
        self.not_kept(node, now);
    }

    /// The share lacks what was brought to it. Once that is chance: it was collected at that moment. What goes on is told.
    fn not_kept(&mut self, node: NodeId, now: Millis) {
        let times = self.work.unkept.entry(node).or_default();
        *times += 1;
        let (first, most) = self.settings.limits.retry_ms;
        let pause = if *times == 1 { first / 10 } else { (first << (*times).min(10)).min(most) };
        if *times > 1 {
            let text = format!("The share has lost its content after it was sent, {times} times");
            let remedy = "It is sent again and again; if it is tiered, write it anew, or delete it and bring it back with \
                          `isotherm undelete`. See the service's log, and run `isotherm service check --deep`";
            self.problem(node, "content_unavailable", &text, remedy, now);
        }
        self.wait(node, now, pause);
    }

    pub(super) fn histories(&mut self, histories: Result<Vec<(NodeId, Vec<ManifestId>)>, Away>, now: Millis) {
        self.work.searching = false;
        match histories {
            Ok(histories) => {
                for (node, manifests) in histories {
                    settle::searched(&mut self.catalog, node, &manifests);
                    self.work.busy.remove(&node);
                    self.wake([node]);
                }
            }
            Err(away) => {
                self.away(away, now);
                // Whoever was asked for is found again by the walk over all that is open.
                for node in &self.work.searches {
                    self.work.busy.remove(node);
                }
            }
        }
        self.work.searches.clear();
    }
}
