//! `user.DOSATTRIB`, where Samba keeps DOS attributes: two of its bits tell whether content is local, so they are this
//! server's business and do not travel.
//!
//! Clients of Samba see by them that opening a file takes time, and make no thumbnails of it.
//!
//! Two forms are known: text (`0x20`), and Samba's record: a text that may be empty, a version, and binary fields. A
//! value of any other form travels as it is. **Invariant:** a value that has the bits as they should be is not changed by a byte.

use isotherm_gate::{GateError, StubFile};

/// FILE_ATTRIBUTE_SPARSE_FILE.
const SPARSE: u32 = 0x200;
/// FILE_ATTRIBUTE_OFFLINE.
const OFFLINE: u32 = 0x1000;
/// FILE_ATTRIBUTE_RECALL_ON_DATA_ACCESS.
const RECALL_ON_DATA_ACCESS: u32 = 0x40_0000;
const AWAY: u32 = OFFLINE | RECALL_ON_DATA_ACCESS;

/// The attribute's name.
pub(super) const DOSATTRIB: &[u8] = b"user.DOSATTRIB";

/// The value without the two bits, as it travels and as files have it whose content is here.
pub(crate) fn here(value: &[u8]) -> Vec<u8> {
    changed(value, false)
}

/// The value with the two bits, as stubs have it.
pub(crate) fn away(value: &[u8]) -> Vec<u8> {
    changed(value, true)
}

/// Has the attributes of a file say whether its content is here, for clients of Samba. A file without any stays without: its
/// record should have all the room in the inode, and such a file was made by nobody who looks at them.
pub(crate) fn tell(file: &StubFile, is_here: bool) -> Result<(), GateError> {
    let Some(value) = file.dos_attributes()? else { return Ok(()) };
    let wanted = changed(&value, !is_here);
    if wanted == value { Ok(()) } else { file.set_dos_attributes(&wanted) }
}

/// Whether Samba takes the file for one with holes, which its clients may ask for. Whatever form the value has that is not known may
/// say so.
pub(crate) fn is_sparse(value: &[u8]) -> bool {
    attributes_of(value).is_none_or(|attributes| attributes & SPARSE != 0)
}

fn attributes_of(value: &[u8]) -> Option<u32> {
    let Some(end) = value.iter().position(|byte| *byte == 0) else {
        return u32::from_str_radix(std::str::from_utf8(value).ok()?.strip_prefix("0x")?, 16).ok();
    };
    let bytes = value.get(place_in_record(value, end)?..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn changed(value: &[u8], is_away: bool) -> Vec<u8> {
    match value.iter().position(|byte| *byte == 0) {
        None => changed_text(value, is_away, false).unwrap_or_else(|| value.to_vec()),
        Some(end) => changed_record(value, end, is_away),
    }
}

fn bits(attributes: u32, is_away: bool) -> u32 {
    if is_away { attributes | AWAY } else { attributes & !AWAY }
}

/// `0x20`; with `same_length` padded, so that what follows stays where it is, or not at all where that does not fit.
fn changed_text(text: &[u8], is_away: bool, same_length: bool) -> Option<Vec<u8>> {
    let digits = std::str::from_utf8(text).ok()?.strip_prefix("0x")?;
    let attributes = u32::from_str_radix(digits, 16).ok()?;
    let wanted = bits(attributes, is_away);
    let width = if same_length { digits.len() } else { 0 };
    let new = format!("0x{wanted:0width$x}").into_bytes();
    (wanted != attributes && (!same_length || new.len() == text.len())).then_some(new)
}

fn changed_record(value: &[u8], end: usize, is_away: bool) -> Vec<u8> {
    let mut new = value.to_vec();
    // Releases that write the binary fields do not read the text.
    if let Some(text) = changed_text(&value[..end], is_away, true) {
        new[..end].copy_from_slice(&text);
    }
    let Some(attributes_at) = place_in_record(value, end) else { return new };
    if let Some(bytes) = new.get_mut(attributes_at..attributes_at + 4) {
        let attributes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes.copy_from_slice(&bits(attributes, is_away).to_le_bytes());
    }
    new
}

/// Where the attributes of Samba's record stand, whose text ends at `end`.
fn place_in_record(value: &[u8], end: usize) -> Option<usize> {
    // The text and its NUL, then the version aligned to 2, then the version again, then fields aligned to 4.
    let version_at = (end + 1).next_multiple_of(2);
    let version = value.get(version_at..version_at + 2)?;
    let fields_at = (version_at + 4).next_multiple_of(4);
    match u16::from_le_bytes([version[0], version[1]]) {
        1 => Some(fields_at),
        // After the flags that say which fields count.
        2..=5 => Some(fields_at + 4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_loses_the_two_bits() {
        assert_eq!(here(b"0x20"), b"0x20");
        assert_eq!(here(b"0x401020"), b"0x20");
        assert_eq!(here(b"0x1000"), b"0x0");
        assert_eq!(here(b"anything"), b"anything");
        assert_eq!(here(b""), b"");
        assert_eq!(away(b"0x20"), b"0x401020");
        assert_eq!(away(b"anything"), b"anything");
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
        assert_eq!(here(&record(b"", 5, 0x40_1020)), record(b"", 5, 0x20));
        assert_eq!(here(&record(b"0x1020", 3, 0x1020)), record(b"0x0020", 3, 0x20));
        for untouched in [record(b"", 5, 0x20), record(b"0x20", 3, 0x20), record(b"", 9, 0x1020)] {
            assert_eq!(here(&untouched), untouched);
        }
        assert_eq!(here(&[0, 0, 5, 0]), [0, 0, 5, 0]);
        // And back; a text beside the fields is not read, and stays where the bits do not fit in.
        assert_eq!(away(&record(b"", 5, 0x20)), record(b"", 5, 0x40_1020));
        assert_eq!(away(&record(b"0x20", 3, 0x20)), record(b"0x20", 3, 0x40_1020));
    }
}
