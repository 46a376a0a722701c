//! How warm a file is: when it was used last, and how often.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// After so long a use counts half as much: a week, so that what is used each Monday is warmer than what was used once.
pub const HALF_LIFE_MS: u64 = 7 * DAY_MS;

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Warmth is counted in millionths of a half-life.
const UNIT: f64 = 1_000_000.0;

/// Uses of a file. Uses beyond the last are one number that never has to be aged: the time at which a single use would weigh as
/// much as all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heat {
    /// The last use, in milliseconds since 1970.
    pub last_ms: u64,
    /// That time of a single use, in millionths of [`HALF_LIFE_MS`] since 1970.
    pub warmth: i64,
}

impl Heat {
    /// Of one use.
    #[must_use]
    pub fn once(at_ms: u64) -> Self {
        Self { last_ms: at_ms, warmth: (at_ms as f64 / HALF_LIFE_MS as f64 * UNIT) as i64 }
    }

    /// With one more use, which need not be the latest.
    #[must_use]
    pub fn and(self, at_ms: u64) -> Self {
        self.join(Self::once(at_ms))
    }

    /// Of the uses of both together.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let apart = self.warmth.abs_diff(other.warmth) as f64 / UNIT;
        let more = (1.0 + (-apart).exp2()).log2() * UNIT;
        Self { last_ms: self.last_ms.max(other.last_ms), warmth: self.warmth.max(other.warmth).saturating_add(more as i64) }
    }

    /// Of a file of which no use was seen: it counts as used when it was changed last, or made, whichever is later.
    #[must_use]
    pub fn unseen(modified: Timestamp, created: Option<Timestamp>) -> Self {
        let ms = |time: Timestamp| u64::try_from(time.0 / 1_000_000).unwrap_or(0);
        Self::once(ms(modified).max(created.map_or(0, ms)))
    }

    /// Of both: the later last use, and what is warmer.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { last_ms: self.last_ms.max(other.last_ms), warmth: self.warmth.max(other.warmth) }
    }

    /// Half-lives by which all uses together are worth more than the last alone: 0 for a single one, 1 for two at once.
    #[must_use]
    pub fn often(self) -> f64 {
        (self.warmth - Self::once(self.last_ms).warmth) as f64 / UNIT
    }

    /// Where it stands in the order in which contents go.
    #[must_use]
    pub fn position(self) -> Position {
        Position { day: self.last_ms / DAY_MS, warmth: self.warmth, last_ms: self.last_ms }
    }
}

/// Where a file stands in the order in which contents go; the least goes first. Days count before how often a file was used, and
/// that before the hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    day: u64,
    warmth: i64,
    last_ms: u64,
}

impl Position {
    /// Before all others.
    pub const FIRST: Self = Self { day: 0, warmth: i64::MIN, last_ms: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_later_day_is_warmer_and_within_a_day_what_is_used_more_often() {
        let morning = 1_000 * DAY_MS + 8 * HOUR;
        let once = Heat::once(morning + 3 * HOUR);
        let often = (0..5).fold(Heat::once(morning), |heat, hour| heat.and(morning + hour * HOUR / 4));
        assert!(often.last_ms < once.last_ms && often.position() > once.position());
        assert!(Heat::once(morning + DAY_MS).position() > often.position());
        assert!(Heat::once(0).position() > Position::FIRST);
    }

    #[test]
    fn uses_count_less_with_time_and_in_any_order() {
        let now = 3_000 * DAY_MS;
        // Two at once weigh as much as one a half-life later.
        assert_eq!(Heat::once(now).and(now).warmth, Heat::once(now + HALF_LIFE_MS).warmth);
        assert!((Heat::once(now).and(now).often() - 1.0).abs() < 1e-5);
        let old = Heat::once(now - 100 * HALF_LIFE_MS);
        assert_eq!(old.and(now), Heat::once(now));
        let [a, b] = [now, now - DAY_MS].map(Heat::once);
        assert_eq!((a.and(now - DAY_MS).warmth, a.and(now - DAY_MS).last_ms), (b.and(now).warmth, now));
    }

    #[test]
    fn a_file_of_which_no_use_was_seen_counts_by_its_times() {
        let at = |day: i64| Timestamp(day * DAY_MS as i64 * 1_000_000);
        assert_eq!(Heat::unseen(at(5), Some(at(9))), Heat::once(9 * DAY_MS));
        assert_eq!(Heat::unseen(at(5), None), Heat::once(5 * DAY_MS));
        assert_eq!(Heat::unseen(at(-5), None), Heat::once(0));
        assert_eq!(Heat::once(DAY_MS).or(Heat::once(3 * DAY_MS)), Heat::once(3 * DAY_MS));
    }
}
