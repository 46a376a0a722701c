//! The control socket: what this agent knows, for programs on this machine.
//!
//! One JSON request a line, one JSON answer a line, or several where work goes on. Only the user of the agent may connect.
//! **Invariant:** a client that sends nonsense, or nothing, cannot hold up another one.

mod file;
mod heat;
mod next;
mod pins;
mod residency;
mod volumes;
mod why;

pub use file::{FileState, FileView, RecallView};
pub use heat::{BANDS_DAYS, DEPTH_MAX, HeatRow};
pub use next::{COUNT_MAX, ComesNext, GoesFor, GoesNext, NextView};
pub use residency::Moved;
pub(crate) use residency::{count_stubs, recall_all};
pub use volumes::VolumeView;
pub use why::{Below, Happened, Standing, WhyView};

pub use crate::catalog::{Happening, What};

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use isotherm_api::management::ShownProblem;
use isotherm_api::path::ShownPath;
use serde::{Deserialize, Serialize};

use residency::{Recalling, Way};

use crate::agent::{AgentError, Overview};
use crate::guarded::GuardedVolumes;
use crate::recall::Lengths;

/// Name of the socket in the state folder.
pub const SOCKET: &str = "control.sock";
/// Longest request in bytes; a path takes at most 4 KiB, six times that when escaped.
const REQUEST_MAX: u64 = 64 * 1024;
/// A client that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where content is on its way: a batch may hold large files on a slow line.
const LONG_PATIENCE: Duration = Duration::from_secs(24 * 3_600);
/// Clients at a time.
const CLIENTS_MAX: usize = 32;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The agent and its endpoints.
    Status,
    /// One file or folder, by its absolute path.
    File {
        /// Where.
        path: ShownPath,
    },
    /// Why the content of a file is here or not; of a directory, what is here below it and what happened there lately.
    Why {
        /// Where.
        path: ShownPath,
    },
    /// The problems of all endpoints.
    Problems,
    /// How warm the contents below a directory are.
    Heat {
        /// Where.
        path: ShownPath,
        /// Folders in folders down to this depth, at most [`DEPTH_MAX`]; 1 for those directly below it.
        #[serde(default = "direct")]
        depth: u32,
    },
    /// What goes and comes next by itself on the volume on which a path lies.
    Next {
        /// Where.
        path: ShownPath,
        /// How many of each, at most [`COUNT_MAX`].
        count: usize,
    },
    /// Give up the content of a file, or of all files below a directory. Answered again and again until it is done.
    Tier {
        /// Where.
        path: ShownPath,
        /// Only tell what would go.
        #[serde(default)]
        dry_run: bool,
    },
    /// Bring it back. Answered again and again until it is done.
    Recall {
        /// Where.
        path: ShownPath,
        /// Also of files whose length was changed while they were tiered; that is undone.
        #[serde(default)]
        mend: bool,
        /// Only files whose name fits this.
        #[serde(default)]
        pattern: Option<String>,
        /// How many at a time; as many as are of use without.
        #[serde(default)]
        together: Option<usize>,
        /// The warmest first, and no more than fits without others having to go.
        #[serde(default)]
        by_warmth: bool,
    },
    /// The content of a file, or of everything below a directory, is to stay here; or not any more.
    Pin {
        /// Where.
        path: ShownPath,
        /// Which of the two.
        pinned: bool,
    },
    /// What is pinned.
    Pins,
    /// The guarded volumes on which this agent has endpoints.
    Volumes,
    /// Sets what is given for the guarded volume that users see at this path.
    SetVolume {
        /// Where.
        path: ShownPath,
        /// Whether equal contents share blocks.
        #[serde(default)]
        dedup: Option<bool>,
        /// They do once they were not changed for so many seconds.
        #[serde(default)]
        dedup_after_s: Option<u64>,
    },
}

fn direct() -> u32 {
    1
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Overview>),
    /// To [`Request::File`].
    File(Box<FileView>),
    /// To [`Request::Why`].
    Why(Box<WhyView>),
    /// To [`Request::Problems`].
    Problems(Vec<ShownProblem>),
    /// To [`Request::Heat`]: the folders below it.
    Heat(Vec<HeatRow>),
    /// To [`Request::Next`].
    Next(Box<NextView>),
    /// To [`Request::Pin`]: whether that changed anything.
    Pinned(bool),
    /// To [`Request::Pins`]: absolute paths.
    Pins(Vec<ShownPath>),
    /// To [`Request::Volumes`].
    Volumes(Vec<VolumeView>),
    /// To [`Request::SetVolume`]: what is set now.
    Volume(Box<VolumeView>),
    /// To [`Request::Tier`] and [`Request::Recall`]: how far it is.
    Moved(Box<Moved>),
    /// The request cannot be answered, and why.
    Error(String),
}

/// What answers are made of.
type Known = (Arc<Mutex<Overview>>, Arc<GuardedVolumes>);

/// The listening socket; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Begins to listen in the state folder.
pub(crate) fn listen(state: &Path, overview: Arc<Mutex<Overview>>, guarded: Arc<GuardedVolumes>) -> Result<Control, AgentError> {
    let path = state.join(SOCKET);
    let failed = |what, source| AgentError::State { path: path.clone(), what, source };
    match std::fs::remove_file(&path) {
        // The state folder is locked: a socket that is there belongs to nobody.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("has a socket that cannot be removed", error));
        }
        _ => {}
    }
    let listener = reach(state)
        .and_then(|(_folder, socket)| UnixListener::bind(socket))
        .map_err(|error| failed("cannot hold a socket", error))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| failed("has a socket that cannot be protected", error))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || accept(&listener, &(overview, guarded), &stopped));
    Ok(Control { path, stop, thread: Some(thread) })
}

/// The socket by a path that is short enough for a socket's address (108 bytes), however long that of its folder is.
fn reach(state: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(state)?;
    let socket = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((folder, socket))
}

fn connect(state: &Path) -> io::Result<UnixStream> {
    let (_folder, socket) = reach(state)?;
    UnixStream::connect(socket)
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Ends the wait for the next client.
        let _ = self.path.parent().map(connect);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, known: &Known, stop: &AtomicBool) {
    let clients = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (known, clients) = (known.clone(), Arc::clone(&clients));
        std::thread::spawn(move || {
            if let Err(error) = serve(&client, &known) {
                tracing::debug!(%error, "Client of the control socket went away");
            }
            clients.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn serve(client: &UnixStream, known: &Known) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client);
    loop {
        let mut line = Vec::new();
        (&mut lines).take(REQUEST_MAX).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => answer(&request, known, &mut |answer| say(client, answer).is_ok()),
            Err(error) => Answer::Error(format!("Request cannot be read: {error}")),
        };
        say(client, &answer)?;
    }
}

fn say(mut client: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(answer).map_err(io::Error::from)?;
    bytes.push(b'\n');
    client.write_all(&bytes)
}

fn answer(request: &Request, (overview, guarded): &Known, tell: &mut dyn FnMut(&Answer) -> bool) -> Answer {
    let overview = overview.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut move_content = |path: &ShownPath, way: Way| {
        let path = path.bytes().ok_or_else(|| "Path is not base64".to_owned())?;
        residency::run((&overview, guarded), &path, way, &mut |moved| tell(&Answer::Moved(Box::new(moved.clone()))))
    };
    match request {
        Request::Status => Answer::Status(Box::new(overview)),
        Request::Tier { path, dry_run } => {
            let way = if *dry_run { Way::Plan } else { Way::Tier };
            move_content(path, way).map_or_else(Answer::Error, |moved| Answer::Moved(Box::new(moved)))
        }
        Request::Recall { path, mend, pattern, together, by_warmth } => {
            let lengths = if *mend { Lengths::Mended } else { Lengths::Kept };
            let (pattern, by_warmth) = (pattern.clone(), *by_warmth);
            let together = together.map_or(residency::RECALLED_TOGETHER, |together| together.clamp(1, residency::ASKED_TOGETHER));
            move_content(path, Way::Recall(Recalling { lengths, pattern, together, by_warmth }))
                .map_or_else(Answer::Error, |moved| Answer::Moved(Box::new(moved)))
        }
        Request::Pin { path, pinned } => about(path, |path| pins::set((&overview, guarded), path, *pinned).map(Answer::Pinned)),
        Request::Pins => pins::list(&overview).map_or_else(Answer::Error, Answer::Pins),
        Request::Volumes => Answer::Volumes(volumes::list(guarded)),
        Request::SetVolume { path, dedup, dedup_after_s } => {
            about(path, |path| volumes::set(guarded, path, (*dedup, *dedup_after_s)).map(|view| Answer::Volume(Box::new(view))))
        }
        Request::Problems => Answer::Problems(problems(&overview)),
        Request::Heat { path, depth } => about(path, |path| heat::show((&overview, guarded), path, *depth).map(Answer::Heat)),
        Request::Next { path, count } => {
            about(path, |path| next::show((&overview, guarded), path, *count).map(|view| Answer::Next(Box::new(view))))
        }
        Request::Why { path } => {
            about(path, |path| why::show((&overview, guarded), path).map(|view| Answer::Why(Box::new(view))))
        }
        Request::File { path } => {
            about(path, |path| file::show((&overview, guarded), path).map(|view| Answer::File(Box::new(view))))
        }
    }
}

fn about(path: &ShownPath, answer: impl FnOnce(&[u8]) -> Result<Answer, String>) -> Answer {
    path.bytes().ok_or_else(|| "Path is not base64".to_owned()).and_then(|path| answer(&path)).unwrap_or_else(Answer::Error)
}

fn problems(overview: &Overview) -> Vec<ShownProblem> {
    let of_endpoint = |endpoint: &crate::agent::EndpointView| {
        let shown = |problem: &isotherm_api::sync::Problem| ShownProblem {
            group: endpoint.group_name.clone(),
            server: overview.name.clone(),
            endpoint: endpoint.endpoint,
            path: ShownPath::new(&problem.path),
            code: problem.code.clone(),
            text: problem.text.clone(),
            remedy: problem.remedy.clone(),
            since_ms: problem.since_ms,
        };
        endpoint.problems.iter().map(shown).collect::<Vec<_>>()
    };
    overview.endpoints.iter().flat_map(of_endpoint).collect()
}

/// Asks the agent whose state folder this is.
///
/// # Errors
/// No agent is running there, this user may not ask it, or it answers what cannot be read.
pub fn ask(state: &Path, request: &Request) -> io::Result<Answer> {
    follow(state, request, PATIENCE, |_| ())
}

/// As [`ask`], for what takes long: hears each answer on the way, and gives the last one.
///
/// # Errors
/// As [`ask`].
pub fn ask_and_follow(state: &Path, request: &Request, on_the_way: impl FnMut(&Moved)) -> io::Result<Answer> {
    follow(state, request, LONG_PATIENCE, on_the_way)
}

fn follow(state: &Path, request: &Request, patience: Duration, mut on_the_way: impl FnMut(&Moved)) -> io::Result<Answer> {
    let mut stream = connect(state)?;
    stream.set_read_timeout(Some(patience))?;
    let mut bytes = serde_json::to_vec(request).map_err(io::Error::from)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line)?;
        match serde_json::from_slice(&line).map_err(io::Error::from)? {
            Answer::Moved(moved) if !moved.done => on_the_way(&moved),
            answer => return Ok(answer),
        }
    }
}
