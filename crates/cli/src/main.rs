//! The one binary: service, agent, and the commands of administrators.
//!
//! It parses, dispatches, prints one answer or one failure, and gives the exit code. What commands do is in the module
//! of their noun; what they mean is in the other crates.
//!
//! **Invariant:** standard output holds answers only; failures go to standard error as `isotherm: WHAT: WHY`.

// Printing is the purpose of this crate; the others return text.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod agents;
mod args;
mod backup;
mod check;
mod collect;
mod demo;
mod doctor;
mod endpoint;
mod failure;
mod file;
mod gate;
mod group;
mod heat;
mod log;
mod manual;
mod moment;
mod output;
mod pin;
mod problems;
mod progress;
mod residency;
mod restore;
mod run;
mod server;
mod size;
mod status;
mod versions;
mod volume;
mod wait;
mod why;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use isotherm_api::Client;
use isotherm_api::check::CheckRequest;
use isotherm_api::collect::CollectRequest;

use args::{Arguments, Command, ServiceCommand};
use failure::Failure;
use output::Answer;

fn main() -> ExitCode {
    isotherm_gate::bound_heap();
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let what = words(&matches);
    match answer(arguments).and_then(|answer| output::print(&answer.text).map(|_| answer.exit)) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            if !failure.why.is_empty() {
                eprintln!("isotherm: {what}: {failure}");
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// The command as it was typed, without options and values: what a failure is about.
fn words(mut matches: &ArgMatches) -> String {
    let mut words = Vec::new();
    while let Some((word, inner)) = matches.subcommand() {
        words.push(word.to_owned());
        matches = inner;
    }
    words.join(" ")
}

fn answer(arguments: Arguments) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("Cannot start threads: {error}")))?;
    runtime.block_on(dispatch(arguments))
}

async fn dispatch(Arguments { service, command }: Arguments) -> Result<Answer, Failure> {
    match command {
        Command::Service(ServiceCommand::Run { data, listen, log }) => run::service(data, listen, log).await,
        Command::Service(ServiceCommand::Backup { data, to, verify, format }) => tokio::select! {
            answer = backup::run(&data, &to, verify, format) => answer,
            () = run::stop_signal() => Err(Failure::interrupted()),
        },
        Command::Agent(command) => run::agent(service, command).await,
        Command::Gate(command) => gate::run(command).await,
        Command::Demo(demo) => demo::run(demo).await,
        Command::Man => Ok(manual::page()?.into()),
        Command::Completions { shell } => Ok(manual::completions(shell).into()),
        command => tokio::select! {
            answer = ask(service, command) => answer,
            () = run::stop_signal() => Err(Failure::interrupted()),
        },
    }
}

/// Commands that ask and end by themselves.
async fn ask(url: String, command: Command) -> Result<Answer, Failure> {
    let client = || Client::new(&url);
    match command {
        Command::Group(command) => group::run(&client()?, command).await,
        Command::Server(command) => server::run(&client()?, command).await,
        Command::Endpoint(command) => endpoint::run(&client()?, command).await,
        Command::Status(format) => status::run(&client()?, format).await,
        Command::Wait(wait) => wait::run(&client()?, wait).await,
        Command::Conflicts(of) => problems::conflicts(&client()?, of).await,
        Command::Problems(of) => problems::problems(&client()?, of).await,
        Command::Service(ServiceCommand::Check { deep, delete_strays, format }) => {
            check::run(&client()?, CheckRequest { deep, delete_strays }, format).await
        }
        Command::Service(ServiceCommand::Gc { waive, format }) => {
            collect::run(&client()?, CollectRequest { waive }, format).await
        }
        Command::Versions(of) => versions::run(&client()?, of).await,
        Command::Restore(wanted) => restore::run(&client()?, wanted).await,
        Command::Undelete(wanted) => restore::undelete(&client()?, wanted).await,
        Command::Undo(wanted) => restore::undo(&client()?, wanted).await,
        Command::File(command) => file::run(command),
        Command::Volume(command) => volume::run(command),
        Command::Tier(wanted) => residency::tier(wanted),
        Command::Heat(wanted) => heat::run(wanted),
        Command::Why(wanted) => why::run(&wanted),
        Command::Recall(wanted) => residency::recall(wanted),
        Command::Pin(wanted) => pin::pin(wanted),
        Command::Unpin(wanted) => pin::unpin(&wanted),
        Command::Doctor(doctor) => doctor::run(&url, doctor).await,
        Command::Service(ServiceCommand::Run { .. } | ServiceCommand::Backup { .. })
        | Command::Agent(_)
        | Command::Gate(_)
        | Command::Demo(_)
        | Command::Man
        | Command::Completions { .. } => {
            unreachable!("these run until they are told to stop, or need no service; `dispatch` has taken them")
        }
    }
}
