//! Everything the engine reacts to, and everything it asks for. Two closed enums: their variants are the list of what
//! an agent does. Both carry batches.

use std::collections::{BTreeMap, BTreeSet};

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{Cursor, NodeId, ServerId, Version};
use isotherm_core::name::Name;
use isotherm_core::namespace::{Answer, History, Operation, Page, Reader};
use isotherm_core::node::{FileContent, Metadata, Node};
use isotherm_core::observe::{Evidence, Listing, Liveness};
use isotherm_core::plan::Step;
use isotherm_core::tiering::Policy;
use isotherm_core::trees::{Handle, Print};

/// Milliseconds of a clock that never goes back. Only differences mean anything.
pub type Millis = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passed. The engine says when it wants to be told ([`super::Engine::next_tick`]).
    Tick,
    /// The watch saw something under these names.
    Changed(Vec<Changed>),
    /// The watch lost events, or says nothing about the time before: everything has to be looked at.
    ScanNeeded,
    /// The watch's queue was empty at some moment after it was asked.
    Drained,
    /// Names and directories were looked at.
    Looked(Vec<Look>),
    /// The content of these inodes came or went, by the agent's own doing: they show other times, and hold what they held.
    Touched(Vec<Handle>),
    /// The content of this inode cannot be had; in a user's words.
    NotRecalled(Handle, String),
    /// Inodes were looked for.
    Probed(Vec<(NodeId, Liveness)>),
    /// A page of the change feed.
    Page(Result<Page, Away>),
    /// A piece of a snapshot listing.
    Snapshot(Result<SnapshotPart, Away>),
    /// Files were read and what the share lacked of them was sent.
    Read(Vec<(NodeId, ReadResult)>),
    /// A batch was answered, in its order.
    Answered(Result<Vec<Answer>, Away>),
    /// Manifests that nodes had in the share, newest first.
    Histories(Result<Vec<(NodeId, Vec<ManifestId>)>, Away>),
    /// Steps were performed, each with its result.
    Performed(Vec<(Step, StepResult)>),
    /// An administrator, or the service in his name, wants something.
    Command(Command),
}

/// What an administrator can ask of a running engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say when everything that had happened here before this is agreed on: `barrier` in the status.
    Barrier(u64),
    /// Go on with the deletes that were held back.
    ConfirmDeletes,
    /// Observe, but change nothing on either side.
    Pause,
    /// Go on.
    Resume,
    /// Names of the group's servers have changed.
    Servers(BTreeMap<ServerId, String>),
    /// What comes and goes by itself, if anything does.
    Tiers(Option<Policy>),
    /// What comes is limited, to so many bytes in a while: contents are fetched apart from everything else, as much at a time.
    Limited(Option<u64>),
    /// The content of a node, and of everything below it, is to stay here; or not any more.
    Pin(NodeId, bool),
    /// The contents of these nodes need not come by themselves any more, as long as their inodes are these (none: as long as they are
    /// not here).
    NotComing(Vec<(NodeId, Option<Handle>)>),
}

/// Something to do. Each effect but `BringBack` is answered by exactly one event of the same name, unless the agent stops.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Look at names or directories: [`Event::Looked`].
    Look(Vec<LookRequest>),
    /// Ask for inodes: [`Event::Probed`].
    Probe(Vec<(NodeId, Handle)>),
    /// Bring these contents back, which have left the endpoint: [`Event::Touched`] or [`Event::NotRecalled`], in its time, or
    /// nothing where nobody can.
    BringBack(Vec<Handle>),
    /// Say when the watch's queue was empty: [`Event::Drained`].
    Drain,
    /// Read the change feed; with `wait`, until there is something: [`Event::Page`].
    Fetch {
        /// From where, and what is known already.
        reader: Reader,
        /// Wait for a change instead of answering an empty page.
        wait: bool,
    },
    /// Read a snapshot listing, one event a piece, the last one `complete`: [`Event::Snapshot`].
    FetchSnapshot,
    /// Hash files and send what the share lacks: [`Event::Read`].
    Read(Vec<ReadRequest>),
    /// Commit operations, stored before: [`Event::Answered`].
    Commit(Vec<Operation>),
    /// Ask for former contents: [`Event::Histories`].
    History(Vec<NodeId>),
    /// Change this server, in this order: [`Event::Performed`].
    Perform(Vec<Step>),
}

/// The service cannot be reached, or cannot answer now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// In a user's words.
    pub text: String,
    /// Whether trying again later can help; otherwise an administrator has to act.
    pub retry: bool,
}

/// A name that something happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The directory's inode.
    pub directory: Handle,
    /// The name, or none for the directory itself.
    pub name: Option<Name>,
    /// The inode that it happened to, where the kernel said so.
    pub target: Option<Handle>,
    /// The bytes may have changed: written, mapped, truncated, or closed by a writer.
    pub written: bool,
}

/// Which names to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookRequest {
    /// The directory's node.
    pub directory: NodeId,
    /// Its inode.
    pub handle: Handle,
    /// None: the whole directory, to its end.
    pub names: Option<Vec<(Name, Evidence)>>,
    /// What is known of writes for names that are not listed above.
    pub evidence: Evidence,
    /// Read metadata even where the print is the recorded one.
    pub full: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The request.
    pub directory: NodeId,
    /// The listing; none if the directory could not be read to its end.
    pub listing: Option<Listing>,
    /// Names that cannot take part: special files, other devices, names that could not be read.
    pub unfit: Vec<(Option<Name>, Unfit)>,
    /// Files whose content is away and was not when they were last looked at, or the other way round.
    pub moved: Vec<(Handle, bool)>,
}

/// Why a name does not take part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// A device, socket or pipe.
    Special,
    /// Another file system is mounted here.
    OtherDevice,
    /// The kernel's words.
    Unreadable(String),
}

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The node.
    pub node: NodeId,
    /// Its inode.
    pub handle: Handle,
    /// Its size when it was last looked at, for planning.
    pub size: u64,
    /// How often it changed while it was read: after three times a snapshot is taken, or the prefix if it only grew.
    pub tries: u32,
}

/// What reading a file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// All content is in the share.
    Content {
        /// Manifest, size, time; the link is the engine's business.
        content: FileContent,
        /// The inode's state that the content belongs to; if it has moved on, the watch will say so.
        print: Print,
    },
    /// It changed while it was read.
    Changed,
    /// It is not there any more.
    Gone,
    /// The service is away.
    Away(Away),
    /// It cannot be read; the user's words.
    Failed(String),
    /// It was changed while its content was not here; the user's words.
    Spoilt(String),
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotPart {
    /// On the first piece: the lives of the share, and its head.
    pub history: Option<(History, Version)>,
    /// Live nodes, parents first.
    pub nodes: Vec<Node>,
    /// On the last piece: the position that the snapshot stands for.
    pub complete: Option<Cursor>,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Done, durably. What the file system shows now; none after a removal.
    Done(Option<After>),
    /// What the step expected is not there: somebody was faster. Nothing was changed.
    Surprise,
    /// The name is taken by something else. Nothing was changed.
    Occupied,
    /// Somebody has the file open for writing. Nothing was changed.
    Busy,
    /// An earlier step that this one builds on was not done.
    Skipped,
    /// The content could not be fetched.
    Away(Away),
    /// It cannot be done; the user's words and the remedy.
    Failed {
        /// What went wrong.
        text: String,
        /// What to do about it.
        remedy: String,
    },
}

/// What the file system shows after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The inode.
    pub handle: Handle,
    /// Its state right after the step's own changes; newer only if nobody else has changed anything since. For a move
    /// of something that had changed since it was planned for: the print that was planned on, so that the change is found.
    pub print: Print,
    /// Its metadata as it is shown, which may not be all that was asked for.
    pub shown: Metadata,
    /// Whether its content is away, where that was looked at.
    pub is_tiered: Option<bool>,
}

/// Names by directory, for requests.
pub type Names = BTreeSet<Name>;
