//! The marker of an endpoint root: which endpoint lives here, and a number that the catalog must know too.
//!
//! It does not stop an endpoint; it says what is wrong in a user's words. **Invariants:** a folder without its marker is
//! never taken for the endpoint (a disk that is not mounted looks like an empty folder); a volume that was rolled back
//! alone has an older nonce than its catalog (row 15).

use std::ffi::OsStr;

use isotherm_core::ids::{EndpointId, GroupId};
use isotherm_gate::{ErrorKind, GateError, STAGE_DIR};
use serde::{Deserialize, Serialize};

use super::Volume;

/// Name of the marker inside the product's own folder.
const FILE: &str = "endpoint";

/// Format of the marker; a newer one is refused.
const FORMAT: u32 = 1;

/// Longest marker that is read, in bytes.
const BYTES_MAX: usize = 4096;

/// What stands in an endpoint's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its sync group.
    pub group: GroupId,
    /// Drawn anew at each start and each hour; the catalog holds it too.
    pub nonce: String,
    /// Folder and share have agreed once: a server authoritative upload is over, whatever becomes of the catalog.
    #[serde(default)]
    pub agreed: bool,
}

/// Why a folder is not the endpoint's root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerProblem {
    /// The catalog knows this endpoint, and its folder holds no marker.
    #[error("Folder {0} has no marker of this endpoint")]
    Missing(String),
    /// The folder belongs to another endpoint.
    #[error("Folder {path} belongs to endpoint {found}")]
    Foreign {
        /// The folder.
        path: String,
        /// Whose it is.
        found: EndpointId,
    },
    /// The path leads to another folder than at the start.
    #[error("Path {0} leads to another folder than before")]
    Moved(String),
    /// The marker cannot be read or written.
    #[error("Marker of {path}: {text}")]
    Unusable {
        /// The folder.
        path: String,
        /// What is wrong.
        text: String,
    },
}

impl MarkerProblem {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "Mount the disk that holds the folder, or put the folder back; if it is to begin anew, remove the endpoint and add it again"
            }
            Self::Foreign { .. } => "Correct the path, or remove the other endpoint first",
            Self::Moved(_) => "Mount the disk that holds the folder; work goes on by itself",
            Self::Unusable { .. } => "Check the disk and the permissions of the folder; work goes on by itself",
        }
    }
}

/// What renewing the nonce found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// To be kept in the catalog.
    pub nonce: String,
    /// Volume and catalog did not know the same nonce: one of them was rolled back without the other.
    pub rolled_back: bool,
}

impl Volume {
    /// The marker that stands here.
    ///
    /// # Errors
    /// It cannot be read, or was written by a newer release.
    pub fn marker(&self) -> Result<Option<Marker>, MarkerProblem> {
        let bytes = self.staging().home().read_small(OsStr::new(FILE), BYTES_MAX).map_err(|error| self.unusable(&error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| self.unusable(&error))?;
        if marker.format != FORMAT {
            return Err(self.unusable(&format!("it has format {}, this release knows format {FORMAT}", marker.format)));
        }
        Ok(Some(marker))
    }

    /// Whether the folder is still where it was, with the marker of this endpoint. Cheap; asked for again and again.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_marker(&self, endpoint: EndpointId) -> Result<(), MarkerProblem> {
        if !self.root().is_still_at(self.path()) {
            return Err(MarkerProblem::Moved(self.shown()));
        }
        if !self.keeps_own_folder() {
            return Err(MarkerProblem::Missing(self.shown()));
        }
        match self.marker()? {
            Some(marker) if marker.endpoint == endpoint => Ok(()),
            Some(marker) => Err(MarkerProblem::Foreign { path: self.shown(), found: marker.endpoint }),
            None => Err(MarkerProblem::Missing(self.shown())),
        }
    }

    /// Whether our own folder still has its name: the folder's owner may rename what is in it, ours too.
    fn keeps_own_folder(&self) -> bool {
        let own = self.staging().home().stat_self().map(|stat| stat.handle);
        let named = self.root().dir().stat(OsStr::new(STAGE_DIR));
        matches!((own, named), (Ok(own), Ok(Some(named))) if named.handle == own)
    }

    /// False where nothing is free: the one that stands here stays.
    fn write_marker(&self, marker: &Marker) -> Result<bool, MarkerProblem> {
        let bytes = serde_json::to_vec_pretty(marker).expect("a marker is plain JSON");
        match self.staging().home().write_small(OsStr::new(FILE), &bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NoSpace => Ok(false),
            Err(error) => Err(self.unusable(&error)),
        }
    }

    /// Notes in the marker that folder and share have agreed; to be asked again, for nothing may be free.
    ///
    /// # Errors
    /// The marker cannot be read or written.
    pub fn mark_agreed(&self) -> Result<(), MarkerProblem> {
        match self.marker()? {
            Some(marker) if !marker.agreed => self.write_marker(&Marker { agreed: true, ..marker }).map(drop),
            _ => Ok(()),
        }
    }

    /// Removes the marker alone: it is of an endpoint that is no more.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn forget_marker(&self) -> Result<(), GateError> {
        self.staging().home().unlink(OsStr::new(FILE))
    }

    /// Removes the marker and the empty folders around it; files that are still in staging stay.
    ///
    /// # Errors
    /// A failure of the volume.
    pub fn remove_marker(&self) -> Result<(), GateError> {
        let ignore_left = |answer: Result<(), GateError>| match answer {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotEmpty) => Ok(()),
            answer => answer,
        };
        ignore_left(self.staging().home().unlink(OsStr::new(FILE)))?;
        ignore_left(self.staging().home().rmdir(OsStr::new("staging")))?;
        ignore_left(self.root().dir().rmdir(OsStr::new(STAGE_DIR)))
    }

    fn shown(&self) -> String {
        isotherm_core::name::escape(self.path().as_os_str().as_encoded_bytes()).into_owned()
    }

    fn unusable(&self, error: &dyn std::fmt::Display) -> MarkerProblem {
        MarkerProblem::Unusable { path: self.shown(), text: error.to_string() }
    }
}

/// Whether the volume was set back without its catalog, or the other way round: `known` are the nonces that the catalog
/// holds. Nothing is written.
///
/// # Errors
/// The marker cannot be read.
pub fn is_rolled_back(volume: &Volume, known: &[String]) -> Result<bool, MarkerProblem> {
    let found = volume.marker()?;
    Ok(!known.is_empty() && found.is_some_and(|marker| !known.contains(&marker.nonce)))
}

/// Writes a fresh nonce into the marker, which is made where the catalog is new too. `known` are the nonces that the
/// catalog holds: the last one, and one that it was about to write when it stopped; none: the catalog is new. Where nothing is free the
/// nonce stays the one that it was, or the endpoint could not begin and never make room.
///
/// # Errors
/// The folder is not this endpoint's, or cannot be written.
pub fn renew_nonce(
    volume: &Volume,
    (endpoint, group): (EndpointId, GroupId),
    known: &[String],
    fresh: String,
) -> Result<Renewed, MarkerProblem> {
    let found = volume.marker()?;
    if let Some(other) = found.as_ref().filter(|marker| marker.endpoint != endpoint) {
        return Err(MarkerProblem::Foreign { path: volume.shown(), found: other.endpoint });
    }
    if found.is_none() && !known.is_empty() {
        return Err(MarkerProblem::Missing(volume.shown()));
    }
    let rolled_back = is_rolled_back(volume, known)?;
    let agreed = found.as_ref().is_some_and(|marker| marker.agreed);
    let marker = Marker { format: FORMAT, endpoint, group, nonce: fresh, agreed };
    if volume.write_marker(&marker)? {
        return Ok(Renewed { nonce: marker.nonce, rolled_back });
    }
    // What was set back is not to look as if nothing had happened, and a new folder has to have its marker first.
    let stays = found.filter(|_| !rolled_back && !known.is_empty());
    let nonce = stays.ok_or_else(|| volume.unusable(&"nothing is free on the volume"))?.nonce;
    tracing::warn!(path = volume.shown(), "Nothing is free on the volume: the marker of the endpoint stays as it is");
    Ok(Renewed { nonce, rolled_back })
}
