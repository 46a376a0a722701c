//! systemd's store of descriptors: one more holder of what the gate holds, which outlives gate, keeper and agent together.
//!
//! The words are those of sd_notify(3) and sd_listen_fds(3). **Invariant:** what the store has and this gate does not use is taken
//! out, and whoever waits at such a group is refused: nobody reads from it any more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendmsg,
};

use super::kept::Held;
use super::list::IdText;
use crate::device::Mounted;
use crate::guard::Group;
use crate::link::VolumeId;
use crate::sys;

/// Where systemd listens.
const ADDRESS: &str = "NOTIFY_SOCKET";
/// How many descriptors it would hold.
const ROOM: &str = "FDSTORE";
/// What it gave: for which process, how many, and their names with colons between.
const PROCESS: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";
/// All of these: no process that the gate starts is meant.
pub(super) const VARIABLES: [&str; 5] = [ADDRESS, ROOM, PROCESS, COUNT, NAMES];
/// Ends of the names of descriptors, behind the volume's id.
const GROUP: &str = "-group";
const TOP: &str = "-top";
/// How long it may take until systemd has heard of something.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// The store of the unit that this process is the main one of.
#[derive(Debug)]
pub(super) struct DescriptorStore {
    socket: OwnedFd,
}

impl DescriptorStore {
    /// None where no systemd has started this process, or its unit has no store.
    pub(super) fn of_this_unit() -> Option<Self> {
        let has_room = std::env::var(ROOM).map_or(true, |room| room != "0");
        let address = std::env::var_os(ADDRESS).filter(|address| has_room && !address.is_empty())?;
        match connected(&address) {
            Ok(socket) => Some(Self { socket }),
            Err(errno) => {
                tracing::warn!(%errno, "systemd cannot be spoken to: it does not hold what the gate holds");
                None
            }
        }
    }

    /// What the unit's store had when this process was started. Once: the second time there is nothing.
    pub(super) fn take_over() -> Vec<Held> {
        let is_for_us = std::env::var(PROCESS).is_ok_and(|process| process == std::process::id().to_string());
        let count = std::env::var(COUNT).ok().and_then(|count| count.parse().ok()).filter(|_| is_for_us);
        let names = std::env::var(NAMES).unwrap_or_default();
        pairs(names.split(':'), sys::inherited::take(count.unwrap_or(0)))
    }

    /// Holds group and top of a volume from now on, in place of what it held of it.
    pub(super) fn hold(&self, id: VolumeId, group: &Group, mounted: &Mounted) {
        self.forget(id);
        for (kind, descriptor) in [(GROUP, group.as_fd()), (TOP, mounted.top().as_fd())] {
            self.say(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={id}{kind}"), &[descriptor]);
        }
    }

    /// Holds nothing of a volume any more when this returns.
    pub(super) fn forget(&self, id: VolumeId) {
        for kind in [GROUP, TOP] {
            self.say(&format!("FDSTOREREMOVE=1\nFDNAME={id}{kind}"), &[]);
        }
        self.is_heard();
    }

    fn say(&self, text: &str, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let sent = retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(text.as_bytes())], &mut beside, SendFlags::NOSIGNAL));
        if let Err(errno) = sent {
            tracing::warn!(%errno, "systemd was not told: {}", text.lines().next().unwrap_or_default());
        }
    }

    /// Waits until systemd has done what it was told: it closes what comes with this word.
    fn is_heard(&self) {
        let Ok((read, write)) = std::io::pipe() else { return };
        self.say("BARRIER=1", &[write.as_fd()]);
        drop(write);
        let patience = Timespec::try_from(HEARD_WITHIN).ok();
        // Later is late, and not wrong.
        let _ = poll(&mut [PollFd::new(&read, PollFlags::empty())], patience.as_ref());
    }
}

fn connected(address: &OsStr) -> Result<OwnedFd, Errno> {
    let place = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        path => SocketAddrUnix::new(path)?,
    };
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &place)?;
    Ok(socket)
}

/// Volumes of which there are both.
fn pairs<'a>(names: impl Iterator<Item = &'a str>, descriptors: Vec<OwnedFd>) -> Vec<Held> {
    let mut found: BTreeMap<VolumeId, (Option<OwnedFd>, Option<OwnedFd>)> = BTreeMap::new();
    for (name, descriptor) in names.zip(descriptors) {
        let (id, is_group) = match (name.strip_suffix(GROUP), name.strip_suffix(TOP)) {
            (Some(id), _) => (id, true),
            (_, Some(id)) => (id, false),
            _ => continue,
        };
        let Ok(IdText(id)) = IdText::try_from(id.to_owned()) else { continue };
        let both = found.entry(id).or_default();
        *(if is_group { &mut both.0 } else { &mut both.1 }) = Some(descriptor);
    }
    found.into_iter().filter_map(|(id, (group, top))| Some((id, Group::from_fd(group?), top?))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| std::io::pipe().unwrap().0.into()).collect()
    }

    #[test]
    fn only_whole_volumes_are_taken_over() {
        let (one, other) = (VolumeId([0xab; 16]), VolumeId([1; 16]));
        let names =
            [format!("{one}-top"), "stored".to_owned(), format!("{other}-group"), format!("{one}-group"), "x-top".to_owned()];
        let held = pairs(names.iter().map(String::as_str), descriptors(5));
        assert_eq!(held.iter().map(|held| held.0).collect::<Vec<_>>(), [one]);
        assert!(pairs("".split(':'), Vec::new()).is_empty());
        assert!(pairs(names.iter().map(String::as_str), descriptors(1)).is_empty());
    }

    /// As systemd listens.
    #[test]
    fn what_is_said_arrives_with_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&address).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let store = DescriptorStore { socket: connected(address.as_os_str()).unwrap() };
        let (read, write) = std::io::pipe().unwrap();
        store.say("FDSTORE=1\nFDNAME=a-group", &[write.as_fd()]);
        drop(write);
        let mut bytes = [0; 200];
        let len = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"FDSTORE=1\nFDNAME=a-group");
        // The one that came beside it was closed, for nobody took it: then this ends.
        assert_eq!(std::io::Read::read(&mut &read, &mut [0]).unwrap(), 0);
    }
}
