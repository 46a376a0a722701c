//! The key of an object: a validated path of plain names.
//!
//! It does not say what an object holds. No implementation has to escape a key or to fear it.
//!
//! Invariant: a key is a relative path in every file system and every object store, and it can't climb.

use std::fmt;
use std::str::FromStr;

/// Longest key in bytes; every object store takes this much below a prefix.
const KEY_LEN_MAX: usize = 512;

/// Longest part of a key in bytes: the longest file name of Linux.
const SEGMENT_LEN_MAX: usize = 255;

/// A name for an object: parts of lowercase letters, digits, `-` and `.`, divided by `/`. No part is empty or begins
/// with a dot. A key must not be a folder of another: some stores keep keys as paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Key {text:?} {why}")]
pub struct KeyError {
    text: String,
    why: &'static str,
}

impl Key {
    /// Checks a text and takes it.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-.".contains(&byte);
        let why = if text.len() > KEY_LEN_MAX {
            Some("is too long")
        } else if !text.bytes().all(plain) {
            Some("has characters that a key can't have")
        } else if text.split('/').any(str::is_empty) {
            Some("has an empty part")
        } else if text.split('/').any(|part| part.starts_with('.')) {
            Some("has a part that begins with a dot")
        } else if text.split('/').any(|part| part.len() > SEGMENT_LEN_MAX) {
            Some("has a part that is too long")
        } else {
            None
        };
        match why {
            None => Ok(Self(text)),
            Some(why) => Err(KeyError { text: text.chars().take(80).collect(), why }),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key lies in this folder, at any depth.
    pub fn is_in(&self, folder: &Self) -> bool {
        self.0.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The folder of the key, if it is not at the top.
    pub fn folder(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(folder, _)| folder)
    }

    /// The last part.
    pub fn last(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, last)| last)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_that_are_refused() {
        let long = "a".repeat(256);
        let rows = [
            ("", "an empty part"),
            ("/a", "an empty part"),
            ("a/", "an empty part"),
            ("a//b", "an empty part"),
            ("..", "begins with a dot"),
            ("a/../b", "begins with a dot"),
            (".tmp/x", "begins with a dot"),
            ("A", "characters"),
            ("a_b", "characters"),
            ("a\\b", "characters"),
            ("a\0b", "characters"),
            ("\u{e4}", "characters"),
            (&long, "a part that is too long"),
            (&"a/".repeat(300), "is too long"),
        ];
        for (text, why) in rows {
            let error = Key::new(text).unwrap_err().to_string();
            assert!(error.starts_with("Key ") && error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn folders_of_keys() {
        let key = Key::new("packs/ab/ab-0.pack").unwrap();
        assert_eq!((key.folder(), key.last()), (Some("packs/ab"), "ab-0.pack"));
        assert!(key.is_in(&Key::new("packs").unwrap()));
        assert!(!key.is_in(&Key::new("packs/a").unwrap()));
        assert!(!key.is_in(&key));
        assert_eq!(Key::new("top").unwrap().folder(), None);
    }
}
