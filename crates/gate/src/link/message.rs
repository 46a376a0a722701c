//! What is said.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::FileHandle;
use crate::guard::{Refusal, Told};

/// What this release can say; each side tells the other. Messages are only ever added, at the end and with a larger number here, and
/// one that a number added goes only to who has told that number or a larger one: agent and gate are replaced one after the other.
pub const SPEECH: u16 = 2;

/// From here on an agent understands that somebody reads a part of a file.
pub const SPEAKS_OF_PARTS: u16 = 2;

/// A file system, by the id that it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Display for VolumeId {
    /// As `blkid` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// How files of a volume are guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guarding {
    /// As suits the number of stubs.
    #[default]
    Auto,
    /// Each file is asked about once, and again when its inode has left memory.
    FileSystem,
    /// Only stubs are asked about, however many there are: each takes about 1.3 KB of the kernel's memory.
    Inode,
}

/// A guarded volume as an administrator set it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSettings {
    /// The block device, as it was given.
    pub device: PathBuf,
    /// Where users see it.
    pub path: PathBuf,
    /// Options of the mount, as in fstab.
    pub options: String,
    /// How its files are guarded.
    pub guard: Guarding,
}

/// A guarded volume as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// Its file system.
    pub id: VolumeId,
    /// As it was set up.
    pub settings: VolumeSettings,
    /// Why it is not guarded now; none if it is.
    pub failure: Option<String>,
    /// Callers that wait for content.
    pub waiting: usize,
    /// Whether only stubs are asked about now.
    pub by_inode: bool,
    /// Whether an agent attends it.
    pub attended: bool,
    /// Whether the keeper holds it once more.
    pub kept: bool,
}

/// What the gate is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGate {
    /// Which volumes are there?
    Volumes,
    /// Mount, guard and attach this one, now and after each start.
    Add(VolumeSettings),
    /// Detach the volume that users see at this path, and forget it.
    Remove(PathBuf),
    /// Detach all, and end: the machine goes down.
    Stop,
    /// From now on this conversation is an agent's, which answers for a volume, and can say so much ([`SPEECH`]).
    Attend(VolumeId, u16),
    /// Files in hand, of an agent that begins to attend.
    InHand(Vec<FileHandle>),
    /// All that the agent has in hand was told: it attends.
    Begin,
    /// Answers to callers.
    Answer(Vec<(u64, Option<Refusal>)>),
    /// Whoever is asked about these waits from now on; with a number for the acknowledgement.
    Hold(u64, Vec<FileHandle>),
    /// The agent has done with these.
    Release(Vec<FileHandle>),
    /// The agent is well.
    Alive,
    /// The content of this one did not come.
    NotCome(FileHandle, Refusal),
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGate {
    /// To [`ToGate::Volumes`].
    Volumes(Vec<VolumeState>),
    /// It is done.
    Done,
    /// It was not done: why, and what to do.
    Failed {
        /// In a user's words.
        text: String,
        /// What to do.
        remedy: String,
    },
    /// To [`ToGate::Attend`]; the group's descriptor is beside it.
    Attended {
        /// Whether the agent has to mark each file that may become a stub.
        marks: bool,
        /// What the gate can say ([`SPEECH`]).
        speech: u16,
    },
    /// What the agent has to know.
    Told(Vec<Told>),
    /// To [`ToGate::Hold`], with its number: from now on they wait.
    Held(u64),
}
