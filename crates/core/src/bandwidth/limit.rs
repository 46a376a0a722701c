//! One limit, as administrators write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::rate::{RATE_MIN, Rate};
use super::times::Times;

/// Which way bytes go, as the server sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the service.
    Up,
    /// From it.
    Down,
    /// Each way for itself.
    Both,
}

/// One limit, in words such as `down=20MiB/s`, `up=5MiB/s,mon-fri,08:00-18:00` or `both=1MiB/s,22:00-06:00,demand`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    /// Which way.
    pub way: Way,
    /// How much.
    pub rate: Rate,
    /// When.
    pub times: Times,
    /// Also what somebody waits for who opens a file keeps it.
    pub demand: bool,
}

/// Why a limit makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LimitError {
    /// It has another form.
    #[error(
        "'{0}' is no limit: write up=RATE, down=RATE or both=RATE, and behind a comma when, such as up=5MiB/s,mon-fri,08:00-18:00"
    )]
    Form(String),
    /// No such direction.
    #[error("'{0}' is no direction: up, down, or both")]
    Way(String),
    /// No such rate.
    #[error("'{0}' is no rate: write 20MiB/s, 1.5GiB/s or 500KiB/s")]
    Rate(String),
    /// Hardly anything would travel.
    #[error("'{0}' is less than 16KiB/s, the lowest limit; `isotherm endpoint pause` stops an endpoint")]
    Low(String),
    /// Not a part of a limit.
    #[error("'{0}' is neither days (mon-fri, sat+sun) nor hours (08:00-18:00, 22:00-06:00) nor `demand`")]
    Part(String),
    /// Said once already.
    #[error("'{0}' says once more what was said before it: write another limit")]
    Twice(String),
    /// What is sent nobody waits for.
    #[error("`demand` is about what comes: use it with down= or both=")]
    Demand,
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',').map(str::trim);
        let (way, rate) =
            parts.next().and_then(|first| first.split_once('=')).ok_or_else(|| LimitError::Form(text.to_owned()))?;
        let way = match way.trim() {
            "up" => Way::Up,
            "down" => Way::Down,
            "both" => Way::Both,
            other => return Err(LimitError::Way(other.to_owned())),
        };
        let bytes = Rate::parse(rate).ok_or_else(|| LimitError::Rate(rate.to_owned()))?;
        debug_assert_eq!(RATE_MIN, 16 << 10, "the message says so");
        let rate = Rate::new(bytes).ok_or_else(|| LimitError::Low(rate.to_owned()))?;
        let (mut days, mut hours, mut demand) = (None, None, false);
        for part in parts {
            let is_twice = if part == "demand" {
                std::mem::replace(&mut demand, true)
            } else if let Some(found) = Times::parse_hours(part) {
                hours.replace(found).is_some()
            } else if let Some(found) = Times::parse_days(part) {
                days.replace(found).is_some()
            } else {
                return Err(LimitError::Part(part.to_owned()));
            };
            if is_twice {
                return Err(LimitError::Twice(part.to_owned()));
            }
        }
        if demand && way == Way::Up {
            return Err(LimitError::Demand);
        }
        Ok(Self { way, rate, times: Times::new(days.unwrap_or(u8::MAX), hours), demand })
    }
}

/// As it is read.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Up => "up",
            Way::Down => "down",
            Way::Both => "both",
        };
        write!(f, "{way}={}{}{}", self.rate, self.times, if self.demand { ",demand" } else { "" })
    }
}

impl TryFrom<String> for Limit {
    type Error = LimitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        for (text, shown) in [
            ("down=20MiB/s", "down=20MiB/s"),
            ("up=5MiB/s,mon-fri,08:00-18:00", "up=5MiB/s,mon-fri,08:00-18:00"),
            ("both = 1 MiB/s , 22:00-6:00", "both=1MiB/s,22:00-06:00"),
            ("down=64KiB/s,demand,sat+sun", "down=64KiB/s,sat-sun,demand"),
            ("up=1GiB/s,mon-sun,00:00-24:00", "up=1GiB/s"),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(limit));
        }
    }

    #[test]
    fn errors_name_the_wrong_part() {
        for (text, named) in [
            ("", "'' is no limit"),
            ("20MiB/s", "'20MiB/s' is no limit"),
            ("out=20MiB/s", "'out' is no direction"),
            ("up=20", "'20' is no rate"),
            ("up=1KiB/s", "'1KiB/s' is less than"),
            ("up=0B/s", "'0B/s' is less than"),
            ("up=1MiB/s,monday", "'monday' is neither"),
            ("up=1MiB/s,8-18", "'8-18' is neither"),
            ("up=1MiB/s,", "'' is neither"),
            ("up=1MiB/s,mon,tue", "'tue' says once more"),
            ("up=1MiB/s,08:00-09:00,10:00-11:00", "'10:00-11:00' says once more"),
            ("up=1MiB/s,demand", "`demand` is about what comes"),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.starts_with(named), "{text}: {error}");
        }
    }
}
