//! How values stand in columns.
//!
//! It makes no queries.
//!
//! **Invariant:** what is read is what was written, or an error that names the row.

use isotherm_core::namespace::Answer;
use isotherm_core::node::{Kind, Node};
use isotherm_core::stored;

use crate::fault::Fault;

/// First byte of encoded nodes and answers.
const FORMAT: u8 = 1;

/// The signed number of the same bits: SQLite has no other.
pub(super) fn signed(value: u64) -> i64 {
    value as i64
}

/// The way back.
pub(super) fn unsigned(value: i64) -> u64 {
    value as u64
}

pub(super) fn encode_node(node: &Node) -> Vec<u8> {
    stored::seal(FORMAT, &postcard::to_allocvec(node).expect("a node holds nothing that postcard refuses"))
}

pub(super) fn decode_node(bytes: &[u8]) -> Result<Node, Fault> {
    decode(bytes, "Node")
}

pub(super) fn encode_answer(answer: &Answer) -> Vec<u8> {
    stored::seal(FORMAT, &postcard::to_allocvec(answer).expect("an answer holds nothing that postcard refuses"))
}

pub(super) fn decode_answer(bytes: &[u8]) -> Result<Answer, Fault> {
    decode(bytes, "Answer")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Fault> {
    let body = stored::open(FORMAT, bytes).map_err(|error| Fault::corrupt(format!("{what} in the records: {error}")))?;
    postcard::from_bytes(body).map_err(|error| Fault::corrupt(format!("{what} in the records cannot be decoded: {error}")))
}

/// The number of a kind in its column.
pub(super) fn kind_code(kind: Kind) -> i64 {
    match kind {
        Kind::Directory => 0,
        Kind::File => 1,
        Kind::Symlink => 2,
    }
}

/// An id out of its column.
pub(super) fn id<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Fault::corrupt(format!("{what} in the records is not {N} bytes long")))
}
