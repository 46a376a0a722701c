//! `isotherm gate`: the gate's process.
//!
//! What is guarded how is the gate's business.
//!
//! **Invariant:** a gate that is told to stop leaves volumes attached and callers waiting for the next one.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isotherm_gate::link::{ClientError, GateClient};
use isotherm_gate::serve::{Gate, GateFailure, GateOptions, keep};

use crate::args::{AtGate, GateCommand, Log};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::output::Answer;
use crate::run::stop_signal;

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
            until_stopped(move |stop| Ok(keep(&at.run, stop)?)).await?;
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
