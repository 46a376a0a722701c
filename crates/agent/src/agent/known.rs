//! What the service last said of this server: who it is, and what it is to do. Kept, so that an agent that starts while the
//! service is away works on its endpoints all the same.
//!
//! **Invariant:** each file is replaced whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use isotherm_api::sync::Assignment;
use isotherm_core::bandwidth::Limit;
use isotherm_core::ids::ServerId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// File in the state folder that holds the server's id.
pub(super) const IDENTITY: &str = "server.json";
/// File in the state folder that holds the endpoints of this server.
pub(super) const ENDPOINTS: &str = "endpoints.json";

/// Who this server is, for ever.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    server: ServerId,
}

/// The endpoints of this server, and the names of all servers for conflict copies.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) assignments: Vec<Assignment>,
    /// Endpoints that the service does not name any more and was never told to let go.
    #[serde(default)]
    pub(super) lost: Vec<Assignment>,
    servers: Vec<(ServerId, String)>,
    #[serde(default)]
    pub(super) limits: Vec<Limit>,
}

impl Known {
    pub(super) fn new(
        assignments: Vec<Assignment>,
        lost: Vec<Assignment>,
        servers: &BTreeMap<ServerId, String>,
        limits: Vec<Limit>,
    ) -> Self {
        Self { assignments, lost, servers: servers.iter().map(|(id, name)| (*id, name.clone())).collect(), limits }
    }

    /// Keeps other limits beside what is kept; where nothing is, all will be kept together.
    pub(super) fn keep_limits(state: &Path, limits: &[Limit]) -> io::Result<()> {
        match Self::read(state)? {
            Some(known) if known.limits != limits => Self { limits: limits.to_owned(), ..known }.write(state),
            _ => Ok(()),
        }
    }

    pub(super) fn servers(&self) -> BTreeMap<ServerId, String> {
        self.servers.iter().cloned().collect()
    }

    /// What was kept, if anything was.
    pub(super) fn read(state: &Path) -> io::Result<Option<Self>> {
        read(&state.join(ENDPOINTS))
    }

    pub(super) fn write(&self, state: &Path) -> io::Result<()> {
        write(&state.join(ENDPOINTS), self)
    }
}

pub(super) fn read_identity(state: &Path) -> io::Result<Option<ServerId>> {
    Ok(read::<Identity>(&state.join(IDENTITY))?.map(|identity| identity.server))
}

/// An id that is lost makes a stranger of this server.
pub(super) fn write_identity(state: &Path, server: ServerId) -> io::Result<()> {
    write(&state.join(IDENTITY), &Identity { server })
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::from)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(value).map_err(io::Error::from)?)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}
