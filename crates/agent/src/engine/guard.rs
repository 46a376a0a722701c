//! Safety stops and what administrators ask for.
//!
//! A plan that would delete a large part of the namespace waits for a confirmation, whichever side deleted. Deletes
//! trickle in as they are noticed, so what was deleted within the last minutes counts together with what waits.
//! [`super::deletes`] has the counting.

use isotherm_core::ids::{NodeId, Version};
use isotherm_core::namespace::Change;
use isotherm_core::plan::{Action, Authority, Rules, Step};
use isotherm_core::trees::{Record, State};

use super::deletes::{Case, Marks, Side, count_old};
use super::{Catalog, Command, Counts, Effect, Engine, Held, Millis};

/// Set once both sides have agreed for the first time.
const AGREED_ONCE: &str = "agreed-once";
/// How many deletes went through within the last minutes.
const RECENT_DELETES: &str = "recent-deletes";
/// Up to which version of the share an authority reaches: its head when the share was first read.
const AUTHORITY_UNTIL: &str = "authority-until";

/// Safety stops of one engine.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) paused: bool,
    local: Side,
    remote: Side,
    marks: Marks,
    /// How many deletes were confirmed, made here and made in the share; it holds until nothing more waits to be deleted.
    confirmed: Option<(u64, u64)>,
    /// The newest barrier, and the newest that was reached.
    barrier: u64,
    pub(super) reached: u64,
    drained: bool,
    drain_asked: bool,
    scans_at_barrier: u64,
    agreed_once: bool,
    /// Since this engine began, all that could be placed was once.
    placed_once: bool,
    /// What the catalog has.
    kept: Kept,
}

/// For each side: recent deletes, and how many are allowed while others are held back.
type Kept = [(u64, Option<u64>); 2];

impl Guard {
    pub(super) fn set_holds(&self, rules: &mut Rules, now: Millis) {
        rules.hold_local_deletes = self.local.is_held(now);
        rules.hold_remote_deletes = self.remote.is_held(now);
    }

    pub(super) fn held(&self, counts: Counts) -> Option<Held> {
        let (local, remote) = (self.local.held.is_some(), self.remote.held.is_some());
        let deletes = if local { counts.deleted_here } else { counts.deleted_there };
        (local || remote).then_some(Held { local, deletes, of: counts.nodes })
    }

    /// When deletes that trickle in are judged.
    pub(super) fn next(&self, now: Millis) -> Option<Millis> {
        [self.local.growing_until, self.remote.growing_until].into_iter().filter(|until| *until > now).min()
    }
}

impl<C: Catalog> Engine<C> {
    pub(super) fn command(&mut self, command: Command, now: Millis) {
        match command {
            Command::Barrier(number) if number > self.guard.barrier => {
                self.guard.barrier = number;
                self.guard.drained = false;
                self.guard.drain_asked = false;
                self.guard.scans_at_barrier = self.local.scans().0;
                if !self.settings.watched {
                    self.local.scan_due = Some(now);
                }
            }
            Command::Barrier(_) => {}
            Command::ConfirmDeletes => {
                let counts = self.catalog.counts();
                let local = self.guard.local.to_confirm(counts.deleted_here);
                let remote = self.guard.remote.to_confirm(counts.deleted_there);
                self.guard.confirmed = Some((local, remote));
            }
            Command::Pause => self.guard.paused = true,
            Command::Resume => self.guard.paused = false,
            Command::Servers(servers) => self.settings.rules.servers = servers,
            Command::Tiers(policy) => self.tiers = policy,
            Command::Limited(bytes) => self.limited = bytes,
            Command::Pin(node, pinned) => self.pin(node, pinned),
            Command::NotComing(files) => self.not_coming_as(&files),
        }
    }

    pub(super) fn drained(&mut self, _now: Millis) {
        self.guard.drained = true;
        self.local.flush = true;
    }

    /// Whether plans may be made under the authority in force. A server whose tree the share is to become must have
    /// been read to its end first, or what was not read yet would count as absent; and it must hold something. Once
    /// both sides have agreed the authority is over: from then on all servers are equal.
    pub(super) fn may_rule(&mut self, now: Millis) -> bool {
        self.note_agreement();
        if self.settings.rules.authority == Authority::Merge {
            return true;
        }
        self.bound_authority();
        if self.local.scans().1 == 0 {
            return false;
        }
        if self.catalog.local_children(NodeId::ROOT, 1).is_empty() {
            let text = "The folder is empty, so the share will not be made equal to it (server authoritative upload)";
            self.problem(NodeId::ROOT, "empty_folder", text, "Put the files there, or use `--initial-upload merge`", now);
            return false;
        }
        self.resolved(NodeId::ROOT);
        true
    }

    /// Folder and share have agreed once: from then on all servers are equal.
    fn note_agreement(&mut self) {
        self.guard.placed_once |= self.remote.at_head && self.work.has_placed();
        if !self.guard.agreed_once && self.is_quiet() {
            self.guard.agreed_once = true;
            self.catalog.set_value(AGREED_ONCE, Some(b"1"));
            self.settings.rules.authority = Authority::Merge;
        }
    }

    /// Whether folder and share have agreed once.
    pub fn has_agreed(&self) -> bool {
        self.guard.agreed_once
    }

    /// Whether the folder has everything of the share for the first time, but for what cannot be placed and for contents that come later.
    pub fn has_names(&self) -> bool {
        self.guard.agreed_once || self.guard.placed_once
    }

    /// What others bring to the share after this server first read it is not ruled over, however long the upload takes.
    fn bound_authority(&mut self) {
        if self.settings.rules.authority_until.is_some() {
            return;
        }
        let kept = self.catalog.value(AUTHORITY_UNTIL).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let until = kept.map(Version).or_else(|| self.catalog.cursor().map(|cursor| cursor.version));
        if let Some(until) = until.filter(|_| kept.is_none()) {
            self.catalog.set_value(AUTHORITY_UNTIL, Some(&until.0.to_be_bytes()));
        }
        self.settings.rules.authority_until = until;
    }

    /// The versions of another life of the share mean nothing in this one: the bound is set anew.
    pub(super) fn unbound_authority(&mut self) {
        self.catalog.set_value(AUTHORITY_UNTIL, None);
        self.settings.rules.authority_until = None;
    }

    /// An authority that was used up in an earlier run does not come back.
    pub(super) fn recall_authority(&mut self) {
        if self.catalog.value(AGREED_ONCE).is_some() {
            self.guard.agreed_once = true;
            self.settings.rules.authority = Authority::Merge;
        }
    }

    /// Brings barriers forward.
    pub(super) fn advance_guard(&mut self) {
        if self.guard.reached == self.guard.barrier {
            self.local.flush = false;
            return;
        }
        if self.settings.watched && !self.guard.drain_asked {
            self.guard.drain_asked = true;
            self.effects.push(Effect::Drain);
        }
        let looked = self.local.has_looked() && !self.local.is_scanning();
        let seen = if self.settings.watched { self.guard.drained } else { self.local.scans().1 > self.guard.scans_at_barrier };
        if seen && looked {
            self.guard.reached = self.guard.barrier;
            self.local.flush = false;
        }
    }

    /// A page ended at the head of the share.
    pub(super) fn mark_head(&mut self, now: Millis) {
        if let Some(cursor) = self.catalog.cursor().filter(|_| self.remote.at_head) {
            self.guard.marks.note(cursor, self.catalog.counts().nodes, self.settings.limits.deletes_window_ms, now);
        }
    }

    /// The share has taken a change that was made here.
    pub(super) fn count_local(&mut self, change: &Change, before: Option<&Record>, now: Millis) {
        if matches!(change, Change::Delete { .. }) {
            let mark = self.guard.marks.first(self.catalog.cursor(), self.settings.limits.deletes_window_ms, now);
            self.guard.local.carried_out(before, mark, now);
        }
    }

    /// A step was performed here.
    pub(super) fn count_remote(&mut self, step: &Step, now: Millis) {
        if matches!(step.action, Action::Remove { .. }) {
            let mark = self.guard.marks.first(self.catalog.cursor(), self.settings.limits.deletes_window_ms, now);
            self.guard.remote.carried_out(self.catalog.record(step.node).as_ref(), mark, now);
        }
    }

    /// Judges deletes before they are planned for.
    pub(super) fn judge_deletes(&mut self, now: Millis) {
        let counts = self.catalog.counts();
        if counts.deleted_here == 0 && counts.deleted_there == 0 {
            if self.guard.confirmed.is_some() {
                self.guard.local.forget();
                self.guard.remote.forget();
            }
            self.guard.confirmed = None;
        }
        let (here, there) = self.guard.confirmed.unwrap_or_default();
        let limits = &self.settings.limits;
        let mark = self.guard.marks.first(self.catalog.cursor(), limits.deletes_window_ms, now);
        let case = |waiting, confirmed| Case { waiting, nodes: counts.nodes, confirmed, mark, limits, now };
        let catalog = &self.catalog;
        let (local, remote) = (&mut self.guard.local, &mut self.guard.remote);
        local.judge(&case(counts.deleted_here, here), |mark, most| count_old(catalog, State::DeletedHere, mark, most));
        remote.judge(&case(counts.deleted_there, there), |mark, most| count_old(catalog, State::DeletedThere, mark, most));
        self.keep_recent();
    }

    /// How many deletes went through lately, and what is held back, is kept: an agent that is started again and again must
    /// not forget it.
    fn keep_recent(&mut self) {
        let now = [&self.guard.local, &self.guard.remote].map(|side| (side.recent(), side.held));
        if now != self.guard.kept {
            self.guard.kept = now;
            let bytes = postcard::to_allocvec(&now).expect("numbers can be encoded");
            self.catalog.set_value(RECENT_DELETES, Some(&bytes));
        }
    }

    /// Deletes that an earlier run let through count as made now.
    pub(super) fn recall_recent(&mut self) {
        let Some(kept) = self.catalog.value(RECENT_DELETES).and_then(|bytes| postcard::from_bytes::<Kept>(&bytes).ok()) else {
            return;
        };
        for (side, (recent, held)) in [&mut self.guard.local, &mut self.guard.remote].into_iter().zip(kept) {
            side.recall(recent, held);
        }
        self.guard.kept = kept;
    }
}
