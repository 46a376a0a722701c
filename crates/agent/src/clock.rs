//! The wall clock, for what people read, for ids that grow, and for limits with hours. Nothing waits by it.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{Datelike as _, Local, Timelike as _};
use isotherm_core::bandwidth::Moment;

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Weekday, hour and minute in this server's time zone.
pub(crate) fn wall_moment() -> Moment {
    let now = Local::now();
    let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    Moment::new(small(now.weekday().num_days_from_monday()), small(now.hour()), u16::from(small(now.minute())))
}
