//! `isotherm service backup`: a copy of the data folder of a service, which may be running.
//!
//! The copying is the service crate's; this shows how far it is.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use isotherm_service::{Backup, ServiceError, backup};

use crate::args::Format;
use crate::failure::{Failure, show_path};
use crate::output::{Answer, plural};
use crate::progress::{Estimate, Left, ProgressLine};
use crate::size;

/// Packs that are named; `--json` has all.
const SHOWN_MAX: usize = 20;

pub(crate) async fn run(data: &Path, to: &Path, verify: bool, format: Format) -> Result<Answer, Failure> {
    let (line, started, estimate) = (Mutex::new(ProgressLine::new()), Instant::now(), Mutex::new(Estimate::default()));
    let progress = |done: u64, all: u64| {
        if let (Ok(line), Ok(mut estimate)) = (line.lock(), estimate.lock()) {
            let left = Left { items: 0, bytes: all.saturating_sub(done), bytes_per_s: 0 };
            estimate.measure(started.elapsed().as_millis() as u64, left);
            line.show(&format!("Copying: {}", estimate.text()));
        }
    };
    let done = backup(data, to, verify, &progress).await.map_err(|error| match error {
        ServiceError::OtherBackup { .. } => error.into(),
        error => Failure::failed(error.to_string())
            .with_remedy("The backup before this one is as it was; put right what is named, and start again"),
    })?;
    drop(line);
    let whole = done.damaged.is_empty() && done.lost_chunks == 0;
    Ok(Answer::new(format.json, &done, || show(&done, to)).with_problems(!whole))
}

fn show(done: &Backup, to: &Path) -> String {
    let mut out = format!(
        "Backup in {} has {} with {}; {} copied, {} removed.\n",
        show_path(to),
        plural(done.packs, "pack"),
        size::bytes(done.bytes),
        size::bytes(done.copied_bytes),
        plural(done.removed_packs, "old pack"),
    );
    if done.damaged_copies > 0 {
        let copies = plural(done.damaged_copies, "pack");
        out.push_str(&format!("Damaged in the backup itself: {copies}. What the data folder has whole was copied again.\n"));
    }
    if !done.damaged.is_empty() {
        out.push_str("Packs that are missing or damaged in the data folder, and not in the backup:\n");
        out.extend(done.damaged.iter().take(SHOWN_MAX).map(|pack| format!("  {pack}\n")));
        if done.damaged.len() > SHOWN_MAX {
            out.push_str(&format!("  and {} more\n", size::count((done.damaged.len() - SHOWN_MAX) as u64)));
        }
        out.push_str("Run `isotherm service check --deep`: it saves what can be read of them. Then start the backup again.\n");
    }
    if done.lost_chunks > 0 {
        out.push_str(&format!(
            "Damaged in the service and not in the backup: {}. `isotherm service check` lists the files.\n",
            plural(done.lost_chunks, "chunk"),
        ));
    }
    out
}
