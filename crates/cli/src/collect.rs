//! `isotherm service gc`: collects garbage, and says what went.
//!
//! It starts a collection in the service and follows it. Breaking it off ends the watching, not the collection.

use std::time::{Duration, Instant};

use isotherm_api::Client;
use isotherm_api::collect::{CollectRequest, Collected};

use crate::args::Format;
use crate::failure::Failure;
use crate::output::{Answer, plural, text};
use crate::progress::ProgressLine;
use crate::size;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) async fn run(client: &Client, wanted: CollectRequest, format: Format) -> Result<Answer, Failure> {
    client.start_collection(wanted).await?;
    let (line, started) = (ProgressLine::new(), Instant::now());
    let status = loop {
        let Some(status) = client.collection().await? else {
            return Err(Failure::failed("The service was started anew during the collection").with_remedy("Start it again"));
        };
        if status.ended {
            break status;
        }
        line.show(&format!("Collecting garbage for {} s", started.elapsed().as_secs()));
        tokio::time::sleep(PAUSE).await;
    };
    drop(line);
    match (&status.collected, &status.failed) {
        (Some(collected), None) => Ok(Answer::new(format.json, &status, || show(collected))),
        (_, why) => Err(Failure::failed(format!("The collection ended early: {}", text(why.as_deref().unwrap_or("no reason"))))),
    }
}

fn show(done: &Collected) -> String {
    let mut out = format!(
        "Let go: {}, {} of deleted files, {}\n",
        plural(done.expired_versions, "old version"),
        plural(done.forgotten_nodes, "tombstone"),
        plural(done.forgotten_contents, "content"),
    );
    out.push_str(&format!(
        "Deleted: {} ({}); rewritten: {}; {} will go in a day if nothing names them again\n",
        plural(done.deleted_packs, "pack"),
        size::bytes(done.deleted_bytes),
        plural(done.rewritten_packs, "pack"),
        plural(done.condemned_chunks, "chunk"),
    ));
    out
}
