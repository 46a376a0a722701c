//! Why a command did not do what was asked: exit code, reason, and what to do.
//!
//! It does not print; `main` does, in one place. The table from the API's error codes to exit codes is here.
//!
//! **Invariant:** every failure has an exit code that is documented in the help, and never 0.

use std::fmt;
use std::path::Path;

use isotherm_api::{ApiError, Code};

/// The exit codes; documented in help, manual page and manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Problems = 3,
    Refused = 4,
    Unreachable = 5,
    Interrupted = 130,
}

/// A failure as it is shown: `isotherm: WHAT: WHY`, and the remedy on a line of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) why: String,
    pub(crate) remedy: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, why: impl Into<String>) -> Self {
        Self { exit, why: why.into(), remedy: None }
    }

    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::new(Exit::Failed, why)
    }

    pub(crate) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// A failure of the system about a path.
    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::failed(format!("Cannot {what} {}: {error}", show_path(path)))
    }

    /// Somebody pressed Ctrl-C; there is nothing to say.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "")
    }
}

/// A path for people.
pub(crate) fn show_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    isotherm_core::name::escape(path.as_os_str().as_bytes()).into_owned()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let (exit, remedy) = match error.code {
            Code::NotFound => (Exit::Failed, Some(of_missing(&error.message))),
            code => of_code(code),
        };
        Self { exit, why: error.message, remedy: remedy.map(str::to_owned) }
    }
}

impl From<std::io::Error> for Failure {
    /// For what is written to standard output: everything else names its path.
    fn from(error: std::io::Error) -> Self {
        Self::failed(format!("Cannot write to standard output: {error}"))
    }
}

/// One line for each code, so that a new code is a decision.
fn of_code(code: Code) -> (Exit, Option<&'static str>) {
    match code {
        Code::Invalid => (Exit::Usage, None),
        Code::NotFound => (Exit::Failed, None),
        Code::Exists => (Exit::Refused, Some("Choose another name, or use the one that is there")),
        Code::Overlap => (Exit::Refused, Some("Give folders that do not lie inside each other")),
        Code::InUse => (Exit::Refused, Some("Delete the endpoints that use it first")),
        Code::Fenced => (Exit::Refused, Some("Stop the other agent that runs as this server")),
        Code::Limit | Code::Denied | Code::IsDirectory | Code::NotAFile | Code::Range | Code::TooLarge => (Exit::Refused, None),
        Code::Unreachable => {
            (Exit::Unreachable, Some("Check that the service runs, and that --service or ISOTHERM_SERVICE is its address"))
        }
        Code::Unavailable => (Exit::Unreachable, Some("Try again; if it stays so, look at the service's log")),
        Code::Protocol => (Exit::Failed, Some("Install the same release of Isotherm everywhere")),
        Code::NoRoute | Code::Answer | Code::Decode => {
            (Exit::Failed, Some("Check that the address is that of an Isotherm service of this release"))
        }
        Code::Full => (Exit::Failed, Some("Free space where the service keeps its data")),
        Code::Corrupt => (Exit::Failed, Some("Look at the service's log, and check its disk")),
        Code::Internal => (Exit::Failed, Some("Look at the service's log")),
    }
}

/// Where to look for what is not there; the service's messages begin with what that is.
fn of_missing(message: &str) -> &'static str {
    match message.split(' ').next() {
        Some("Group") => "Look at `isotherm group list`",
        Some("Server") => "Look at `isotherm server list`; names of deleted servers and ids count too where something is undone",
        Some("Endpoint") => "Look at `isotherm endpoint list`",
        Some("Path") => {
            "Paths are those of the share, such as plans/house.dwg, without the folder of a server; \
             `isotherm versions` also knows what was deleted, as long as it is kept"
        }
        _ => "Look at `isotherm group list`, `isotherm server list` or `isotherm endpoint list`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_exit_codes() {
        for (code, exit) in [
            (Code::Invalid, 2),
            (Code::NotFound, 1),
            (Code::Exists, 4),
            (Code::Overlap, 4),
            (Code::InUse, 4),
            (Code::Unreachable, 5),
            (Code::Unavailable, 5),
            (Code::Protocol, 1),
        ] {
            assert_eq!(Failure::from(ApiError::new(code, "X")).exit as u8, exit, "{code}");
        }
    }

    #[test]
    fn what_is_missing_has_its_own_remedy() {
        for (message, word) in
            [("Path a/b does not exist", "Paths are"), ("Group x does not exist", "group list"), ("Server x", "server list")]
        {
            let remedy = Failure::from(ApiError::new(Code::NotFound, message)).remedy.unwrap_or_default();
            assert!(remedy.contains(word), "{message}: {remedy}");
        }
    }

    #[test]
    fn the_remedy_has_its_own_line() {
        let failure = Failure::failed("Disk is full").with_remedy("Free space");
        assert_eq!(failure.to_string(), "Disk is full\n  Free space");
        assert_eq!(Failure::failed("X").to_string(), "X");
    }
}
