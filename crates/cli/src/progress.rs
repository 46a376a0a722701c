//! Progress of long work on one line of standard error: what is left, how fast it goes, how long it takes.
//!
//! It appears on terminals only; elsewhere the line would be noise. What is worth a line of its own appears everywhere. It never touches standard output.
//!
//! **Invariant:** when it is dropped, the line is gone and the cursor is at its start.

use std::io::{IsTerminal, Write};

use crate::output::plural;
use crate::size;

/// What is left to do at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    /// As the ones who do it tell.
    pub(crate) bytes_per_s: u64,
}

/// Estimates the rate from what was left before and now; knows nothing of clocks.
#[derive(Debug, Default)]
pub(crate) struct Estimate {
    last: Option<(u64, Left)>,
    bytes_per_s: f64,
    items_per_s: f64,
}

/// How much of the newest measurement goes into a rate: a few seconds of memory at one measurement a second.
const NEW_SHARE: f64 = 0.3;

impl Estimate {
    /// Takes a measurement; `now_ms` only grows.
    pub(crate) fn measure(&mut self, now_ms: u64, left: Left) {
        if let Some((then_ms, before)) = self.last {
            let seconds = now_ms.saturating_sub(then_ms) as f64 / 1000.0;
            if seconds < 0.05 {
                return;
            }
            let blend = |old: f64, before: u64, now: u64| {
                let measured = before.saturating_sub(now) as f64 / seconds;
                if old == 0.0 { measured } else { old * (1.0 - NEW_SHARE) + measured * NEW_SHARE }
            };
            self.bytes_per_s = blend(self.bytes_per_s, before.bytes, left.bytes);
            self.items_per_s = blend(self.items_per_s, before.items, left.items);
        }
        self.last = Some((now_ms, left));
    }

    /// The last measurement.
    pub(crate) fn left(&self) -> Left {
        self.last.map_or_else(Left::default, |(_, left)| left)
    }

    /// Bytes a second: measured, or told where nothing was measured.
    pub(crate) fn bytes_per_s(&self) -> u64 {
        let told = self.last.map_or(0, |(_, left)| left.bytes_per_s);
        if self.bytes_per_s >= 1.0 { self.bytes_per_s as u64 } else { told }
    }

    /// Items a second, as measured.
    pub(crate) fn items_per_s(&self) -> u64 {
        self.items_per_s as u64
    }

    /// Seconds until nothing is left: the longer one of bytes and items. None while nothing moves.
    pub(crate) fn seconds_left(&self) -> Option<u64> {
        let (_, left) = self.last?;
        let bytes = match (left.bytes, self.bytes_per_s()) {
            (0, _) => Some(0.0),
            (_, 0) => None,
            (bytes, rate) => Some(bytes as f64 / rate as f64),
        };
        let items = if left.items == 0 {
            Some(0.0)
        } else if self.items_per_s > 0.001 {
            Some(left.items as f64 / self.items_per_s)
        } else {
            bytes.filter(|seconds| *seconds > 0.0)
        };
        Some(bytes?.max(items?).ceil() as u64)
    }

    /// What is left, in words.
    pub(crate) fn text(&self) -> String {
        let Some((_, left)) = self.last else { return String::new() };
        let mut parts = vec![format!("{} left", plural(left.items, "item"))];
        if left.bytes > 0 {
            parts.push(size::bytes(left.bytes));
            parts.push(format!("{}/s", size::bytes(self.bytes_per_s())));
        } else if left.items > 0 && self.items_per_s() > 0 {
            parts.push(format!("{}/s", size::count(self.items_per_s())));
        }
        match self.seconds_left() {
            Some(0) | None => {}
            Some(seconds) => parts.push(format!("about {} to go", size::span((seconds * 1000).max(10_000)))),
        }
        parts.join(", ")
    }
}

/// The line on the terminal.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    is_terminal: bool,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal() }
    }

    /// Shows a text in place of the last one.
    pub(crate) fn show(&self, text: &str) {
        if !self.is_terminal {
            return;
        }
        let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| size.ws_col.max(20));
        let cut: String = text.chars().take(usize::from(columns) - 1).collect();
        self.write(&format!("\r\x1b[K{cut}"));
    }

    /// Says something that stays, on a terminal or not.
    pub(crate) fn say(&self, text: &str) {
        let over = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{over}{text}\n"));
    }

    fn write(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        // A terminal that is gone needs no progress.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_terminal {
            self.write("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(items: u64, bytes: u64) -> Left {
        Left { items, bytes, bytes_per_s: 0 }
    }

    #[test]
    fn time_left_follows_the_rate() {
        let mut estimate = Estimate::default();
        estimate.measure(0, left(100, 10_000));
        assert_eq!((estimate.bytes_per_s(), estimate.seconds_left()), (0, None));
        estimate.measure(1000, left(90, 9_000));
        assert_eq!((estimate.bytes_per_s(), estimate.seconds_left()), (1000, Some(9)));
        estimate.measure(2000, left(0, 0));
        assert_eq!(estimate.seconds_left(), Some(0));
        assert_eq!(estimate.text(), "0 items left");
    }

    #[test]
    fn what_agents_tell_counts_before_the_first_measurement() {
        let mut estimate = Estimate::default();
        estimate.measure(0, Left { items: 1, bytes: 20_000, bytes_per_s: 1_000 });
        assert_eq!(estimate.seconds_left(), Some(20));
        assert_eq!(estimate.text(), "1 item left, 19.5 KiB, 1000 B/s, about 20 s to go");
    }

    #[test]
    fn items_have_a_rate_where_bytes_are_not_known() {
        let mut estimate = Estimate::default();
        estimate.measure(0, left(30_000, 0));
        estimate.measure(1000, left(28_000, 0));
        assert_eq!(estimate.text(), "28,000 items left, 2,000/s, about 14 s to go");
    }

    #[test]
    fn more_work_is_no_negative_rate() {
        let mut estimate = Estimate::default();
        estimate.measure(0, left(1, 10));
        estimate.measure(1000, left(5, 500));
        assert_eq!((estimate.bytes_per_s(), estimate.seconds_left()), (0, None));
    }
}
