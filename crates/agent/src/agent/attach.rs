//! Following the service: attach, assignments, names of servers.
//!
//! It runs nothing. **Invariant:** a service that is away is asked again, with growing pauses, for ever; only a refusal
//! that a person has to resolve ends it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use isotherm_api::sync::{Assignment, Attach};
use isotherm_api::{ApiError, Client, Code};
use isotherm_core::bandwidth::Limit;
use isotherm_core::ids::ServerId;
use tokio::sync::mpsc::Sender;

use super::Options;
use super::known::{ENDPOINTS, IDENTITY, Known, read_identity, write_identity};
use crate::remote::Attachment;

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long the service may hold a question for assignments, in milliseconds; the names of servers are as old at most.
const WAIT_MS: u64 = 20_000;

/// What the service said.
pub(super) enum News {
    Attached(Attachment),
    /// The service is away; this is what it said to an earlier run of this server's agent.
    Known(ServerId, Known),
    Assignments(Vec<Assignment>),
    Servers(BTreeMap<ServerId, String>),
    /// What limits this server's traffic.
    Limits(Vec<Limit>),
    Away(String),
    Back,
    Refused(ApiError),
    /// The server's id could not be kept.
    State(PathBuf, io::Error),
    /// The server's id could not be read.
    Identity(PathBuf, io::Error),
}

/// Nobody listens any more: the agent stops.
struct Stopped;

struct Follower {
    client: Client,
    options: Options,
    news: Sender<News>,
    pause: Duration,
    is_away: bool,
}

/// Tells what the service says until nobody listens.
pub(super) async fn follow(client: Client, options: Options, news: Sender<News>) {
    let mut follower = Follower { client, options, news, pause: PAUSE.0, is_away: false };
    while follower.attached_run().await.is_ok() {}
}

impl Follower {
    async fn tell(&self, news: News) -> Result<(), Stopped> {
        self.news.send(news).await.map_err(|_| Stopped)
    }

    /// Attaches, then follows assignments until the service does not know this server any more.
    async fn attached_run(&mut self) -> Result<(), Stopped> {
        let (server, epoch) = self.attach().await?;
        self.tell(News::Attached(Attachment::new(self.client.clone(), server, epoch))).await?;
        let (mut revision, mut names, mut limits) = (0, BTreeMap::new(), None);
        loop {
            // First the names and limits, so that the first conflict copy has the right one, and nothing goes faster than it may. Whatever an
            // administrator changes is another revision, with which the question below is answered at once.
            if let Ok(servers) = self.client.servers().await {
                let own = servers.iter().find(|one| one.id == server).map(|one| one.limits.clone());
                if own.is_some() && own != limits {
                    limits.clone_from(&own);
                    self.tell(News::Limits(own.unwrap_or_default())).await?;
                }
                let now: BTreeMap<ServerId, String> = servers.into_iter().map(|server| (server.id, server.name)).collect();
                if now != names {
                    names.clone_from(&now);
                    self.tell(News::Servers(now)).await?;
                }
            }
            match self.client.assignments(server, epoch, revision, WAIT_MS).await {
                Ok(assignments) => {
                    self.back().await?;
                    if assignments.revision != revision {
                        revision = assignments.revision;
                        self.tell(News::Assignments(assignments.endpoints)).await?;
                    }
                }
                Err(error) if error.code == Code::NotFound => return Ok(()),
                Err(error) => self.failed(error).await?,
            }
        }
    }

    async fn attach(&mut self) -> Result<(ServerId, isotherm_core::ids::Epoch), Stopped> {
        let state = self.options.state.clone();
        let known = match read_identity(&state) {
            Ok(known) => known,
            Err(error) => return self.give_up(News::Identity(state.join(IDENTITY), error)).await,
        };
        let attach = Attach { name: self.options.name.clone(), server: known };
        let mut is_first = true;
        loop {
            match self.client.attach(&attach).await {
                Ok(attached) => {
                    if known != Some(attached.server)
                        && let Err(error) = write_identity(&state, attached.server)
                    {
                        return self.give_up(News::State(state.join(IDENTITY), error)).await;
                    }
                    self.back().await?;
                    return Ok((attached.server, attached.epoch));
                }
                Err(error) => {
                    if std::mem::take(&mut is_first) && error.code.is_retryable() {
                        self.recollect(known).await?;
                    }
                    self.failed(error).await?;
                }
            }
        }
    }

    /// Tells what an earlier run was told, so that work begins without the service.
    async fn recollect(&self, server: Option<ServerId>) -> Result<(), Stopped> {
        let Some(server) = server else { return Ok(()) };
        match Known::read(&self.options.state) {
            Ok(Some(known)) => self.tell(News::Known(server, known)).await,
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, file = ENDPOINTS, "What is kept of the endpoints cannot be read; the service is waited for");
                Ok(())
            }
        }
    }

    async fn give_up<T>(&self, news: News) -> Result<T, Stopped> {
        self.tell(news).await?;
        Err(Stopped)
    }

    async fn back(&mut self) -> Result<(), Stopped> {
        self.pause = PAUSE.0;
        if std::mem::take(&mut self.is_away) {
            self.tell(News::Back).await?;
        }
        Ok(())
    }

    /// Waits after a failure that may pass; tells of one that does not.
    async fn failed(&mut self, error: ApiError) -> Result<(), Stopped> {
        if matches!(error.code, Code::Protocol | Code::Invalid | Code::Denied | Code::Exists | Code::Fenced | Code::Limit) {
            return self.give_up(News::Refused(error)).await;
        }
        if !self.is_away {
            tracing::warn!(%error, "The service is away; the agent goes on and asks again");
        }
        self.is_away = true;
        self.tell(News::Away(error.message)).await?;
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        Ok(())
    }
}
