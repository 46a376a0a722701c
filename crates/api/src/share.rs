//! What an agent and the service say about a share: feed, snapshot, chunks and manifests.
//!
//! Commits and pages travel as core's own types. Packs travel as they are stored.
//!
//! **Invariant:** a stream without its end frame is an error for the reader, so that a broken connection never looks
//! like a short list.

use bytes::{BufMut, Bytes, BytesMut};
use isotherm_core::content::{ChunkId, ManifestId, PackId};
use isotherm_core::ids::{Cursor, Epoch, NodeId, ServerId};
use isotherm_core::namespace::{Life, Reader};
use isotherm_core::node::Node;
use serde::{Deserialize, Serialize};

use crate::error::{Code, ErrorBody};
use crate::wire::WireError;

/// Asks for a page of the feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FeedRequest {
    /// Where to read on, and what is known already.
    pub reader: Reader,
    /// Most changes of the page, at most [`crate::limits::FEED_MAX`].
    pub limit: u32,
    /// How long to wait for a change where there is none, in milliseconds.
    pub wait_ms: u64,
}

/// A frame of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SnapshotFrame {
    /// First: the moment of the snapshot, from which the feed goes on.
    Header {
        /// Where the feed goes on.
        cursor: Cursor,
        /// Lives of the share that have ended, the oldest first.
        lives: Vec<Life>,
    },
    /// Live nodes, each after its parent.
    Nodes(Vec<Node>),
    /// Last: how many nodes there were.
    End {
        /// Nodes in all frames.
        count: u64,
    },
}

/// Asks which chunks are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HaveRequest {
    /// At most [`crate::limits::IDS_MAX`].
    pub chunks: Vec<ChunkId>,
}

/// One bit for each chunk that was asked for, lowest bit first. A set bit also pins the chunk for a day.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HaveAnswer {
    bits: Vec<u8>,
}

impl FromIterator<bool> for HaveAnswer {
    fn from_iter<I: IntoIterator<Item = bool>>(present: I) -> Self {
        let mut bits = Vec::new();
        for (at, is_present) in present.into_iter().enumerate() {
            if at % 8 == 0 {
                bits.push(0);
            }
            bits[at / 8] |= u8::from(is_present) << (at % 8);
        }
        Self { bits }
    }
}

impl HaveAnswer {
    /// Whether the chunk at this place of the request is there. False past the end.
    #[must_use]
    pub fn has(&self, at: usize) -> bool {
        self.bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    }
}

/// The answer to a pack: it and its index are durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackStored {
    /// The pack.
    pub pack: PackId,
    /// Chunks in it.
    pub chunks: u32,
}

/// Encoded manifests to be kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManifestsPut {
    /// At most [`crate::limits::MANIFESTS_MAX`].
    pub manifests: Vec<Vec<u8>>,
}

/// What became of one manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ManifestAnswer {
    /// Kept durably.
    Stored(ManifestId),
    /// A large manifest whose own chunks are not there: nothing was kept. Upload them and send it again.
    Missing(Vec<ChunkId>),
}

/// Asks for manifests or for chunks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdsRequest {
    /// The 32 bytes of each, at most [`crate::limits::IDS_MAX`].
    pub ids: Vec<[u8; 32]>,
}

/// Asks for the manifests that nodes had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// Most manifests of one node.
    pub limit: u32,
}

/// The answer to [`HistoryRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// For each node, newest first.
    pub manifests: Vec<Vec<ManifestId>>,
}

/// Asks which contents the share has lost and wants to be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WantedRequest {
    /// The asking server. It is asked for nothing while its endpoint is paused or goes.
    pub server: ServerId,
    /// Its run.
    pub epoch: Epoch,
    /// The newest round that it has dealt with: only another one is news. 0: everything is.
    pub seen: u64,
    /// The last node of the page before; none for the first page.
    pub after: Option<NodeId>,
    /// Most contents of the page, at most [`crate::limits::WANTED_MAX`].
    pub limit: u32,
    /// How long to wait for news where there is none, in milliseconds.
    pub wait_ms: u64,
}

/// The answer to [`WantedRequest`]. Every server begins at another place of the same circle, so that they share the work.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Number of the check that found the newest damage; it only grows.
    pub round: u64,
    /// What is wanted, none if there is no news.
    pub contents: Vec<WantedContent>,
    /// Where the next page begins; none after the last one.
    pub next: Option<NodeId>,
}

/// A live node whose content the share cannot read any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WantedContent {
    /// The node.
    pub node: NodeId,
    /// Its content, which is the one that is wanted: another one is no help.
    pub manifest: ManifestId,
}

/// A frame of a stream of objects. Its form is a tag byte, then 32 bytes of id, then the bytes: an object of some
/// megabytes is not worth a copy through a general encoding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectFrame {
    /// An object, verified by the service.
    Object {
        /// Its id.
        id: [u8; 32],
        /// Its bytes.
        bytes: Bytes,
    },
    /// The object is not there.
    Absent {
        /// Its id.
        id: [u8; 32],
    },
    /// The stream ends here with an error.
    Failed(ErrorBody),
    /// The stream is complete.
    End,
}

const TAG_END: u8 = 0;
const TAG_OBJECT: u8 = 1;
const TAG_ABSENT: u8 = 2;
const TAG_FAILED: u8 = 3;

impl ObjectFrame {
    /// The frame with its length before it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let json;
        let (tag, id, body): (u8, &[u8], &[u8]) = match self {
            Self::Object { id, bytes } => (TAG_OBJECT, id, bytes),
            Self::Absent { id } => (TAG_ABSENT, id, &[]),
            Self::Failed(error) => {
                json = serde_json::to_vec(error).expect("an error body is plain JSON");
                (TAG_FAILED, &[], &json)
            }
            Self::End => (TAG_END, &[], &[]),
        };
        let mut out = BytesMut::with_capacity(5 + id.len() + body.len());
        out.put_u32_le((1 + id.len() + body.len()) as u32);
        out.put_u8(tag);
        out.extend_from_slice(id);
        out.extend_from_slice(body);
        out.freeze()
    }

    /// Reads a frame without its length.
    ///
    /// # Errors
    /// Bytes that are no such frame.
    pub fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let wrong = |why: &str| WireError::Body { what: "ObjectFrame", why: why.to_owned() };
        let (&tag, rest) = frame.split_first().ok_or(WireError::Empty("ObjectFrame"))?;
        let id = || rest.first_chunk::<32>().copied().ok_or_else(|| wrong("it is shorter than an id"));
        match tag {
            TAG_END => Ok(Self::End),
            TAG_OBJECT => Ok(Self::Object { id: id()?, bytes: frame.slice(33..) }),
            TAG_ABSENT => Ok(Self::Absent { id: id()? }),
            TAG_FAILED => {
                let lost = ErrorBody { code: Code::Internal, message: "The service failed and did not say why".to_owned() };
                Ok(Self::Failed(serde_json::from_slice(rest).unwrap_or(lost)))
            }
            other => Err(wrong(&format!("its tag is {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::Frames;

    #[test]
    fn bits_answer_in_order() {
        let asked = [true, false, true, true, false, false, false, false, true, false];
        let answer: HaveAnswer = asked.into_iter().collect();
        assert!(asked.iter().enumerate().all(|(at, present)| answer.has(at) == *present));
        assert!(!answer.has(100));
    }

    #[test]
    fn object_frames_survive() {
        let error = ErrorBody { code: Code::Corrupt, message: "Chunk x is damaged".to_owned() };
        let frames = [
            ObjectFrame::Object { id: [7; 32], bytes: Bytes::from_static(b"abc") },
            ObjectFrame::Absent { id: [8; 32] },
            ObjectFrame::Failed(error),
            ObjectFrame::End,
        ];
        let mut reader = Frames::default();
        for frame in &frames {
            reader.push(&frame.encode());
            assert_eq!(ObjectFrame::decode(&reader.next_frame().unwrap().unwrap()).unwrap(), *frame);
        }
        for bad in [&b""[..], b"\x01abc", b"\x09"] {
            assert!(ObjectFrame::decode(&Bytes::from_static(bad)).is_err());
        }
    }
}
