//! A bucket of bytes that fills at a rate: who takes some waits until they are in it.

use super::rate::Rate;

/// Milliseconds since some beginning.
pub type Millis = u64;

/// While nobody takes anything, no more is saved than comes in this time.
pub const SAVED_MS: Millis = 1_000;
/// What is noted of those who do not wait holds up the others for this long at most, after the last of it.
pub const DEBT_MS: Millis = 60_000;

/// A bucket. Over any span of time no more is taken than what comes in that time and, once, the most that it holds: what is saved, or
/// the largest amount that is taken at once, whichever is more.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// In thousandths of bytes, which come in each millisecond; below zero where others took without waiting.
    level: i128,
    at: Millis,
    /// Bytes that somebody waits for, for whom it fills up further than it does otherwise.
    wanted: u64,
}

impl Bucket {
    /// An empty bucket.
    #[must_use]
    pub fn new(rate: Rate, now: Millis) -> Self {
        Self { rate, level: 0, at: now, wanted: 0 }
    }

    /// It fills at this rate from now on.
    pub fn set_rate(&mut self, rate: Rate, now: Millis) {
        if rate != self.rate {
            self.fill(now);
            self.rate = rate;
            self.level = self.level.clamp(-self.comes_in(DEBT_MS), self.comes_in(SAVED_MS));
        }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// They are not there yet, and nothing is taken: in so many milliseconds they are at the earliest.
    pub fn take(&mut self, bytes: u64, now: Millis) -> Result<(), Millis> {
        self.fill(now);
        self.wanted = bytes;
        // Whoever waited before may have gone away.
        self.level = self.level.min(self.most());
        let lacking = thousandths(bytes) - self.level;
        if lacking <= 0 {
            self.level -= thousandths(bytes);
            self.wanted = 0;
            return Ok(());
        }
        let rate = i128::from(self.rate.bytes_per_s());
        Err(Millis::try_from((lacking + rate - 1) / rate).unwrap_or(Millis::MAX))
    }

    /// Bytes that were taken and did not travel.
    pub fn give_back(&mut self, bytes: u64) {
        self.level += thousandths(bytes);
    }

    /// Bytes of somebody who does not wait: others wait for it.
    pub fn note(&mut self, bytes: u64, now: Millis) {
        self.fill(now);
        let least = self.level.min(-self.comes_in(DEBT_MS));
        self.level = (self.level - thousandths(bytes)).max(least);
    }

    /// What has come since it was looked at last.
    fn fill(&mut self, now: Millis) {
        self.level = (self.level + self.comes_in(now.saturating_sub(self.at))).min(self.most());
        self.at = self.at.max(now);
    }

    fn most(&self) -> i128 {
        self.comes_in(SAVED_MS).max(thousandths(self.wanted))
    }

    fn comes_in(&self, span: Millis) -> i128 {
        i128::from(self.rate.bytes_per_s()) * i128::from(span)
    }
}

fn thousandths(bytes: u64) -> i128 {
    i128::from(bytes) * 1_000
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn rate(kib: u64) -> Rate {
        Rate::new(kib << 10).unwrap()
    }

    #[test]
    fn who_takes_waits_for_what_he_takes() {
        let mut bucket = Bucket::new(rate(64), 0);
        assert_eq!(bucket.take(64 << 10, 0), Err(1_000));
        assert_eq!(bucket.take(64 << 10, 999), Err(1));
        assert_eq!(bucket.take(64 << 10, 1_000), Ok(()));
        // More than is ever saved, for whoever waits for it.
        assert_eq!(bucket.take(4 << 20, 2_000), Err(63_000));
        assert_eq!(bucket.take(4 << 20, 60_000), Err(5_000));
        assert_eq!(bucket.take(4 << 20, 65_000), Ok(()));
        // While nobody wants anything a second is saved, not more.
        assert_eq!(bucket.take(128 << 10, 1_000_000), Err(1_000), "only a second was saved");
        assert_eq!(bucket.take(128 << 10, 1_001_000), Ok(()));
        bucket.give_back(64 << 10);
        assert_eq!(bucket.take(64 << 10, 1_001_000), Ok(()), "it did not travel");
        assert_eq!(bucket.take(1, 500), Err(1), "a clock that goes back stands still");
    }

    #[test]
    fn who_does_not_wait_holds_up_the_others_for_a_minute_at_most() {
        let mut bucket = Bucket::new(rate(64), 0);
        bucket.note(640 << 10, 0);
        assert_eq!(bucket.take(64 << 10, 0), Err(11_000));
        bucket.note(1 << 40, 5_000);
        assert_eq!(bucket.take(64 << 10, 5_000), Err(61_000));
        assert_eq!(bucket.take(64 << 10, 66_000), Ok(()));
    }

    #[test]
    fn another_rate_holds_at_once() {
        let mut bucket = Bucket::new(rate(1_024), 0);
        bucket.note(60 << 20, 0);
        bucket.set_rate(rate(64), 0);
        assert_eq!(bucket.take(64 << 10, 0), Err(61_000), "a debt is one of a minute at any rate");
        bucket.set_rate(rate(1_024), 1_000);
        assert_eq!(bucket.take(1 << 20, 1_000), Err(4_688));
        let mut full = Bucket::new(rate(1_024), 0);
        full.set_rate(rate(64), 10_000);
        assert_eq!(full.take(64 << 10, 10_000), Ok(()));
        assert_eq!(full.take(1, 10_000), Err(1), "what was saved is what the new rate saves");
    }

    proptest! {
        /// One who takes and waits as he is told, between such as do not wait and rests.
        #[test]
        fn over_any_window_no_more_is_taken_than_comes(
            kib in 16_u64..4_096,
            steps in prop::collection::vec((0_u64..1 << 22, 0_u64..5_000, 0_u64..1 << 20), 1..40),
        ) {
            let rate = rate(kib);
            let mut bucket = Bucket::new(rate, 0);
            let (mut now, mut taken) = (0, Vec::new());
            for (bytes, rest, noted) in steps {
                now += rest;
                if noted < 1 << 18 {
                    bucket.note(noted, now);
                }
                while let Err(wait) = bucket.take(bytes, now) {
                    prop_assert!(wait > 0);
                    now += wait;
                }
                taken.push((now, bytes));
            }
            let saved = rate.bytes_per_s() * SAVED_MS / 1_000;
            for (at, (from, _)) in taken.iter().enumerate() {
                let (mut sum, mut largest) = (0, saved);
                for (until, bytes) in &taken[at..] {
                    (sum, largest) = (sum + bytes, largest.max(*bytes));
                    let comes = u128::from(rate.bytes_per_s()) * u128::from(until - from) / 1_000 + 1;
                    prop_assert!(u128::from(sum) <= comes + u128::from(largest));
                }
            }
        }
    }
}
