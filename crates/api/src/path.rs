//! Paths of a share as text: in JSON and in URLs. The one place where bytes become text and back.
//!
//! It does not know whether a path exists. Paths are bytes on Linux; JSON and URLs are not.
//!
//! **Invariant:** no two paths have the same [`ShownPath`] or the same URL form.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A path in JSON: `path` for people, and `path_b64` with the exact bytes where these are not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct ShownPath {
    /// The path, with U+FFFD where its bytes are not UTF-8.
    pub path: String,
    /// The bytes in base64, only where `path` is not exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
}

impl ShownPath {
    /// The JSON form of a path.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { path: text.to_owned(), path_b64: None },
            Err(_) => Self { path: String::from_utf8_lossy(bytes).into_owned(), path_b64: Some(STANDARD.encode(bytes)) },
        }
    }

    /// The exact bytes; nothing if `path_b64` is not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match &self.path_b64 {
            Some(text) => STANDARD.decode(text).ok(),
            None => Some(self.path.clone().into_bytes()),
        }
    }
}

/// A path for a URL: all but unreserved characters and `/` are percent-encoded.
#[must_use]
pub fn percent_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    out
}

/// The bytes that a URL's path means; nothing if a `%` is not followed by two hexadecimal digits.
#[must_use]
pub fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
        rest = tail;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_bytes_survive_json_and_urls() {
        for bytes in [&b"plan.dwg"[..], "Pläne/ä ü%20.txt".as_bytes(), b"\xff\xfe/x", b"a\n?#%"] {
            let json = serde_json::to_string(&ShownPath::new(bytes)).unwrap();
            let shown: ShownPath = serde_json::from_str(&json).unwrap();
            assert_eq!(shown.bytes().unwrap(), bytes);
            assert_eq!(percent_decode(&percent_encode(bytes)).unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&ShownPath::new(b"a")).unwrap(), r#"{"path":"a"}"#);
        for bad in ["%", "%2", "%zz", "%+1"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
