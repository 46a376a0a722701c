//! Whether the service answers, speaks the same protocol, and has the same time.
//!
//! It asks only; nothing is registered.
//!
//! **Invariant:** a clock difference is told only if it is larger than what the measurement itself may be wrong by.

use std::time::{SystemTime, UNIX_EPOCH};

use isotherm_api::{Client, Code};
use isotherm_core::ids::{Epoch, ServerId};

use super::Finding;
use crate::failure::Failure;
use crate::size;

/// Clocks that differ by more than this make the wrong version of a conflict keep the name.
const CLOCK_TOLERANCE_MS: u64 = 2_000;

pub(super) async fn check(client: &Client) -> Vec<Finding> {
    let version = match client.version().await {
        Ok(version) => version,
        Err(error) => {
            let failure = Failure::from(error);
            return vec![Finding::bad("service", failure.why, failure.remedy.unwrap_or_else(|| "Look at its log".to_owned()))];
        }
    };
    let mut findings = vec![Finding::good("service", format!("{} answers, version {version}", client.url()))];
    findings.push(protocol(client).await);
    findings.extend(clock(client).await);
    findings
}

/// Asks for the endpoints of a server that does not exist: "not found" can be said only in the same protocol.
async fn protocol(client: &Client) -> Finding {
    let ours = isotherm_api::PROTOCOL;
    match client.assignments(ServerId::default(), Epoch(0), 0, 0).await {
        Err(error) if error.code == Code::Protocol => {
            Finding::bad("protocol", error.message, "Install the same release of Isotherm everywhere")
        }
        Err(error) if error.code == Code::NotFound => Finding::good("protocol", format!("Both speak version {ours}")),
        Err(error) => Finding::bad("protocol", error.message, "Look at the service's log"),
        Ok(_) => Finding::good("protocol", format!("Both speak version {ours}")),
    }
}

async fn clock(client: &Client) -> Option<Finding> {
    let before = now_ms();
    let theirs = client.status().await.ok()?.now_ms;
    let after = now_ms();
    Some(judge_clock(before, theirs, after))
}

/// Somewhere between `before` and `after` the service read its clock.
fn judge_clock(before: u64, theirs: u64, after: u64) -> Finding {
    let difference = before.saturating_sub(theirs).max(theirs.saturating_sub(after));
    if difference <= CLOCK_TOLERANCE_MS {
        return Finding::good("clock", "The clocks of service and this machine agree");
    }
    let way = if theirs > after { "behind" } else { "ahead of" };
    Finding::bad(
        "clock",
        format!(
            "The clock of this machine is {} {way} the service's: in a conflict the wrong version may keep the name",
            size::span(difference)
        ),
        "Keep the clocks right on both, with chrony or systemd-timesyncd",
    )
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slow_answer_is_no_clock_difference() {
        assert_eq!(judge_clock(10_000, 15_000, 60_000).verdict, Verdict::Good);
        let behind = judge_clock(10_000, 75_500, 10_500);
        assert_eq!((behind.verdict, behind.text.contains("1 min 5 s behind")), (Verdict::Bad, true), "{}", behind.text);
        let ahead = judge_clock(75_500, 10_000, 75_600);
        assert_eq!((ahead.verdict, ahead.text.contains("ahead of")), (Verdict::Bad, true));
    }
}
