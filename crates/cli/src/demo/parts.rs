//! The running parts of the demo: one service and some agents, inside this process.
//!
//! They are the product's own, with nothing left out.
//!
//! **Invariant:** agents stop before the service, so that their last words arrive.

use std::path::Path;

use isotherm_agent::Options;
use isotherm_api::Client;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::failure::Failure;
use crate::run;

/// What runs.
#[derive(Debug, Default)]
pub(super) struct Parts {
    agents: JoinSet<Result<(), Failure>>,
    stop_agents: watch::Sender<bool>,
    service: Option<JoinHandle<Result<(), Failure>>>,
    stop_service: watch::Sender<bool>,
}

impl Parts {
    /// Starts the service on a free port of this machine.
    pub(super) async fn start_service(&mut self, data: &Path) -> Result<Client, Failure> {
        let (service, listener) = run::open_service(data.to_owned(), ([127, 0, 0, 1], 0).into()).await?;
        let address = listener.local_addr().map_err(|error| Failure::failed(format!("Listener has no address: {error}")))?;
        let stop = stopped(self.stop_service.subscribe());
        self.service = Some(tokio::spawn(async move { Ok(service.serve(listener, stop).await?) }));
        Ok(Client::new(&format!("http://{address}"))?)
    }

    /// Starts the agent of a server; the gate, if there is one, has its sockets in the folder `run`.
    pub(super) fn start_agent(&mut self, state: &Path, run: &Path, url: &str, name: &str) {
        let stop = stopped(self.stop_agents.subscribe());
        let (state, run, service, name) = (state.to_owned(), run.to_owned(), url.to_owned(), name.to_owned());
        let options = Options { state, service, name, run };
        self.agents.spawn(run::run_agent(options, stop));
    }

    /// Ends when a part ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> Result<(), Failure> {
        let service = async {
            match &mut self.service {
                Some(service) => service.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.agents.join_next() => ended.unwrap_or_else(|error| Err(panicked(&error))),
            ended = service => {
                self.service = None;
                ended.unwrap_or_else(|error| Err(panicked(&error)))
            }
        }
    }

    /// Stops the agents, then the service; the first failure counts.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.stop_agents.send_replace(true);
        let mut result = Ok(());
        while let Some(ended) = self.agents.join_next().await {
            result = result.and(ended.unwrap_or_else(|error| Err(panicked(&error))));
        }
        self.stop_service.send_replace(true);
        if let Some(service) = self.service {
            result = result.and(service.await.unwrap_or_else(|error| Err(panicked(&error))));
        }
        result
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever could say so is gone: the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn panicked(error: &tokio::task::JoinError) -> Failure {
    Failure::failed(format!("A part of the demo broke down: {error}"))
}
