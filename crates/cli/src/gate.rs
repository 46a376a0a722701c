//! `isotherm gate` and `isotherm volume`: the gate's process, and what is asked of it.
//!
//! It shows and passes on; what is guarded how is the gate's business.
//!
//! **Invariant:** a gate that is told to stop leaves volumes attached and callers waiting for the next one.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isotherm_gate::link::{ClientError, GateClient, VolumeSettings, VolumeState};
use isotherm_gate::safety_net::SafetyNet;
use isotherm_gate::serve::{Gate, GateFailure, GateOptions, keep};
use serde::Serialize;

use crate::args::{AtGate, GateCommand, Log, VolumeCommand};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::output::{Answer, NOTHING, Table, text};
use crate::run::stop_signal;
use crate::size;

pub(crate) async fn run(command: GateCommand) -> Result<Answer, Failure> {
    match command {
        GateCommand::Run { state, at, log } => {
            start_log(log);
            let keeper = keeper_command(&at)?;
            let options = GateOptions { state, run: at.run, keeper };
            let is_over = until_stopped(move |stop| Ok(Gate::start(options)?.run(stop)?)).await?;
            tracing::info!("{}", if is_over { "Gate stopped" } else { "Gate stopped; volumes stay attached for the next one" });
            Ok(String::new().into())
        }
        GateCommand::Keep { at, log } => {
            start_log(log);
            until_stopped(move |stop| {
                keep(&at.run, stop).map_err(|error| Failure::failed(format!("Keeper cannot listen: {error}")))
            })
            .await?;
            Ok(String::new().into())
        }
        GateCommand::Stop { at } => {
            GateClient::new(&at.run).stop()?;
            Ok("All volumes are detached, and the gate has ended\n".to_owned().into())
        }
    }
}

fn start_log(log: Log) {
    log::start(log.log_level, log::Sink::Stderr);
}

/// This program once more.
fn keeper_command(at: &AtGate) -> Result<Vec<OsString>, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::failed(format!("Cannot find the program of the keeper: {error}")))?;
    Ok(vec![program.into(), "gate".into(), "keep".into(), "--run".into(), at.run.clone().into()])
}

/// Runs blocking work until it ends or a signal comes.
async fn until_stopped<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let (told, signal) = (Arc::clone(&stop), stop_signal());
    let watching = tokio::spawn(async move {
        signal.await;
        told.store(true, Ordering::Relaxed);
    });
    let ended = tokio::task::spawn_blocking(move || work(&stop)).await;
    watching.abort();
    ended.map_err(|error| Failure::failed(format!("Gate broke down: {error}")))?
}

pub(crate) fn volume(command: VolumeCommand) -> Result<Answer, Failure> {
    match command {
        VolumeCommand::Add { device, path, options, guard, at } => {
            let shown = text(&path.display().to_string());
            GateClient::new(&at.run).add(VolumeSettings { device, path, options, guard: guard.into() })?;
            Ok(format!("{shown} is guarded\n").into())
        }
        VolumeCommand::List { at, format } => {
            let volumes = GateClient::new(&at.run).volumes()?;
            let is_off = volumes.iter().any(|volume| volume.failure.is_some() || !volume.attended || !volume.kept);
            let net = SafetyNet::of(&at.run);
            let shown: Vec<Shown> = volumes.iter().map(|volume| Shown::of(volume, &net)).collect();
            Ok(Answer::new(format.json, &shown, || list(&volumes, &net)).with_problems(is_off))
        }
        VolumeCommand::Remove { path, at } => {
            GateClient::new(&at.run).remove(&path)?;
            Ok(format!("{} is detached\n", text(&path.display().to_string())).into())
        }
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
}

impl Shown {
    fn of(volume: &VolumeState, net: &SafetyNet) -> Self {
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
        }
    }
}

fn list(volumes: &[VolumeState], net: &SafetyNet) -> String {
    let mut table = Table::new(&["path", "device", "state", "asks about", "agent", "keeper", "net", "waiting>"]);
    for volume in volumes {
        let is_there = |is_it: bool| if is_it { "yes" } else { NOTHING }.to_owned();
        table.row(vec![
            text(&volume.settings.path.display().to_string()),
            text(&volume.settings.device.display().to_string()),
            volume.failure.as_deref().map_or_else(|| "guarded".to_owned(), |why| format!("not guarded: {}", text(why))),
            if volume.by_inode { "tiered files" } else { "all files" }.to_owned(),
            is_there(volume.attended),
            is_there(volume.kept),
            is_there(net.is_under(volume.id)),
            size::count(volume.waiting as u64),
        ]);
    }
    if table.is_empty() { "No guarded volumes yet; see `isotherm volume add --help`\n".to_owned() } else { table.render() }
}

impl From<GateFailure> for Failure {
    fn from(error: GateFailure) -> Self {
        let why = error.to_string();
        match error {
            GateFailure::Lock(_) => {
                Self::new(Exit::Refused, why).with_remedy("Stop the other gate, or give another folder with --run")
            }
            GateFailure::List { .. } => {
                Self::failed(why).with_remedy("Put the file back from a copy, or remove it and add the volumes again")
            }
            _ => Self::failed(why).with_remedy("Run it as root; `isotherm doctor` says what else is missing"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let why = error.to_string();
        match error {
            ClientError::Link(_) => {
                Self::new(Exit::Unreachable, why).with_remedy("Start it with `isotherm gate run`, or name its folder with --run")
            }
            ClientError::Refused { remedy, .. } => Self::new(Exit::Refused, why).with_remedy(remedy),
        }
    }
}
