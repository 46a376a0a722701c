//! What administrators and agents ask a gate.

use std::path::{Path, PathBuf};

use super::{Channel, FromGate, GATE_SOCKET, LinkError, ToGate, VolumeSettings, VolumeState};

/// Asks the gate of one run folder.
#[derive(Debug, Clone)]
pub struct GateClient {
    socket: PathBuf,
}

/// Why a gate did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be asked.
    #[error("The gate cannot be asked: {0}")]
    Link(#[from] LinkError),
    /// It refuses.
    #[error("{text}")]
    Refused {
        /// Why.
        text: String,
        /// What to do.
        remedy: String,
    },
}

impl GateClient {
    /// The gate of a run folder. Nothing is asked yet.
    #[must_use]
    pub fn new(run: &Path) -> Self {
        Self { socket: run.join(GATE_SOCKET) }
    }

    /// All volumes of the list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn volumes(&self) -> Result<Vec<VolumeState>, ClientError> {
        match self.ask(&ToGate::Volumes)? {
            FromGate::Volumes(volumes) => Ok(volumes),
            _ => Err(LinkError::NotUnderstood.into()),
        }
    }

    /// Mounts, guards and attaches a volume, now and whenever the gate starts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn add(&self, settings: VolumeSettings) -> Result<(), ClientError> {
        said_as_text(&settings.device)?;
        said_as_text(&settings.path)?;
        self.done(&ToGate::Add(settings))
    }

    /// Detaches a volume and forgets it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove(&self, path: &Path) -> Result<(), ClientError> {
        said_as_text(path)?;
        self.done(&ToGate::Remove(path.to_owned()))
    }

    /// Detaches all volumes, and ends gate and keeper.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stop(&self) -> Result<(), ClientError> {
        self.done(&ToGate::Stop)
    }

    fn done(&self, message: &ToGate) -> Result<(), ClientError> {
        match self.ask(message)? {
            FromGate::Done => Ok(()),
            _ => Err(LinkError::NotUnderstood.into()),
        }
    }

    fn ask(&self, message: &ToGate) -> Result<FromGate, ClientError> {
        let channel = Channel::connect(&self.socket)?;
        channel.send(message)?;
        match channel.receive::<FromGate>()?.0 {
            FromGate::Failed { text, remedy } => Err(ClientError::Refused { text, remedy }),
            answer => Ok(answer),
        }
    }
}

/// Messages and the list of volumes hold paths as text.
fn said_as_text(path: &Path) -> Result<(), ClientError> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(ClientError::Refused {
            text: format!("The path '{}' is not UTF-8", path.display()),
            remedy: "Give the folder that the volume is mounted on a name in UTF-8; names inside of it may have any bytes"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_path_that_cannot_be_said_is_refused_by_name() {
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff"));
        let error = GateClient::new(Path::new("/nowhere")).remove(odd).expect_err("nobody is asked");
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
    }
}
