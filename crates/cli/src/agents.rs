//! The agents that run on this machine, asked through their control sockets.
//!
//! It finds sockets and passes questions on; what the answers mean is for those who ask.
//!
//! **Invariant:** an agent that does not answer is exit code 5, with its state folder in the text.

use std::path::{Path, PathBuf};

use isotherm_agent::Overview;
use isotherm_agent::control::{self, Answer, Request};

use crate::failure::{Exit, Failure, show_path};

/// Where sockets are looked for, directly and one folder below.
const PLACES: [&str; 2] = ["/run/isotherm", "/var/lib/isotherm"];

/// The agent of this state folder, or all that are where packages put them; each by its state folder.
pub(crate) fn find(state: Option<&Path>) -> Vec<PathBuf> {
    let folders = match state {
        Some(state) => vec![state.to_owned()],
        None => PLACES.iter().flat_map(|place| with_folders_below(Path::new(place))).collect(),
    };
    folders.into_iter().filter(|folder| folder.join(control::SOCKET).exists()).collect()
}

fn with_folders_below(place: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = match place.read_dir() {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect(),
        Err(_) => Vec::new(),
    };
    folders.sort();
    folders.insert(0, place.to_owned());
    folders
}

/// Sends one request and gives the answer.
pub(crate) fn ask(state: &Path, request: &Request) -> Result<Answer, Failure> {
    answered(state, control::ask(state, request))
}

/// The answer, or that there is none.
pub(crate) fn answered(state: &Path, answer: std::io::Result<Answer>) -> Result<Answer, Failure> {
    answer.map_err(|error| {
        Failure::new(Exit::Unreachable, format!("Agent of {} does not answer: {error}", show_path(state)))
            .with_remedy("Check that it runs, and that you are the user it runs as")
    })
}

/// The agent at a glance.
pub(crate) fn overview(state: &Path) -> Result<Overview, Failure> {
    match ask(state, &Request::Status)? {
        Answer::Status(overview) => Ok(*overview),
        Answer::Error(why) => Err(Failure::failed(why)),
        _ => Err(unfitting(state)),
    }
}

/// An answer to another question.
pub(crate) fn unfitting(state: &Path) -> Failure {
    Failure::failed(format!("Agent of {} answers what was not asked", show_path(state)))
        .with_remedy("Install the same release of Isotherm everywhere, and restart the agent")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn strange_answers_are_failures() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(Some(folder.path())), Vec::<PathBuf>::new());
        let listener = UnixListener::bind(folder.path().join(control::SOCKET)).unwrap();
        assert_eq!(find(Some(folder.path())), [folder.path()]);
        let answers = [("{\"problems\":[]}\n", 1), ("{\"error\":\"No\"}\n", 1), ("no json\n", 5), ("", 5)];
        let answering = std::thread::spawn(move || {
            for (answer, _) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                assert_eq!(line, "{\"command\":\"status\"}\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for (answer, exit) in answers {
            assert_eq!(overview(folder.path()).unwrap_err().exit as u8, exit, "{answer}");
        }
        answering.join().unwrap();
    }

    #[test]
    fn a_socket_without_agent_is_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(folder.path().join(control::SOCKET)).unwrap());
        assert_eq!(overview(folder.path()).unwrap_err().exit, Exit::Unreachable);
    }
}
