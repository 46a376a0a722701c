//! Safety stops and what administrators ask for.
//!
//! A plan that would delete a large part of the namespace waits for a confirmation, whichever side deleted. Deletes
//! trickle in as they are noticed, so what was deleted within the last minutes counts together with what waits.

use std::collections::VecDeque;

use isotherm_core::ids::{NodeId, Version};
use isotherm_core::namespace::Change;
use isotherm_core::plan::{Action, Authority, Intent, Rules, Step};

use super::{Catalog, Command, Counts, Effect, Engine, Held, Millis};

/// Set once both sides have agreed for the first time.
const AGREED_ONCE: &str = "agreed-once";
/// Up to which version of the share an authority reaches: its head when the share was first read.
const AUTHORITY_UNTIL: &str = "authority-until";

/// Safety stops of one engine.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) paused: bool,
    hold_local: bool,
    hold_remote: bool,
    /// How many deletes were confirmed, made here and made in the share; it holds until nothing more waits to be deleted.
    confirmed: Option<(u64, u64)>,
    recent_local: VecDeque<Millis>,
    recent_remote: VecDeque<Millis>,
    /// The newest barrier, and the newest that was reached.
    barrier: u64,
    pub(super) reached: u64,
    drained: bool,
    drain_asked: bool,
    scans_at_barrier: u64,
    agreed_once: bool,
}

impl Guard {
    pub(super) fn set_holds(&self, rules: &mut Rules) {
        rules.hold_local_deletes = self.hold_local;
        rules.hold_remote_deletes = self.hold_remote;
    }

    pub(super) fn count_local(&mut self, intent: &Intent, now: Millis) {
        let deletes = intent.changes.iter().filter(|change| matches!(change, Change::Delete { .. })).count();
        self.recent_local.extend(std::iter::repeat_n(now, deletes));
    }

    pub(super) fn count_remote(&mut self, step: &Step, now: Millis) {
        if matches!(step.action, Action::Remove { .. }) {
            self.recent_remote.push_back(now);
        }
    }

    pub(super) fn held(&self, counts: Counts) -> Option<Held> {
        let deletes = if self.hold_local { counts.deleted_here } else { counts.deleted_there };
        (self.hold_local || self.hold_remote).then_some(Held { local: self.hold_local, deletes, of: counts.nodes })
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
                let with = |waiting: u64, recent: &VecDeque<Millis>| waiting + recent.len() as u64;
                let local = with(counts.deleted_here, &self.guard.recent_local);
                let remote = with(counts.deleted_there, &self.guard.recent_remote);
                self.guard.confirmed = Some((local, remote));
                self.guard.hold_local = false;
                self.guard.hold_remote = false;
            }
            Command::Pause => self.guard.paused = true,
            Command::Resume => self.guard.paused = false,
            Command::Servers(servers) => self.settings.rules.servers = servers,
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

    /// Judges deletes before they are planned for.
    pub(super) fn judge_deletes(&mut self, now: Millis) {
        let window = self.settings.limits.deletes_window_ms;
        for recent in [&mut self.guard.recent_local, &mut self.guard.recent_remote] {
            while recent.front().is_some_and(|at| at + window < now) {
                recent.pop_front();
            }
        }
        let counts = self.catalog.counts();
        if counts.deleted_here == 0 && counts.deleted_there == 0 {
            if self.guard.confirmed.is_some() {
                self.guard.recent_local.clear();
                self.guard.recent_remote.clear();
            }
            self.guard.confirmed = None;
        }
        let judge = |waiting: u64, recent: usize, confirmed: u64| {
            let deletes = waiting + u64::try_from(recent).unwrap_or(u64::MAX);
            let before = counts.nodes.max(1) + u64::try_from(recent).unwrap_or(0);
            let allowed = self.settings.limits.deletes_free.max(before * self.settings.limits.deletes_percent / 100);
            waiting > 0 && deletes > allowed.max(confirmed)
        };
        let (here, there) = self.guard.confirmed.unwrap_or_default();
        let local = judge(counts.deleted_here, self.guard.recent_local.len(), here);
        let remote = judge(counts.deleted_there, self.guard.recent_remote.len(), there);
        (self.guard.hold_local, self.guard.hold_remote) = (local, remote);
    }
}
