//! Large contents that were fetched in part: they stay in staging when the service goes away, and the fetch goes on from
//! there, also after a restart.
//!
//! **Invariant:** nothing of an earlier fetch is believed: each chunk is read back and compared with its id.

use std::collections::BTreeSet;

use isotherm_core::content::{ChunkId, Manifest, Part};
use isotherm_core::ids::NodeId;
use isotherm_core::node::FileContent;
use isotherm_gate::{ErrorKind, GateError, StagedFile};

use super::{PART, Performer};

/// Contents from this size on are kept: fetching less again costs no more than a request, in bytes.
pub(super) const KEPT_FROM: u64 = 8 << 20;

/// The name of a content that is being fetched. That of a large one tells which content it is.
pub(super) fn name(performer: &Performer, node: NodeId, content: &FileContent) -> String {
    if content.size < KEPT_FROM { performer.staged_name(PART, node) } else { format!("{PART}-{node}-{}", content.manifest) }
}

/// Opens what an earlier fetch has left, or makes a file; other contents of the node that were fetched in part go.
pub(super) fn open(performer: &Performer, node: NodeId, content: &FileContent) -> Result<StagedFile, GateError> {
    let (staging, name) = (performer.volume.staging(), name(performer, node, content));
    if content.size < KEPT_FROM {
        return staging.create(&name);
    }
    let own = format!("{PART}-{node}-");
    for other in staging.list()? {
        if other.to_str().is_some_and(|other| other.starts_with(&own) && other != name) {
            staging.remove(&other)?;
        }
    }
    match staging.create(&name) {
        Err(error) if error.kind() == ErrorKind::Exists => staging.open(&name),
        made => made,
    }
}

/// The offsets of those chunks that the file holds already.
pub(super) fn held(file: &StagedFile, manifest: &Manifest, before: u64) -> Result<BTreeSet<u64>, GateError> {
    let mut held = BTreeSet::new();
    let mut buffer = Vec::new();
    for placed in manifest.placed() {
        if let Part::Data { chunk, len } = placed.part
            && placed.offset + u64::from(len) <= before
        {
            buffer.resize(len as usize, 0);
            let read = file.read_at(&mut buffer, placed.offset)?;
            if read == buffer.len() && ChunkId::of(&buffer) == chunk {
                held.insert(placed.offset);
            }
        }
    }
    Ok(held)
}
