//! A footer that is accepted describes records without gap, and encodes to the bytes that it came from; a record gives the
//! bytes of its chunk or an error.
//!
//! The fuzzer finds no check sums, so most inputs are an index that gets its trailer here.
#![no_main]

use isotherm_core::content::pack::{TRAILER_LEN, check_header, read_footer};
use isotherm_core::content::{ChunkId, Footer, Form, PackBuilder, PackEntry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else { return };
    match how % 4 {
        0 => raw(rest),
        1 => index(rest),
        2 => record(rest),
        _ => build(rest),
    }
});

fn raw(rest: &[u8]) {
    let _ = check_header(rest);
    let Some((len, tail)) = rest.split_first_chunk::<8>() else { return };
    footer(u64::from_le_bytes(*len), tail);
}

/// Reads a footer with one read or two; what is asked for in the second read is bounded.
fn footer(pack_len: u64, tail: &[u8]) -> Option<Vec<PackEntry>> {
    match read_footer(pack_len, tail) {
        Ok(Footer::Entries(entries)) => Some(entries),
        Ok(Footer::NeedTail(needed)) => {
            assert!(needed <= pack_len && needed > tail.len() as u64);
            None
        }
        Err(_) => None,
    }
}

fn index(rest: &[u8]) {
    let Some((records, index)) = rest.split_first_chunk::<4>() else { return };
    let records = u64::from(u32::from_le_bytes(*records));
    let mut tail = index.to_vec();
    tail.extend_from_slice(&(index.len() as u32).to_le_bytes());
    let check = blake3::hash(&tail);
    tail.extend_from_slice(&check.as_bytes()[..8]);
    tail.extend_from_slice(b"\x01Posi");
    let pack_len = 8 + records + tail.len() as u64;
    footer(pack_len, &tail[tail.len() - TRAILER_LEN..]);
    let Some(entries) = footer(pack_len, &tail) else { return };
    assert_eq!(encoded(&entries), index);
    let mut at = 8;
    for entry in &entries {
        assert_eq!(entry.range().start, at);
        at = entry.range().end;
    }
    assert_eq!(at, 8 + records);
}

fn encoded(entries: &[PackEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, entries.len() as u64);
    for entry in entries {
        bytes.extend_from_slice(entry.chunk.as_bytes());
        put_varint(&mut bytes, u64::from(entry.stored_len));
        put_varint(&mut bytes, u64::from(entry.raw_len));
        bytes.push(entry.form.code());
    }
    bytes
}

/// A record of any bytes, with an entry of any lengths.
fn record(rest: &[u8]) {
    let Some((head, stored)) = rest.split_first_chunk::<5>() else { return };
    let form = Form::from_code(head[0] % 2).expect("both forms are known");
    let raw_len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let chunk = ChunkId::of(stored);
    let entry = PackEntry { chunk, offset: 8, stored_len: stored.len() as u32, raw_len, form };
    if let Ok(bytes) = entry.decode(stored) {
        assert_eq!(bytes.len(), raw_len as usize);
        assert_eq!(ChunkId::of(&bytes), chunk);
    }
}

/// What a builder makes is read again.
fn build(rest: &[u8]) {
    let mut builder = PackBuilder::new();
    let chunks: Vec<&[u8]> = rest.split(|byte| *byte == b'|').filter(|chunk| !chunk.is_empty()).collect();
    for chunk in &chunks {
        builder.push(ChunkId::of(chunk), chunk).expect("it is a chunk, and there is room");
    }
    let (_, bytes, entries) = builder.finish();
    check_header(&bytes).expect("it is a pack");
    assert_eq!(footer(bytes.len() as u64, &bytes).as_ref(), Some(&entries));
    for entry in entries {
        let range = entry.range();
        let chunk = entry.decode(&bytes[range.start as usize..range.end as usize]).expect("it is whole");
        assert!(chunks.contains(&&*chunk));
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
