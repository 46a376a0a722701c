//! Who notes uses of files that are here: one thread for each guarded volume, while anything on it tiers.
//!
//! **Invariant:** what the agent does itself is no use, and neither is what programs do that look at everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use isotherm_core::trees::Handle;
use isotherm_gate::FileHandle;
use isotherm_gate::watch::Uses;

use crate::clock::wall_ms;
use crate::guarded::GuardedVolume;
use crate::volume::handle_of;

/// For so long a file that was used is not told of again: what is used all the time costs next to nothing.
const SPAN: Duration = Duration::from_secs(600);
/// Between two looks at whether to end, and whether anything tiers.
const LOOK: Duration = Duration::from_millis(500);

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
                Ok(new) => {
                    volume.set_resting(new.resting());
                    uses = Some((new, Instant::now()));
                }
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
        let is_own = |process: i32| u32::try_from(process) == Ok(std::process::id());
        let is_use = |file: &FileHandle, process| !is_own(process) && volume.is_use(&handle_of(file), process);
        let files: Vec<_> = used.into_iter().filter(|(file, process)| is_use(file, *process)).map(|(file, _)| file).collect();
        files.iter().for_each(|file| uses.rest(volume.root(), file));
        // Of those that are tiered all is told: whoever waits for one would keep the mark.
        files.iter().filter(|file| volume.is_stub(file)).for_each(|file| uses.resting().tell_again(volume.root(), file));
        let handles: Vec<Handle> = files.iter().map(handle_of).collect();
        if !handles.is_empty() {
            volume.heat().note(handles, wall_ms());
        }
    }
}
