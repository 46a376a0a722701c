//! What grows old: the same versions, deletions and contents go from both records. A day goes by with each batch.

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::name::Case;
use isotherm_core::namespace::{Records as _, Revisions as _};

use super::super::revisions::{Revision, kept_since};
use super::super::{Ages, condemn, expire, forget_deleted, forget_manifests, long_deleted, mark, unnamed_chunks};
use super::{GROUP, NODES, SqlRecords, World};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const AT_ONCE: Ages = Ages { pin_ms: 0, grace_ms: 0, horizon_ms: 0 };

impl World {
    fn keep(&self, days: u64, versions: u64, hold: bool) {
        let sql = "UPDATE share SET keep_days = ?1, keep_versions = ?2, hold = ?3";
        self.sql.execute(sql, rusqlite::params![days as i64, versions as i64, hold]).unwrap();
    }

    /// All pages of a few revisions each; gives how many went.
    fn expire_sql(&mut self, now_ms: u64) -> usize {
        let (mut after, mut gone) = (None, 0);
        loop {
            let limit = 1 + self.dice.roll(9) as usize;
            let page = expire(&self.sql, GROUP, now_ms, after, limit).unwrap();
            gone += page.1;
            after = page.0;
            if after.is_none() {
                return gone;
            }
        }
    }

    fn forget_sql(&self, before_ms: u64) {
        let mut after = None;
        loop {
            let found = long_deleted(&self.sql, GROUP, before_ms, after, 2).unwrap();
            let Some(last) = found.last().copied() else { return };
            // Also what is not to go may be asked for: it is looked at again.
            let all: Vec<NodeId> = (0..=NODES as u8).map(|number| NodeId([number; 16])).collect();
            forget_deleted(&self.sql, GROUP, before_ms, if found.len() == 1 { &all } else { &found }).unwrap();
            after = Some(last);
        }
    }

    /// Collects in both. The records on SQLite also keep what only a deletion's own state names, until that is let go.
    fn collect(&mut self, now_ms: u64) {
        let mark = mark(&self.sql, now_ms, AT_ONCE).unwrap();
        let mut wanted = self.memory.clone();
        wanted.collect(|_| false);
        let all = self.memory.nodes().flat_map(|node| self.memory.revisions(node.id));
        let of_deletions: Vec<ManifestId> =
            all.filter(|node| node.deleted).filter_map(|node| node.content.file()).map(|file| file.manifest).collect();
        for manifest in self.manifests.iter().filter(|manifest| self.memory.has_content(**manifest)) {
            let is_wanted = wanted.has_content(*manifest);
            assert!(mark.has_manifest(*manifest) || !is_wanted, "{manifest} must stay");
            assert!(!mark.has_manifest(*manifest) || is_wanted || of_deletions.contains(manifest), "{manifest} must go");
        }
        self.memory.collect(|manifest| mark.has_manifest(manifest));
        let (unnamed, _) = unnamed_chunks(&self.sql, &mark, None, 100).unwrap();
        condemn(&self.sql, &unnamed, now_ms, now_ms, AT_ONCE).unwrap();
        forget_manifests(&self.sql, &mark, now_ms, AT_ONCE).unwrap();
    }

    fn versions(&self, number: u64) -> Vec<Revision> {
        SqlRecords::open(&self.sql, GROUP, 0).unwrap().versions(NodeId([number as u8; 16])).unwrap()
    }

    fn compare_versions(&self) {
        for number in 0..=NODES {
            let found: Vec<_> = self.versions(number).into_iter().map(|one| one.node).rev().collect();
            assert_eq!(found, self.memory.revisions(NodeId([number as u8; 16])), "node {number}");
        }
    }
}

#[test]
fn what_grows_old_goes_from_both() {
    let mut gone = (0, 0);
    for seed in 1..=8 {
        let mut world = World::new(seed, Case::Sensitive);
        let mut heads = vec![Version(0)];
        for day in 1..=80 {
            let now_ms = day * DAY_MS;
            world.step(now_ms);
            heads.push(world.memory.share().unwrap().head);
            if world.dice.roll(8) > 0 {
                continue;
            }
            let days = world.dice.roll(20);
            world.keep(days, 0, false);
            gone.0 += world.expire_sql(now_ms);
            // All that was replaced before that day began.
            let before = Version(heads[day.saturating_sub(days + 1) as usize].0 + 1);
            world.memory.expire(before);
            world.compare_versions();
            let nodes = world.memory.nodes().count();
            world.forget_sql((day - days.min(day)) * DAY_MS);
            world.memory.forget_deleted(before);
            gone.1 += nodes - world.memory.nodes().count();
            world.compare_versions();
            // What the last batch asked for counts as named until the moment after.
            world.collect(now_ms + 1);
            world.compare();
            if world.dice.roll(2) == 0 {
                world.manifests.clear();
                world.add_contents();
            }
        }
    }
    assert!(gone.0 > 100 && gone.1 > 20, "{gone:?} went");
}

#[test]
fn the_newest_versions_stay_for_as_long_as_they_are_wanted() {
    let mut kept = 0;
    for seed in 1..=6 {
        let mut world = World::new(seed, Case::Sensitive);
        for day in 1..=60 {
            world.step(day * DAY_MS);
        }
        world.keep(0, 0, true);
        assert_eq!(world.expire_sql(100 * DAY_MS), 0, "on hold");
        for versions in (0..6).rev() {
            let days = 70 + world.dice.roll(30);
            world.keep(days, versions, false);
            let until = (100 - days) * DAY_MS;
            let mut gone = kept_since(&world.sql, GROUP).unwrap();
            let mut wanted = Vec::new();
            for number in 0..=NODES {
                let all = world.versions(number);
                let is_kept = |rank: usize| rank < versions as usize || all[rank].replaced_ms.is_none_or(|ms| ms >= until);
                for rank in (0..all.len()).filter(|rank| !is_kept(*rank)) {
                    gone.0 = gone.0.max(all[rank].replaced_ms.unwrap());
                    gone.1 = gone.1.max(all[rank - 1].node.versions.last);
                }
                let by_rank = (0..all.len()).filter(|rank| is_kept(*rank));
                wanted.push(by_rank.map(|rank| all[rank].node.versions.last).collect::<Vec<_>>());
            }
            world.expire_sql(100 * DAY_MS);
            for (number, wanted) in wanted.into_iter().enumerate() {
                let found: Vec<_> = world.versions(number as u64).iter().map(|one| one.node.versions.last).collect();
                kept += found.len().saturating_sub(1);
                assert_eq!(found, wanted, "node {number}, the newest {versions} of {days} days");
            }
            assert_eq!(kept_since(&world.sql, GROUP).unwrap(), gone);
        }
    }
    assert!(kept > 100, "{kept} old versions were kept");
}

/// The clock is set back in the middle: what changed then has an earlier time and a later version.
#[test]
fn what_changed_is_found_also_after_the_clock_was_set_back() {
    use super::super::Moment;
    let mut world = World::new(5, Case::Sensitive);
    for step in 0..60 {
        world.step(if step < 30 { 1_000 + step } else { 500 + step });
    }
    let records = SqlRecords::open(&world.sql, GROUP, 0).unwrap();
    for ms in (500..1_040).step_by(7) {
        let at = Moment::Time(ms);
        let mut found: Vec<NodeId> = Vec::new();
        let mut before = None;
        loop {
            let page = records.changed_since(at, before, 2).unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.node.versions.last);
            found.extend(page.iter().map(|one| one.node.id));
        }
        for number in 0..=NODES {
            let node = NodeId([number as u8; 16]);
            let Some(now) = records.node(node).unwrap() else { continue };
            let then = records.version_at(node, at).unwrap();
            let is_other = then.as_ref().is_none_or(|then| then.versions.last != now.versions.last);
            assert_eq!(found.contains(&node), is_other, "node {number} at {ms}");
            if let Some(then) = then {
                assert_eq!(records.revision(node, then.versions.last).unwrap(), Some(then));
            }
        }
    }
}
