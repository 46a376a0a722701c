//! Answers that are longer than memory: snapshots, chunks, files.
//!
//! They are read as fast as the caller asks; the service is slowed down by that and keeps nothing more.
//!
//! **Invariant:** a stream ends with `None` only after its end frame (or its whole length); everything else is an error.

use bytes::Bytes;
use isotherm_core::content::{ChunkId, ManifestId};
use reqwest::Response;

use crate::error::{ApiError, Code};
use crate::share::{ObjectFrame, SnapshotFrame};
use crate::wire::{self, Frames, WireError};

/// Frames out of a response.
#[derive(Debug)]
struct FrameStream {
    response: Response,
    frames: Frames,
    what: &'static str,
}

impl FrameStream {
    fn new(response: Response, what: &'static str) -> Self {
        Self { response, frames: Frames::default(), what }
    }

    async fn next_frame(&mut self) -> Result<Bytes, ApiError> {
        self.next_frame_hearing(&mut || {}).await
    }

    /// Says whenever a piece of it has come.
    async fn next_frame_hearing(&mut self, heard: &mut (dyn FnMut() + Send)) -> Result<Bytes, ApiError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(frame);
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => {
                    heard();
                    self.frames.push(&piece);
                }
                Ok(None) => return Err(broken_off(self.what)),
                Err(_) => return Err(broken_off(self.what)),
            }
        }
    }
}

/// The service may have stopped, or found damage in the middle; asking again tells.
fn broken_off(what: &'static str) -> ApiError {
    ApiError::new(Code::Unreachable, WireError::BrokenOff(what).to_string())
}

/// A snapshot on its way.
#[derive(Debug)]
pub struct SnapshotStream {
    frames: FrameStream,
    nodes: u64,
    ended: bool,
}

impl SnapshotStream {
    pub(super) fn new(response: Response) -> Self {
        Self { frames: FrameStream::new(response, "Snapshot"), nodes: 0, ended: false }
    }

    /// The next frame; the last one is [`SnapshotFrame::End`], whose count is checked, then none.
    ///
    /// # Errors
    /// `unreachable`: it broke off. `answer`: it cannot be read, or nodes are missing.
    pub async fn next_frame(&mut self) -> Result<Option<SnapshotFrame>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let frame: SnapshotFrame = wire::decode(&self.frames.next_frame().await?)?;
        match &frame {
            SnapshotFrame::Header { .. } => {}
            SnapshotFrame::Nodes(nodes) => self.nodes += nodes.len() as u64,
            SnapshotFrame::End { count } if *count == self.nodes => self.ended = true,
            SnapshotFrame::End { count } => {
                let message = format!("Snapshot announced {count} nodes and sent {}", self.nodes);
                return Err(ApiError::new(Code::Answer, message));
            }
        }
        Ok(Some(frame))
    }
}

/// Objects on their way, in the order asked for.
#[derive(Debug)]
pub struct ObjectStream {
    frames: FrameStream,
    wanted: std::vec::IntoIter<[u8; 32]>,
    ended: bool,
}

impl ObjectStream {
    pub(super) fn new(response: Response, wanted: Vec<[u8; 32]>) -> Self {
        Self { frames: FrameStream::new(response, "Stream of objects"), wanted: wanted.into_iter(), ended: false }
    }

    /// The next chunk, verified; without bytes where the service does not have it. None after the last.
    ///
    /// # Errors
    /// `corrupt`: the service found damage, or the bytes that arrived are not the chunk. `unreachable`: it broke off.
    pub async fn next_chunk(&mut self) -> Result<Option<(ChunkId, Option<Bytes>)>, ApiError> {
        self.next_chunk_hearing(&mut || {}).await
    }

    /// The same, and says whenever something has come: over a slow line a chunk takes minutes.
    ///
    /// # Errors
    /// As [`Self::next_chunk`].
    pub async fn next_chunk_hearing(
        &mut self,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<Option<(ChunkId, Option<Bytes>)>, ApiError> {
        let Some((id, bytes)) = self.next_object_hearing(heard).await? else { return Ok(None) };
        let id = ChunkId::from_bytes(id);
        if let Some(bytes) = &bytes
            && ChunkId::of(bytes) != id
        {
            return Err(ApiError::new(Code::Corrupt, format!("Chunk {id} arrived damaged")));
        }
        Ok(Some((id, bytes)))
    }

    pub(super) async fn next_object(&mut self) -> Result<Option<([u8; 32], Option<Bytes>)>, ApiError> {
        self.next_object_hearing(&mut || {}).await
    }

    async fn next_object_hearing(
        &mut self,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<Option<([u8; 32], Option<Bytes>)>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let frame = ObjectFrame::decode(&self.frames.next_frame_hearing(heard).await?)?;
        let (id, bytes) = match frame {
            ObjectFrame::Object { id, bytes } => (id, Some(bytes)),
            ObjectFrame::Absent { id } => (id, None),
            ObjectFrame::Failed(error) => return Err(error.into()),
            ObjectFrame::End if self.wanted.as_slice().is_empty() => {
                self.ended = true;
                return Ok(None);
            }
            ObjectFrame::End => return Err(ApiError::new(Code::Answer, "Stream of objects ended before the last one")),
        };
        if self.wanted.next() != Some(id) {
            return Err(ApiError::new(Code::Answer, "Stream of objects is not in the order that was asked for"));
        }
        Ok(Some((id, bytes)))
    }
}

pub(super) fn check_manifest(wanted: ManifestId, bytes: &[u8]) -> Result<(), ApiError> {
    if ManifestId::of(bytes) == wanted {
        return Ok(());
    }
    Err(ApiError::new(Code::Corrupt, format!("Manifest {wanted} arrived damaged")))
}

/// A file on its way.
#[derive(Debug)]
pub struct Download {
    response: Response,
    left: Option<u64>,
}

impl Download {
    pub(super) fn new(response: Response) -> Self {
        let left = response.content_length();
        Self { response, left }
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.left
    }

    /// Whether all has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == Some(0)
    }

    /// A header of the answer, such as `etag` or `content-range`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece; none after the last byte.
    ///
    /// # Errors
    /// `unreachable`: it broke off; what came before is good.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        let piece = self.response.chunk().await.map_err(|_| broken_off("Download"))?;
        match (&piece, &mut self.left) {
            (Some(piece), Some(left)) => *left = left.saturating_sub(piece.len() as u64),
            (None, Some(left)) if *left > 0 => return Err(broken_off("Download")),
            _ => {}
        }
        Ok(piece)
    }
}
