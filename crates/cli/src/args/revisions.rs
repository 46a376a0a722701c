//! Options of the commands about what was.

use clap::Args;

use super::{Format, SharePath};
use crate::moment;

#[derive(Debug, Args)]
pub(crate) struct Versions {
    /// Path in the share, such as `plans/house.dwg`
    #[arg(value_parser = SharePath::parser())]
    pub(crate) path: SharePath,
    /// The group; needed if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreOptions {
    /// The group; needed if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Only show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Path in the share, as it is or was; `/` for everything
    #[arg(value_parser = SharePath::parser())]
    pub(crate) path: SharePath,
    /// The moment, such as `2026-03-29 14:30` or an age such as `2h`
    #[arg(long, value_name = "TIME", value_parser = moment::parse, conflicts_with = "version")]
    pub(crate) as_of: Option<u64>,
    /// A version of `isotherm versions`
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u64>,
    /// Makes a new file of that version here, and leaves the present one alone
    #[arg(long, value_name = "PATH", value_parser = SharePath::parser(), conflicts_with_all = ["exact", "dry_run"])]
    pub(crate) to: Option<SharePath>,
    /// Also delete what was made since
    #[arg(long)]
    pub(crate) exact: bool,
    #[command(flatten)]
    pub(crate) options: RestoreOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Undelete {
    /// Path in the share that was deleted
    #[arg(value_parser = SharePath::parser())]
    pub(crate) path: SharePath,
    #[command(flatten)]
    pub(crate) options: RestoreOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The server whose changes are undone
    #[arg(long, value_name = "NAME")]
    pub(crate) server: String,
    /// Since when, such as `2026-03-29 14:30` or an age such as `2h`
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub(crate) from: u64,
    /// Until when; without it until now
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub(crate) until: Option<u64>,
    /// Only this path of the share and what is below it
    #[arg(long, value_name = "PATH", value_parser = SharePath::parser())]
    pub(crate) path: Option<SharePath>,
    #[command(flatten)]
    pub(crate) options: RestoreOptions,
}
