//! What becomes of programs that open tiered files, and of what they read.
//!
//! A program is known by the name that the kernel shows, which it can change: rules keep apart those who use files from those who only
//! look at them, and are no protection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exclude;

/// Longest name that the kernel shows, in bytes.
const NAME_MAX: usize = 15;

/// Programs that read files although nobody uses them: indexes of names and contents, previews, virus scanners, backups.
const LOOK_AT_EVERYTHING: &[&str] = &[
    "updatedb",
    "updatedb.plocat",
    "updatedb.mlocat",
    "mandb",
    "tracker-extract",
    "tracker-miner-f",
    "localsearch-3",
    "localsearch-ext",
    "baloo_file",
    "baloo_file_extr",
    "recollindex",
    "tumblerd",
    "ffmpegthumbnail",
    "gdk-pixbuf-thum",
    "evince-thumbnai",
    "totem-video-thu",
    "clamscan",
    "clamd",
    "clamdscan",
    "clamonacc",
    "freshclam",
    "rkhunter",
    "aide",
    "tripwire",
    "borg",
    "restic",
    "rsnapshot",
    "rdiff-backup",
    "duplicity",
    "bacula-fd",
    "bareos-fd",
    "amandad",
    "urbackupclientb",
    "dsmc",
    "kopia",
    "bup",
];

/// Programs that read of a large file what they show or list, and read it in the plain way: players, media servers, archives, and Samba,
/// whose clients may be any of these.
const READ_PARTS: &[&str] = &[
    "vlc",
    "mpv",
    "mplayer",
    "ffplay",
    "ffprobe",
    "mediainfo",
    "exiftool",
    "totem",
    "kodi.bin",
    "minidlnad",
    "jellyfin",
    "Plex Media Serv",
    "unzip",
    "zipinfo",
    "7z",
    "7za",
    "7zr",
    "7zz",
    "unrar",
    "smbd",
];

/// How a program is treated. The greatest of several that wait for a file counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// It gets no content of a tiered file: opening one fails.
    Deny,
    /// What it opens comes when nobody else waits, and what it reads is as cold as before.
    Slow,
    /// What it reads is as cold as before.
    Cold,
    /// As anybody who uses files.
    Allow,
    /// The same, and a large file that it opens for reading is shown to it while it comes.
    Stream,
}

/// One rule, in words `PROGRAM=TREATMENT` or `PROGRAM@USER=TREATMENT`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProgramRule {
    /// Pattern of its name; [`exclude::matches`].
    pub program: String,
    /// Number of the user whose rights it has; all without.
    pub user: Option<u32>,
    /// What becomes of it.
    pub treatment: Treatment,
}

/// Why a rule makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProgramRuleError {
    /// It has another form.
    #[error(
        "'{0}' is no rule for programs: write PROGRAM=TREATMENT or PROGRAM@USER=TREATMENT, such as restic=slow or *@1005=deny"
    )]
    Form(String),
    /// It would fit nothing.
    #[error("The kernel names programs by their first {NAME_MAX} bytes, and '{0}' is longer")]
    Long(String),
    /// No such word.
    #[error("'{0}' is no treatment: stream, allow, cold, slow, or deny")]
    Treatment(String),
    /// Names of users differ between servers.
    #[error("'{0}' is no number of a user")]
    User(String),
}

impl ProgramRule {
    fn fits(&self, program: &str, user: Option<u32>) -> bool {
        self.user.is_none_or(|wanted| user == Some(wanted)) && exclude::matches(self.program.as_bytes(), program.as_bytes())
    }
}

/// How a program of this name, which acts for this user, is treated by these rules: by the first that fits, else by what is known of
/// programs. One whose name cannot be seen, such as in a container with processes of its own, is allowed.
#[must_use]
pub fn treatment(rules: &[ProgramRule], program: &str, user: Option<u32>) -> Treatment {
    if program.is_empty() {
        return Treatment::Allow;
    }
    match rules.iter().find(|rule| rule.fits(program, user)) {
        Some(rule) => rule.treatment,
        None if LOOK_AT_EVERYTHING.contains(&program) => Treatment::Slow,
        None if READ_PARTS.contains(&program) => Treatment::Stream,
        None => Treatment::Allow,
    }
}

impl FromStr for ProgramRule {
    type Err = ProgramRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ProgramRuleError::Form(text.to_owned());
        let (who, word) = text.rsplit_once('=').ok_or_else(form)?;
        let (program, user) = match who.rsplit_once('@') {
            Some((program, user)) => (program, Some(user.parse().map_err(|_| ProgramRuleError::User(user.to_owned()))?)),
            None => (who, None),
        };
        if program.is_empty() {
            return Err(form());
        }
        if program.bytes().filter(|byte| *byte != b'*').count() > NAME_MAX {
            return Err(ProgramRuleError::Long(program.to_owned()));
        }
        let treatment = match word {
            "stream" => Treatment::Stream,
            "allow" => Treatment::Allow,
            "cold" => Treatment::Cold,
            "slow" => Treatment::Slow,
            "deny" => Treatment::Deny,
            other => return Err(ProgramRuleError::Treatment(other.to_owned())),
        };
        Ok(Self { program: program.to_owned(), user, treatment })
    }
}

impl fmt::Display for ProgramRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.treatment {
            Treatment::Stream => "stream",
            Treatment::Allow => "allow",
            Treatment::Cold => "cold",
            Treatment::Slow => "slow",
            Treatment::Deny => "deny",
        };
        match self.user {
            Some(user) => write!(f, "{}@{user}={word}", self.program),
            None => write!(f, "{}={word}", self.program),
        }
    }
}

impl TryFrom<String> for ProgramRule {
    type Error = ProgramRuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProgramRule> for String {
    fn from(rule: ProgramRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["restic=slow", "*@1005=deny", "smb*@0=cold", "clamd=allow", "a@b@7=deny", "x=y=cold", "mpv@1000=stream"] {
            assert_eq!(text.parse::<ProgramRule>().unwrap().to_string(), text);
        }
        for wrong in ["restic", "=deny", "@7=deny", "restic=fast", "restic@backup=slow", "sixteen-bytes-ab=cold", ""] {
            assert!(wrong.parse::<ProgramRule>().is_err(), "{wrong}");
        }
        assert!(
            "fifteen-bytes-a*=cold".parse::<ProgramRule>().is_ok() && "sixteen-bytes-ab*=cold".parse::<ProgramRule>().is_err()
        );
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_then_what_is_known() {
        let rules = ["clamd=allow", "*@1005=deny", "smbd=cold", "smb*=slow"].map(|text| text.parse().unwrap());
        let of = |program, user| treatment(&rules, program, user);
        assert_eq!(of("clamd", Some(1005)), Treatment::Allow);
        assert_eq!(
            (of("bash", Some(1005)), of("bash", Some(1)), of("bash", None)),
            (Treatment::Deny, Treatment::Allow, Treatment::Allow)
        );
        assert_eq!((of("smbd", None), of("SMBd-notifyd", None)), (Treatment::Cold, Treatment::Slow));
        assert_eq!((of("restic", None), of("clamscan", Some(1))), (Treatment::Slow, Treatment::Slow));
        assert_eq!(
            (of("mpv", Some(1)), of("unzip", None), of("cat", None)),
            (Treatment::Stream, Treatment::Stream, Treatment::Allow)
        );
        assert!(LOOK_AT_EVERYTHING.iter().chain(READ_PARTS).all(|name| name.len() <= NAME_MAX && !name.is_empty()));
    }
}
