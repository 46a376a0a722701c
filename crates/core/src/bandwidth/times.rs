//! Weekdays and hours.

use std::fmt;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;
/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// What a clock on the wall shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// 0 is Monday.
    weekday: u8,
    minute: u16,
}

impl Moment {
    /// A weekday, of which 0 is Monday, an hour and a minute; what is beyond a week or a day counts from its beginning again.
    #[must_use]
    pub fn new(weekday: u8, hour: u8, minute: u16) -> Self {
        Self { weekday: weekday % 7, minute: (u16::from(hour) * 60 + minute % DAY) % DAY }
    }
}

/// Days of the week, and hours of these days. Hours over midnight belong to the day on which they begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// One bit for each day, the lowest for Monday.
    days: u8,
    /// Minutes of the day, without the last.
    hours: Option<(u16, u16)>,
}

impl Times {
    /// Always.
    pub const ALWAYS: Self = Self { days: EVERY_DAY, hours: None };

    /// Days as bits, the lowest for Monday, and the minutes of the day from which on and until when.
    #[must_use]
    pub fn new(days: u8, hours: Option<(u16, u16)>) -> Self {
        Self { days: days & EVERY_DAY, hours: hours.filter(|hours| *hours != (0, DAY)) }
    }

    /// Whether a moment is one of them.
    #[must_use]
    pub fn hold(&self, moment: Moment) -> bool {
        let is_day = |weekday: u8| self.days >> weekday & 1 == 1;
        let (today, yesterday) = (is_day(moment.weekday), is_day((moment.weekday + 6) % 7));
        match self.hours {
            None => today,
            Some((from, until)) if from < until => today && (from..until).contains(&moment.minute),
            Some((from, until)) => (today && moment.minute >= from) || (yesterday && moment.minute < until),
        }
    }

    /// Reads `mon`, `mon-fri`, `sat-mon` or `mon+wed+fri`.
    pub(super) fn parse_days(text: &str) -> Option<u8> {
        let day = |name: &str| DAYS.iter().position(|day| name.trim().eq_ignore_ascii_case(day));
        let mut days = 0;
        for part in text.split('+') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            (0..=(last + 7 - first) % 7).for_each(|after| days |= 1 << ((first + after) % 7));
        }
        Some(days)
    }

    /// Reads `08:00-18:00`, or `22:00-06:00`; what begins and ends at the same minute is none.
    pub(super) fn parse_hours(text: &str) -> Option<(u16, u16)> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let is_time = (1..=2).contains(&hour.len()) && minute.len() == 2 && is_number(hour) && is_number(minute);
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (is_time && minute < 60).then_some(hour * 60 + minute).filter(|all| *all <= DAY)
        };
        let (from, until) = text.split_once('-')?;
        let (from, until) = (minute(from)?, minute(until)?);
        (from != until && from < DAY && until > 0).then_some((from, until))
    }
}

/// As parts of a limit, each behind a comma; always is nothing.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            write!(f, ",{}", show_days(self.days))?;
        }
        match self.hours {
            Some((from, until)) => {
                write!(f, ",{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
            }
            None => Ok(()),
        }
    }
}

/// Days that follow each other as a range.
fn show_days(days: u8) -> String {
    let mut parts = Vec::new();
    let mut day = 0;
    while day < 7 {
        let run = (day..7).take_while(|day| days >> day & 1 == 1).count();
        match run {
            0 => {}
            1 => parts.push(DAYS[day].to_owned()),
            _ => parts.push(format!("{}-{}", DAYS[day], DAYS[day + run - 1])),
        }
        day += run.max(1);
    }
    parts.join("+")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        for (text, days, shown) in [
            ("mon", 0b1, "mon"),
            ("mon-fri", 0b1_1111, "mon-fri"),
            ("Sat - Mon", 0b110_0001, "mon+sat-sun"),
            ("mon+wed+fri", 0b1_0101, "mon+wed+fri"),
            ("sun-sat", EVERY_DAY, "mon-sun"),
        ] {
            assert_eq!(Times::parse_days(text), Some(days), "{text}");
            assert_eq!(show_days(days), shown);
        }
        for wrong in ["", "monday", "mon-", "mon-fri-sun", "+", "mon,tue"] {
            assert_eq!(Times::parse_days(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hours_are_read_and_written() {
        for (text, hours) in [("08:00-18:30", (480, 1_110)), ("22:00-6:00", (1_320, 360)), ("00:00-24:00", (0, 1_440))] {
            assert_eq!(Times::parse_hours(text), Some(hours), "{text}");
        }
        assert_eq!(Times::new(1, Some((1_320, 360))).to_string(), ",mon,22:00-06:00");
        assert_eq!(Times::new(EVERY_DAY, Some((0, 1_440))), Times::ALWAYS);
        for wrong in
            ["", "8-18", "08:00", "08:00-08:00", "24:00-08:00", "08:00-00:00", "08:60-09:00", "08:0-09:00", "25:00-26:00"]
        {
            assert_eq!(Times::parse_hours(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let nights = Times::new(0b1_1111, Some((1_320, 360)));
        for (weekday, hour, minute, holds) in [
            (0, 21, 59, false),
            (0, 22, 0, true),
            (1, 5, 59, true),
            (1, 6, 0, false),
            // Friday night goes on into Saturday, and Monday's early hours are Sunday's night.
            (5, 5, 59, true),
            (5, 22, 0, false),
            (0, 5, 59, false),
        ] {
            assert_eq!(nights.hold(Moment::new(weekday, hour, minute)), holds, "{weekday} {hour}:{minute}");
        }
        let days = Times::new(0b1_1111, Some((480, 1_080)));
        for (weekday, hour, minute, holds) in
            [(0, 7, 59, false), (0, 8, 0, true), (4, 17, 59, true), (4, 18, 0, false), (5, 12, 0, false)]
        {
            assert_eq!(days.hold(Moment::new(weekday, hour, minute)), holds, "{weekday} {hour}:{minute}");
        }
        assert!((0..7).all(|day| (0..24).all(|hour| Times::ALWAYS.hold(Moment::new(day, hour, 30)))));
    }
}
