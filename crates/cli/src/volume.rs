//! `isotherm volume`: guarded volumes.
//!
//! What is guarded how the gate knows, and the agent what it does with a volume; this shows and passes on.
//!
//! **Invariant:** an agent that does not answer hides nothing of what the gate says.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use isotherm_agent::control::{Answer as AgentAnswer, Request, VolumeView};
use isotherm_api::path::ShownPath;
use isotherm_gate::link::{GateClient, VolumeSettings, VolumeState};
use isotherm_gate::safety_net::SafetyNet;
use serde::Serialize;

use crate::agents;
use crate::args::VolumeCommand;
use crate::failure::{Exit, Failure, show_path};
use crate::file::real;
use crate::output::{Answer, NOTHING, Table, plural, text};
use crate::size;

pub(crate) fn run(command: VolumeCommand) -> Result<Answer, Failure> {
    match command {
        VolumeCommand::Add { device, path, options, guard, at } => {
            let shown = text(&path.display().to_string());
            GateClient::new(&at.run).add(VolumeSettings { device, path, options, guard: guard.into() })?;
            Ok(format!("{shown} is guarded\n").into())
        }
        VolumeCommand::List { at, state, format } => {
            let volumes = GateClient::new(&at.run).volumes()?;
            let is_off = volumes.iter().any(|volume| volume.failure.is_some() || !volume.attended || !volume.kept);
            let (net, views) = (SafetyNet::of(&at.run), views(state.as_deref()));
            let shown: Vec<Shown> = volumes.iter().map(|volume| Shown::of(volume, &net, &views)).collect();
            Ok(Answer::new(format.json, &shown, || list(&shown)).with_problems(is_off))
        }
        VolumeCommand::Set { path, dedup, dedup_after, state, format } => {
            let path = real(&path)?;
            let view = set(state.as_deref(), &path, &|path| Request::SetVolume { path, dedup, dedup_after_s: dedup_after })?;
            Ok(Answer::new(format.json, &view, || format!("{}: {}\n", show_path(&path), dedup_of(&view))))
        }
        VolumeCommand::Remove { path, at } => {
            GateClient::new(&at.run).remove(&path)?;
            Ok(format!("{} is detached\n", text(&path.display().to_string())).into())
        }
    }
}

/// The agent that has endpoints on a volume sets something for it.
fn set(state: Option<&Path>, path: &Path, request: &dyn Fn(ShownPath) -> Request) -> Result<VolumeView, Failure> {
    let shown = ShownPath::new(path.as_os_str().as_bytes());
    let found = agents::find(state);
    let mut failure = match found.is_empty() {
        true => Failure::new(Exit::Unreachable, "No agent was found on this machine")
            .with_remedy("Name its state folder with --state; only the user it runs as may ask it"),
        false => Failure::failed(format!("No agent of this machine has an endpoint on a guarded volume at {}", show_path(path)))
            .with_remedy("`isotherm volume list` shows the volumes; create an endpoint on it first"),
    };
    for state in &found {
        match volumes_of(state) {
            Ok(views) if !views.iter().any(|view| view.path == shown) => {}
            Ok(_) => {
                return match agents::ask(state, &request(shown))? {
                    AgentAnswer::Volume(view) => Ok(*view),
                    AgentAnswer::Error(why) => Err(Failure::new(Exit::Refused, text(&why))),
                    _ => Err(agents::unfitting(state)),
                };
            }
            Err(silent) => failure = silent,
        }
    }
    Err(failure)
}

/// What the agents of this machine know of their volumes.
fn views(state: Option<&Path>) -> Vec<VolumeView> {
    agents::find(state).iter().filter_map(|state| volumes_of(state).ok()).flatten().collect()
}

fn volumes_of(state: &Path) -> Result<Vec<VolumeView>, Failure> {
    match agents::ask(state, &Request::Volumes)? {
        AgentAnswer::Volumes(views) => Ok(views),
        AgentAnswer::Error(why) => Err(Failure::failed(text(&why))),
        _ => Err(agents::unfitting(state)),
    }
}

fn dedup_of(view: &VolumeView) -> String {
    let shared = match view.shared_bytes {
        0 => "nothing is shared yet".to_owned(),
        bytes => format!("{} of {} are shared", size::bytes(bytes), plural(view.shared_files, "file")),
    };
    match view.dedup {
        true => format!("equal contents share space after {} without a change; {shared}", size::span(1_000 * view.dedup_after_s)),
        false => format!("equal contents share no space from now on; {shared}"),
    }
}

/// A volume for programs.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    device: String,
    path: String,
    options: String,
    guarded: bool,
    by_inode: bool,
    failure: Option<String>,
    agent: bool,
    keeper: bool,
    safety_net: bool,
    waiting: usize,
    /// What the agent does with it; none where none has endpoints there, or it does not answer.
    #[serde(flatten)]
    of_agent: Option<OfAgent>,
}

#[derive(Debug, Serialize)]
struct OfAgent {
    dedup: bool,
    dedup_after_s: u64,
    shared_files: u64,
    shared_bytes: u64,
}

impl Shown {
    fn of(volume: &VolumeState, net: &SafetyNet, views: &[VolumeView]) -> Self {
        let path = ShownPath::new(volume.settings.path.as_os_str().as_bytes());
        let of_agent = views.iter().find(|view| view.path == path).map(|view| OfAgent {
            dedup: view.dedup,
            dedup_after_s: view.dedup_after_s,
            shared_files: view.shared_files,
            shared_bytes: view.shared_bytes,
        });
        Self {
            id: volume.id.to_string(),
            device: volume.settings.device.display().to_string(),
            path: volume.settings.path.display().to_string(),
            options: volume.settings.options.clone(),
            guarded: volume.failure.is_none(),
            by_inode: volume.by_inode,
            failure: volume.failure.clone(),
            agent: volume.attended,
            keeper: volume.kept,
            safety_net: net.is_under(volume.id),
            waiting: volume.waiting,
            of_agent,
        }
    }
}

fn list(volumes: &[Shown]) -> String {
    let mut table = Table::new(&["path", "device", "state", "asks about", "agent", "keeper", "net", "dedup", "waiting>"]);
    for volume in volumes {
        let is_there = |is_it: bool| if is_it { "yes" } else { NOTHING }.to_owned();
        let dedup = volume.of_agent.as_ref().map_or_else(
            || NOTHING.to_owned(),
            |of_agent| match (of_agent.dedup, of_agent.shared_bytes) {
                (false, 0) => "off".to_owned(),
                (true, 0) => "on".to_owned(),
                (is_on, bytes) => format!("{}, {} shared", if is_on { "on" } else { "off" }, size::bytes(bytes)),
            },
        );
        table.row(vec![
            text(&volume.path),
            text(&volume.device),
            volume.failure.as_deref().map_or_else(|| "guarded".to_owned(), |why| format!("not guarded: {}", text(why))),
            if volume.by_inode { "tiered files" } else { "all files" }.to_owned(),
            is_there(volume.agent),
            is_there(volume.keeper),
            is_there(volume.safety_net),
            dedup,
            size::count(volume.waiting as u64),
        ]);
    }
    if table.is_empty() { "No guarded volumes yet; see `isotherm volume add --help`\n".to_owned() } else { table.render() }
}
