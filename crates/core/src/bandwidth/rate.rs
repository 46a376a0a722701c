//! Bytes a second, as people write them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The lowest limit in bytes a second: the largest chunk takes more than four minutes with it, and chunks are what travels.
pub const RATE_MIN: u64 = 16 << 10;

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Bytes a second, [`RATE_MIN`] at least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

impl Rate {
    /// So many bytes a second; none if that is less than [`RATE_MIN`].
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Option<Self> {
        (bytes_per_s >= RATE_MIN).then_some(Self(bytes_per_s))
    }

    /// As a number.
    #[must_use]
    pub fn bytes_per_s(self) -> u64 {
        self.0
    }

    /// Reads `20MiB/s`, `1.5 GiB/s` or `500KB/s` (powers of 1000), in upper or lower case.
    pub(super) fn parse(text: &str) -> Option<u64> {
        let text = text.trim();
        let (amount, second) = text.split_at_checked(text.len().checked_sub(2)?)?;
        let split = amount.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = amount.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let factor = factor(unit.trim()).filter(|_| second.eq_ignore_ascii_case("/s"))?;
        // More digits than these say nothing of bytes.
        let fraction = fraction.get(..fraction.len().min(9)).filter(|digits| !digits.is_empty())?;
        let part = u128::from(factor) * fraction.parse::<u128>().ok()? / 10_u128.pow(fraction.len() as u32);
        whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
    }
}

fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if unit == "b" {
        return Some(1);
    }
    let power = "kmgt".find(unit.chars().next()?)? as u32 + 1;
    match unit.get(1..)? {
        "ib" => Some(1024_u64.pow(power)),
        "b" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

impl TryFrom<u64> for Rate {
    type Error = &'static str;

    fn try_from(bytes_per_s: u64) -> Result<Self, Self::Error> {
        Self::new(bytes_per_s).ok_or("a limit is 16 KiB a second at least")
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

/// Exactly, so that it is read back as the same.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}/s", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, bytes, shown) in [
            ("20MiB/s", 20 << 20, "20MiB/s"),
            ("1.5 gib/S", 3 << 29, "1536MiB/s"),
            ("500KB/s", 500_000, "500000B/s"),
            ("65536B/s", 65_536, "64KiB/s"),
            ("2TiB/s", 2 << 40, "2TiB/s"),
        ] {
            assert_eq!(Rate::parse(text), Some(bytes), "{text}");
            assert_eq!(Rate::new(bytes).map(|rate| rate.to_string()).as_deref(), Some(shown));
        }
        for wrong in
            ["", "20", "20MiB", "20/s", "MiB/s", "-1MiB/s", "1.2.3MiB/s", "1.MiB/s", "20XiB/s", "99999999999TiB/s", "ü/s", "1ü/s"]
        {
            assert_eq!(Rate::parse(wrong), None, "{wrong}");
        }
        assert_eq!((Rate::new(RATE_MIN - 1), Rate::new(RATE_MIN).map(Rate::bytes_per_s)), (None, Some(RATE_MIN)));
    }
}
