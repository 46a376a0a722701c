//! Small values in databases: one byte of format, four bytes that check the rest, then the value.
//!
//! A database checks its pages and not what stands in them; a flipped bit in a value must not be believed and spread.
//! **Invariant:** what [`open`] gives is what [`seal`] was given, or an error.

/// Bytes of the check: of 2^32 damaged values one goes unnoticed.
const CHECK_BYTES: usize = 4;

/// Why a stored value cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoredError {
    /// It is too short for any value.
    #[error("an entry is empty or cut off")]
    Short,
    /// Another release wrote it.
    #[error("an entry has format {found}, this release knows format {known}")]
    Format {
        /// What it says.
        found: u8,
        /// What is known.
        known: u8,
    },
    /// It is not what was written.
    #[error("an entry does not match its check: bits of it have changed")]
    Damaged,
}

/// The stored form of a value.
#[must_use]
pub fn seal(format: u8, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + CHECK_BYTES + body.len());
    sealed.push(format);
    sealed.extend(check(format, body));
    sealed.extend(body);
    sealed
}

/// The value of a stored form.
///
/// # Errors
/// It is of another format, cut off or damaged.
pub fn open(format: u8, sealed: &[u8]) -> Result<&[u8], StoredError> {
    let (found, rest) = sealed.split_first().ok_or(StoredError::Short)?;
    if *found != format {
        return Err(StoredError::Format { found: *found, known: format });
    }
    let (kept, body) = rest.split_first_chunk::<CHECK_BYTES>().ok_or(StoredError::Short)?;
    if *kept == check(format, body) { Ok(body) } else { Err(StoredError::Damaged) }
}

fn check(format: u8, body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[format]).update(body);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = seal(1, b"a small value");
        assert_eq!(open(1, &sealed), Ok(&b"a small value"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(1, &damaged).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(1, &sealed[..length]).is_err(), "{length}");
        }
        assert_eq!(open(2, &sealed), Err(StoredError::Format { found: 1, known: 2 }));
    }
}
