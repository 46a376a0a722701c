//! Sizes, percentages, counts and spans of time as people write and read them.
//!
//! It rounds; programs get exact numbers in JSON. Sizes are powers of 1024 with their exact names (KiB, MiB).
//!
//! **Invariant:** a size that is written out exactly is read back as the same number of bytes.

use isotherm_api::management::Quota;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A size such as `500GiB`, `1.5 TiB`, `4096` or `10GB` (powers of 1000).
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size (write 500GiB, 1.5TiB or a number of bytes)");
    let text_trimmed = text.trim();
    let split = text_trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(split);
    let factor = factor(unit.trim()).ok_or_else(wrong)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = fraction * factor as f64;
    // Beyond 2^53 a fraction of a unit cannot be meant exactly.
    if bytes.is_finite() && bytes < 9.0e15 { Ok(bytes.round() as u64) } else { Err(wrong()) }
}

fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if unit.is_empty() || unit == "b" {
        return Some(1);
    }
    let power = "kmgtp".find(unit.chars().next()?)? as u32 + 1;
    match &unit[1..] {
        "" | "ib" => Some(1024_u64.pow(power)),
        "b" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// A quota: a size, or `none`.
pub(crate) fn parse_quota(text: &str) -> Result<Quota, String> {
    if text.eq_ignore_ascii_case("none") { Ok(Quota::Unlimited) } else { parse(text).map(Quota::Bytes) }
}

/// A percentage such as `25%` or `25`, as a fraction.
pub(crate) fn parse_percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().trim_end_matches('%').trim().parse().ok();
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is not a percentage from 0% to 100%")),
    }
}

/// Bytes with three digits or more: `4.2 MiB`, `1023 B`.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = 0;
    // From 1023.95 on, one decimal would show 1024.0 of the smaller unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count with thousands set apart: `1,204,881`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A span of time in its two largest units: `2 h 5 min`, `1.4 s`.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..10 => format!("{:.1} s", (milliseconds as f64 / 100.0).floor() / 10.0),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A span of time such as `90s`, `10m`, `6h`, `30d` or `2w`, in seconds.
pub(crate) fn parse_span(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a span of time (write 90s, 10m, 6h, 30d or 2w)");
    let text_trimmed = text.trim();
    let split = text_trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text_trimmed.split_at(split);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).ok_or_else(wrong)
}

/// How long ago something was, by one clock.
pub(crate) fn age(now_ms: u64, then_ms: u64) -> String {
    let passed = now_ms.saturating_sub(then_ms);
    // Two clocks or two messages: tenths would pretend.
    if passed < 10_000 { format!("{} s", passed / 1000) } else { span(passed) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("500GiB", 500 << 30),
            ("500 gib", 500 << 30),
            ("500G", 500 << 30),
            ("10GB", 10_000_000_000),
            ("1.5TiB", 3 << 39),
            ("17b", 17),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "-1", "1.2.3", "5XB", "5 Gi", "99999999PiB", "1e9"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_quota("none").unwrap(), Quota::Unlimited);
        assert_eq!(parse_quota("1K").unwrap(), Quota::Bytes(1024));
    }

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("10 min", 600), ("6h", 21_600), ("30d", 2_592_000), ("2w", 1_209_600)]
        {
            assert_eq!(parse_span(text), Ok(seconds), "{text}");
        }
        for bad in ["", "10", "d", "-1d", "1.5h", "1y", "99999999999999999999w"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages_are_read() {
        assert_eq!((parse_percent("25%"), parse_percent("100"), parse_percent("0 %")), (Ok(0.25), Ok(1.0), Ok(0.0)));
        for bad in ["", "%", "-1", "101", "NaN", "half"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_read_well() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4_404_019, "4.2 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!((count(0), count(999), count(1_204_881)), ("0".into(), "999".into(), "1,204,881".into()));
        for (ms, text) in [
            (0, "0.0 s"),
            (1_460, "1.4 s"),
            (9_999, "9.9 s"),
            (59_999, "59 s"),
            (125_000, "2 min 5 s"),
            (7_500_000, "2 h 5 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!((age(5_000, 2_000), age(0, 5_000)), ("3 s".into(), "0 s".into()));
    }
}
