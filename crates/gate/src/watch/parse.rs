//! Reads the records that a fanotify descriptor delivers, as a pure function of bytes.
//!
//! It trusts no length in the input and gives no meaning to masks. Invariant: any input gives events or an error,
//! never a panic and never a read outside of the record at hand.

use crate::FileHandle;

/// Version of the record layout, `FANOTIFY_METADATA_VERSION`.
const VERSION: u8 = 3;
/// Size of `struct fanotify_event_metadata`, in bytes.
const METADATA_BYTES: usize = 24;
/// Size of `struct fanotify_event_info_header`, in bytes.
const HEADER_BYTES: usize = 4;
/// Kind of the record of a range, `FAN_EVENT_INFO_TYPE_RANGE`, and where its two numbers stand behind the header.
const RANGE: u8 = 6;
const RANGE_OFFSET_AT: usize = 4;
const RANGE_COUNT_AT: usize = 12;
/// Size of a file system id, in bytes.
const FSID_BYTES: usize = 8;

/// One event as delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Event bits (`FAN_*`).
    pub mask: u64,
    /// Process that caused it.
    pub pid: i32,
    /// Descriptor of the object, or negative; a group that reports handles gets none.
    pub fd: i32,
    /// The handles and names that came along; records of other kinds are left out.
    pub records: Vec<InfoRecord>,
    /// The bytes that somebody is about to touch: where they begin and how many; only of a group that guards content.
    pub range: Option<(u64, u64)>,
}

/// One handle of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRecord {
    /// What the handle is.
    pub kind: InfoKind,
    /// The handle.
    pub handle: FileHandle,
    /// A name in that directory, empty if none was given.
    pub name: Vec<u8>,
}

/// What a handle of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InfoKind {
    /// The object itself.
    Target,
    /// The directory of the object.
    Directory,
    /// The directory that a rename took the object from.
    OldDirectory,
    /// The directory that a rename put the object into.
    NewDirectory,
}

/// Input that is no sequence of event records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A record, or a part of it, is longer than what is there.
    #[error("Event record at byte {at} is cut off or has an impossible length")]
    Length {
        /// Where the event begins.
        at: usize,
    },
    /// The kernel speaks another version.
    #[error("Event record version {version} is not {VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
}

/// Parses all events of one read.
///
/// # Errors
/// [`ParseError`]; then nothing of the input is usable.
pub fn parse_events(input: &[u8]) -> Result<Vec<RawEvent>, ParseError> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < input.len() {
        let wrong = ParseError::Length { at };
        let rest = &input[at..];
        let len = u32_at(rest, 0).ok_or(wrong)? as usize;
        let version = *rest.get(4).ok_or(wrong)?;
        if version != VERSION {
            return Err(ParseError::Version { version });
        }
        let event = rest.get(..len).ok_or(wrong)?;
        events.push(parse_event(event).ok_or(wrong)?);
        at += len;
    }
    Ok(events)
}

/// One event, given exactly its bytes. `None` for impossible lengths.
fn parse_event(event: &[u8]) -> Option<RawEvent> {
    let metadata_len = usize::from(u16_at(event, 6)?);
    if metadata_len < METADATA_BYTES {
        return None;
    }
    let mut infos = event.get(metadata_len..)?;
    let (mut records, mut range) = (Vec::new(), None);
    while !infos.is_empty() {
        let len = usize::from(u16_at(infos, 2)?);
        if len < HEADER_BYTES {
            return None;
        }
        let info = infos.get(..len)?;
        infos = &infos[len..];
        if let Some(kind) = InfoKind::from_raw(info[0]) {
            records.extend(parse_info(kind, &info[HEADER_BYTES..])?);
        } else if info[0] == RANGE {
            let body = &info[HEADER_BYTES..];
            range = Some((u64_at(body, RANGE_OFFSET_AT)?, u64_at(body, RANGE_COUNT_AT)?));
        }
    }
    Some(RawEvent { mask: u64_at(event, 8)?, fd: i32_at(event, 16)?, pid: i32_at(event, 20)?, records, range })
}

/// Body of one handle record. The outer `None` is an impossible length, the inner one "no handle given".
fn parse_info(kind: InfoKind, body: &[u8]) -> Option<Option<InfoRecord>> {
    let handle_len = u32_at(body, FSID_BYTES)? as usize;
    let handle_type = i32_at(body, FSID_BYTES + 4)?;
    let rest = body.get(FSID_BYTES + 8..)?;
    let bytes = rest.get(..handle_len)?;
    if bytes.is_empty() {
        return Some(None);
    }
    let handle = FileHandle::new(handle_type, bytes).ok()?;
    // The name ends at its zero byte; what follows is padding.
    let name = rest[handle_len..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    Some(Some(InfoRecord { kind, handle, name }))
}

impl InfoKind {
    fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            libc::FAN_EVENT_INFO_TYPE_FID => Some(Self::Target),
            libc::FAN_EVENT_INFO_TYPE_DFID | libc::FAN_EVENT_INFO_TYPE_DFID_NAME => Some(Self::Directory),
            libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => Some(Self::OldDirectory),
            libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => Some(Self::NewDirectory),
            _ => None,
        }
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn info(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = vec![0; FSID_BYTES];
        body.extend((handle.len() as u32).to_ne_bytes());
        body.extend(1_i32.to_ne_bytes());
        body.extend(handle);
        if !name.is_empty() {
            body.extend(name);
            body.push(0);
        }
        while !(body.len() + HEADER_BYTES).is_multiple_of(4) {
            body.push(0);
        }
        let mut out = vec![kind, 0];
        out.extend(((body.len() + HEADER_BYTES) as u16).to_ne_bytes());
        out.extend(body);
        out
    }

    fn event(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let body = infos.concat();
        let mut out = ((METADATA_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        out.extend([VERSION, 0]);
        out.extend((METADATA_BYTES as u16).to_ne_bytes());
        out.extend(mask.to_ne_bytes());
        out.extend((-1_i32).to_ne_bytes());
        out.extend(42_i32.to_ne_bytes());
        out.extend(body);
        out
    }

    fn sample() -> Vec<u8> {
        let first = event(0x100, &[info(2, &[1; 8], b"a\nb"), info(1, &[2; 12], b"")]);
        let second = event(0x1000_0000, &[info(10, &[3; 8], b"old\xff"), info(12, &[4; 8], b"new"), info(1, &[5; 8], b"")]);
        [first, second, event(0x4000, &[])].concat()
    }

    #[test]
    fn reads_names_handles_and_renames() {
        let events = parse_events(&sample()).unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!((events[0].mask, events[0].pid, events[0].fd), (0x100, 42, -1));
        assert_eq!(events[0].records[0].name, b"a\nb");
        assert_eq!(events[0].records[0].kind, InfoKind::Directory);
        assert_eq!(events[0].records[1].handle, FileHandle::new(1, &[2; 12]).unwrap());
        let kinds: Vec<_> = events[1].records.iter().map(|r| r.kind).collect();
        assert_eq!(kinds, [InfoKind::OldDirectory, InfoKind::NewDirectory, InfoKind::Target]);
        assert_eq!(events[1].records[0].name, b"old\xff");
        assert!(events[2].records.is_empty());
    }

    #[test]
    fn reads_the_range_that_somebody_is_about_to_touch() {
        let body = [0_u32.to_ne_bytes().to_vec(), 4_096_u64.to_ne_bytes().to_vec(), 8_192_u64.to_ne_bytes().to_vec()].concat();
        let of = |len: usize| [&[RANGE, 0][..], &((HEADER_BYTES + len) as u16).to_ne_bytes(), &body[..len]].concat();
        assert_eq!(parse_events(&event(0x10_0000, &[of(body.len())])).unwrap()[0].range, Some((4_096, 8_192)));
        assert_eq!(parse_events(&event(0x10_0000, &[of(12)])), Err(ParseError::Length { at: 0 }));
    }

    #[test]
    fn every_cut_is_an_error_or_ends_between_events() {
        let whole = sample();
        let ends: Vec<usize> = parse_ends(&whole);
        for cut in 0..whole.len() {
            assert_eq!(parse_events(&whole[..cut]).is_ok(), ends.contains(&cut), "cut at {cut}");
        }
    }

    fn parse_ends(whole: &[u8]) -> Vec<usize> {
        let mut ends = vec![0];
        while let Some(len) = u32_at(whole, ends[ends.len() - 1]) {
            ends.push(ends[ends.len() - 1] + len as usize);
        }
        ends
    }

    #[test]
    fn no_changed_byte_makes_it_panic_or_loop() {
        let whole = sample();
        for at in 0..whole.len() {
            for value in [0, 1, 3, 4, 0x7f, 0x80, 0xff] {
                let mut bent = whole.clone();
                bent[at] = value;
                let _ = parse_events(&bent);
            }
        }
    }

    #[test]
    fn impossible_lengths_and_versions_are_named() {
        let mut zero = event(1, &[]);
        zero[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(parse_events(&zero), Err(ParseError::Length { at: 0 }));
        let mut other = event(1, &[]);
        other[4] = 2;
        assert_eq!(parse_events(&other), Err(ParseError::Version { version: 2 }));
        let mut handle = info(1, &[1; 8], b"");
        handle[HEADER_BYTES + FSID_BYTES..][..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse_events(&event(1, &[handle])).is_err());
    }

    #[test]
    fn unknown_records_and_empty_handles_are_passed_over() {
        let events = parse_events(&event(1, &[info(99, &[1; 8], b"x"), info(1, &[], b"")])).unwrap();
        assert!(events[0].records.is_empty());
    }
}
