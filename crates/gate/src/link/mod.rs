//! How the gate's process and its clients speak: messages over a local socket, with descriptors beside them.
//!
//! One connection is one conversation: an administrator's requests, an agent that attends one volume, or the keeper. Messages
//! keep their borders (`SOCK_SEQPACKET`), so that half a message is never read. **Invariants:** only root is spoken to; a
//! message that is not understood ends the conversation and nothing else.

mod channel;
mod client;
mod message;
mod remote;

pub use channel::{Channel, Listener};
pub use client::{ClientError, GateClient};
pub use message::{FromGate, Guarding, SPEAKS_OF_PARTS, SPEECH, ToGate, VolumeId, VolumeSettings, VolumeState};
pub use remote::{AgentTurn, RemotePost};

/// Folder of the sockets and locks, on a file system that a restart of the machine empties.
pub const RUN_FOLDER: &str = "/run/isotherm";
/// The gate's socket in it.
pub const GATE_SOCKET: &str = "gate.sock";
/// The keeper's.
pub const KEEPER_SOCKET: &str = "keeper.sock";
/// Most entries in one message, so that each fits into a socket's buffer (some 200 KiB).
pub const ENTRIES_MAX: usize = 256;

/// A failure of the conversation.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens.
    #[error("nobody listens on '{0}'")]
    NobodyThere(String),
    /// The other side is not root's.
    #[error("the other side is not run by root")]
    NotRoot,
    /// The conversation has ended.
    #[error("the other side has ended the conversation")]
    Ended,
    /// It was not understood.
    #[error("a message was not understood: the other side is of another release")]
    NotUnderstood,
    /// The socket failed.
    #[error("{0}")]
    Socket(#[from] rustix::io::Errno),
}
