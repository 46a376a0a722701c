//! The keeper: holds the descriptors of the gate once more, and sleeps.
//!
//! While anybody holds a group the kernel keeps callers waiting; when nobody does it lets them through, to holes. So a second
//! process, which does nothing that could fail, has a duplicate of each descriptor, and gives it to the next gate.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::GateFailure;
use crate::guard::Group;
use crate::link::{Channel, KEEPER_SOCKET, LinkError, Listener, VolumeId};
use crate::lock::{LockError, StateLock, lock_exclusive};

/// Between two looks at whether to end.
const LOOK: Duration = Duration::from_millis(200);
/// The lock in the run folder that says that there is a keeper.
const LOCK: &str = "keeper.lock";
/// How long a keeper that was killed may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What the keeper is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToKeeper {
    /// Give everything: one [`FromKeeper::Kept`] for each, and [`FromKeeper::All`].
    Give,
    /// Hold this: group and top of the mount are beside it.
    Keep(VolumeId),
    /// Hold it no longer.
    Drop(VolumeId),
    /// Hold nothing, and end.
    End,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromKeeper {
    /// This it holds; group and top are beside it.
    Kept(VolumeId),
    /// That was all.
    All,
    /// It is done.
    Done,
}

/// Holds what a gate gives until `stop` is set, or a gate that ends says so.
///
/// # Errors
/// The socket fails, or there is another keeper on this folder. Two gates may each have started one, the first of which died before it
/// heard of it: if both went on, the next gate would ask the one that holds nothing, and nobody would answer who waits at the other's.
pub fn keep(run: &Path, stop: &AtomicBool) -> Result<(), GateFailure> {
    let _lock = lock(run)?;
    let listener = Listener::bind(&run.join(KEEPER_SOCKET))?;
    let mut held: BTreeMap<VolumeId, Vec<OwnedFd>> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(gate) = listener.accept(LOOK)? else { continue };
        match talk(&gate, &mut held, stop) {
            Ok(true) => return Ok(()),
            Ok(false) | Err(LinkError::Ended) => {}
            // The next gate asks again.
            Err(error) => tracing::warn!(%error, "The keeper lost the gate"),
        }
    }
    Ok(())
}

/// The right to be the only keeper; none where that cannot be told, since one too many is better than none.
fn lock(run: &Path) -> Result<Option<StateLock>, LockError> {
    let until = Instant::now() + ENDS_WITHIN;
    loop {
        match lock_exclusive(&run.join(LOCK)) {
            Ok(lock) => return Ok(Some(lock)),
            Err(LockError::Held { .. }) if Instant::now() < until => std::thread::sleep(LOOK / 10),
            Err(error @ LockError::Held { .. }) => return Err(error),
            Err(error @ LockError::Io { .. }) => {
                tracing::warn!(%error, "It cannot be told whether there is another keeper");
                return Ok(None);
            }
        }
    }
}

/// A group that another one takes the place of: whoever waits there is refused. If it just went, the kernel would let him through.
fn abandon(former: Option<Vec<OwnedFd>>, new: Option<&Vec<OwnedFd>>) {
    let group = |descriptor: OwnedFd| Group::from_fd(descriptor);
    let former = former.and_then(|descriptors| descriptors.into_iter().next()).map(group);
    let new = new.and_then(|descriptors| descriptors.first()?.try_clone().ok()).map(group);
    if let (Some(former), Some(new)) = (former, new)
        && former.is_same(&new) == Some(false)
    {
        let refused = former.abandon();
        tracing::warn!(refused, "The gate guards a volume anew: callers of the former group were refused");
    }
}

/// One gate at a time; true if it has said that all is over.
fn talk(gate: &Channel, held: &mut BTreeMap<VolumeId, Vec<OwnedFd>>, stop: &AtomicBool) -> Result<bool, LinkError> {
    while !stop.load(Ordering::Relaxed) {
        let Some((message, descriptors)) = gate.receive_within::<ToKeeper>(LOOK)? else { continue };
        match message {
            ToKeeper::Give => {
                for (id, descriptors) in held.iter() {
                    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    gate.send_with(&FromKeeper::Kept(*id), &descriptors)?;
                }
                gate.send(&FromKeeper::All)?;
            }
            ToKeeper::Keep(id) => {
                let former = held.insert(id, descriptors);
                abandon(former, held.get(&id));
                gate.send(&FromKeeper::Done)?;
            }
            ToKeeper::Drop(id) => {
                held.remove(&id);
                gate.send(&FromKeeper::Done)?;
            }
            ToKeeper::End => {
                held.clear();
                gate.send(&FromKeeper::Done)?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}
