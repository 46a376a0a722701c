//! What an earlier run left in staging.
//!
//! Content in the making goes, but for parts of large contents that are still to be fetched. What may have been a user's
//! is removed only when its bytes are known to be in the share; otherwise it gets a name beside its place again. Parked
//! nodes stay: the engine knows them. **Invariant:** nothing is removed whose content was not hashed and found safe, or
//! that has another name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use isotherm_core::content::{ManifestError, ManifestId};
use isotherm_core::ids::NodeId;
use isotherm_core::name::Name;
use isotherm_core::node::{Content, FileContent};
use isotherm_core::stub::{ContentPrefix, StubRecord};
use isotherm_core::trees::Handle;
use isotherm_gate::{ContentReader, ErrorKind, Finish, GateError, Inode, Kind};

use super::perform::{FULL, MADE, PART, rescue};
use super::{Volume, handle_of};
use crate::hashing::hash;

/// What the catalog knows of nodes whose content is found in staging.
pub trait KnownContent {
    /// Contents of the node that the share holds, now or as a revision.
    fn safe_contents(&self, node: NodeId) -> Vec<Content>;
    /// The content that the share has and this server does not.
    fn wanted(&self, node: NodeId) -> Option<ManifestId>;
    /// Where the node is or was on this server: the directory's inode and the name.
    fn place(&self, node: NodeId) -> Option<(Handle, Name)>;
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Things that were removed.
    pub removed: usize,
    /// Names, each in its directory, under which something was rescued.
    pub rescued: Vec<Vec<u8>>,
}

/// Cleans up staging. To be called before anything else is done on the volume.
///
/// # Errors
/// A failure of the volume; what was not looked at stays.
pub fn recover(volume: &Volume, known: &impl KnownContent) -> Result<Recovered, GateError> {
    let mut recovered = Recovered::default();
    for name in volume.staging().list()? {
        let Some((prefix, node)) = parse(name.as_bytes()) else { continue };
        let is_worthless = match prefix {
            PART => !is_wanted(&name, known.wanted(node)),
            FULL | MADE => is_safe(volume, &name, &known.safe_contents(node))?,
            _ => continue,
        };
        let removed = if is_worthless { volume.staging().remove(&name) } else { Ok(()) };
        match removed {
            Ok(()) if is_worthless => recovered.removed += 1,
            Err(error) if error.kind() != ErrorKind::NotEmpty => return Err(error),
            Ok(()) if prefix == PART => {}
            _ => recovered.rescued.push(give_back(volume, &name, known.place(node))?),
        }
    }
    Ok(recovered)
}

/// `full-<node>-<number>`.
fn parse(name: &[u8]) -> Option<(&str, NodeId)> {
    let mut parts = std::str::from_utf8(name).ok()?.splitn(3, '-');
    Some((parts.next()?, parts.next()?.parse().ok()?))
}

/// Whether it is a part of the content that the node is to get: the fetch goes on from it.
fn is_wanted(name: &OsStr, wanted: Option<ManifestId>) -> bool {
    let text = name.to_str().unwrap_or_default();
    wanted.is_some_and(|wanted| text.rsplit('-').next() == Some(wanted.to_string().as_str()))
}

fn is_safe(volume: &Volume, name: &OsStr, safe: &[Content]) -> Result<bool, GateError> {
    let inode = volume.staging().dir().inode(name)?;
    let stat = inode.stat()?;
    Ok(match stat.kind {
        // Removed only if empty.
        Kind::Directory => true,
        // Another name holds it.
        _ if stat.nlink > 1 => true,
        Kind::Symlink => {
            let target = inode.read_link()?;
            safe.contains(&Content::Symlink { target })
        }
        // It holds no bytes of its own.
        Kind::File if inode.is_stub() => {
            let record = inode.stub_record()?.map(|value| StubRecord::decode(&value, &handle_of(&stat.handle)));
            let is_its = |file: &FileContent, record: &StubRecord| ContentPrefix::of(&file.manifest) == record.content;
            matches!(record, Some(Ok(record)) if safe.iter().filter_map(Content::file).any(|file| is_its(file, &record)))
        }
        Kind::File => {
            let found = content_of(&inode)?;
            safe.iter().filter_map(Content::file).any(|file| Some(file.manifest) == found)
        }
        Kind::Other => false,
    })
}

/// The manifest of a file's content; none if it changed while it was read.
fn content_of(inode: &Inode) -> Result<Option<ManifestId>, GateError> {
    let mut reader = ContentReader::open(inode)?;
    let manifest = hash(&mut reader, u64::MAX, |_, _| Ok::<(), HashError>(()));
    match manifest {
        Ok(manifest) => Ok(matches!(reader.finish()?, Finish::Unchanged(_)).then(|| manifest.id())),
        Err(HashError::Gate(error)) => Err(error),
        Err(HashError::Manifest) => Ok(None),
    }
}

enum HashError {
    Gate(GateError),
    Manifest,
}

impl From<GateError> for HashError {
    fn from(error: GateError) -> Self {
        Self::Gate(error)
    }
}

impl From<ManifestError> for HashError {
    fn from(_: ManifestError) -> Self {
        Self::Manifest
    }
}

fn give_back(volume: &Volume, staged: &OsStr, place: Option<(Handle, Name)>) -> Result<Vec<u8>, GateError> {
    let staged = staged.to_str().unwrap_or_default();
    let unnamed = || Name::new(b"file").expect("a valid name");
    let (dir, name) = match place {
        Some((handle, name)) => (volume.dir(&handle).ok(), name),
        None => (None, unnamed()),
    };
    rescue(volume, staged, dir.as_ref(), &name).map(|name| name.as_bytes().to_vec())
}
