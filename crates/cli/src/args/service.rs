//! Commands of the machine that the service runs on, and the check of what it keeps.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;

use super::{Format, Log};

/// The default of `--service` as an address to listen on.
const LISTEN: &str = "127.0.0.1:7811";

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Runs the service until it is told to stop
    ///
    /// The first line on standard output is `listening on URL`.
    Run {
        /// Folder for records and content; it is made where there is none
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Address and port to listen on; port 0 takes a free one. Only addresses of this machine
        #[arg(long, value_name = "ADDR", default_value = LISTEN)]
        listen: SocketAddr,
        #[command(flatten)]
        log: Log,
    },
    /// Copies the data folder of a service, which may be running
    ///
    /// A second backup into the same folder copies only what is new. To put it back, stop the service and give it a copy of
    /// the backup as its data folder. Exit code 3 if content is missing or damaged.
    Backup {
        /// The service's data folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Folder for the backup: empty, or that of an earlier one
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Also read what earlier backups have copied there, and copy again what is damaged
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Checks that everything the running service names is there
    ///
    /// Damaged content is listed with the files that it belongs to, and servers that have it send it again. Exit code 3 if
    /// there is any.
    Check {
        /// Also read every stored byte
        #[arg(long)]
        deep: bool,
        /// Also delete packs that no record names, if a check a day or more ago saw them already
        #[arg(long)]
        delete_strays: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Collects garbage in the running service: old versions that are not kept any longer, and what nothing names any more
    ///
    /// The service does so by itself every six hours. After a backup was put back it waits until every server has offered what
    /// it has.
    Gc {
        /// Do not wait for servers that have not come back since a backup was put back. What only they know of may be lost
        #[arg(long)]
        waive: bool,
        #[command(flatten)]
        format: Format,
    },
}
