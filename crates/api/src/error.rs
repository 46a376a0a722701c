//! Error codes: the stable word for programs, the HTTP status, and the text for people.
//!
//! It does not know why something failed; whoever fails writes the message. Codes are added, never renamed.
//!
//! **Invariant:** every code has exactly one status and one answer to "may the same request be sent again?".

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a failure. Its text form is part of the API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The client speaks another version of the sync protocol.
    Protocol,
    /// The request breaks a rule that its sender could have known.
    Invalid,
    /// A body cannot be read as the message it should be.
    Decode,
    /// The request comes from where none is accepted.
    Denied,
    /// What the request names is not there.
    NotFound,
    /// The path or method means nothing here.
    NoRoute,
    /// The name is taken.
    Exists,
    /// Two endpoints of one server would share files.
    Overlap,
    /// A documented number is reached.
    Limit,
    /// It is still used by something else.
    InUse,
    /// The path is a directory, and a file was asked for.
    IsDirectory,
    /// The path is not a file that has bytes to send.
    NotAFile,
    /// A newer run of the same server's agent exists.
    Fenced,
    /// The body is longer than the limit.
    TooLarge,
    /// The range lies outside the file.
    Range,
    /// No space is left where the service keeps its data.
    Full,
    /// Stored bytes are not what they were.
    Corrupt,
    /// The service cannot answer now.
    Unavailable,
    /// A bug or a failure that has no word of its own.
    Internal,
    /// Made by the client: nobody answered, or the answer broke off.
    Unreachable,
    /// Made by the client: the answer cannot be read.
    Answer,
}

/// Code, its text, its HTTP status, and whether the same request may succeed later without anybody doing something.
const TABLE: &[(Code, &str, u16, bool)] = &[
    (Code::Protocol, "protocol", 426, false),
    (Code::Invalid, "invalid", 400, false),
    (Code::Decode, "decode", 400, false),
    (Code::Denied, "denied", 403, false),
    (Code::NotFound, "not_found", 404, false),
    (Code::NoRoute, "no_route", 404, false),
    (Code::Exists, "exists", 409, false),
    (Code::Overlap, "overlap", 409, false),
    (Code::Limit, "limit", 409, false),
    (Code::InUse, "in_use", 409, false),
    (Code::IsDirectory, "is_directory", 409, false),
    (Code::NotAFile, "not_a_file", 409, false),
    (Code::Fenced, "fenced", 409, false),
    (Code::TooLarge, "too_large", 413, false),
    (Code::Range, "range", 416, false),
    (Code::Full, "full", 507, true),
    (Code::Corrupt, "corrupt", 500, false),
    (Code::Unavailable, "unavailable", 503, true),
    (Code::Internal, "internal", 500, false),
    (Code::Unreachable, "unreachable", 503, true),
    (Code::Answer, "answer", 502, false),
];

impl Code {
    fn row(self) -> &'static (Self, &'static str, u16, bool) {
        TABLE.iter().find(|row| row.0 == self).expect("the test `every_code_has_one_row` goes over all codes")
    }

    /// The HTTP status that the service answers with.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The stable text, as in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.row().3
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every answer that is an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs.
    pub code: Code,
    /// For people: names the thing it is about.
    pub message: String,
}

/// What a call of the client failed with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The kind of the failure.
    pub code: Code,
    /// The text for people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl ApiError {
    /// An error of this kind.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: code.is_retryable() }
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        Self::new(body.code, body.message)
    }
}

impl From<crate::wire::WireError> for ApiError {
    fn from(error: crate::wire::WireError) -> Self {
        Self::new(Code::Answer, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row() {
        // Each serde name of the enum, read back: a new code without a row fails in `row`, a renamed one here.
        for (code, text, status, _) in TABLE {
            assert_eq!(serde_json::to_string(code).ok(), Some(format!("\"{text}\"")));
            assert_eq!(TABLE.iter().filter(|row| row.0 == *code || row.1 == *text).count(), 1, "{text}");
            assert!((400..=599).contains(status));
        }
        assert_eq!(TABLE.len(), Code::Answer as usize + 1);
    }
}
