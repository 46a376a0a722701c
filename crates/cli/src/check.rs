//! `isotherm service check`: is everything there that the service names?
//!
//! It starts a check in the service and follows it. Breaking it off ends the watching, not the check.

use std::time::{Duration, Instant};

use isotherm_api::Client;
use isotherm_api::check::{CheckPhase, CheckRequest, CheckStatus};

use crate::args::Format;
use crate::failure::Failure;
use crate::output::{self, Answer, plural, text};
use crate::progress::{Estimate, Left, ProgressLine};
use crate::size;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(300);
/// Lines of findings and files that are shown; `--json` has more.
const SHOWN_MAX: usize = 50;

pub(crate) async fn run(client: &Client, wanted: CheckRequest, format: Format) -> Result<Answer, Failure> {
    let deep = wanted.deep;
    client.start_check(wanted).await?;
    let (line, started, mut estimate) = (ProgressLine::new(), Instant::now(), Estimate::default());
    let status = loop {
        let Some(status) = client.check().await? else {
            return Err(Failure::failed("The service was started anew during the check").with_remedy("Start the check again"));
        };
        if status.phase == CheckPhase::Done {
            break status;
        }
        let bytes = if deep { status.all_bytes.saturating_sub(status.done_bytes) } else { 0 };
        estimate.measure(started.elapsed().as_millis() as u64, Left { items: 0, bytes, bytes_per_s: 0 });
        line.show(&format!("{}: {}", phase(status.phase), estimate.text()));
        tokio::time::sleep(PAUSE).await;
    };
    drop(line);
    if let Some(why) = &status.failed {
        return Err(Failure::failed(format!("The check ended early: {}", text(why))));
    }
    let is_whole = status.findings_count == 0;
    Ok(Answer::new(format.json, &status, || show(&status)).with_problems(!is_whole))
}

fn phase(phase: CheckPhase) -> &'static str {
    match phase {
        CheckPhase::Names => "Looking at the trees",
        CheckPhase::Packs => "Looking for packs",
        CheckPhase::Bytes => "Reading packs",
        CheckPhase::Files => "Looking for files",
        CheckPhase::Done => "Done",
    }
}

fn show(status: &CheckStatus) -> String {
    let mut out = String::new();
    for finding in status.findings.iter().take(SHOWN_MAX) {
        out.push_str(&format!("{}\n", text(finding)));
    }
    if status.findings_count > SHOWN_MAX.min(status.findings.len()) as u64 {
        out.push_str(&format!("And {} more.\n", status.findings_count - SHOWN_MAX.min(status.findings.len()) as u64));
    }
    if status.hurt_count > 0 {
        out.push_str("Files that cannot be read from the share:\n");
        for file in status.hurt.iter().take(SHOWN_MAX) {
            let old = if file.old { ", an old version" } else { "" };
            out.push_str(&format!("  {} (group {}{old})\n", output::path_below(&file.path), file.group));
        }
        if status.hurt_count > SHOWN_MAX as u64 {
            out.push_str(&format!("  and {} more\n", size::count(status.hurt_count - SHOWN_MAX as u64)));
        }
        out.push_str(
            "Servers that have such a file as it was send it again by themselves. The next check says what has come back.\n",
        );
    }
    let read = if status.deep { format!(", {} read", size::bytes(status.done_bytes)) } else { String::new() };
    let found =
        if status.findings_count == 0 { "Everything is there".to_owned() } else { plural(status.findings_count, "finding") };
    out.push_str(&format!(
        "{found}: {}, {}, {}, {}{read}\n",
        plural(status.nodes, "node"),
        plural(status.contents, "content"),
        plural(status.chunks, "chunk"),
        plural(status.packs, "pack"),
    ));
    if status.rewritten_packs > 0 {
        let packs = plural(status.rewritten_packs, "damaged pack");
        out.push_str(&format!("Put into new packs what can be read of {packs}\n"));
    }
    if status.repaired > 0 {
        out.push_str(&format!("{} found damaged by an earlier check and whole again\n", plural(status.repaired, "file")));
    }
    if status.stray_packs > 0 {
        let bytes = size::bytes(status.stray_bytes);
        out.push_str(&format!(
            "Strays: {} of {bytes} that no record names. They take space only; --delete-strays deletes what a check saw a day ago.\n",
            plural(status.stray_packs, "pack")
        ));
    }
    if status.deleted_strays > 0 {
        let bytes = size::bytes(status.deleted_bytes);
        out.push_str(&format!("Strays deleted: {} of {bytes}\n", plural(status.deleted_strays, "pack")));
    }
    out
}
