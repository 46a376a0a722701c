//! Planning, and handing out what was planned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use isotherm_core::ids::{Incarnation, NodeId, OperationId};
use isotherm_core::node::{Content, Place};
use isotherm_core::plan::settle::establish;
use isotherm_core::plan::{Action, Intent, Plan, Step, Trouble, plan};
use isotherm_core::trees::{Handle, Record};

use super::lanes::LANES;
use super::{Catalog, Effect, Engine, Millis, Places, ReadRequest, Sent};

/// A node that is left alone until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) until: Millis,
    pub(super) attempts: u32,
    pub(super) since: Millis,
}

/// Everything that is under way or waits for its turn.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Nodes whose observations changed since they were last planned for.
    pub(super) wake: BTreeSet<NodeId>,
    /// Directories whose children are to be woken.
    pub(super) families: BTreeSet<NodeId>,
    /// Nodes with work under way, or queued.
    pub(super) busy: BTreeSet<NodeId>,
    /// Places that steps under way take, leave or change.
    pub(super) held: Places,
    read_queue: VecDeque<NodeId>,
    /// Files being read, by their inode.
    pub(super) reading: BTreeMap<NodeId, Handle>,
    reads: usize,
    /// Large files that have a lane to themselves. Counted by what was sent: the file may be another one when the
    /// result comes.
    large_reads: BTreeSet<NodeId>,
    /// Files that were written to while they were read.
    pub(super) stale_reads: BTreeSet<NodeId>,
    outbox: VecDeque<Intent>,
    pub(super) committing: bool,
    /// The life of the share in which the latest commit was made.
    pub(super) committing_in: Incarnation,
    /// Whether an effect of each lane is under way.
    pub(super) performing: [bool; LANES],
    pub(super) searching: bool,
    /// Nodes whose history was asked for.
    pub(super) searches: BTreeSet<NodeId>,
    /// The lane of each node with a step under way in another than the ordinary one.
    pub(super) lanes: BTreeMap<NodeId, usize>,
    /// Nodes whose steps found no room in an effect.
    pub(super) left_over: BTreeSet<NodeId>,
    left_from: Option<NodeId>,
    pub(super) waits: BTreeMap<NodeId, Wait>,
    /// How often the share lacked the content of a change that had just been sent to it.
    pub(super) unkept: BTreeMap<NodeId, u32>,
    /// How far the walk over everything unsettled has come, and whether it found anything.
    round: Option<NodeId>,
    round_found: bool,
    round_done_at: Option<Millis>,
    pub(super) commit_retry: Option<Millis>,
    /// When a node was first seen to differ, for the delay that is shown.
    pub(super) since: BTreeMap<NodeId, Millis>,
}

/// Time between two walks over everything unsettled while nothing happens.
const ROUND_EVERY_MS: Millis = 1_000;

impl Work {
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.is_empty() && self.wake.is_empty() && self.families.is_empty() && self.outbox.is_empty() && !self.committing
    }

    /// Whether the node is left alone for now.
    fn is_busy(&self, node: NodeId) -> bool {
        let waits = self.waits.get(&node).is_some_and(|wait| wait.until > 0);
        waits || self.busy.contains(&node)
    }

    /// Whether nothing is left to be done to the folder, but for what cannot be done: all that is open was walked over once, and no step
    /// is under way or waits for its turn.
    pub(super) fn has_placed(&self) -> bool {
        let rests = self.wake.is_empty() && self.families.is_empty() && self.left_over.is_empty() && !self.is_performing();
        rests && self.round.is_none() && self.round_done_at.is_some()
    }

    pub(super) fn outgoing(&self) -> usize {
        self.outbox.len() + self.read_queue.len() + self.reading.len()
    }
}

impl<C: Catalog> Engine<C> {
    pub(super) fn advance_work(&mut self, now: Millis) {
        let over: Vec<NodeId> =
            self.work.waits.iter().filter(|(_, wait)| now >= wait.until && wait.until > 0).map(|(node, _)| *node).collect();
        for node in over {
            if let Some(wait) = self.work.waits.get_mut(&node) {
                wait.until = 0;
            }
            self.wake_names(node);
        }
        if !self.work.is_performing() && self.work.wake.is_empty() {
            self.wake_left_over();
        }
        if self.remote.at_head && !self.guard.paused && self.may_rule(now) {
            // Facts wake nodes again, so a few rounds may follow each other; each shrinks what is open.
            for _ in 0..8 {
                self.wake_families();
                if !self.plan_once(now) {
                    break;
                }
            }
        }
        self.send_reads();
        self.send_commit(now);
    }

    /// Nodes whose steps found no room are planned again: about as many as there is room for now, because planning for
    /// all of them each time would take longer than performing.
    pub(super) fn wake_left_over(&mut self) {
        let room = 2 * self.settings.limits.steps;
        // From where the last call stopped, so that large contents that wait for their lane hold up nobody.
        let from = self.work.left_from.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut next: Vec<NodeId> = self.work.left_over.range((from, Bound::Unbounded)).take(room).copied().collect();
        self.work.left_from = next.last().copied().filter(|_| next.len() == room);
        if next.len() < room {
            next.extend(self.work.left_over.iter().take(room - next.len()).copied());
        }
        for node in &next {
            self.work.left_over.remove(node);
        }
        self.wake(next);
    }

    fn wake_families(&mut self) {
        let limit = self.settings.limits.plan_nodes;
        while self.work.wake.len() < limit {
            let Some(directory) = self.work.families.pop_first() else { return };
            let mut children = self.catalog.local_children(directory, usize::MAX);
            children.extend(self.catalog.remote_children(directory, usize::MAX));
            self.wake(children);
        }
    }

    /// Plans for some nodes; true if something came of it or nodes are left.
    fn plan_once(&mut self, now: Millis) -> bool {
        let nodes = self.nodes_to_plan(now);
        if nodes.is_empty() {
            return false;
        }
        self.guard.set_holds(&mut self.settings.rules, now);
        let ids = &mut self.ids;
        let (work, local, placing) = (&self.work, &self.local, &self.placing);
        let busy = |record: &Record| {
            let open = local.is_unsure(record) || local.may_succeed(record) || placing.is_open(record.node, local);
            open || work.is_busy(record.node)
        };
        let planned = plan(&self.catalog, &self.settings.rules, nodes, &busy, &mut || NodeId(ids()));
        self.work.round_found |= !planned.is_empty();
        let busy_with_facts = self.take_facts(&planned);
        self.dispatch(planned, now);
        busy_with_facts || !self.work.wake.is_empty() || !self.work.families.is_empty()
    }

    fn nodes_to_plan(&mut self, now: Millis) -> Vec<NodeId> {
        let limit = self.settings.limits.plan_nodes;
        let woken: Vec<NodeId> = std::iter::from_fn(|| self.work.wake.pop_first()).take(limit).collect();
        if !woken.is_empty() {
            return woken;
        }
        // Nobody woke anything and nothing is under way: walk over all that is open, so that no forgotten wake can stall
        // the endpoint.
        if !self.work.busy.is_empty() || !self.work.left_over.is_empty() {
            return Vec::new();
        }
        let rested = self.work.round_done_at.is_none_or(|at| now >= at + ROUND_EVERY_MS);
        if self.work.round.is_none() && !rested {
            return Vec::new();
        }
        let open = self.catalog.unsettled(self.work.round, limit);
        self.work.round = open.last().copied().filter(|_| open.len() == limit);
        if self.work.round.is_none() {
            self.work.round_done_at = Some(now);
        }
        open.iter().for_each(|node| self.look_again_at_passing(*node, now));
        open
    }

    /// A file that never rested is looked at until it does, wherever it has been moved to since.
    fn look_again_at_passing(&mut self, node: NodeId, now: Millis) {
        let Some(record) = self.catalog.record(node) else { return };
        if let Some(local) = record.here().filter(|local| local.passing().is_some() && !self.local.is_written(&local.place)) {
            self.local.suspect(&local.place, now);
        }
    }

    fn take_facts(&mut self, planned: &Plan) -> bool {
        for fact in &planned.facts {
            // Rebinding moves what is below a directory; work under way below it must not be pulled along.
            if let isotherm_core::plan::Fact::Rebind(from, to) = fact {
                let below = self.catalog.local_children(*from, usize::MAX);
                if self.work.is_busy(*from) || self.work.is_busy(*to) || below.iter().any(|child| self.work.busy.contains(child))
                {
                    self.wake([*from, *to]);
                    continue;
                }
            }
            if let isotherm_core::plan::Fact::Rebind(from, to) = fact {
                self.local.rename_node(*from, *to);
            }
            let again = establish(&mut self.catalog, fact);
            again.into_iter().for_each(|node| self.around(node));
            if let isotherm_core::plan::Fact::Rebind(_, to) = fact {
                self.look_whether_here(*to);
            }
            if let isotherm_core::plan::Fact::Agree(node) = fact {
                self.around(*node);
            }
        }
        !planned.facts.is_empty()
    }

    fn dispatch(&mut self, planned: Plan, now: Millis) {
        for node in planned.reads {
            if self.work.busy.insert(node) {
                self.work.read_queue.push_back(node);
            }
        }
        if !planned.searches.is_empty() && !self.work.searching {
            self.work.searching = true;
            self.work.busy.extend(&planned.searches);
            self.work.searches.extend(&planned.searches);
            self.effects.push(Effect::History(planned.searches));
        }
        for intent in planned.intents {
            let nodes = intent_nodes(&intent);
            if nodes.iter().any(|node| self.work.busy.contains(node)) {
                self.wake(nodes);
                continue;
            }
            self.work.busy.extend(nodes);
            self.work.outbox.push_back(intent);
        }
        self.hand_out(planned.steps);
        for (node, trouble) in planned.troubles {
            let (code, text) = match trouble {
                Trouble::TooManyConflicts => (
                    "too_many_conflicts",
                    "There are a hundred conflict copies of this file already; both versions stay where they are",
                ),
                Trouble::MoveUndone => (
                    "move_undone",
                    "The move would have put a directory below itself, because another server moved it the other way; it is undone here",
                ),
                Trouble::TooManyTogether => (
                    "too_many_together",
                    "More than 4,096 files wait for each other's names; rename some of them to names that nothing else had",
                ),
            };
            self.problem(node, code, text, "Decide which version is right, and delete or rename the others", now);
        }
    }

    fn send_reads(&mut self) {
        let limits = self.settings.limits.clone();
        while self.work.reads < limits.reads && !self.work.read_queue.is_empty() {
            let mut batch: Vec<ReadRequest> = Vec::new();
            let mut bytes = 0;
            let mut kept_back = VecDeque::new();
            while let Some(node) = self.work.read_queue.pop_front() {
                let Some(request) = self.read_request(node) else { continue };
                let large = request.size > limits.bulk_bytes;
                // One place is always left for small files.
                if large && (!batch.is_empty() || self.work.large_reads.len() + 1 >= limits.reads) {
                    kept_back.push_back(node);
                    if kept_back.len() > limits.read_files {
                        break;
                    }
                    continue;
                }
                bytes += request.size;
                batch.push(request);
                if large || batch.len() >= limits.read_files || bytes >= limits.read_bytes {
                    break;
                }
            }
            while let Some(node) = kept_back.pop_back() {
                self.work.read_queue.push_front(node);
            }
            if batch.is_empty() {
                return;
            }
            self.work.reads += 1;
            self.work.large_reads.extend(batch.first().filter(|first| first.size > limits.bulk_bytes).map(|first| first.node));
            batch.iter().for_each(|request| {
                self.work.reading.insert(request.node, request.handle.clone());
            });
            self.effects.push(Effect::Read(batch));
        }
    }

    fn read_request(&mut self, node: NodeId) -> Option<ReadRequest> {
        let local = self.catalog.record(node).and_then(|record| record.here().cloned());
        let Some(local) = local else {
            self.work.busy.remove(&node);
            return None;
        };
        let mut tries = self.work.waits.get(&node).map_or(0, |wait| wait.attempts);
        if self.local.is_restless(&local.place) {
            tries = tries.max(self.settings.limits.restless_tries);
        }
        Some(ReadRequest { node, handle: local.handle, size: local.print.size, tries })
    }

    pub(super) fn reads_ended(&mut self, nodes: impl Iterator<Item = NodeId>) {
        self.work.reads = self.work.reads.saturating_sub(1);
        nodes.for_each(|node| {
            self.work.large_reads.remove(&node);
        });
    }

    /// Sends the next batch, storing it first. What was sent and not answered goes again before anything new.
    fn send_commit(&mut self, now: Millis) {
        let resting = self.work.commit_retry.is_some_and(|at| now < at);
        if self.work.committing || resting || !self.remote.at_head || self.guard.paused {
            return;
        }
        self.work.commit_retry = None;
        let mut sent = self.catalog.sent();
        if sent.is_empty() {
            let mut operations = 0;
            while operations < self.settings.limits.operations {
                let Some(intent) = self.work.outbox.pop_front() else { break };
                operations += intent.changes.len();
                let ids = intent.changes.iter().map(|_| OperationId((self.ids)())).collect();
                let group = u32::try_from(sent.len()).unwrap_or(u32::MAX);
                sent.push(Sent { intent, ids, group });
            }
            if sent.is_empty() {
                return;
            }
            self.catalog.set_sent(&sent);
        }
        self.work.committing = true;
        self.work.committing_in = self.catalog.cursor().map(|cursor| cursor.incarnation).unwrap_or_default();
        self.effects.push(Effect::Commit(sent.iter().flat_map(Sent::operations).collect()));
    }

    /// Forgets what was sent and not answered, and what was about to be sent.
    pub(super) fn drop_outgoing(&mut self) {
        let sent = self.catalog.sent().into_iter().map(|sent| sent.intent);
        let intents: Vec<Intent> = sent.chain(self.work.outbox.drain(..)).collect();
        self.catalog.set_sent(&[]);
        for node in intents.iter().flat_map(intent_nodes) {
            self.work.busy.remove(&node);
            self.wake([node]);
        }
    }

    /// What was about to be said of files that are gone meanwhile is not said any more: what was written to them would
    /// beat the news that they were deleted.
    pub(super) fn withdraw(&mut self, changed: &BTreeSet<NodeId>) {
        let queued = changed.iter().filter(|node| self.work.busy.contains(*node));
        let gone = |node: &NodeId| self.catalog.record(*node).is_none_or(|record| record.local.is_none());
        let gone: BTreeSet<NodeId> = queued.copied().filter(gone).collect();
        if gone.is_empty() || self.work.outbox.is_empty() {
            return;
        }
        let outbox = std::mem::take(&mut self.work.outbox);
        let (withdrawn, left): (VecDeque<_>, VecDeque<_>) =
            outbox.into_iter().partition(|intent| intent_nodes(intent).iter().any(|node| gone.contains(node)));
        self.work.outbox = left;
        for node in withdrawn.iter().flat_map(intent_nodes) {
            self.work.busy.remove(&node);
            self.wake([node]);
        }
    }

    /// What an earlier run sent and never saw answered is under way again.
    pub(super) fn resume_sent(&mut self) {
        for sent in self.catalog.sent() {
            self.work.busy.extend(intent_nodes(&sent.intent));
        }
    }

    pub(super) fn next_work(&self) -> Option<Millis> {
        let wait = self.work.waits.values().map(|wait| wait.until).filter(|until| *until > 0).min();
        let round = self.work.round_done_at.map_or(0, |at| at + ROUND_EVERY_MS);
        let woken = !self.work.wake.is_empty() || !self.work.families.is_empty();
        // While something is under way its end is the next event.
        let idle = self.work.busy.is_empty() && self.work.left_over.is_empty();
        let open = woken || (idle && !self.catalog.unsettled(None, 1).is_empty());
        let planning = self.remote.at_head && !self.guard.paused && open;
        let round = planning.then_some(round);
        let sending = self.remote.at_head && !self.guard.paused && !self.work.committing;
        let commit = self.work.commit_retry.filter(|_| sending);
        [wait, round, commit].into_iter().flatten().min()
    }
}

/// Nodes that an intent concerns, the one that a conflict copy is made of included.
pub(super) fn intent_nodes(intent: &Intent) -> BTreeSet<NodeId> {
    let changed = intent.changes.iter().map(isotherm_core::namespace::Change::node);
    changed.chain(intent.rebind.map(|(from, _)| from)).collect()
}

/// The places that a step takes, leaves or changes.
pub(super) fn places(step: &Step) -> Vec<Place> {
    match &step.action {
        Action::Create { at, content, link_to, .. } => {
            let linked = link_to.as_ref().filter(|_| matches!(content, Content::File(_)));
            std::iter::once(at.place()).chain(linked.map(|expected| expected.spot.place())).collect()
        }
        Action::Replace { expected, link_to, .. } => {
            std::iter::once(expected.spot.place()).chain(link_to.as_ref().map(|expected| expected.spot.place())).collect()
        }
        Action::SetMetadata { expected, .. } | Action::Remove { expected, .. } => vec![expected.spot.place()],
        Action::Move { expected, to, .. } => vec![expected.spot.place(), to.place()],
    }
}
