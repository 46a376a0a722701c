//! What administrators ask for, and where an agent's conversation begins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::list::{self, IdText, Listed};
use super::{Entry, GateFailure, Shared, attend};
use crate::device::Superblock;
use crate::link::{Channel, FromGate, LinkError, ToGate, VolumeId, VolumeSettings, VolumeState};

/// Serves a client until it ends the conversation.
pub(super) fn converse(shared: &Arc<Shared>, client: &Channel) {
    loop {
        let answered = match client.receive::<ToGate>() {
            Ok((message, _)) => answer(shared, client, message),
            Err(error) => Err(error),
        };
        match answered {
            Ok(true) => {}
            Ok(false) | Err(LinkError::Ended) => return,
            Err(error) => {
                tracing::warn!(%error, "A conversation ended");
                return;
            }
        }
    }
}

/// True if the conversation goes on.
fn answer(shared: &Arc<Shared>, client: &Channel, message: ToGate) -> Result<bool, LinkError> {
    let done = match message {
        ToGate::Volumes => {
            client.send(&FromGate::Volumes(states(shared)))?;
            return Ok(true);
        }
        ToGate::Attend(id, speech) => {
            let guarded = match shared.volumes().get(&id) {
                Some(Entry::Guarded(guarded)) => Arc::clone(guarded),
                _ => {
                    let text = format!("The volume {id} is not guarded");
                    client.send(&FromGate::Failed { text, remedy: "See `isotherm volume list`".to_owned() })?;
                    return Ok(true);
                }
            };
            attend::attend(&guarded, client, speech)?;
            return Ok(false);
        }
        ToGate::Add(settings) => add(shared, settings),
        ToGate::Remove(path) => remove(shared, &path),
        ToGate::Stop => stop(shared),
        _ => return Err(LinkError::NotUnderstood),
    };
    match done {
        Ok(()) => client.send(&FromGate::Done)?,
        Err(error) => client.send(&FromGate::Failed { remedy: remedy(&error).to_owned(), text: error.to_string() })?,
    }
    Ok(true)
}

fn states(shared: &Shared) -> Vec<VolumeState> {
    let state = |entry: &Entry| match entry {
        Entry::Guarded(guarded) => guarded.state(),
        Entry::Failed(listed, why) => VolumeState {
            id: listed.id.0,
            settings: listed.settings.clone(),
            failure: Some(why.clone()),
            waiting: 0,
            by_inode: false,
            attended: false,
            kept: false,
        },
    };
    shared.volumes().values().map(state).collect()
}

fn add(shared: &Shared, settings: VolumeSettings) -> Result<(), GateFailure> {
    let superblock = Superblock::read(&settings.device)?;
    if !settings.path.is_absolute() {
        return Err(GateFailure::Refused(format!("'{}' is not an absolute path", settings.path.display())));
    }
    if let Some(known) = shared.listed().into_iter().find(|known| known.id.0 == superblock.id) {
        if known.settings == settings {
            return Ok(());
        }
        let at = known.settings.path.display();
        return Err(GateFailure::Refused(format!("The volume is guarded already, at '{at}'")));
    }
    if shared.listed().iter().any(|known| known.settings.path == settings.path) {
        return Err(GateFailure::Refused(format!("Another guarded volume belongs at '{}'", settings.path.display())));
    }
    if let Some(place) = mounts(&settings.device).first() {
        return Err(GateFailure::Refused(format!("'{}' is mounted at '{}'", settings.device.display(), place.display())));
    }
    let listed = Listed { id: IdText(superblock.id), settings };
    let before = shared.listed();
    let all = [before.clone(), vec![listed.clone()]].concat();
    shared.spread_net(&all);
    let guarded = match shared.guard(listed.clone(), None) {
        Entry::Failed(_, why) => {
            shared.spread_net(&before);
            return Err(GateFailure::Refused(why));
        }
        guarded @ Entry::Guarded(_) => guarded,
    };
    if let Err(error) = list::write(&shared.options.state, &all) {
        if let Entry::Guarded(guarded) = guarded {
            guarded.end()?;
            shared.kept().forget(listed.id.0);
        }
        shared.spread_net(&before);
        return Err(error);
    }
    shared.volumes().insert(listed.id.0, guarded);
    Ok(())
}

/// Where a device is mounted. A volume of the gate is seen at one place only: elsewhere it would be seen without the gate's
/// doing, after a start before it is guarded, and after its end without a guard.
fn mounts(device: &Path) -> Vec<PathBuf> {
    let Ok(real) = std::fs::canonicalize(device) else { return Vec::new() };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let source = after.split_whitespace().nth(1)?;
        let is_it = std::fs::canonicalize(source).is_ok_and(|source| source == real);
        is_it.then(|| unescaped(before.split_whitespace().nth(4).unwrap_or_default()))
    });
    places.collect()
}

/// A path as the kernel's tables write it: blanks, line ends and backslashes are three octal digits behind a backslash.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn remove(shared: &Shared, path: &Path) -> Result<(), GateFailure> {
    // Locked until it is off the list: what is on it and not guarded is mounted again.
    let mut volumes = shared.volumes();
    let found = volumes.values().map(Entry::listed).find(|listed| listed.settings.path == path).cloned();
    let listed = found.ok_or_else(|| GateFailure::Refused(format!("No guarded volume is at '{}'", path.display())))?;
    end(shared, &mut volumes, &listed)?;
    let rest: Vec<Listed> = volumes.values().map(Entry::listed).filter(|other| other.id != listed.id).cloned().collect();
    list::write(&shared.options.state, &rest)?;
    volumes.remove(&listed.id.0);
    drop(volumes);
    shared.spread_net(&rest);
    Ok(())
}

fn end(shared: &Shared, volumes: &mut BTreeMap<VolumeId, Entry>, listed: &Listed) -> Result<(), GateFailure> {
    if let Some(Entry::Guarded(guarded)) = volumes.get(&listed.id.0) {
        let path = &listed.settings.path;
        if let Some(place) = mounts(&listed.settings.device).into_iter().find(|place| place != path) {
            let (path, place) = (path.display(), place.display());
            return Err(GateFailure::Refused(format!(
                "'{path}' is also to be seen at '{place}', where nobody would guard it then"
            )));
        }
        guarded.end()?;
        shared.kept().forget(listed.id.0);
        // If it stays on the list it is mounted again soon.
        volumes.insert(listed.id.0, Entry::Failed(listed.clone(), "It was detached".to_owned()));
    }
    Ok(())
}

fn stop(shared: &Shared) -> Result<(), GateFailure> {
    // Locked until it is over, for the same reason.
    let mut volumes = shared.volumes();
    let all: Vec<Listed> = volumes.values().map(Entry::listed).cloned().collect();
    // All or as many as can be: one that is in use keeps the gate.
    let failures: Vec<GateFailure> = all.iter().filter_map(|listed| end(shared, &mut volumes, listed).err()).collect();
    if let Some(first) = failures.into_iter().next() {
        return Err(first);
    }
    shared.kept().end();
    shared.over.store(true, Ordering::Relaxed);
    Ok(())
}

fn remedy(error: &GateFailure) -> &'static str {
    match error {
        GateFailure::Refused(text) if text.contains("is mounted at") => {
            "Unmount it there and take it out of /etc/fstab: the gate mounts it from now on"
        }
        GateFailure::Refused(text) if text.contains("is also to be seen at") => "Unmount it there first",
        GateFailure::Mount(crate::device::MountError::InUse(_)) => {
            "Stop the programs that use it (`fuser -vm PATH`), and try again"
        }
        GateFailure::Device(_) => "Give a block device with an ext4, XFS or btrfs of its own, as `lsblk -f` shows it",
        GateFailure::Mount(_) => "See the kernel's log (`dmesg`), and check device, options and folder",
        GateFailure::Guard(_) => "Run `isotherm doctor`",
        _ => "See `isotherm volume list`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_kernels_tables_are_read() {
        let cases = [
            ("/srv/plans", "/srv/plans"),
            (r"/srv/our\040plans\134", "/srv/our plans\\"),
            (r"/a\9", r"/a\9"),
            (r"/\04", r"/\04"),
        ];
        for (written, meant) in cases {
            assert_eq!(unescaped(written), Path::new(meant));
        }
    }
}
