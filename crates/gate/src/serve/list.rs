//! Which volumes are guarded, as a file that outlives the gate.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::GateFailure;
use crate::link::{VolumeId, VolumeSettings};

/// Name of the file in the gate's state folder.
const FILE: &str = "volumes.json";
/// What this release writes and reads.
const FORMAT: u32 = 1;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: IdText,
    #[serde(flatten)]
    pub(crate) settings: VolumeSettings,
}

/// An id in the form in which administrators know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct IdText(pub(crate) VolumeId);

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    format: u32,
    volumes: Vec<Listed>,
}

/// Reads the list; empty where there is none yet.
pub(super) fn read(state: &Path) -> Result<Vec<Listed>, GateFailure> {
    let path = state.join(FILE);
    let failed = |text: String| GateFailure::List { path: path.clone(), text };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    parse(&bytes).map_err(failed)
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Listed>, String> {
    let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if written.format == FORMAT {
        Ok(written.volumes)
    } else {
        Err(format!("it has format {}, and this release knows {FORMAT}", written.format))
    }
}

/// A whole list; [`parse`] reads it.
pub(crate) fn bytes_of(volumes: &[Listed]) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(&Written { format: FORMAT, volumes: volumes.to_vec() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes the list, durably, as a whole.
pub(super) fn write(state: &Path, volumes: &[Listed]) -> Result<(), GateFailure> {
    let (path, next) = (state.join(FILE), state.join(format!("{FILE}.new")));
    let put = || -> std::io::Result<()> {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&bytes_of(volumes)?)?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        fs::File::open(state)?.sync_all()
    };
    put().map_err(|error| GateFailure::List { path: path.clone(), text: error.to_string() })
}

impl TryFrom<String> for IdText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        let bytes = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
        bytes.map(|bytes| Self(VolumeId(bytes.to_be_bytes()))).ok_or_else(|| format!("'{text}' is no id of a file system"))
    }
}

impl From<IdText> for String {
    fn from(id: IdText) -> Self {
        id.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::link::Guarding;

    #[test]
    fn the_list_comes_back_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let settings = VolumeSettings {
            device: "/dev/sdb1".into(),
            path: "/srv/cad".into(),
            options: "noatime".to_owned(),
            guard: Guarding::Auto,
        };
        let listed = [Listed { id: IdText(VolumeId([0xab; 16])), settings }];
        write(folder.path(), &listed).unwrap();
        assert_eq!(read(folder.path()).unwrap(), listed);
        fs::write(folder.path().join(FILE), b"{\"format\": 9, \"volumes\": []}").unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains('9'), "{error}");
    }
}
