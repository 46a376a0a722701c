//! Paths of a share on the command line: bytes, as the shell gives them or as this program prints them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::builder::{OsStringValueParser, TypedValueParser};
use isotherm_core::name::escape;

/// A path of a share. Empty: the whole share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharePath(pub(crate) Vec<u8>);

impl SharePath {
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    fn parse(given: OsString) -> Result<Self, String> {
        let bytes = given.into_vec();
        if bytes.is_empty() {
            // An empty variable of a script must not mean everything.
            return Err("the path is empty; `/` means the whole share".to_owned());
        }
        let bytes = printed(&bytes).unwrap_or(bytes);
        let is_root = bytes.iter().all(|byte| *byte == b'/');
        Ok(Self(if is_root { Vec::new() } else { bytes }))
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

/// The bytes that are printed like this, where `\xNN` stands for some of them.
fn printed(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, tail)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|rest| rest.get(..2)).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &rest[4..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    // What is never printed like this is a name that happens to look so.
    (bytes != text && escape(&bytes).as_bytes() == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(given: &[u8]) -> Vec<u8> {
        SharePath::parse(OsString::from_vec(given.to_owned())).unwrap().0
    }

    #[test]
    fn what_is_printed_can_be_given_back() {
        for bytes in [&b"plan.dwg"[..], b"a\xff/b\x01", "Pl\u{e4}ne/\u{202e}x".as_bytes(), b"a\nb", b"\xe4\xb6"] {
            assert_eq!(parse(bytes), bytes, "as the shell gives it");
            assert_eq!(parse(escape(bytes).as_bytes()), bytes, "as it is printed");
        }
    }

    #[test]
    fn names_that_look_like_it_are_names() {
        for name in [&b"a\\x41"[..], b"\\x", b"c:\\xyz", b"\\xc3\\xa4", b"a\\xf"] {
            assert_eq!(parse(name), name);
        }
    }

    #[test]
    fn everything_is_a_slash_and_not_nothing() {
        assert_eq!((parse(b"/"), parse(b"//"), parse(b"/a")), (Vec::new(), Vec::new(), b"/a".to_vec()));
        assert!(SharePath::parse(OsString::new()).unwrap_err().contains("is empty"));
    }
}
