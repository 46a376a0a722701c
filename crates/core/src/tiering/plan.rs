//! What has to go now: what is older than asked for, and of the rest the coldest until there is room.

use super::Heat;
use super::coldest::{Coldest, Used};
use super::policy::{File, Policy, Stays, Volume};

/// Why a content goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Nobody has used it for longer than the endpoint allows.
    Age,
    /// The volume needs room, and all that stays was used later or more often.
    Space,
}

/// A content that goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Going<T> {
    /// The file.
    pub file: T,
    /// Bytes that its content takes.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// A plan in the making, of any number of files. It holds at most `limit` that go for their age, and as many for space: the others are
/// for the next one.
#[derive(Debug)]
pub struct Plan<T> {
    volume: Volume,
    now_ms: u64,
    limit: usize,
    aged: Vec<Going<T>>,
    coldest: Coldest<T>,
    /// Somebody waits: nothing stays because it came a moment ago.
    is_urgent: bool,
}

impl<T: Ord> Plan<T> {
    /// For a volume as it is now.
    #[must_use]
    pub fn new(volume: Volume, now_ms: u64, limit: usize) -> Self {
        let coldest = Coldest::freeing(volume.needed(), limit);
        Self { volume, now_ms, limit, aged: Vec::new(), coldest, is_urgent: false }
    }

    /// The same for so many bytes more, of what is cold.
    #[must_use]
    pub fn with_more(self, bytes: u64) -> Self {
        let coldest = Coldest::freeing(self.volume.needed().saturating_add(bytes), self.limit);
        Self { coldest, ..self }
    }

    /// For so many bytes that somebody waits for, whatever is to stay free. Nothing goes for its age alone.
    #[must_use]
    pub fn for_room(volume: Volume, bytes: u64, now_ms: u64, limit: usize) -> Self {
        Self { coldest: Coldest::freeing(bytes, limit), is_urgent: true, ..Self::new(volume, now_ms, 0) }
    }

    /// Of the files that go next, however much or little is needed: the coldest, in the order in which they go. What is old is one of
    /// them, and has no part of its own.
    #[must_use]
    pub fn in_order(volume: Volume, now_ms: u64, limit: usize) -> Self {
        Self { coldest: Coldest::freeing(u64::MAX, limit), ..Self::new(volume, now_ms, 0) }
    }

    /// Whether a file that is at least that warm may go: if not, nobody need look closer at it.
    #[must_use]
    pub fn would_take(&self, policy: &Policy, file: &File) -> bool {
        self.goes_for_age(policy, file) || self.coldest.would_take(self.volume.position(policy, file))
    }

    /// One more file that may go, of an endpoint with this policy.
    ///
    /// # Errors
    /// Why it stays whatever the volume needs.
    pub fn offer(&mut self, policy: &Policy, known: &File, file: T) -> Result<(), Stays> {
        match policy.may_go(known, self.now_ms, &self.volume) {
            Err(Stays::Young) if self.is_urgent => {}
            may_go => may_go?,
        }
        let bytes = known.size;
        if self.goes_for_age(policy, known) {
            self.coldest.lessen(bytes);
            self.aged.push(Going { file, bytes, reason: Reason::Age });
        } else {
            self.coldest.offer(Used { position: self.volume.position(policy, known), bytes, file });
        }
        Ok(())
    }

    fn goes_for_age(&self, policy: &Policy, file: &File) -> bool {
        self.aged.len() < self.limit && policy.is_old(file.heat, self.now_ms)
    }

    /// What goes, in this order. Where it frees less than the volume needs there is no more that may go.
    #[must_use]
    pub fn into_going(self) -> Vec<Going<T>> {
        let coldest = self.coldest.into_files().into_iter();
        let for_space = coldest.map(|used| Going { file: used.file, bytes: used.bytes, reason: Reason::Space });
        self.aged.into_iter().chain(for_space).collect()
    }
}

/// How a file is known before anybody asked for its uses: it can only be warmer.
impl File {
    /// The same with these uses too.
    #[must_use]
    pub fn used(self, heat: Option<Heat>) -> Self {
        Self { heat: heat.map_or(self.heat, |heat| heat.or(self.heat)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const DAY_MS: u64 = 24 * 3_600_000;
    const NOW: u64 = 20_000 * DAY_MS;

    /// What goes of files, given as name, GiB and days since the last use, on a volume of 500 GiB where nothing else lies.
    fn goes(free_percent: u8, older_than_days: Option<u64>, files: &[(&'static str, u64, u64)]) -> Vec<&'static str> {
        goes_by(Policy { largest_percent: 100, ..Policy::default() }, free_percent, older_than_days, files)
    }

    fn goes_by(
        policy: Policy,
        free_percent: u8,
        older_than_days: Option<u64>,
        files: &[(&'static str, u64, u64)],
    ) -> Vec<&'static str> {
        let taken: u64 = files.iter().map(|(_, gib, _)| gib * GIB).sum();
        let volume = Volume { total: 500 * GIB, free: 500 * GIB - taken, unsent: 0, free_percent };
        let policy = Policy { free_percent, older_than_s: older_than_days.map(|days| days * 24 * 3_600), grace_s: 0, ..policy };
        let mut plan = Plan::new(volume, NOW, 100);
        for (name, gib, days) in files {
            let heat = Heat::once(NOW - days * DAY_MS);
            let file = File { size: gib * GIB, heat, came_ms: heat.last_ms };
            plan.offer(&policy, &file, *name).unwrap();
        }
        let mut names: Vec<&str> = plan.into_going().into_iter().map(|going| going.file).collect();
        names.sort_unstable();
        names
    }

    /// The worked example of the reference, section 2.3: a volume of 500 GiB and five files, of which F5 is the coldest.
    #[test]
    fn the_two_policies_together() {
        let five = [("F1", 10, 2), ("F2", 30, 10), ("F3", 200, 365), ("F4", 120, 367), ("F5", 140, 731)];
        assert_eq!(goes(20, None, &five), ["F5"]);
        assert_eq!(goes(20, None, &five[..4]), [""; 0]);
        // Somebody opens F5: it is the warmest, and F4 goes.
        let opened = [("F1", 10, 2), ("F2", 30, 10), ("F3", 200, 365), ("F4", 120, 367), ("F5", 140, 0)];
        assert_eq!(goes(20, None, &opened), ["F4"]);
        // Only 150 GiB may stay: F2 goes although it is younger than 60 days, F3 would even if there were room. (F5 is smaller
        // than there by the spare.)
        let here = [("F1", 10, 2), ("F2", 30, 10), ("F3", 200, 365), ("F5", 135, 0)];
        assert_eq!(goes(70, Some(60), &here), ["F2", "F3"]);
        // Age alone, although there is room; a longer one asks for nothing.
        assert_eq!(goes(20, Some(60), &five[..3]), ["F3"]);
        assert_eq!(goes(20, Some(400), &five[..3]), [""; 0]);
    }

    #[test]
    fn what_goes_for_its_age_counts_for_the_space_too() {
        // 20 GiB are missing and 4 to spare; of the two that are old enough one would do.
        let files = [("cold", 60, 100), ("colder", 60, 200), ("warm", 100, 1), ("cool", 100, 20), ("fresh", 100, 0)];
        assert_eq!(goes(20, Some(90), &files), ["cold", "colder"]);
        assert_eq!(goes(20, None, &files), ["colder"]);
    }

    #[test]
    fn one_huge_file_does_not_push_out_all_others() {
        let mut files = vec![("huge", 150, 0)];
        files.extend([("a", 80, 50), ("b", 80, 60), ("c", 80, 70), ("d", 80, 80)]);
        assert_eq!(goes(20, None, &files), ["d"]);
        let policy = Policy { largest_percent: 30, ..Policy::default() };
        assert_eq!(goes_by(policy, 20, None, &files), ["huge"]);
    }

    #[test]
    fn a_plan_holds_no_more_than_its_limit_of_what_is_old() {
        let volume = Volume { total: 500 * GIB, free: 400 * GIB, unsent: 0, free_percent: 20 };
        let policy = Policy { older_than_s: Some(3_600), ..Policy::default() };
        let mut plan = Plan::new(volume, NOW, 3);
        let file = File { size: GIB, heat: Heat::once(NOW - DAY_MS), came_ms: 0 };
        (0..5).for_each(|number| plan.offer(&policy, &file, number).unwrap());
        assert_eq!(plan.into_going().len(), 3);
    }

    #[test]
    fn what_goes_next_is_in_the_order_in_which_it_goes_and_what_stays_is_none_of_it() {
        let volume = Volume { total: 500 * GIB, free: 400 * GIB, unsent: 0, free_percent: 20 };
        let policy = Policy { older_than_s: Some(3_600), ..Policy::default() };
        let mut plan = Plan::in_order(volume, NOW, 3);
        let file = |days: u64| File { size: 2 * GIB, heat: Heat::once(NOW - days * DAY_MS), came_ms: 0 };
        for (days, name) in [(1, "d"), (40, "b"), (0, "e"), (400, "a"), (9, "c")] {
            plan.offer(&policy, &file(days), name).unwrap();
        }
        let young = File { came_ms: NOW, ..file(900) };
        assert_eq!(plan.offer(&policy, &young, "young"), Err(Stays::Young));
        let names: Vec<_> = plan.into_going().into_iter().map(|going| going.file).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn whoever_waits_is_given_what_came_a_moment_ago_too() {
        let volume = Volume { total: 500 * GIB, free: 400 * GIB, unsent: 0, free_percent: 20 };
        let policy = Policy { older_than_s: Some(3_600), ..Policy::default() };
        let mut plan = Plan::for_room(volume, 3 * GIB, NOW, 10);
        let file = |days: u64| File { size: 2 * GIB, heat: Heat::once(NOW - days * DAY_MS), came_ms: NOW };
        for (days, name) in [(1, "b"), (2, "a"), (0, "c")] {
            plan.offer(&policy, &file(days), name).unwrap();
        }
        let going: Vec<_> = plan.into_going().into_iter().map(|going| (going.file, going.reason)).collect();
        assert_eq!(going, [("a", Reason::Space), ("b", Reason::Space)]);
    }
}
