//! `isotherm service run` and `isotherm agent run`: the long-running commands.
//!
//! They do nothing themselves but start, log, and stop what the other crates hold.
//!
//! **Invariant:** the first SIGINT or SIGTERM stops cleanly, with exit code 0; a second one ends the process at once.

use std::net::SocketAddr;
use std::path::PathBuf;

use isotherm_agent::{Agent, AgentError, Options as AgentOptions};
use isotherm_gate::{LockError, raise_nofile};
use isotherm_service::{Options, Service, ServiceError};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{AgentCommand, Log};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::output::{self, Answer};

/// Descriptors that a service wants: each agent holds some connections open, and each transfer a pack.
const DESCRIPTORS: u64 = 65_536;

/// Ends with the first SIGINT or SIGTERM after this call; it may be waited for later.
pub(crate) fn stop_signal() -> impl Future<Output = ()> + Send + 'static {
    // Both at once, before anything is waited for: who has read that the service listens may stop it.
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        let [Ok(mut interrupt), Ok(mut terminate)] = signals else {
            // Signals that cannot be caught end the process.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(Exit::Interrupted as i32);
        });
    }
}

/// Ends when the terminal is closed, and only for those who look at one: what runs by `nohup` goes on.
pub(crate) fn terminal_closed() -> impl Future<Output = ()> + Send + 'static {
    let closed = signal(SignalKind::hangup());
    async move {
        match closed {
            Ok(mut closed) => _ = closed.recv().await,
            Err(_) => std::future::pending().await,
        }
    }
}

pub(crate) async fn service(data: PathBuf, listen: SocketAddr, log: Log) -> Result<Answer, Failure> {
    log::start(log.log_level, log::Sink::Stderr);
    raise_nofile(DESCRIPTORS);
    let stop = stop_signal();
    let (service, listener) = open_service(data, listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::failed(format!("Listener has no address: {error}")))?;
    output::print(&format!("listening on http://{address}"))?;
    service.serve(listener, stop).await?;
    tracing::info!("Service stopped");
    Ok(String::new().into())
}

/// Opens the data folder and the listener; whoever connects from now on is served once the service runs.
pub(crate) async fn open_service(data: PathBuf, listen: SocketAddr) -> Result<(Service, TcpListener), Failure> {
    if !listen.ip().is_loopback() {
        return Err(ServiceError::NotLoopback(listen).into());
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::failed(format!("Cannot listen on {listen}: {error}"))
            .with_remedy("Stop what listens there, or give another port with --listen")
    })?;
    let service = Service::open(Options::at(data)).await?;
    Ok((service, listener))
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let why = error.to_string();
        match error {
            ServiceError::InUse { .. } => {
                Self::new(Exit::Refused, why).with_remedy("Stop the other service, or give another folder with --data")
            }
            ServiceError::NotLoopback(_) => Self::new(Exit::Usage, why)
                .with_remedy("Listen on 127.0.0.1, and let other machines come through a tunnel (ssh -L, WireGuard)"),
            ServiceError::Format { .. } => {
                Self::new(Exit::Refused, why).with_remedy("Use the release that wrote it, or a newer one")
            }
            ServiceError::Folder { .. } => {
                Self::failed(why).with_remedy("Give a folder on a local disk that this user may write")
            }
            ServiceError::OtherBackup { .. } => Self::new(Exit::Refused, why).with_remedy(
                "If the service was started on an empty folder, mount the disk of its data and start it again; \
                 if this is another service, give its backup a folder of its own",
            ),
            ServiceError::Records(_) | ServiceError::Store(_) | ServiceError::Listen(_) => Self::failed(why),
        }
    }
}

pub(crate) async fn agent(service: String, command: AgentCommand) -> Result<Answer, Failure> {
    let AgentCommand::Run { state, name, at, log } = command;
    log::start(log.log_level, log::Sink::Stderr);
    run_agent(AgentOptions { state, service, name, run: at.run }, stop_signal()).await?;
    tracing::info!("Agent stopped");
    Ok(String::new().into())
}

/// Runs an agent on threads of its own until `stop` ends.
pub(crate) async fn run_agent(options: AgentOptions, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Failure> {
    // Signals are watched by this runtime, which outlives the agent's.
    let (stop_agent, stopped) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(async move {
        stop.await;
        drop(stop_agent);
    });
    let stopped = async {
        let _ = stopped.await;
    };
    let ended = tokio::task::spawn_blocking(move || Agent::run(options, stopped)).await;
    watching.abort();
    ended.map_err(|error| Failure::failed(format!("Agent broke down: {error}")))?.map_err(Failure::from)
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let why = error.to_string();
        match error {
            AgentError::InUse(LockError::Held { .. }) => {
                Self::new(Exit::Refused, why).with_remedy("Stop the other agent, or give another folder with --state")
            }
            AgentError::InUse(LockError::Io { .. }) | AgentError::State { .. } => {
                Self::failed(why).with_remedy("Give a folder on a local disk that this user may write")
            }
            AgentError::Identity { .. } => Self::failed(why).with_remedy(
                "Put the file back from a copy. If there is none, remove the state folder, delete this server's endpoints by \
                 `isotherm endpoint delete --forget ID` and its name by `isotherm server delete NAME`, start the agent, and \
                 create the endpoints again; files that are there are matched, not sent",
            ),
            AgentError::Refused(refusal) => Self { why, ..refusal.into() },
            AgentError::Fenced => Self::new(Exit::Refused, why),
            AgentError::Threads(_) => Self::failed(why),
        }
    }
}
