//! Looking at a machine, and trying the product out on it.

use std::path::PathBuf;

use clap::Args;
use isotherm_gate::link::RUN_FOLDER;

use super::Format;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A folder to look at; repeat it for more. Without it the endpoints of this machine's agents
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Vec<PathBuf>,
    /// State folder of the agent
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Folder of the gate's sockets
    #[arg(long, value_name = "DIR", default_value = RUN_FOLDER)]
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Folder for everything the demo makes; started again on it, the demo goes on where it was
    #[arg(long, value_name = "DIR", default_value = "isotherm-demo")]
    pub(crate) dir: PathBuf,
    /// Sync alone, on plain folders, also where contents could be tiered
    #[arg(long)]
    pub(crate) plain: bool,
    /// How much the drawings are together that are made on the first start, where contents are tiered. Each server has a volume of
    /// 512 MiB
    #[arg(long, value_name = "SIZE", default_value = "1.5GiB", value_parser = crate::size::parse, conflicts_with = "plain")]
    pub(crate) drawings: u64,
    /// One JSON object a line for each event
    #[arg(long)]
    pub(crate) json: bool,
}
