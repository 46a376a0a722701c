//! How much a server may send to the service and get from it: what administrators ask for, what of it is in force at a moment, and
//! the counting of bytes.
//!
//! It knows no clock and no time zone: a moment is what the server's own clock shows, weekday and minute, and where that jumps, in
//! spring and autumn, the limits jump with it.
//!
//! **Invariant:** without a limit that fits the moment there is none; of several the strictest counts, for each direction.

mod bucket;
mod limit;
mod rate;
mod times;

pub use bucket::{Bucket, DEBT_MS, Millis, SAVED_MS};
pub use limit::{Limit, LimitError, Way};
pub use rate::{RATE_MIN, Rate};
pub use times::{Moment, Times};

use serde::{Deserialize, Serialize};

/// Most limits of one server.
pub const LIMITS_MAX: usize = 64;

/// What is in force at a moment; none where there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
// What a newer release says beside is not for this one.
#[serde(default)]
pub struct InForce {
    /// Bytes a second that are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Rate>,
    /// Bytes a second that come, but for what somebody waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Rate>,
    /// Bytes a second that come for those who wait for the content of a file; never less than [`Self::down`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand: Option<Rate>,
}

impl InForce {
    /// What of these limits is in force at a moment.
    #[must_use]
    pub fn at(limits: &[Limit], moment: Moment) -> Self {
        let strictest = |fits: &dyn Fn(&Limit) -> bool| {
            limits.iter().filter(|limit| fits(limit) && limit.times.hold(moment)).map(|limit| limit.rate).min()
        };
        Self {
            up: strictest(&|limit| limit.way != Way::Down),
            down: strictest(&|limit| limit.way != Way::Up),
            demand: strictest(&|limit| limit.way != Way::Up && limit.demand),
        }
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn limits(texts: &[&str]) -> Vec<Limit> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn at(texts: &[&str], moment: Moment) -> [Option<u64>; 3] {
        let InForce { up, down, demand } = InForce::at(&limits(texts), moment);
        [up, down, demand].map(|rate| rate.map(|rate| rate.bytes_per_s() >> 10))
    }

    #[test]
    fn the_strictest_that_fits_counts_for_each_direction() {
        let tuesday_noon = Moment::new(1, 12, 0);
        for (texts, expected) in [
            (&[][..], [None; 3]),
            (&["down=64KiB/s"], [None, Some(64), None]),
            (&["up=64KiB/s"], [Some(64), None, None]),
            (&["both=64KiB/s,demand"], [Some(64), Some(64), Some(64)]),
            (&["down=64KiB/s", "both=100KiB/s,demand", "up=1MiB/s"], [Some(100), Some(64), Some(100)]),
            (&["down=64KiB/s,08:00-18:00", "down=32KiB/s,18:00-08:00"], [None, Some(64), None]),
            (&["down=64KiB/s,sat-sun", "up=32KiB/s,mon+wed"], [None; 3]),
            (&["down=64KiB/s,tue,demand,11:59-12:01", "down=32KiB/s,mon,demand"], [None, Some(64), Some(64)]),
        ] {
            assert_eq!(at(texts, tuesday_noon), expected, "{texts:?}");
        }
    }

    prop_compose! {
        fn any_limit()(
            way in prop_oneof![Just(Way::Up), Just(Way::Down), Just(Way::Both)],
            kib in 16_u64..1 << 30, days in 1_u8..128, from in 0_u16..1_440, until in 1_u16..=1_440, always: bool, demand: bool,
        ) -> Limit {
            let hours = (!always && from != until).then_some((from, until));
            Limit { way, rate: Rate::new(kib << 10).unwrap(), times: Times::new(days, hours), demand: demand && way != Way::Up }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(limit in any_limit()) {
            prop_assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
        }

        #[test]
        fn one_more_limit_makes_nothing_faster(
            limits in prop::collection::vec(any_limit(), 0..6), more in any_limit(), day in 0_u8..7, minute in 0_u16..1_440,
        ) {
            let moment = Moment::new(day, 0, minute);
            let before = InForce::at(&limits, moment);
            let after = InForce::at(&[&limits[..], &[more]].concat(), moment);
            for (before, after) in [(before.up, after.up), (before.down, after.down), (before.demand, after.demand)] {
                prop_assert!(before.is_none_or(|before| after.is_some_and(|after| after <= before)));
            }
            prop_assert!(after.demand.is_none_or(|demand| after.down.is_some_and(|down| down <= demand)));
        }
    }
}
