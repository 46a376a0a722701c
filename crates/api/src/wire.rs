//! The outer form of binary bodies: one format byte, then postcard; and frames for what is streamed.
//!
//! It knows no message. Lengths are checked before anything is allocated for them.
//!
//! **Invariant:** a body of another format or with bytes left over is an error that names the message, never a guess.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_MAX;

/// First byte of every binary body.
pub const FORMAT: u8 = 1;

/// Bytes of a frame's length.
const PREFIX: usize = 4;

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not even a format byte.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Written by another release.
    #[error("{what} has format {found}, this release knows format {FORMAT}")]
    Format {
        /// The message.
        what: &'static str,
        /// The byte that was found.
        found: u8,
    },
    /// Not a message of this type.
    #[error("{what} cannot be decoded: {why}")]
    Body {
        /// The message.
        what: &'static str,
        /// What the decoder said.
        why: String,
    },
    /// A frame longer than [`FRAME_MAX`].
    #[error("Frame of {0} bytes is longer than {FRAME_MAX} bytes")]
    TooLong(u64),
    /// The stream ended inside a frame or before its end frame.
    #[error("{0} broke off before its end")]
    BrokenOff(&'static str),
}

/// The short name of a message type, for errors.
fn name_of<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    let short = full.split('<').next().unwrap_or(full);
    short.rsplit("::").next().unwrap_or(short)
}

/// A message as a binary body.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_extend(message, vec![FORMAT]).expect("messages hold nothing that postcard refuses")
}

/// Reads a binary body.
///
/// # Errors
/// [`WireError`] names the message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let what = name_of::<T>();
    let (&format, body) = bytes.split_first().ok_or(WireError::Empty(what))?;
    if format != FORMAT {
        return Err(WireError::Format { what, found: format });
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(WireError::Body { what, why: "bytes follow its end".to_owned() }),
        Err(error) => Err(WireError::Body { what, why: error.to_string() }),
    }
}

/// Puts a length before bytes.
#[must_use]
pub fn frame(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + body.len());
    out.put_u32_le(body.len() as u32);
    out.extend_from_slice(body);
    out.freeze()
}

/// Takes frames out of bytes that arrive in any pieces. It keeps at most one frame and the piece that ended it.
#[derive(Debug, Default)]
pub struct Frames {
    kept: BytesMut,
}

impl Frames {
    /// Adds the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// A length past [`FRAME_MAX`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(prefix) = self.kept.first_chunk::<PREFIX>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > FRAME_MAX {
            return Err(WireError::TooLong(len as u64));
        }
        if self.kept.len() < PREFIX + len {
            return Ok(None);
        }
        self.kept.advance(PREFIX);
        Ok(Some(self.kept.split_to(len).freeze()))
    }

    /// Whether nothing is left of a frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sync::Attach;

    #[test]
    fn errors_name_the_message() {
        let good = encode(&Attach { name: "munich".to_owned(), server: None });
        assert_eq!(decode::<Attach>(&good).unwrap().name, "munich");
        assert_eq!(decode::<Attach>(b"").unwrap_err().to_string(), "Attach is empty");
        assert_eq!(decode::<Attach>(&[9, 0]).unwrap_err().to_string(), "Attach has format 9, this release knows format 1");
        for cut in 1..good.len() {
            assert!(matches!(decode::<Attach>(&good[..cut]), Err(WireError::Body { what: "Attach", .. })), "{cut}");
        }
        let long = [&good[..], b"x"].concat();
        assert!(matches!(decode::<Attach>(&long), Err(WireError::Body { .. })));
    }

    #[test]
    fn frames_come_out_whatever_the_pieces() {
        let stream = [frame(b"one"), frame(b""), frame(&[7; 300])].concat();
        for size in [1, 2, 5, 1000] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                frames.push(piece);
                while let Some(frame) = frames.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [&b"one"[..], b"", &[7; 300]]);
            assert!(frames.is_empty());
        }
        let mut frames = Frames::default();
        frames.push(&[0xff; 4]);
        assert!(frames.next_frame().is_err());
    }
}
