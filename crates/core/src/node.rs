//! What the namespace of a share is made of.
//!
//! A node has three facets that change independently and conflict independently: its **place** (parent and
//! name), its **metadata** (mode, owner, extended attributes) and its **content**. Each facet carries the version
//! that last changed it; that version is the base of compare-and-set. The modification time belongs to the
//! content, because a chmod on one server must not collide with an edit on another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::content::ManifestId;
use crate::ids::{LinkId, NodeId, OperationId, ServerId, Timestamp, Version};
use crate::name::Name;

/// Extended attributes by their full name, ACLs among them.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The sort of a node. It never changes: a file that becomes a directory is another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// May hold other nodes.
    Directory,
    /// Bytes.
    File,
    /// A path that nobody here follows.
    Symlink,
}

/// Where a node hangs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: Name,
}

/// User or group: the name counts where the applying server knows it, else the number.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Principal {
    /// Numeric id on the server that observed it.
    pub id: u32,
    /// Account name there, if there was one.
    pub name: Option<String>,
}

/// Mode, owner and extended attributes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky (0o7777). Zero for symlinks, which have none of their own.
    pub mode: u32,
    /// Owner.
    pub user: Principal,
    /// Group.
    pub group: Principal,
    /// When the file was made, as a value: Linux cannot set it.
    pub born: Option<Timestamp>,
    /// `user.*`, POSIX ACLs and `security.NTACL`.
    pub xattrs: Xattrs,
}

/// What a node holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Content {
    /// A directory holds names, which are nodes of their own.
    Directory,
    /// A file's bytes.
    File(FileContent),
    /// A symlink's target.
    Symlink {
        /// As `readlink` returns it.
        target: Vec<u8>,
    },
}

/// A file's bytes, by reference.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FileContent {
    /// The list of chunks that makes the bytes.
    pub manifest: ManifestId,
    /// Length in bytes, holes included.
    pub size: u64,
    /// Modification time.
    pub modified: Timestamp,
    /// Set while the inode has more than one name; all its names share it.
    pub link: Option<LinkId>,
}

impl Content {
    /// The sort of node that can hold this.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Directory => Kind::Directory,
            Self::File(_) => Kind::File,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    /// The content of a file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&FileContent> {
        match self {
            Self::File(file) => Some(file),
            _ => None,
        }
    }

    /// Bytes that count against the share's quota.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.file().map_or(0, |file| file.size)
    }

    /// Whether a reader would see the same: the same bytes, whatever the times and the links.
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory, Self::Directory) => true,
            (Self::File(a), Self::File(b)) => a.manifest == b.manifest,
            (Self::Symlink { target: a }, Self::Symlink { target: b }) => a == b,
            _ => false,
        }
    }
}

/// The version that last changed each facet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Versions {
    /// When it was made or, after a delete, made again.
    pub created: Version,
    /// Parent and name.
    pub place: Version,
    /// Mode, owner, attributes.
    pub metadata: Version,
    /// Content.
    pub content: Version,
    /// The newest of all, deletes included: the node's place in the change feed.
    pub last: Version,
}

impl Versions {
    /// Whether each part is as new as in `former`. A node that is known by the answer to an own change may be newer in `last`
    /// and older in what was not changed.
    #[must_use]
    pub fn covers(&self, former: &Self) -> bool {
        let parts = |versions: &Self| [versions.created, versions.place, versions.metadata, versions.content, versions.last];
        parts(self).iter().zip(parts(former)).all(|(part, before)| *part >= before)
    }
}

/// A node as the share has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name for ever.
    pub id: NodeId,
    /// Where it hangs; for a deleted node, where it hung.
    pub place: Place,
    /// Mode, owner, attributes.
    pub metadata: Metadata,
    /// What it holds; for a deleted node, what it held.
    pub content: Content,
    /// What changed when.
    pub versions: Versions,
    /// Deleted: kept so that others learn of it, and as the base of bringing it back.
    pub deleted: bool,
    /// Set on a conflict copy until somebody renames it: the node that kept the name.
    pub conflict_of: Option<NodeId>,
    /// The server whose agent made this version.
    pub author: ServerId,
    /// The operation that made this version, so that a server knows its own work again.
    pub operation: OperationId,
}

impl Node {
    /// The sort of node.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.content.kind()
    }

    /// Live, that is not deleted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.deleted
    }
}
