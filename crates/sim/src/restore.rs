//! What happens in the share beside the servers' work: an administrator brings nodes back to what they were, retention
//! lets old versions go, and what nothing names is collected.

use isotherm_core::ids::{NodeId, ServerId, Version};
use isotherm_core::namespace::{Records, Restoration, Restored, restore};
use isotherm_core::node::Node;

use crate::world::{Time, World};

/// How long an upload is safe from collection. Short, so that uploads whose commit comes later are collected: they have
/// to be asked for again.
const PIN: Time = 1_000;

impl World {
    /// Restores some node to some version of it, or deletes it as an exact restore does.
    pub(crate) fn restore_something(&mut self) {
        let nodes: Vec<NodeId> = self.records.nodes().map(|node| node.id).collect();
        let Some(node) = self.rng.pick(&nodes).copied() else { return };
        let versions = self.records.revisions(node).to_vec();
        let (Some(now), Some(then)) = (versions.last().cloned(), self.rng.pick(&versions).cloned()) else { return };
        let target = (!self.rng.chance(15)).then_some(then.versions.last);
        let seen = self.seen_before(&versions);
        let wanted = Restoration { node, expected: seen.unwrap_or(now.versions.last), target };
        let mut draws: Vec<[u8; 16]> = (0..100).map(|_| self.rng.id()).collect();
        let mut draw = || draws.pop().expect("a restore makes few operations");
        self.begin_own_life();
        let Ok(outcome) = restore(&mut self.records, wanted, &mut draw);
        if self.options.trace {
            self.outcome.trace.push(format!("{:>6} restore {wanted:?}: {outcome:?}", self.now));
        }
        if outcome == Restored::Changed {
            return;
        }
        // A directory that was brought back for what is in it may have been seen deleted.
        if seen.is_some() && now.author != ServerId::SERVICE {
            self.outcome.wrong.push(format!("a change that nobody had seen was restored over: {wanted:?}: {outcome:?}"));
        }
        // Whoever restores gives up what is there, and wants what was.
        for node in [&now, &then] {
            self.settle_with_ledger(node);
        }
        self.check_namespace();
    }

    /// Sometimes an administrator looked before the latest change: what he saw. Not drawn, so that seeds that once failed
    /// stay the runs that they were for longer.
    fn seen_before(&self, versions: &[Node]) -> Option<Version> {
        let before = versions.len().checked_sub(2)?;
        self.now.is_multiple_of(4).then(|| versions[before].versions.last)
    }

    /// Lets old versions go, and then the content that nothing needs.
    pub(crate) fn collect(&mut self) {
        let Ok(share) = self.records.share();
        // Where files are tiered old versions are kept for longer than anybody is away: what a stub stands for may be one.
        let ago = if self.options.tiers { share.head.0 } else { self.rng.below(30) };
        let before = Version(share.head.0.saturating_sub(ago));
        self.records.expire(before);
        let is_kept = |node: &&Node| self.records.revisions(node.id).last() == Some(*node);
        let torn: Vec<NodeId> = self.records.nodes().filter(|node| !is_kept(node)).map(|node| node.id).collect();
        if !torn.is_empty() {
            self.outcome.wrong.push(format!("retention let present versions go: {torn:?}"));
        }
        let (now, uploaded) = (self.now, &self.uploaded);
        self.records.collect(|manifest| uploaded.get(&manifest).is_some_and(|at| now < at + PIN));
    }

    /// Neither must this content live on, nor must it be gone.
    fn settle_with_ledger(&mut self, node: &Node) {
        let bytes = node.content.file().and_then(|file| self.contents.get(&file.manifest)).copied();
        if let Some(bytes) = bytes {
            self.ledger.owed.remove(&bytes);
            self.ledger.given_back(bytes);
        }
    }
}
