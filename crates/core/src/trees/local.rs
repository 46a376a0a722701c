//! What a file system shows of a node.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Synced;
use super::facets::same_metadata;
use crate::ids::Timestamp;
use crate::node::{Content, Kind, Metadata, Place};

/// The identity of an inode: its number and generation, as the kernel's file handle has them. It stays through
/// renames and is never given to another inode. Opaque here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle(pub Box<[u8]>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What changes when an inode changes. Equal prints prove nothing by themselves (a mapped page can be written
/// without moving a time), which is why a reported write overrides them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Print {
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub modified: Timestamp,
    /// Change time, which no program can set.
    pub changed: Timestamp,
    /// Names of the inode.
    pub links: u32,
}

/// What is known of the content on this server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LocalContent {
    /// Read and hashed, and nothing has been reported since.
    Known(Content),
    /// A file that has to be read before anything can be said of its bytes.
    Unread,
    /// What a file that never rests held at one moment. It can go to the share as that; nothing else follows from it,
    /// because the file has been written to since. Reading it again follows when it is looked at.
    Passing(Content),
}

/// A node as this server has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Local {
    /// The directory's node, and the name in it.
    pub place: Place,
    /// Which inode.
    pub handle: Handle,
    /// Its state when it was last looked at or last changed by this agent.
    pub print: Print,
    /// Mode, owner, attributes in the share's terms.
    pub metadata: Metadata,
    /// What the file system showed when `metadata` was applied and could not be represented in full (an unknown
    /// account, an attribute that the file system refuses). While it shows the same, `metadata` stands.
    pub raw: Option<Metadata>,
    /// Content.
    pub content: LocalContent,
    /// The name was found empty or taken and the inode not yet elsewhere. Nothing is decided about a lost node.
    pub lost: bool,
}

impl Local {
    /// The sort of node.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.content {
            LocalContent::Known(content) | LocalContent::Passing(content) => content.kind(),
            LocalContent::Unread => Kind::File,
        }
    }

    /// The content, where it is known.
    #[must_use]
    pub fn known(&self) -> Option<&Content> {
        match &self.content {
            LocalContent::Known(content) => Some(content),
            LocalContent::Unread | LocalContent::Passing(_) => None,
        }
    }

    /// What a file that never rests held at one moment.
    #[must_use]
    pub fn passing(&self) -> Option<&Content> {
        match &self.content {
            LocalContent::Passing(content) => Some(content),
            LocalContent::Known(_) | LocalContent::Unread => None,
        }
    }

    /// What the file system shows as metadata.
    #[must_use]
    pub fn shown(&self) -> &Metadata {
        self.raw.as_ref().unwrap_or(&self.metadata)
    }

    /// Whether nothing differs from the common base.
    #[must_use]
    pub fn agrees(&self, synced: &Synced) -> bool {
        !self.lost
            && self.place == synced.place
            && same_metadata(&self.metadata, &synced.metadata)
            && self.known() == Some(&synced.content)
    }
}
