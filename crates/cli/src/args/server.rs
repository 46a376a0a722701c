//! Servers and the limits of their traffic.

use clap::Subcommand;
use isotherm_core::bandwidth::Limit;

use super::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// The servers that ever connected, when they were last heard of, and what limits their traffic
    List(Format),
    /// Changes settings
    #[command(group = clap::ArgGroup::new("setting").required(true))]
    #[command(override_usage = "isotherm server set [OPTIONS] <NAME>")]
    Set {
        /// Name of the server
        name: String,
        /// What the server may send to the service or get from it, such as down=20MiB/s, up=5MiB/s,mon-fri,08:00-18:00 or
        /// both=1MiB/s,22:00-06:00: `up`, `down`, or `both`, each for itself; then days and hours, by the server's clock, if it is not always.
        /// Whoever waits for the content of a file that he opens does not wait for a limit that does not say `demand`, as in
        /// down=2MiB/s,demand. Repeat it for more; the strictest that fits the moment counts, and the given ones replace the earlier ones
        #[arg(long = "limit", value_name = "RULE", group = "setting")]
        limits: Vec<Limit>,
        /// No limits any more
        #[arg(long, conflicts_with = "limits", group = "setting")]
        no_limits: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Forgets a server that has no endpoints, so that another one may have its name
    ///
    /// For a server that was rebuilt without its old `--state` folder.
    Delete {
        /// Name of the server
        name: String,
    },
}
