//! The outer form that every stored encoding shares, and a reader that cannot run past its end.
//!
//! It knows magics, version bytes, integers and check sums. What the fields mean is told by the modules that use it.
//!
//! Invariant: no input makes a reader panic, and nothing is allocated on the word of a length field alone.

/// Bytes of the check sum that closes an encoding: the first eight of BLAKE3.
pub(super) const CHECK_LEN: usize = 8;

/// Why stored bytes cannot be read. `what` names the encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the encoding needs.
    #[error("{what} is truncated: {needed} more bytes are needed")]
    Truncated {
        /// The encoding that was read.
        what: &'static str,
        /// How many bytes are missing at least.
        needed: u64,
    },
    /// The bytes are something else.
    #[error("{what} does not begin or end with its magic bytes")]
    Magic {
        /// The encoding that was expected.
        what: &'static str,
    },
    /// Written by a newer release.
    #[error("{what} has format version {found}, this release knows versions up to {known}")]
    Future {
        /// The encoding that was read.
        what: &'static str,
        /// The version in the bytes.
        found: u8,
        /// The newest version that is understood here.
        known: u8,
    },
    /// The check sum does not belong to the bytes.
    #[error("{what} is damaged: its check sum does not match")]
    Check {
        /// The encoding that was read.
        what: &'static str,
    },
    /// The bytes are whole, but not what an honest writer makes.
    #[error("{what} is not canonical: {why}")]
    NotCanonical {
        /// The encoding that was read.
        what: &'static str,
        /// The rule that is broken.
        why: &'static str,
    },
}

/// The check sum of these bytes.
pub(super) fn check_of(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    check
}

/// Refuses every version but 1 up to `known`. Version 0 was never written.
pub(super) fn check_version(what: &'static str, found: u8, known: u8) -> Result<(), WireError> {
    match found {
        0 => Err(WireError::Magic { what }),
        found if found > known => Err(WireError::Future { what, found, known }),
        _ => Ok(()),
    }
}

/// Appends an unsigned integer, seven bits a byte, lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads fields from the front of a slice.
#[derive(Debug, Clone)]
pub(super) struct WireReader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> WireReader<'a> {
    /// Reads `bytes`; errors call them `what`.
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            let needed = (count - self.rest.len()) as u64;
            return Err(WireError::Truncated { what: self.what, needed });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next variable-length integer, in its shortest form only.
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.not_canonical("an integer does not fit 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.not_canonical("an integer is longer than it must be"));
                }
                return Ok(value);
            }
        }
        Err(self.not_canonical("an integer does not fit 64 bits"))
    }

    /// Requires that all bytes were read.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.not_canonical("bytes follow its end"))
    }

    /// The error for a broken rule of this encoding.
    pub(super) fn not_canonical(&self, why: &'static str) -> WireError {
        WireError::NotCanonical { what: self.what, why }
    }
}
