//! All commands and options, defined once: parsing, help, the manual page and completions come from here.
//!
//! It parses what the user typed and resolves nothing: whether a group exists is the service's knowledge.
//!
//! **Invariant:** what is accepted here has the form that the API needs; a wrong form is a usage error (exit code 2).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isotherm_api::sync::InitialUpload;
use isotherm_core::name::Case;

mod gate;
mod machine;
mod revisions;
mod server;
mod service;
mod share_path;
mod tiering;

pub(crate) use gate::{AtGate, GateCommand, Heat, Pin, Recall, RecallOrder, Residency, Tier, VolumeCommand};
pub(crate) use machine::{Demo, Doctor};
pub(crate) use revisions::{Restore, RestoreOptions, Undelete, Undo, Versions};
pub(crate) use server::ServerCommand;
pub(crate) use service::ServiceCommand;
pub(crate) use share_path::SharePath;
pub(crate) use tiering::TieringSettings;

use crate::size;

/// Where the service listens when nothing else is said.
pub(crate) const SERVICE_URL: &str = "http://127.0.0.1:7811";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    finished, but there are problems or something is not in sync
  4    conflict or refused: the state does not allow it
  5    cannot reach the agent or the service
  130  interrupted";

/// Keeps folders the same on many Linux file servers.
#[derive(Debug, Parser)]
#[command(name = "isotherm", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Address of the service
    #[arg(long, global = true, env = "ISOTHERM_SERVICE", default_value = SERVICE_URL, value_name = "URL", hide_env_values = true, help_heading = "Connection")]
    pub(crate) service: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The service, which holds the shares
    #[command(subcommand)]
    Service(ServiceCommand),
    /// The agent, which keeps the folders of a server in sync
    #[command(subcommand)]
    Agent(AgentCommand),
    /// The gate, which makes programs wait for the content of tiered files
    #[command(subcommand)]
    Gate(GateCommand),
    /// Guarded volumes, on which files can be tiered
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Sync groups: one share, many folders
    #[command(subcommand)]
    Group(GroupCommand),
    /// Servers that run an agent
    #[command(subcommand)]
    Server(ServerCommand),
    /// Endpoints: folders of servers that belong to groups
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// What is in sync, what is not yet safe in the share, what is wrong
    ///
    /// Exit code 3 if there are problems, if an endpoint stands still, or if a server has not been heard of.
    Status(Format),
    /// Waits for a state
    ///
    /// Exit code 3 with the list of what is missing when the time is up.
    Wait(Wait),
    /// What is known of one file on this server
    #[command(subcommand)]
    File(FileCommand),
    /// Gives up the local content of files that are safe in the share; it comes back when somebody opens them
    ///
    /// Files that are open, not in the share yet, small, or have several names stay whole. Exit code 3 if one was left alone
    /// that could be tiered later.
    Tier(Tier),
    /// How warm the contents below a folder are: what was used when, and what is tiered
    Heat(Heat),
    /// Why the content of a file is here or in the share only: what made it so, what becomes of it, and what happened to it
    ///
    /// Of a directory: how much below it is tiered, and what happened there lately.
    Why(Residency),
    /// Brings the content of tiered files back
    ///
    /// Exit code 3 if the content of one did not come.
    Recall(Recall),
    /// Keeps content on this server: brings it here, and lets nothing of it go, whatever the volume needs
    ///
    /// Of a directory also what comes later. Exit code 3 if the content of a file did not come; with tiering on it is tried again by itself.
    Pin(Pin),
    /// Lets pinned content go again when a policy says so; until then it stays
    Unpin(Residency),
    /// What a path of a share has been: its versions, also of deleted files
    Versions(Versions),
    /// Brings a file or a whole directory back to what it was at a moment
    ///
    /// What was deleted or changed since comes back; what was made since stays, unless --exact says otherwise. What a
    /// restore replaces can be restored itself. Exit code 3 if something was left alone.
    Restore(Restore),
    /// Brings back what was deleted, a directory with what was deleted with it
    Undelete(Undelete),
    /// Undoes what one server did in a span of time, such as an encryption by malware
    ///
    /// What somebody else has changed since is left alone and listed. Exit code 3 if there is any such.
    Undo(Undo),
    /// Conflict copies that nobody has dealt with
    ///
    /// Exit code 3 if there are any.
    Conflicts(OfGroup),
    /// What failed, why, and what to do
    ///
    /// Exit code 3 if there are any.
    Problems(OfGroup),
    /// What this machine can and cannot do
    ///
    /// Exit code 3 if something needs attention.
    Doctor(Doctor),
    /// A service and two servers on this machine, to try it out
    Demo(Demo),
    /// Prints the manual page
    #[command(hide = true)]
    Man,
    /// Prints completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How much the log says.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    /// What somebody must act on
    Error,
    /// And what is not as it should be, but mends itself
    Warn,
    /// And what happens
    Info,
    /// And why
    Debug,
    /// And everything else
    Trace,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// How much to log on standard error
    #[arg(long, value_enum, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: LogLevel,
}

// No doc comment: clap would take it for the text of each command that is only this.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OfGroup {
    /// Only this group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Runs the agent of this server until it is told to stop
    Run {
        /// Folder for what the agent remembers; it is made where there is none
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Name of this server; it stands in the names of conflict copies
        #[arg(long)]
        name: String,
        #[command(flatten)]
        at: AtGate,
        #[command(flatten)]
        log: Log,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Makes a sync group with an empty share
    Create {
        /// Its name
        name: String,
        /// Whether names differ by case; it cannot be changed later
        #[arg(long, value_enum, default_value = "sensitive")]
        case: CaseWord,
        #[command(flatten)]
        settings: GroupSettings,
        #[command(flatten)]
        format: Format,
    },
    /// All groups
    List(Format),
    /// One group: settings, size, endpoints
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Changes settings; what is not named stays
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: GroupSettings,
        /// Drops all exclusions of the group
        #[arg(long, conflicts_with = "exclude")]
        no_exclusions: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Deletes a group that has no endpoints, with its share and all old versions
    ///
    /// The folders on servers keep their files.
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Default, Args)]
pub(crate) struct GroupSettings {
    /// Most bytes of all live files, such as 500GiB; `none` for no limit
    #[arg(long, value_name = "SIZE", value_parser = size::parse_quota)]
    pub(crate) quota: Option<isotherm_api::management::Quota>,
    /// Pattern of what is not synced; repeat it for more. The given ones replace the earlier ones
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Part of all files that may be deleted at once without a confirmation, such as 25%; 20 deletes are always free, and with
    /// 100% all are
    #[arg(long, value_name = "PERCENT", value_parser = size::parse_percent)]
    pub(crate) delete_limit: Option<f64>,
    /// Days after which versions that were replaced or deleted may go; 30 if nothing is said
    #[arg(long, value_name = "DAYS")]
    pub(crate) keep_days: Option<u32>,
    /// So many versions of each file stay however old they are
    #[arg(long, value_name = "NUMBER")]
    pub(crate) keep_versions: Option<u32>,
    /// Keep every version, whatever its age, until this is `off`
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub(crate) hold: Option<bool>,
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("say `on` or `off`".to_owned()),
    }
}

/// [`Case`] as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CaseWord {
    /// As Linux does
    Sensitive,
    /// As Windows clients expect
    Insensitive,
}

impl From<CaseWord> for Case {
    fn from(word: CaseWord) -> Self {
        match word {
            CaseWord::Sensitive => Self::Sensitive,
            CaseWord::Insensitive => Self::Insensitive,
        }
    }
}

/// [`InitialUpload`] as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum InitialUploadWord {
    /// Keep both sides
    Merge,
    /// The folder is the truth: what only the share has goes
    Authoritative,
}

impl From<InitialUploadWord> for InitialUpload {
    fn from(word: InitialUploadWord) -> Self {
        match word {
            InitialUploadWord::Merge => Self::Merge,
            InitialUploadWord::Authoritative => Self::Authoritative,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OneEndpoint {
    /// Its id, or as many of its first digits as make it unique
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Makes a folder of a server part of a group
    #[command(group = clap::ArgGroup::new("setting").multiple(true))]
    Create {
        /// Name of the group
        #[arg(long, value_name = "NAME")]
        group: String,
        /// Name of the server
        #[arg(long, value_name = "NAME")]
        server: String,
        /// The folder, as an absolute path on that server
        #[arg(long, value_name = "DIR")]
        path: String,
        /// How the folder's first content meets the share's
        #[arg(long, value_enum, default_value = "merge", value_name = "HOW")]
        initial_upload: InitialUploadWord,
        #[command(flatten)]
        tiering: Box<TieringSettings>,
        #[command(flatten)]
        format: Format,
    },
    /// All endpoints and their state
    List(OfGroup),
    /// One endpoint in detail
    Show(OneEndpoint),
    /// Changes settings; what is not named stays
    #[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
    #[command(override_usage = "isotherm endpoint set [OPTIONS] <ID>")]
    Set {
        #[command(flatten)]
        endpoint: OneEndpoint,
        /// How the folder's first content meets the share's; without effect once they have met
        #[arg(long, value_enum, value_name = "HOW", group = "setting")]
        initial_upload: Option<InitialUploadWord>,
        #[command(flatten)]
        tiering: Box<TieringSettings>,
    },
    /// Stops syncing it, keeps what is known
    Pause(OneEndpoint),
    /// Goes on
    Resume(OneEndpoint),
    /// Takes the folder out of the group; its files stay where they are
    ///
    /// An endpoint with tiered files stays until their content is here, or --leave-stubs says that it need not be.
    Delete {
        #[command(flatten)]
        endpoint: OneEndpoint,
        /// Do not wait for its server to let go, because that server will not come back
        #[arg(long, conflicts_with_all = ["recall", "leave_stubs"])]
        forget: bool,
        /// Bring the content of its tiered files back first
        #[arg(long, conflicts_with = "leave_stubs")]
        recall: bool,
        /// Leave its tiered files without their content, for another endpoint of the group on the same folder
        #[arg(long)]
        leave_stubs: bool,
    },
    /// Lets the deletes go on that wait because they are many
    ConfirmDeletes(OneEndpoint),
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("state").required(true))]
pub(crate) struct Wait {
    /// Until everything that was written before now is the same everywhere
    #[arg(long, group = "state")]
    pub(crate) synced: bool,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) of: OfGroup,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Its state here and in the share
    Show {
        /// The file, directory or symlink
        path: PathBuf,
        /// State folder of the agent. Without it all agents of this machine are asked whose sockets are at
        /// /run/isotherm/control.sock, /var/lib/isotherm/control.sock or one folder below these
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    /// Every command, as the path of words a user types.
    fn each_command(command: &mut clap::Command, path: &str, visit: &mut dyn FnMut(&str, &mut clap::Command)) {
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            visit(&path, sub);
            each_command(sub, &path, visit);
        }
    }

    #[test]
    fn every_command_says_what_it_does() {
        let mut command = Arguments::command();
        command.build();
        let mut seen = 0;
        each_command(&mut command, "isotherm", &mut |path, sub| {
            seen += 1;
            assert!(sub.get_about().is_some(), "{path}");
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {argument}");
            }
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Usage:"), "{path}: {help}");
        });
        assert!(seen >= 28, "{seen} commands");
    }

    #[test]
    fn every_listing_has_json() {
        let mut command = Arguments::command();
        command.build();
        each_command(&mut command, "isotherm", &mut |path, sub| {
            let is_listing = ["list", "show", "status", "wait", "conflicts", "problems", "doctor", "demo"];
            if is_listing.contains(&sub.get_name()) {
                assert!(sub.get_arguments().any(|argument| argument.get_id() == "json"), "{path}");
            }
        });
    }

    #[test]
    fn wrong_usage_is_refused() {
        for bad in [
            &["isotherm"][..],
            &["isotherm", "wait"],
            &["isotherm", "group", "set", "a", "--quota", "many"],
            &["isotherm", "group", "set", "a", "--delete-limit", "101%"],
            &["isotherm", "group", "set", "a", "--exclude", "x", "--no-exclusions"],
            &["isotherm", "service", "run", "--data", "d", "--listen", "here"],
            &["isotherm", "endpoint", "show"],
        ] {
            assert!(Arguments::try_parse_from(bad).is_err(), "{bad:?}");
        }
        let good =
            Arguments::try_parse_from(["isotherm", "agent", "run", "--state", "s", "--service", "http://x", "--name", "n"]);
        assert_eq!(good.unwrap().service, "http://x");
    }
}
