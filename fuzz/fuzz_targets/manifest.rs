//! A manifest that decodes is canonical: it encodes to the bytes that it came from.
//!
//! The fuzzer finds no check sums, so most inputs are a body that gets its frame here.
#![no_main]

use isotherm_core::content::{ChunkId, Decoded, Manifest, ManifestId, ManifestIndex, Part};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else { return };
    match how % 4 {
        0 => check(rest),
        1 => check(&framed(0, rest)),
        2 => check(&framed(1, rest)),
        _ => build(rest),
    }
});

fn check(bytes: &[u8]) {
    let Ok(decoded) = Manifest::decode_unnamed(bytes) else { return };
    assert_eq!(Manifest::decode(ManifestId::of(bytes), bytes).as_ref(), Ok(&decoded));
    match decoded {
        Decoded::Whole(manifest) => {
            let encoded = manifest.encode();
            assert_eq!(encoded.bytes, bytes);
            assert!(encoded.extra_chunks.is_empty());
        }
        Decoded::Index(index) => {
            assert_eq!(framed(1, &index_body(&index)), bytes);
            // Whatever comes as its chunks is refused, unless it is what the index names.
            let junk = index.chunks().iter().map(|_| bytes);
            assert!(index.assemble(junk).is_err());
        }
    }
}

/// Parts that the bytes describe are either refused or come back.
fn build(bytes: &[u8]) {
    let part = |piece: &[u8]| {
        let len = u64::from_le_bytes([piece[1], piece[2], piece[3], 0, 0, piece[4], 0, 0]);
        if piece[0] % 2 == 0 { Part::Hole { len } } else { Part::Data { chunk: ChunkId::of(piece), len: len as u32 } }
    };
    let parts: Vec<Part> = bytes.chunks_exact(5).map(part).collect();
    let Ok(manifest) = Manifest::new(parts) else { return };
    let encoded = manifest.encode();
    assert_eq!(Manifest::decode(encoded.id, &encoded.bytes), Ok(Decoded::Whole(manifest)));
}

fn index_body(index: &ManifestIndex) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, index.chunks().len() as u64);
    for (chunk, len) in index.chunks() {
        put_varint(&mut body, u64::from(*len));
        body.extend_from_slice(chunk.as_bytes());
    }
    body
}

/// The frame as docs/format.md tells.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'i', b's', b'o', b'M', 1, kind];
    put_varint(&mut bytes, body.len() as u64);
    bytes.extend_from_slice(body);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..8]);
    bytes
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
