//! Where contents come from, as recall sees it.

use isotherm_core::stub::{STREAM_MIN, StubRecord, Units};
use isotherm_core::tiering::Treatment;
use isotherm_core::trees::Handle;
use isotherm_gate::GateError;
use isotherm_gate::guard::Program;

use super::Ahead;
use crate::volume::Errand;

/// Takes a piece of content at its offset.
pub type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<(), GateError> + 'a;

/// Where content comes from.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Gives all bytes of these units of the content of a file with this record, piece by piece, each with its offset, and maybe some
    /// beside; what is not given is zeros. Every piece has been proved to be the content's before it is given. Waits for a service that is away, and
    /// for its turn where a limit is for it, as long as it is wanted, and tells whenever something has come.
    ///
    /// # Errors
    /// [`FetchFailure`]; what was given before is of no use then.
    fn fetch(
        &self,
        of: (&Handle, &StubRecord),
        units: &Units,
        ahead: &Ahead,
        take: &mut Take<'_>,
        errand: &Errand<'_>,
    ) -> Result<(), FetchFailure>;

    /// Fetches small contents that are about to be asked for, all at once; none, or a part, where that cannot be.
    fn ahead(&self, _of: &[(Handle, StubRecord)], _errand: &Errand<'_>) -> Ahead {
        Ahead::default()
    }

    /// Whether a limit makes those wait now whose content nobody waits for: meanwhile they keep no hands from others.
    fn is_limited(&self) -> bool {
        false
    }

    /// Whether the content has no holes: only such a one can be masked. Waits for nobody.
    ///
    /// # Errors
    /// [`FetchFailure`]: it cannot be told.
    fn is_dense(&self, file: &Handle, record: &StubRecord) -> Result<bool, FetchFailure>;

    /// Whether clients of Samba are to see that the content of a file is away.
    fn shows_offline(&self, file: &Handle) -> bool;

    /// Bytes from which on a file may be read while it comes, if it may.
    fn streams_from(&self, _file: &Handle) -> Option<u64> {
        Some(STREAM_MIN)
    }

    /// How a program is treated that opens a file.
    fn treatment(&self, _file: &Handle, _program: &Program) -> Treatment {
        Treatment::Allow
    }

    /// When the content that a record stands for was written, as its author's file system told, in nanoseconds since 1970; none where
    /// that is not known.
    fn modified(&self, file: &Handle, record: &StubRecord) -> Option<i64>;
}

/// Why content did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// It was not wanted any more.
    #[error("nobody waits for it any more")]
    NotWanted,
    /// The volume refused it.
    #[error(transparent)]
    Volume(#[from] GateError),
    /// The share has never heard of it: nothing was given, and another share may know it.
    #[error("{0}")]
    Unknown(String),
    /// The share does not have it any more, or has something else.
    #[error("{0}")]
    Content(String),
    /// Somebody has written to the stub while nobody guarded it.
    #[error(
        "It was written to while nobody guarded the volume; `isotherm recall --mend` brings its content back and undoes that"
    )]
    Written,
}
