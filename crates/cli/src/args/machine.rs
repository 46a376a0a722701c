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
    /// One JSON object a line for each event
    #[arg(long)]
    pub(crate) json: bool,
}
