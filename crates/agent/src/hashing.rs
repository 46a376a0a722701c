//! Content of a file as chunks and a manifest: read from front to back, holes kept.
//!
//! It keeps one buffer and at most one chunk. **Invariant:** the manifest is that of the bytes up to the limit or the size
//! that the reader saw when it began; whether they are of one moment is the reader's `finish` to say.

use isotherm_core::content::{ChunkId, Manifest, ManifestBuilder, ManifestError};
use isotherm_gate::{ContentReader, Extent, GateError};

/// Bytes of one read.
const BUFFER: usize = 1 << 20;

/// Reads all content up to `limit` bytes; each chunk goes to `sink` once it is complete.
///
/// # Errors
/// Those of the reader, the sink and the manifest.
pub(crate) fn hash<E: From<GateError> + From<ManifestError>>(
    reader: &mut ContentReader,
    limit: u64,
    mut sink: impl FnMut(ChunkId, &[u8]) -> Result<(), E>,
) -> Result<Manifest, E> {
    let size = reader.before().size.min(limit);
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER))];
    let mut builder = ManifestBuilder::new();
    while let Some(extent) = reader.next_extent()? {
        let (mut offset, end) = match extent {
            Extent::Hole { offset, len } => {
                builder.hole((offset + len).min(limit).saturating_sub(offset));
                continue;
            }
            Extent::Data { offset, len } => (offset, (offset + len).min(limit)),
        };
        while offset < end {
            let want = buffer.len().min(usize::try_from(end - offset).unwrap_or(buffer.len()));
            let got = reader.read_at(&mut buffer[..want], offset)?;
            if got == 0 {
                // It shrank; `finish` tells.
                break;
            }
            builder.data(&buffer[..got], &mut sink)?;
            offset += got as u64;
        }
    }
    builder.finish(sink)
}
