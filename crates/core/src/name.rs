//! Names: one component of a path, as bytes, valid by construction.
//!
//! A [`Name`] is parsed once at the edge and never checked again. It is bytes, not text: Linux allows any byte
//! but `/` and NUL.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fold;

/// The longest name that ext4, XFS and btrfs can hold, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Most conflict copies of one file; the next is a problem and both versions stay where they are.
pub const CONFLICT_COPIES_MAX: u32 = 100;

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Arc<[u8]>);

/// Why bytes are not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("A name cannot be empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("A name of {0} bytes is too long (at most 255)")]
    TooLong(usize),
    /// `.`, `..`, or a byte that separates or ends paths.
    #[error("`{0}` cannot be a name")]
    Forbidden(String),
}

impl Name {
    /// Checks bytes and makes them a name.
    ///
    /// # Errors
    /// [`NameError`] tells which rule the bytes break.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            _ if bytes.len() > NAME_BYTES_MAX => Err(NameError::TooLong(bytes.len())),
            b"." | b".." => Err(NameError::Forbidden(escape(bytes).into_owned())),
            _ if bytes.iter().any(|&byte| byte == b'/' || byte == 0) => Err(NameError::Forbidden(escape(bytes).into_owned())),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The bytes as the file system has them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the share looks the name up by: itself, or its folded form.
    #[must_use]
    pub fn key(&self, case: Case) -> Vec<u8> {
        match case {
            Case::Sensitive => self.0.to_vec(),
            Case::Insensitive => fold::fold(&self.0),
        }
    }

    /// The name of a conflict copy: `report-SERVER.docx`, then `report-SERVER-1.docx` and so on. The stem is cut
    /// where the result would be too long, never inside a UTF-8 character.
    #[must_use]
    pub fn conflict(&self, server: &str, number: u32) -> Self {
        let (stem, extension) = split_extension(&self.0);
        let tail = if number == 0 { format!("-{server}") } else { format!("-{server}-{number}") };
        let room = NAME_BYTES_MAX.saturating_sub(tail.len() + extension.len());
        let mut bytes = cut(stem, room).to_vec();
        bytes.extend_from_slice(tail.as_bytes());
        bytes.extend_from_slice(extension);
        bytes.retain(|&byte| byte != b'/' && byte != 0);
        bytes.truncate(NAME_BYTES_MAX);
        Self(bytes.into())
    }
}

/// Stem and extension with its dot. A leading dot starts no extension, and an extension longer than 32 bytes is none.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'.') {
        Some(at) if at > 0 && name.len() - at <= 33 => name.split_at(at),
        _ => (name, b""),
    }
}

fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut end = room;
    while end > 0 && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &stem[..end]
}

/// Bytes as one line of text that is safe on a terminal: control characters and what is not UTF-8 become `\xNN`.
#[must_use]
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(unsafe_on_a_terminal)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if unsafe_on_a_terminal(character) {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    push_hex(&mut out, byte);
                }
            } else {
                out.push(character);
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_hex(&mut out, byte));
    }
    Cow::Owned(out)
}

/// Control characters, and the marks that turn the direction of the text after them.
fn unsafe_on_a_terminal(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_hex(out: &mut String, byte: u8) {
    use fmt::Write as _;
    write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape(&self.0))
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = NameError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, NameError> {
        Self::new(&bytes)
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0.to_vec()
    }
}

/// Whether a share tells names apart that differ only in case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// As Linux does.
    #[default]
    Sensitive,
    /// As Windows clients expect; names keep the case they were given.
    Insensitive,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refuses_what_no_directory_can_hold() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"-rf"[..], b"a\nb", b"\xff\xfe", &[b'x'; 255], b"..."] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn conflict_names_keep_the_extension() {
        let conflict = |name: &str, number| Name::new(name.as_bytes()).unwrap().conflict("munich", number).to_string();
        assert_eq!(conflict("report.docx", 0), "report-munich.docx");
        assert_eq!(conflict("report.docx", 3), "report-munich-3.docx");
        assert_eq!(conflict("Makefile", 0), "Makefile-munich");
        assert_eq!(conflict(".profile", 0), ".profile-munich");
    }

    #[test]
    fn conflict_names_fit_and_stay_utf8() {
        let long = format!("{}.pdf", "ü".repeat(125));
        let name = Name::new(long.as_bytes()).unwrap().conflict("munich", 7);
        assert!(name.as_bytes().len() <= NAME_BYTES_MAX);
        assert!(std::str::from_utf8(name.as_bytes()).unwrap().ends_with("-munich-7.pdf"));
    }

    #[test]
    fn escapes_what_would_drive_a_terminal() {
        assert_eq!(escape(b"a\nb\x1b[31m\xff"), "a\\x0ab\\x1b[31m\\xff");
        assert_eq!(escape("Zeichnung ä".as_bytes()), "Zeichnung ä");
    }
}
