//! Contents that prove themselves: whoever reads one can tell whether each byte of it belongs to it.

use std::fmt;

/// Length of the beginning: what the text is, and how long.
const HEAD: usize = 16;

/// The text of a number, of this length; any two texts differ everywhere.
pub(crate) fn text(number: u64, len: usize) -> Vec<u8> {
    let len = len.max(HEAD);
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend((number | 1 << 63).to_le_bytes());
    bytes.extend((len as u64).to_le_bytes());
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What is wrong with bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of the text that these bytes are, from the first to the last.
pub(crate) fn number_of(bytes: &[u8]) -> Result<u64, Wrong> {
    let head = |at: usize| bytes.get(at..at + 8).map(|part| u64::from_le_bytes(part.try_into().unwrap()));
    let (Some(marked), Some(len)) = (head(0), head(8)) else { return Err(Wrong(format!("{} bytes", bytes.len()))) };
    let number = marked & !(1 << 63);
    if marked == number || len != bytes.len() as u64 {
        let zeros = bytes.iter().filter(|byte| **byte == 0).count();
        return Err(Wrong(format!("{} bytes with the beginning {marked:#x} {len}, {zeros} of them zeros", bytes.len())));
    }
    let expected = text(number, bytes.len());
    match bytes.iter().zip(&expected).position(|(found, wanted)| found != wanted) {
        None => Ok(number),
        Some(at) => Err(Wrong(format!(
            "text {number} of {len} bytes is another from byte {at} on: {:?}",
            &bytes[at..bytes.len().min(at + 8)]
        ))),
    }
}

#[test]
fn a_text_proves_itself() {
    for len in [16, 17, 4_096, 100_001] {
        assert_eq!(number_of(&text(7, len)), Ok(7));
    }
    let mut holed = text(7, 20_000);
    holed[8_192..12_288].fill(0);
    assert!(number_of(&holed).is_err());
    assert!(number_of(&vec![0; 20_000]).is_err() && number_of(&text(7, 20_000)[..19_999]).is_err());
}
