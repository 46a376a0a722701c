//! `user.DOSATTRIB`, where Samba keeps DOS attributes: two of its bits tell whether content is local, so they are this
//! server's business and do not travel.
//!
//! Two forms are known: text (`0x20`), and Samba's record: a text that may be empty, a version, and binary fields. A
//! value of any other form travels as it is. **Invariant:** a value without the two bits is not changed by a byte.

/// FILE_ATTRIBUTE_OFFLINE.
const OFFLINE: u32 = 0x1000;
/// FILE_ATTRIBUTE_RECALL_ON_DATA_ACCESS.
const RECALL_ON_DATA_ACCESS: u32 = 0x40_0000;
const MASKED: u32 = OFFLINE | RECALL_ON_DATA_ACCESS;

/// The attribute's name.
pub(super) const DOSATTRIB: &[u8] = b"user.DOSATTRIB";

/// The value without the two bits.
pub(super) fn mask(value: &[u8]) -> Vec<u8> {
    match value.iter().position(|byte| *byte == 0) {
        None => mask_text(value, false).unwrap_or_else(|| value.to_vec()),
        Some(end) => mask_record(value, end),
    }
}

/// `0x20`; with `same_length` padded, so that what follows stays where it is.
fn mask_text(text: &[u8], same_length: bool) -> Option<Vec<u8>> {
    let digits = std::str::from_utf8(text).ok()?.strip_prefix("0x")?;
    let attributes = u32::from_str_radix(digits, 16).ok()?;
    if attributes & MASKED == 0 {
        return None;
    }
    let width = if same_length { digits.len() } else { 0 };
    Some(format!("0x{:0width$x}", attributes & !MASKED).into_bytes())
}

fn mask_record(value: &[u8], end: usize) -> Vec<u8> {
    let mut masked = value.to_vec();
    if let Some(text) = mask_text(&value[..end], true) {
        masked[..end].copy_from_slice(&text);
    }
    // The text and its NUL, then the version aligned to 2, then the version again, then fields aligned to 4.
    let version_at = (end + 1).next_multiple_of(2);
    let Some(version) = value.get(version_at..version_at + 2) else { return masked };
    let fields_at = (version_at + 4).next_multiple_of(4);
    let attributes_at = match u16::from_le_bytes([version[0], version[1]]) {
        1 => fields_at,
        // After the flags that say which fields count.
        2..=5 => fields_at + 4,
        _ => return masked,
    };
    if let Some(bytes) = masked.get_mut(attributes_at..attributes_at + 4) {
        let attributes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes.copy_from_slice(&(attributes & !MASKED).to_le_bytes());
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_loses_the_two_bits() {
        assert_eq!(mask(b"0x20"), b"0x20");
        assert_eq!(mask(b"0x401020"), b"0x20");
        assert_eq!(mask(b"0x1000"), b"0x0");
        assert_eq!(mask(b"anything"), b"anything");
        assert_eq!(mask(b""), b"");
    }

    /// Records as Samba 4.20 (version 5) and 4.9 (version 3) write them.
    #[test]
    fn records_lose_the_two_bits() {
        let record = |text: &[u8], version: u8, attributes: u32| {
            let mut value = [text, &[0]].concat();
            value.resize(value.len().next_multiple_of(2), 0);
            value.extend([version, 0, version, 0]);
            value.resize(value.len().next_multiple_of(4), 0);
            value.extend([0x11, 0, 0, 0]);
            value.extend(attributes.to_le_bytes());
            value.extend([0xa4, 0x07, 0x87, 0x9c, 0xa0, 0x0e, 0xdb, 0x01]);
            value
        };
        assert_eq!(mask(&record(b"", 5, 0x40_1020)), record(b"", 5, 0x20));
        assert_eq!(mask(&record(b"0x1020", 3, 0x1020)), record(b"0x0020", 3, 0x20));
        for untouched in [record(b"", 5, 0x20), record(b"0x20", 3, 0x20), record(b"", 9, 0x1020)] {
            assert_eq!(mask(&untouched), untouched);
        }
        assert_eq!(mask(&[0, 0, 5, 0]), [0, 0, 5, 0]);
    }
}
