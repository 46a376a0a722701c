//! The one error inside the service: a code of the API and a text that names the thing.
//!
//! Databases, stores and decoders are mapped here, in one place; whoever gets a fault hands it to the client as it is.
//!
//! **Invariant:** a full disk is always [`Code::Full`] and damage always [`Code::Corrupt`], wherever they are met.

use isotherm_api::Code;
use isotherm_store::{StoreError, StoreErrorKind};
use rusqlite::{ErrorCode, ffi};

/// Why a request, or a part of it, failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The kind, from which the HTTP status follows.
    pub code: Code,
    /// The text for people.
    pub message: String,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What is asked for is not there.
    pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} {name} does not exist"))
    }

    /// The request breaks a rule.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Stored bytes are not what they were.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Code::Corrupt, message)
    }

    /// The service is going down, or a part of it has.
    pub(crate) fn stopping() -> Self {
        Self::new(Code::Unavailable, "Service is stopping")
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let code = match error.sqlite_error() {
            Some(inner) => code_of(inner),
            None => Code::Internal,
        };
        Self::new(code, format!("Records database: {error}"))
    }
}

fn code_of(error: &ffi::Error) -> Code {
    match error.code {
        ErrorCode::DiskFull => Code::Full,
        // Growing the shared index of the write-ahead log fails in its own way when the disk is full.
        ErrorCode::SystemIoFailure if error.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Code::Full,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Code::Corrupt,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory => Code::Unavailable,
        _ => Code::Internal,
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let code = match error.kind {
            StoreErrorKind::Full => Code::Full,
            // An object that the records name and the store has lost is damage too.
            StoreErrorKind::Corrupt | StoreErrorKind::NotFound | StoreErrorKind::Exists => Code::Corrupt,
            StoreErrorKind::Unavailable => Code::Unavailable,
            StoreErrorKind::Denied | StoreErrorKind::Other => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<isotherm_api::wire::WireError> for Fault {
    fn from(error: isotherm_api::wire::WireError) -> Self {
        Self::new(Code::Decode, error.to_string())
    }
}

impl From<tokio::task::JoinError> for Fault {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(Code::Internal, format!("Work inside the service stopped: {error}"))
    }
}
