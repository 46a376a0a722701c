//! Following the service: attach, assignments, names of servers.
//!
//! It runs nothing. **Invariant:** a service that is away is asked again, with growing pauses, for ever; only a refusal
//! that a person has to resolve ends it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isotherm_api::sync::{Assignment, Attach};
use isotherm_api::{ApiError, Client, Code};
use isotherm_core::ids::ServerId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Sender;

use super::Options;
use crate::remote::Attachment;

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long the service may hold a question for assignments, in milliseconds; the names of servers are as old at most.
const WAIT_MS: u64 = 20_000;
/// File in the state folder that holds the server's id.
const IDENTITY: &str = "server.json";

/// What the service said.
pub(super) enum News {
    Attached(Attachment),
    Assignments(Vec<Assignment>),
    Servers(BTreeMap<ServerId, String>),
    Away(String),
    Back,
    Refused(ApiError),
    /// The server's id could not be read or kept.
    State(PathBuf, io::Error),
}

/// Who this server is, for ever.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    server: ServerId,
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
        let (mut revision, mut names) = (0, BTreeMap::new());
        loop {
            // First the names, so that the first conflict copy has the right one.
            if let Ok(servers) = self.client.servers().await {
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
        let path = self.options.state.join(IDENTITY);
        let known = match read_identity(&path) {
            Ok(known) => known,
            Err(error) => return self.give_up(News::State(path, error)).await,
        };
        let attach = Attach { name: self.options.name.clone(), server: known };
        loop {
            match self.client.attach(&attach).await {
                Ok(attached) => {
                    if known != Some(attached.server)
                        && let Err(error) = write_identity(&path, attached.server)
                    {
                        return self.give_up(News::State(path, error)).await;
                    }
                    self.back().await?;
                    return Ok((attached.server, attached.epoch));
                }
                Err(error) => self.failed(error).await?,
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

fn read_identity(path: &Path) -> io::Result<Option<ServerId>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice::<Identity>(&bytes).map_err(io::Error::from)?.server)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all: an id that is lost makes a stranger of this server.
fn write_identity(path: &Path, server: ServerId) -> io::Result<()> {
    use std::io::Write as _;
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(&Identity { server }).map_err(io::Error::from)?)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}
