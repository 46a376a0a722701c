//! What the gate reads: lists of stubs and of volumes, messages, events of the kernel, superblocks. What decodes keeps its
//! meaning when it is encoded again, and no event is lost.
#![no_main]

use isotherm_gate::link::{FromGate, ToGate};
use isotherm_gate::watch::parse::{InfoKind, InfoRecord, RawEvent, parse_events};
use isotherm_gate::{FileHandle, fuzzing};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    let Some((&what, rest)) = data.split_first() else { return };
    match what % 8 {
        0 => ledger(rest),
        1 => written_ledger(rest),
        2 => message::<ToGate>(rest),
        3 => message::<FromGate>(rest),
        4 => events(rest),
        5 => shaped_events(rest),
        6 => superblock(rest),
        _ => volumes(rest),
    }
});

/// What follows the entries is the beginning of one more, or zeros.
fn ledger(bytes: &[u8]) {
    let Some(files) = fuzzing::ledger(bytes) else { return };
    let again = fuzzing::ledger_of(&files);
    assert_eq!(fuzzing::ledger(&again).as_ref(), Some(&files));
    let tail = bytes.strip_prefix(&again[..]).expect("entries have one form");
    let Some((&len, _)) = tail.split_first() else { return };
    assert!(tail.len() < 1 + usize::from(len) + 4 || tail.iter().all(|byte| *byte == 0));
}

/// The fuzzer finds no check sums: a list of handles, with something behind it, and cut off anywhere.
fn written_ledger(rest: &[u8]) {
    let Some((&[cut, tail], rest)) = rest.split_first_chunk::<2>() else { return };
    let (tail, handles) = rest.split_at(usize::from(tail).min(rest.len()));
    let files: Vec<FileHandle> = pieces(handles).filter_map(|bytes| FileHandle::from_bytes(bytes).ok()).collect();
    for file in &files {
        let bytes = file.to_bytes();
        assert!(bytes.len() > 4 && bytes.len() <= 4 + FileHandle::BYTES_MAX);
        assert_eq!(FileHandle::from_bytes(&bytes).as_ref(), Ok(file));
    }
    if files.is_empty() {
        return;
    }
    let whole = fuzzing::ledger_of(&files);
    assert_eq!(fuzzing::ledger(&whole).as_ref(), Some(&files));
    ledger(&[&whole, tail].concat());
    let short = &whole[..whole.len() - usize::from(cut).min(whole.len())];
    if let Some(before) = fuzzing::ledger(short) {
        assert!(files.starts_with(&before));
    } else {
        assert!(short.len() < 8, "only a list without its head is none");
    }
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'|')
}

fn message<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(message) = postcard::from_bytes::<M>(body) else { return };
    let encoded = postcard::to_stdvec(&message).expect("what came as a message can go as one");
    assert!(encoded.len() <= body.len(), "it holds no more than came");
    assert_eq!(postcard::from_bytes::<M>(&encoded).as_ref(), Ok(&message));
}

fn events(bytes: &[u8]) {
    let Ok(events) = parse_events(bytes) else { return };
    check_events(events);
}

fn shaped_events(rest: &[u8]) {
    let Some((head, rest)) = rest.split_first_chunk::<24>() else { return };
    let (mask, offset, count) = (number(&head[..8]), number(&head[8..16]), number(&head[16..]));
    let range = (mask & 1 != 0).then_some((offset, count));
    let records = pieces(rest).filter_map(record).collect();
    check_events(vec![RawEvent { mask, pid: offset as i32, fd: count as i32, records, range }]);
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
}

fn record(piece: &[u8]) -> Option<InfoRecord> {
    let (&[kind, len], body) = piece.split_first_chunk::<2>()?;
    let (handle, name) = body.split_at(usize::from(len).min(body.len()));
    let kind = KINDS[usize::from(kind) % KINDS.len()].1;
    let name = name.iter().take(255).take_while(|byte| **byte != 0).copied().collect();
    Some(InfoRecord { kind, handle: FileHandle::from_bytes(handle).ok()?, name })
}

/// Kinds of records as the kernel numbers them.
const KINDS: [(u8, InfoKind); 4] =
    [(1, InfoKind::Target), (2, InfoKind::Directory), (10, InfoKind::OldDirectory), (12, InfoKind::NewDirectory)];
const RANGE: u8 = 6;
/// `FAN_Q_OVERFLOW`.
const OVERFLOW: u64 = 0x4000;

fn check_events(events: Vec<RawEvent>) {
    let bytes: Vec<u8> = events.iter().flat_map(encoded).collect();
    assert_eq!(parse_events(&bytes).as_ref(), Ok(&events));
    let is_lost = |event: &&RawEvent| event.mask & OVERFLOW != 0;
    let places = |event: &RawEvent| event.records.iter().filter(|record| record.kind != InfoKind::Target).count();
    let overflow = events.iter().any(|event| is_lost(&event));
    let changes: usize = events.iter().filter(|event| !is_lost(event)).map(|event| places(event).max(1)).sum();
    let batch = fuzzing::batch(events);
    assert_eq!((batch.overflow, batch.changes.len()), (overflow, changes));
}

/// An event as the kernel writes it.
fn encoded(event: &RawEvent) -> Vec<u8> {
    let mut infos = Vec::new();
    for record in &event.records {
        let number = KINDS.iter().find(|(_, kind)| *kind == record.kind).expect("all kinds are there").0;
        let handle = record.handle.to_bytes();
        let (kind, bytes) = handle.split_at(4);
        let len = (bytes.len() as u32).to_ne_bytes();
        let body =
            [&[0; 8], &len[..], &i32::from_le_bytes([kind[0], kind[1], kind[2], kind[3]]).to_ne_bytes(), bytes, &record.name];
        infos.extend(info(number, &body.concat()));
    }
    if let Some((offset, count)) = event.range {
        infos.extend(info(RANGE, &[&[0; 4][..], &offset.to_ne_bytes(), &count.to_ne_bytes()].concat()));
    }
    let len = 24 + infos.len() as u32;
    let mut out = [&len.to_ne_bytes()[..], &[3, 0], &24_u16.to_ne_bytes(), &event.mask.to_ne_bytes()].concat();
    out.extend([event.fd.to_ne_bytes(), event.pid.to_ne_bytes()].concat());
    out.extend(infos);
    out
}

fn info(number: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + body.len()).expect("it is as long as the one that was read");
    [&[number, 0][..], &len.to_ne_bytes(), body].concat()
}

/// Where a magic number stands, what it is, and where the id stands.
const SUPERBLOCKS: [(&str, usize, &[u8], usize); 3] =
    [("ext4", 0x438, b"\x53\xef", 0x468), ("xfs", 0, b"XFSB", 32), ("btrfs", 0x1_0040, b"_BHRfS_M", 0x1_0020)];

/// The bytes begin at one of several places; before them are zeros.
fn superblock(rest: &[u8]) {
    let Some((&place, bytes)) = rest.split_first() else { return };
    let mut device = vec![0; [0, 0x438, 0x460, 0x1_0020][usize::from(place % 4)]];
    device.extend_from_slice(bytes);
    let plainly = SUPERBLOCKS.iter().find_map(|(kind, magic_at, magic, id_at)| {
        let is_it = device.get(*magic_at..)?.starts_with(magic);
        let id = device.get(*id_at..*id_at + 16)?;
        is_it.then_some((*kind, id))
    });
    let found = fuzzing::superblock(&device);
    assert_eq!(found.as_ref().map(|found| (found.kind, &found.id.0[..])), plainly);
}

fn volumes(list: &[u8]) {
    let Some(volumes) = fuzzing::volumes(list) else { return };
    let written = fuzzing::volumes_as_written(&volumes).expect("what came as text can go as text");
    assert_eq!(fuzzing::volumes(&written), Some(volumes));
}
