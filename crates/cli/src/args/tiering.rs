//! What an administrator says of tiering at an endpoint.

use clap::Args;
use isotherm_api::management::PolicyChange;

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
    /// Whether Windows clients see tiered files as offline, and make no thumbnails of them; for what is tiered from now on
    #[arg(long, value_name = "on|off", value_parser = parse_switch, group = "setting")]
    pub(crate) offline_attribute: Option<bool>,
    /// Pattern of what stays, such as *.lnk, or plans/current with all below it; repeat it for more. The given ones replace the
    /// earlier ones
    #[arg(long, value_name = "PATTERN", group = "setting")]
    pub(crate) keep: Vec<String>,
    /// No pattern keeps anything any more
    #[arg(long, conflicts_with = "keep", group = "setting")]
    pub(crate) keep_nothing: bool,
}

impl TieringSettings {
    pub(crate) fn policy(&self) -> PolicyChange {
        PolicyChange {
            free_percent: self.free_space,
            older_than_s: self.older_than,
            grace_s: self.grace,
            min_size: self.min_size,
            largest_percent: self.largest,
            offline_attribute: self.offline_attribute,
            keep: (self.keep_nothing || !self.keep.is_empty()).then(|| self.keep.clone()),
        }
    }
}

/// Whole percent.
fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim().parse::<u8>().ok().filter(|percent| *percent <= 100);
    number.ok_or_else(|| format!("`{text}` is not a whole percentage from 0% to 100%"))
}

fn parse_age(text: &str) -> Result<u64, String> {
    if text == "off" { Ok(0) } else { size::parse_span(text) }
}
