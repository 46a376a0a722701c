//! Who notes uses of files that are here: one thread for each guarded volume, while anything on it tiers.
//!
//! **Invariant:** what the agent does itself is no use, and neither is what programs do that look at everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use isotherm_core::trees::Handle;
use isotherm_gate::watch::Uses;

use crate::clock::wall_ms;
use crate::guarded::GuardedVolume;
use crate::volume::handle_of;

/// For so long a file that was used is not told of again: what is used all the time costs next to nothing.
const SPAN: Duration = Duration::from_secs(600);
/// Between two looks at whether to end, and whether anything tiers.
const LOOK: Duration = Duration::from_millis(500);

/// Programs that read files although nobody uses them: indexes of names and contents, previews, virus scanners, backups. As the
/// kernel names processes: the first 15 bytes.
const LOOK_AT_EVERYTHING: &[&str] = &[
    "updatedb",
    "updatedb.plocat",
    "updatedb.mlocat",
    "mandb",
    "tracker-extract",
    "tracker-miner-f",
    "localsearch-3",
    "localsearch-ext",
    "baloo_file",
    "baloo_file_extr",
    "recollindex",
    "tumblerd",
    "ffmpegthumbnail",
    "gdk-pixbuf-thum",
    "evince-thumbnai",
    "totem-video-thu",
    "clamscan",
    "clamd",
    "clamdscan",
    "clamonacc",
    "freshclam",
    "rkhunter",
    "aide",
    "tripwire",
    "borg",
    "restic",
    "rsnapshot",
    "rdiff-backup",
    "duplicity",
    "bacula-fd",
    "bareos-fd",
    "amandad",
    "urbackupclientb",
    "dsmc",
    "kopia",
    "bup",
];

/// Listens until it is to end.
pub(super) fn listen(volume: &Weak<GuardedVolume>, ends: &Arc<AtomicBool>) {
    let mut uses: Option<(Uses, Instant)> = None;
    let mut told = false;
    while !ends.load(Ordering::Relaxed)
        && let Some(volume) = volume.upgrade()
    {
        if volume.situation().is_none() {
            uses = None;
        } else if uses.is_none() {
            match Uses::new(volume.root()) {
                Ok(new) => uses = Some((new, Instant::now())),
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, path = %volume.path().display(), "Files that are read here count by their times alone");
                }
                Err(_) => {}
            }
        }
        let Some((uses, since)) = &mut uses else {
            drop(volume);
            std::thread::sleep(LOOK);
            continue;
        };
        if since.elapsed() >= SPAN {
            *since = Instant::now();
            uses.tell_all_again(volume.root());
        }
        let used = uses.read(LOOK);
        let by_people = used.into_iter().filter(|(_, process)| is_use(*process));
        let files: Vec<_> = by_people.map(|(file, _)| file).collect();
        files.iter().for_each(|file| uses.rest(volume.root(), file));
        let handles: Vec<Handle> = files.iter().map(handle_of).collect();
        if !handles.is_empty() {
            volume.heat().note(handles, wall_ms());
        }
    }
}

/// Whether what a process does counts. One that has ended does.
fn is_use(process: i32) -> bool {
    if u32::try_from(process) == Ok(std::process::id()) {
        return false;
    }
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    !LOOK_AT_EVERYTHING.contains(&name.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_kernel_tells_them() {
        assert!(LOOK_AT_EVERYTHING.iter().all(|name| name.len() <= 15 && !name.is_empty()));
        assert!(is_use(1) && is_use(0) && !is_use(i32::try_from(std::process::id()).unwrap_or(0)));
    }
}
