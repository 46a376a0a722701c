//! What an administrator says of tiering at an endpoint.

use clap::{Args, ValueEnum};
use isotherm_api::management::PolicyChange;
use isotherm_core::tiering::{Download, Initial, ProgramRule};

use super::parse_switch;
use crate::size;

#[derive(Debug, Default, Args)]
pub(crate) struct TieringSettings {
    /// Whether what others bring comes without its content, until somebody opens it, and cold contents go when room is needed; needs a
    /// guarded volume. When it is off, what is tiered stays so until somebody opens it
    #[arg(long, value_name = "on|off", value_parser = parse_switch, group = "setting")]
    pub(crate) tiering: Option<bool>,
    /// Part of the volume that is to stay free, such as 20%: contents go, the coldest first. Of several endpoints on a volume the
    /// largest counts
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, group = "setting")]
    pub(crate) free_space: Option<u8>,
    /// Contents that nobody has used for so long go, such as 30d, whether there is room or not; `off` for never
    #[arg(long, value_name = "SPAN", value_parser = parse_age, group = "setting")]
    pub(crate) older_than: Option<u64>,
    /// Contents that came, or were changed, less than so long ago stay, such as 10m, unless the volume runs low
    #[arg(long, value_name = "SPAN", value_parser = size::parse_span, group = "setting")]
    pub(crate) grace: Option<u64>,
    /// Smaller files stay, such as 64KiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse, group = "setting")]
    pub(crate) min_size: Option<u64>,
    /// A content that takes more than this part of the room for contents goes before all others, such as 50%
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, group = "setting")]
    pub(crate) largest: Option<u8>,
    /// Which contents come by themselves: `current` keeps those current that are here, `on-demand` waits until somebody opens the file
    /// even then, and `proactive` has all come that is new or changed, while there is room
    #[arg(long, value_name = "MODE", value_enum, group = "setting")]
    pub(crate) download: Option<DownloadMode>,
    /// What comes of the files that the share has when the endpoint begins: their `namespace` alone, then their `content` too while
    /// there is room, the warmest first, or `whole` files from the start
    #[arg(long, value_name = "WHAT", value_enum, group = "setting")]
    pub(crate) initial: Option<InitialMode>,
    /// Programs that stream need not wait for all of a file of this size and more, such as 64MiB; `off` if they are to wait for every file
    #[arg(long, value_name = "SIZE", value_parser = parse_stream, group = "setting")]
    pub(crate) stream_from: Option<u64>,
    /// Whether Windows clients see tiered files as offline, and make no thumbnails of them; for what is tiered from now on
    #[arg(long, value_name = "on|off", value_parser = parse_switch, group = "setting")]
    pub(crate) offline_attribute: Option<bool>,
    /// Pattern of what stays, such as *.lnk, or plans/current with all below it; repeat it for more. The given ones replace the
    /// earlier ones
    #[arg(long, value_name = "PATTERN", group = "setting")]
    pub(crate) keep: Vec<String>,
    /// How a program is treated that opens tiered files, as PROGRAM=TREATMENT or PROGRAM@USER=TREATMENT, with the name as the kernel shows it
    /// and the number of a user: `deny` fails the opening, `slow` has content come when nobody else waits, `cold` counts reading for
    /// nothing, which `slow` does too, `stream` lets it read a large file while it comes, and `allow` is for everybody else. Repeat it; the
    /// first that fits counts, and the given ones replace the earlier ones. Without a rule known indexers, scanners and backups are slow, and
    /// known players, programs for archives, and Samba stream
    #[arg(long = "program", value_name = "RULE", group = "setting")]
    pub(crate) programs: Vec<ProgramRule>,
    /// No rules for programs any more
    #[arg(long, conflicts_with = "programs", group = "setting")]
    pub(crate) no_programs: bool,
    /// No pattern keeps anything any more
    #[arg(long, conflicts_with = "keep", group = "setting")]
    pub(crate) keep_nothing: bool,
}

/// [`Download`] as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DownloadMode {
    Current,
    OnDemand,
    Proactive,
}

impl From<DownloadMode> for Download {
    fn from(mode: DownloadMode) -> Self {
        match mode {
            DownloadMode::Current => Self::Current,
            DownloadMode::OnDemand => Self::OnDemand,
            DownloadMode::Proactive => Self::Proactive,
        }
    }
}

/// [`Initial`] as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum InitialMode {
    Namespace,
    Content,
    Whole,
}

impl From<InitialMode> for Initial {
    fn from(mode: InitialMode) -> Self {
        match mode {
            InitialMode::Namespace => Self::Namespace,
            InitialMode::Content => Self::Content,
            InitialMode::Whole => Self::Whole,
        }
    }
}

impl TieringSettings {
    pub(crate) fn policy(&self) -> PolicyChange {
        PolicyChange {
            free_percent: self.free_space,
            older_than_s: self.older_than,
            grace_s: self.grace,
            min_size: self.min_size,
            largest_percent: self.largest,
            download: self.download.map(Into::into),
            initial: self.initial.map(Into::into),
            stream_from: self.stream_from,
            offline_attribute: self.offline_attribute,
            programs: (self.no_programs || !self.programs.is_empty()).then(|| self.programs.clone()),
            keep: (self.keep_nothing || !self.keep.is_empty()).then(|| self.keep.clone()),
        }
    }
}

/// Whole percent.
fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim().parse::<u8>().ok().filter(|percent| *percent <= 100);
    number.ok_or_else(|| format!("`{text}` is not a whole percentage from 0% to 100%"))
}

fn parse_stream(text: &str) -> Result<u64, String> {
    if text == "off" { Ok(0) } else { size::parse(text) }
}

fn parse_age(text: &str) -> Result<u64, String> {
    if text == "off" { Ok(0) } else { size::parse_span(text) }
}
