//! Moments as people write and read them, in the machine's time zone.
//!
//! **Invariant:** what is shown can be typed again and means the same second.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _};

const FORMATS: [&str; 4] = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"];

/// Milliseconds since 1970 of a moment: a date, a date with a time of day, RFC 3339, or an age such as `90m`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    parse_at(text, Local::now())
}

fn parse_at(text: &str, now: DateTime<Local>) -> Result<u64, String> {
    let text = text.trim();
    let ms = |at: i64| u64::try_from(at).map_err(|_| "the moment lies before 1970".to_owned());
    if let Some(age) = age_ms(text) {
        return ms(now.timestamp_millis().saturating_sub(age));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return ms(at.timestamp_millis());
    }
    let local = FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN));
    let local = local.or_else(day).ok_or(
        "no moment: write `2026-03-29 14:30`, `2026-03-29`, `2026-03-29T14:30:00Z`, or an age such as `90m`, `2h` or `3d`",
    )?;
    // An hour that the clock runs through twice means its first, and one that it leaves out does not exist.
    let at = Local.from_local_datetime(&local).earliest().ok_or("the clock leaves this hour out")?;
    ms(at.timestamp_millis())
}

fn age_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let number: i64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds * 1000).filter(|age| *age >= 0)
}

/// A moment as people read it.
pub(crate) fn show(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Local.timestamp_millis_opt(ms).earliest());
    at.map_or_else(|| ms.to_string(), |at| at.format("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        let ms = 1_774_794_600_000;
        assert_eq!(parse(&show(ms)).unwrap(), ms);
    }

    #[test]
    fn moments_and_ages() {
        let now = Local.timestamp_millis_opt(1_774_794_600_000).unwrap();
        let at = |text| parse_at(text, now);
        assert_eq!(at("90m").unwrap(), 1_774_794_600_000 - 90 * 60_000);
        assert_eq!(at("2026-03-29T14:30:00Z").unwrap(), 1_774_794_600_000);
        assert_eq!(at("2026-03-29T16:30:00+02:00").unwrap(), 1_774_794_600_000);
        assert!(at("2026-03-29").unwrap() < at("2026-03-29 00:01").unwrap());
        for wrong in ["", "yesterday", "-3d", "3x", "2026-13-01", "1960-01-01", "99999999999999999d"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
