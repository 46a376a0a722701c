//! Sockets that carry whole messages and descriptors.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::LinkError;

/// Longest message, in bytes.
const MESSAGE_MAX: usize = 128 << 10;
/// Descriptors beside one message at most.
const DESCRIPTORS_MAX: usize = 2;
/// Conversations that wait to be taken.
const BACKLOG: i32 = 16;

/// One side of a conversation.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// Takes conversations. The socket file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Listens on a path, in place of whoever listened there before: the caller holds a lock that says that there is nobody.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self, LinkError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO).into());
            }
            _ => {}
        }
        let socket = new_socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // The folder is root's alone; this says the same once more.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next conversation; none if nobody came for so long.
    ///
    /// # Errors
    /// The socket fails. Somebody who is not root is sent away without one.
    pub fn accept(&self, patience: Duration) -> Result<Option<Channel>, LinkError> {
        if !is_readable(&self.socket, patience)? {
            return Ok(None);
        }
        let socket = retry_on_intr(|| rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC))?;
        Ok(is_root(&socket).then_some(Channel { socket }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that stays is replaced by the next.
        let _ = fs::remove_file(&self.path);
    }
}

impl Channel {
    /// Begins a conversation.
    ///
    /// # Errors
    /// [`LinkError::NobodyThere`], [`LinkError::NotRoot`] or a failure of the socket.
    pub fn connect(path: &Path) -> Result<Self, LinkError> {
        let socket = new_socket()?;
        match retry_on_intr(|| rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(LinkError::NobodyThere(path.display().to_string())),
            Err(errno) => return Err(errno.into()),
        }
        if is_root(&socket) { Ok(Self { socket }) } else { Err(LinkError::NotRoot) }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`LinkError::Ended`] or a failure of the socket.
    pub fn send<M: Serialize>(&self, message: &M) -> Result<(), LinkError> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors, which stay open here.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_with<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = postcard::to_allocvec(message).map_err(|_| LinkError::NotUnderstood)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::INVAL.into());
        }
        let sent = retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL));
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Ended),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next message; waits for it.
    ///
    /// # Errors
    /// [`LinkError::Ended`], [`LinkError::NotUnderstood`] or a failure of the socket.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), LinkError> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received =
            retry_on_intr(|| recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC));
        let received = match received {
            Ok(received) => received,
            Err(Errno::CONNRESET) => return Err(LinkError::Ended),
            Err(errno) => return Err(errno.into()),
        };
        let descriptors = beside.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = descriptors.flatten().collect();
        if received.bytes == 0 {
            return Err(LinkError::Ended);
        }
        let message = postcard::from_bytes(&bytes[..received.bytes]).map_err(|_| LinkError::NotUnderstood)?;
        Ok((message, descriptors))
    }

    /// As [`Self::receive`], but none if nothing came for so long.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_within<M: DeserializeOwned>(&self, patience: Duration) -> Result<Option<(M, Vec<OwnedFd>)>, LinkError> {
        if is_readable(&self.socket, patience)? { self.receive().map(Some) } else { Ok(None) }
    }

    /// Another descriptor of the same conversation: one side reads while the other writes.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> Result<Self, LinkError> {
        Ok(Self { socket: rustix::io::fcntl_dupfd_cloexec(&self.socket, 0)? })
    }

    /// The process on the other side as it was when the conversation began; none where the kernel does not tell.
    #[must_use]
    pub fn peer(&self) -> Option<i32> {
        sockopt::socket_peercred(&self.socket).ok().map(|peer| peer.pid.as_raw_pid())
    }

    /// Ends the conversation for both sides, whoever holds a duplicate.
    pub fn end(&self) {
        // It may have ended already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

fn is_root(socket: &OwnedFd) -> bool {
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid.is_root())
}

fn is_readable(socket: &OwnedFd, patience: Duration) -> Result<bool, Errno> {
    let patience = Timespec::try_from(patience).ok();
    let mut asked = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut asked, patience.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        if !crate::effective_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        let client = Channel::connect(&path).unwrap();
        let server = listener.accept(Duration::from_secs(5)).unwrap().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"content").unwrap();
        client.send(&"first").unwrap();
        client.send_with(&vec![7_u8; 60_000], &[file.as_fd()]).unwrap();
        assert_eq!(server.receive::<String>().unwrap().0, "first");
        let (second, descriptors) = server.receive::<Vec<u8>>().unwrap();
        assert_eq!(second.len(), 60_000);
        let mut text = String::new();
        let mut same = fs::File::from(descriptors.into_iter().next().unwrap());
        std::io::Seek::rewind(&mut same).unwrap();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert!(server.receive_within::<String>(Duration::ZERO).unwrap().is_none());
        drop(client);
        assert!(matches!(server.receive::<String>(), Err(LinkError::Ended)));
    }

    #[test]
    fn nobody_there_is_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Channel::connect(&folder.path().join("none")).unwrap_err();
        assert!(matches!(&error, LinkError::NobodyThere(path) if path.ends_with("/none")), "{error}");
    }
}
