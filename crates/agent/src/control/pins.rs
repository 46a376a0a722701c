//! What an administrator wants to stay on this server.
//!
//! A pin is a node, so that it follows its file or directory wherever that is moved. **Invariant:** when a pin is answered for, it is
//! kept durably.

use std::time::{Duration, Instant};

use isotherm_api::path::ShownPath;

use super::file::{self, Spot};
use crate::agent::Overview;
use crate::engine::Command;
use crate::guarded::GuardedVolumes;

/// How long the endpoint may take to keep it: it may be about to scan.
const KEPT_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Has the content of a file, or of everything below a directory, stay here, or not any more; whether that changed anything.
pub(super) fn set((overview, guarded): (&Overview, &GuardedVolumes), path: &[u8], pinned: bool) -> Result<bool, String> {
    let Spot { endpoint, catalog, volume, record } = file::on_guarded((overview, guarded), path)?;
    let is_pinned = || Ok::<bool, String>(catalog.pinned().ok_or("It cannot be told what is pinned")?.contains(&record.node));
    if is_pinned()? == pinned {
        return Ok(false);
    }
    if !volume.ask(endpoint.endpoint, Command::Pin(record.node, pinned)) {
        return Err("The endpoint is stopping".to_owned());
    }
    let begun = Instant::now();
    while is_pinned()? != pinned {
        if begun.elapsed() > KEPT_WITHIN {
            return Err("The endpoint is busy, and has not kept it yet; ask again in a moment".to_owned());
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

/// What is pinned at all endpoints, as absolute paths.
pub(super) fn list(overview: &Overview) -> Result<Vec<ShownPath>, String> {
    let mut paths = Vec::new();
    for endpoint in &overview.endpoints {
        let catalog = file::catalog(overview, endpoint)?;
        let pins = catalog.pinned().ok_or("It cannot be told what is pinned")?;
        for node in pins.into_iter().filter(|node| node.is_anchor() || catalog.record(*node).is_some()) {
            let below = catalog.path(node);
            let separator: &[u8] = if below.is_empty() { b"" } else { b"/" };
            paths.push(ShownPath::new(&[endpoint.path.as_bytes(), separator, &below].concat()));
        }
    }
    Ok(paths)
}
