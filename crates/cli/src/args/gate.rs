//! The gate and the volumes that it guards.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use isotherm_agent::control::{COUNT_MAX, DEPTH_MAX};
use isotherm_gate::link::{Guarding, RUN_FOLDER};

use super::{Format, Log, parse_switch};
use crate::size;

#[derive(Debug, Subcommand)]
pub(crate) enum GateCommand {
    /// Mounts the guarded volumes, and makes programs wait for the content of tiered files
    ///
    /// To be started before the agent. When it ends the volumes stay attached, and programs wait for the next gate; to
    /// detach them before the machine goes down there is `isotherm gate stop`.
    Run {
        /// Folder for the list of volumes; it is made where there is none
        #[arg(long, value_name = "DIR", default_value = "/var/lib/isotherm/gate")]
        state: PathBuf,
        #[command(flatten)]
        at: AtGate,
        #[command(flatten)]
        log: Log,
    },
    /// Holds what the gate holds once more, so that its death opens nothing; the gate starts it where it is missing
    Keep {
        #[command(flatten)]
        at: AtGate,
        #[command(flatten)]
        log: Log,
    },
    /// Detaches all guarded volumes and ends the gate
    ///
    /// Refused while programs use a volume.
    Stop {
        #[command(flatten)]
        at: AtGate,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AtGate {
    /// Folder of the sockets of gate and keeper; the same for gate, agent and commands
    #[arg(long, value_name = "DIR", default_value = RUN_FOLDER)]
    pub(crate) run: PathBuf,
}

/// A file or directory whose content is to go or to come.
#[derive(Debug, Args)]
pub(crate) struct Residency {
    /// The file, or a directory for all files below it
    pub(crate) path: PathBuf,
    /// State folder of the agent. Without it all agents of this machine are asked
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Arguments of `isotherm heat`.
#[derive(Debug, Args)]
pub(crate) struct Heat {
    /// A folder of an endpoint on a guarded volume
    pub(crate) path: PathBuf,
    /// Folders in folders; of each level the largest
    #[arg(long)]
    pub(crate) tree: bool,
    /// How many levels of folders
    #[arg(long, value_name = "LEVELS", default_value_t = 3, requires = "tree", value_parser = clap::value_parser!(u32).range(1..=DEPTH_MAX as i64))]
    pub(crate) depth: u32,
    /// What goes next by itself on the volume of the folder, what comes, and why
    #[arg(long, conflicts_with_all = ["tree", "csv"])]
    pub(crate) next: bool,
    /// How many of each are listed
    #[arg(long, value_name = "NUMBER", default_value_t = 20, requires = "next", value_parser = clap::value_parser!(u16).range(1..=COUNT_MAX as i64))]
    pub(crate) count: u16,
    /// A table for spreadsheets, with exact numbers, also of what --tree would leave out
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// State folder of the agent. Without it all agents of this machine are asked
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Arguments of `isotherm tier`.
#[derive(Debug, Args)]
pub(crate) struct Tier {
    #[command(flatten)]
    pub(crate) what: Residency,
    /// Only tell what would go, and what it would cost to have it again
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `isotherm recall`.
#[derive(Debug, Args)]
pub(crate) struct Recall {
    #[command(flatten)]
    pub(crate) what: Residency,
    /// Also files whose length was changed while they were tiered, such as by `truncate` over NFS: that is undone
    #[arg(long)]
    pub(crate) mend: bool,
    /// Only files whose name fits this pattern, such as *.dwg
    #[arg(long, value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
    /// How many files are asked for at a time, 1 to 64, each such part when the one before has come; fewer leave more of the line to
    /// others. At most nine are fetched at once while nobody waits for them
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: Option<u8>,
    /// In which order
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = RecallOrder::Tree)]
    pub(crate) order: RecallOrder,
}

/// In which order contents come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RecallOrder {
    /// Folder by folder, all of it
    Tree,
    /// As the endpoint's policy would keep them: the warmest first, and no more than fits without others having to go
    Policy,
}

/// Arguments of `isotherm pin`.
#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The file, or a directory for everything below it, also what comes later; without it what is pinned is listed
    pub(crate) path: Option<PathBuf>,
    /// State folder of the agent. Without it all agents of this machine are asked
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// [`Guarding`] as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GuardWord {
    /// Ask about tiered files alone while they fit into a tenth of the memory, else about all
    Auto,
    /// Ask about every file once: no memory for tiered files, and opening a file for the first time takes longer
    Filesystem,
    /// Ask about tiered files alone: all others are as fast as without a gate, and each tiered one takes 1.3 KB of memory
    Inode,
}

impl From<GuardWord> for Guarding {
    fn from(word: GuardWord) -> Self {
        match word {
            GuardWord::Auto => Self::Auto,
            GuardWord::Filesystem => Self::FileSystem,
            GuardWord::Inode => Self::Inode,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Mounts a volume, guards it, and attaches it at a folder, now and whenever the gate starts
    ///
    /// Only files on guarded volumes can be tiered. The volume must not stand in /etc/fstab.
    Add {
        /// The block device, with an ext4, XFS or btrfs of its own
        device: PathBuf,
        /// The folder where users see it
        path: PathBuf,
        /// Options of the mount, as in /etc/fstab
        #[arg(long, value_name = "OPTIONS", default_value = "noatime")]
        options: String,
        /// How its files are guarded
        #[arg(long, value_enum, default_value = "auto", value_name = "HOW")]
        guard: GuardWord,
        #[command(flatten)]
        at: AtGate,
    },
    /// The guarded volumes and their state
    ///
    /// Exit code 3 if one is not guarded, or has no agent.
    List {
        #[command(flatten)]
        at: AtGate,
        /// State folder of the agent. Without it all agents of this machine are asked
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Changes what the agent of this machine does with a volume; what is not named stays
    ///
    /// Needs an endpoint on the volume.
    Set {
        /// The folder where users see it
        path: PathBuf,
        /// Whether equal files, and equal parts of large ones, share their space; needs XFS with reflink=1, or btrfs. Whoever writes to
        /// one of them changes only that one. When it is off, what is shared stays so
        #[arg(long, value_name = "on|off", value_parser = parse_switch, required_unless_present = "dedup_after")]
        dedup: Option<bool>,
        /// Files share space once nobody has changed them for so long, such as 12h; a day without
        #[arg(long, value_name = "SPAN", value_parser = size::parse_span)]
        dedup_after: Option<u64>,
        /// State folder of the agent. Without it all agents of this machine are asked
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Detaches a volume and guards it no more
    ///
    /// Refused while programs use it. Tiered files of it read as zeros wherever it is mounted without a gate.
    Remove {
        /// The folder where users see it
        path: PathBuf,
        #[command(flatten)]
        at: AtGate,
    },
}
