//! The gate's side of those who hold what it holds once more: the keeper, and systemd where it has started the gate.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::keeper::{FromKeeper, ToKeeper};
use super::systemd::{self, DescriptorStore};
use crate::device::Mounted;
use crate::guard::Group;
use crate::link::{Channel, KEEPER_SOCKET, LinkError, VolumeId};

/// How long a keeper may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);

/// A keeper that answers, if there is one, and systemd's store.
#[derive(Debug)]
pub(super) struct Kept {
    socket: PathBuf,
    /// What starts one: program and arguments; none where somebody else does.
    command: Vec<OsString>,
    link: Option<Channel>,
    store: Option<DescriptorStore>,
}

/// What a keeper held: the volume, its group, and the top of its mount.
pub(super) type Held = (VolumeId, Group, OwnedFd);

impl Kept {
    pub(super) fn new(run: &Path, command: Vec<OsString>) -> Self {
        Self { socket: run.join(KEEPER_SOCKET), command, link: None, store: DescriptorStore::of_this_unit() }
    }

    /// Everything that an earlier gate has left of these volumes.
    pub(super) fn take_over(&mut self, listed: &[VolumeId]) -> BTreeMap<VolumeId, Held> {
        let mut held: BTreeMap<VolumeId, Held> = self.of_keeper().into_iter().map(|held| (held.0, held)).collect();
        for (id, group, top) in DescriptorStore::take_over() {
            match held.get(&id) {
                Some((_, kept, _)) if kept.is_same(&group) != Some(false) => {}
                None if listed.contains(&id) => {
                    tracing::info!(volume = %id, "Gate, keeper and agent had died, and systemd held the volume");
                    // If going on with it fails, the next try finds it there.
                    self.give(id, &group, &top);
                    held.insert(id, (id, group, top));
                }
                _ => {
                    let refused = group.abandon();
                    tracing::warn!(volume = %id, refused, "systemd held what no gate uses any more");
                    self.store.iter().for_each(|store| store.forget(id));
                }
            }
        }
        held
    }

    fn of_keeper(&mut self) -> Vec<Held> {
        let taken = Channel::connect(&self.socket).and_then(|link| {
            let held = give(&link)?;
            self.link = Some(link);
            Ok(held)
        });
        match taken {
            Ok(held) => held,
            Err(LinkError::NobodyThere(_)) => Vec::new(),
            Err(error) => {
                tracing::error!(%error, "The keeper does not give what it holds");
                Vec::new()
            }
        }
    }

    /// What the keeper holds of one volume: an earlier try to go on with it may have failed.
    pub(super) fn held(&mut self, id: VolumeId) -> Option<Held> {
        if !self.is_there() {
            return None;
        }
        let held = give(self.link.as_ref()?);
        held.ok()?.into_iter().find(|(kept, ..)| *kept == id)
    }

    /// Gives a volume to the keeper, and to a new one if there is none; and to systemd. False if no keeper holds it now.
    pub(super) fn keep(&mut self, id: VolumeId, group: &Group, mounted: &Mounted) -> bool {
        self.store.iter().for_each(|store| store.hold(id, group, mounted));
        self.give(id, group, mounted.top())
    }

    fn give(&mut self, id: VolumeId, group: &Group, top: &OwnedFd) -> bool {
        self.link_or_start().is_some_and(|link| {
            let told = link.send_with(&ToKeeper::Keep(id), &[group.as_fd(), top.as_fd()]);
            told.and_then(|()| done(link)).is_ok()
        })
    }

    pub(super) fn forget(&mut self, id: VolumeId) {
        if let Some(link) = &self.link {
            // A keeper that is gone holds nothing.
            let _ = link.send(&ToKeeper::Drop(id)).and_then(|()| done(link));
        }
        self.store.iter().for_each(|store| store.forget(id));
    }

    /// All is over: the keeper ends.
    pub(super) fn end(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = link.send(&ToKeeper::End).and_then(|()| done(&link));
        }
    }

    /// Whether the keeper is there.
    pub(super) fn is_there(&mut self) -> bool {
        let ended = |link: &Channel| !matches!(link.receive_within::<FromKeeper>(Duration::ZERO), Ok(None));
        if self.link.as_ref().is_some_and(ended) {
            self.link = None;
        }
        self.link.is_some()
    }

    fn link_or_start(&mut self) -> Option<&Channel> {
        if !self.is_there() {
            self.link = Channel::connect(&self.socket).ok().or_else(|| self.start());
        }
        self.link.as_ref()
    }

    fn start(&self) -> Option<Channel> {
        let (program, arguments) = self.command.split_first()?;
        // In a session of its own: what ends the gate does not end the keeper.
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        // What systemd says to its main process is for that one.
        systemd::VARIABLES.iter().for_each(|variable| {
            command.env_remove(variable);
        });
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, "The keeper cannot be started: if the gate dies now, tiered files are not guarded");
                return None;
            }
        };
        // Somebody has to hear of its end.
        std::thread::spawn(move || child.wait());
        let until = Instant::now() + BEGINS_WITHIN;
        while Instant::now() < until {
            if let Ok(link) = Channel::connect(&self.socket) {
                return Some(link);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        tracing::error!("The keeper was started and does not answer");
        None
    }
}

fn give(link: &Channel) -> Result<Vec<Held>, LinkError> {
    link.send(&ToKeeper::Give)?;
    let mut held = Vec::new();
    loop {
        match link.receive::<FromKeeper>()? {
            (FromKeeper::Kept(id), descriptors) => {
                let mut descriptors = descriptors.into_iter();
                if let (Some(group), Some(top)) = (descriptors.next(), descriptors.next()) {
                    held.push((id, Group::from_fd(group), top));
                }
            }
            (FromKeeper::All, _) => return Ok(held),
            (FromKeeper::Done, _) => {}
        }
    }
}

fn done(link: &Channel) -> Result<(), LinkError> {
    match link.receive::<FromKeeper>()? {
        (FromKeeper::Done, _) => Ok(()),
        _ => Err(LinkError::NotUnderstood),
    }
}
