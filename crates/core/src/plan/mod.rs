//! The planner: from three trees to what is to be done.
//!
//! A pure function. For each node it compares what is local and what is remote with what both last had in common,
//! facet by facet: whoever differs from the base has changed. Everything it returns can be performed in the order
//! in which it stands, and each step names what it expects to find, so that a step that comes too late does nothing.
//!
//! **Invariants:** planning again after everything succeeded plans nothing; a content that exists on one side only is
//! never overwritten or removed; where nothing is certain (a lost node, a node with work under way, a remote tree not
//! read to its head) nothing is planned.

mod collide;
mod conflict;
mod content;
mod create;
mod delete;
mod metadata;
mod place;
mod planner;
pub mod settle;
mod together;

pub use planner::plan;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, ServerId, Version};
use crate::name::{Case, Name};
use crate::namespace::Change;
use crate::node::{Content, FileContent, Metadata, Place};
use crate::trees::{Handle, Local, Print};

/// What the rules depend on besides the trees.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How the share compares names.
    pub case: Case,
    /// This server.
    pub server: ServerId,
    /// Names of the group's servers, for conflict copies.
    pub servers: BTreeMap<ServerId, String>,
    /// Who wins where nothing common is known.
    pub authority: Authority,
    /// With [`Authority::Server`]: what the share held up to this version is ruled over. What others made since is not.
    pub authority_until: Option<Version>,
    /// Deletes made here wait for an administrator.
    pub hold_local_deletes: bool,
    /// Deletes made in the share wait for an administrator.
    pub hold_remote_deletes: bool,
}

/// Who wins where a node has no common base yet (initial upload).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authority {
    /// Both sides are kept: equal contents merge, others become conflict copies.
    #[default]
    Merge,
    /// The server's tree is what the share becomes.
    Server,
}

impl Rules {
    /// Whether this server's tree decides about something that the share got at `version`.
    #[must_use]
    pub fn rules_over(&self, version: Version) -> bool {
        self.authority == Authority::Server && self.authority_until.is_some_and(|until| version <= until)
    }
}

/// What is to be done. Within each list, order is order of dependency.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Files to read: hash, and bring their chunks to the share.
    pub reads: Vec<NodeId>,
    /// Nodes whose history in the share may hold the base of the local content.
    pub searches: Vec<NodeId>,
    /// Changes to commit.
    pub intents: Vec<Intent>,
    /// Changes to make on this server.
    pub steps: Vec<Step>,
    /// What was found out and needs no deed.
    pub facts: Vec<Fact>,
    /// Nodes that cannot go on without an administrator or a user.
    pub troubles: Vec<(NodeId, Trouble)>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty()
            && self.searches.is_empty()
            && self.intents.is_empty()
            && self.steps.is_empty()
            && self.facts.is_empty()
    }

    /// Every node that the plan is about to touch.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let intents = self.intents.iter().flat_map(|intent| intent.changes.iter().map(Change::node));
        let steps = self.steps.iter().map(|step| step.node);
        self.reads.iter().chain(&self.searches).copied().chain(intents).chain(steps).collect()
    }
}

/// Changes that are committed together: alone, or all or none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// What to commit; more than one is a group.
    pub changes: Vec<Change>,
    /// When it is applied, the first node's local file becomes the second's: the losing version of a conflict.
    pub rebind: Option<(NodeId, NodeId)>,
}

/// What was found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// Local and remote are equal: that is the new base.
    Agree(NodeId),
    /// The base is void: what is gone on one side was changed on the other, and comes back.
    ForgetBase(NodeId),
    /// The first node, which only this server knows, is the second.
    Rebind(NodeId, NodeId),
    /// Nothing is left of the node.
    Forget(NodeId),
}

/// Why a node waits for somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Trouble {
    /// All names for conflict copies are taken.
    TooManyConflicts,
    /// A move put a directory below itself and was undone.
    MoveUndone,
    /// More names wait for each other than can change at once.
    TooManyTogether,
}

/// Where to find a directory on this server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Parent {
    /// By its inode.
    Inode(Handle),
    /// Made by an earlier step of the same plan.
    Planned(NodeId),
}

/// A name on this server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spot {
    /// The directory's node.
    pub node: NodeId,
    /// How to reach it.
    pub parent: Parent,
    /// The name in it.
    pub name: Name,
}

/// What a step expects to find before it changes anything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expected {
    /// Where.
    pub spot: Spot,
    /// Which inode.
    pub handle: Handle,
    /// In which state; a step that only moves or changes metadata compares the inode alone.
    pub print: Print,
}

/// A change to make on this server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The node that changes.
    pub node: NodeId,
    /// How.
    pub action: Action,
}

/// How a node changes on this server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Make it under a free name.
    Create {
        /// Where.
        at: Spot,
        /// What it holds.
        content: Content,
        /// Mode, owner, attributes.
        metadata: Metadata,
        /// A name of the inode that this becomes another name of.
        link_to: Option<Expected>,
    },
    /// Exchange a file's or symlink's content for another; the old inode goes.
    Replace {
        /// What is there.
        expected: Expected,
        /// What it becomes.
        content: Content,
        /// Mode, owner, attributes of the new inode.
        metadata: Metadata,
        /// A name of the inode that this becomes another name of.
        link_to: Option<Expected>,
    },
    /// Change metadata and, for a file, the modification time.
    SetMetadata {
        /// What is there.
        expected: Expected,
        /// What it becomes.
        metadata: Metadata,
        /// What the file system showed when this was planned; another state is a change by somebody else.
        before: Metadata,
        /// The share's metadata that it is, or was merged with: the new base.
        base: Metadata,
        /// The share's content, the same bytes with another modification time.
        content: Option<FileContent>,
    },
    /// Give it another name.
    Move {
        /// What is there.
        expected: Expected,
        /// The new name, which must be free.
        to: Spot,
        /// For a file that gives way: the node that keeps the name.
        conflict_of: Option<NodeId>,
    },
    /// Remove it; a directory must be empty.
    Remove {
        /// What is there.
        expected: Expected,
        /// The content that the share still holds as a revision.
        content: Content,
    },
}

impl Expected {
    /// What a step on a known local node expects.
    #[must_use]
    pub fn of(local: &Local, parent: Parent) -> Self {
        let spot = Spot { node: local.place.parent, parent, name: local.place.name.clone() };
        Self { spot, handle: local.handle.clone(), print: local.print }
    }
}

impl Spot {
    /// The place in terms of nodes.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { parent: self.node, name: self.name.clone() }
    }
}
