//! Packs: the index comes back from the object alone, and damage never becomes content.
#![allow(clippy::unwrap_used)]

use isotherm_core::content::pack::{ENTRIES_MAX, PACK_TARGET, TRAILER_LEN, check_header, read_footer};
use isotherm_core::content::{CHUNK_MAX, ChunkId, Footer, Form, PackBuilder, PackEntry, PackError, PackId, WireError};
use proptest::prelude::*;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    format!("line {seed} of a drawing\n").bytes().cycle().take(len).collect()
}

fn pack_of(chunks: &[Vec<u8>]) -> (PackId, Vec<u8>, Vec<PackEntry>) {
    let mut builder = PackBuilder::new();
    for chunk in chunks {
        builder.push(ChunkId::of(chunk), chunk).unwrap();
    }
    builder.finish()
}

/// Reads every chunk of a pack as a stranger would: from its bytes alone.
fn read_all(pack: &[u8]) -> Result<Vec<Vec<u8>>, PackError> {
    check_header(&pack[..pack.len().min(8)])?;
    let Footer::Entries(entries) = read_footer(pack.len() as u64, pack)? else { panic!("the whole pack was given") };
    let read = |entry: &PackEntry| {
        let record = &pack[entry.range().start as usize..entry.range().end as usize];
        entry.decode(record).map(|bytes| bytes.into_owned())
    };
    entries.iter().map(read).collect()
}

fn small() -> Vec<Vec<u8>> {
    vec![text(1, 700), noise(2, 120), vec![0], text(3, 90)]
}

#[test]
fn chunks_come_back() {
    let (id, pack, entries) = pack_of(&small());
    assert_eq!(id, PackId::of(&pack));
    assert_eq!(read_all(&pack).unwrap(), small());
    let forms: Vec<Form> = entries.iter().map(|entry| entry.form).collect();
    assert_eq!(forms, [Form::Zstd, Form::Raw, Form::Raw, Form::Zstd]);
    assert_eq!(read_footer(pack.len() as u64, &pack).unwrap(), Footer::Entries(entries));
}

#[test]
fn an_empty_pack_is_readable() {
    let (_, pack, entries) = pack_of(&[]);
    assert_eq!((read_all(&pack).unwrap(), entries), (Vec::new(), Vec::new()));
}

#[test]
fn a_chunk_is_added_once() {
    let chunk = noise(1, 1000);
    let (_, _, entries) = pack_of(&[chunk.clone(), chunk]);
    assert_eq!(entries.len(), 1);
}

#[test]
fn a_short_tail_tells_how_much_is_needed() {
    let (_, pack, entries) = pack_of(&small());
    let len = pack.len() as u64;
    for tail in TRAILER_LEN..pack.len() {
        match read_footer(len, &pack[pack.len() - tail..]).unwrap() {
            Footer::Entries(found) => assert_eq!(found, entries),
            Footer::NeedTail(needed) => {
                assert!(needed > tail as u64 && needed < len);
                let start = (len - needed) as usize;
                let enough = read_footer(len, &pack[start..]).unwrap();
                assert_eq!(enough, Footer::Entries(entries.clone()));
            }
        }
    }
    let error = read_footer(len, &pack[pack.len() - 3..]).unwrap_err();
    assert!(error.to_string().starts_with("Pack is truncated"), "{error}");
}

#[test]
fn wrong_bytes_are_not_packed() {
    let mut builder = PackBuilder::new();
    let wanted = ChunkId::of(b"this");
    let found = ChunkId::of(b"that");
    assert_eq!(builder.push(wanted, b"that"), Err(PackError::OtherChunk { wanted, found }));
    let chunk = ChunkId::of(b"");
    assert_eq!(builder.push(chunk, b""), Err(PackError::Length { chunk, len: 0 }));
    let long = vec![0; CHUNK_MAX + 1];
    let chunk = ChunkId::of(&long);
    let error = Err(PackError::Length { chunk, len: CHUNK_MAX + 1 });
    assert_eq!(builder.push(chunk, &long), error);
    assert!(builder.is_empty());
}

#[test]
fn records_of_one_pack_make_another() {
    let (_, pack, entries) = pack_of(&small());
    let record = |entry: &PackEntry| &pack[entry.range().start as usize..entry.range().end as usize];
    let mut builder = PackBuilder::new();
    for entry in entries.iter().rev().chain(&entries) {
        builder.push_record(entry, record(entry)).unwrap();
    }
    let wrong = PackEntry { chunk: ChunkId::of(b"this"), ..entries[0] };
    assert!(matches!(builder.push_record(&wrong, record(&wrong)), Err(PackError::OtherChunk { .. })));
    assert!(builder.push_record(&entries[0], &record(&entries[0])[1..]).is_err());
    let (_, again, moved) = builder.finish();
    assert!(read_all(&again).unwrap().iter().eq(small().iter().rev()));
    let forms = |entries: &[PackEntry]| entries.iter().map(|entry| (entry.chunk, entry.form)).collect::<Vec<_>>();
    assert!(forms(&moved).iter().eq(forms(&entries).iter().rev()));
}

#[test]
fn a_pack_that_is_not_ripe_takes_any_chunk() {
    let mut builder = PackBuilder::new();
    let mut seed = 0;
    while !builder.is_ripe() {
        let chunk = noise(seed, CHUNK_MAX);
        builder.push(ChunkId::of(&chunk), &chunk).unwrap();
        seed += 1;
    }
    assert!(builder.stored_len() < PACK_TARGET + CHUNK_MAX);
    let (_, pack, _) = builder.finish();
    assert_eq!(read_all(&pack).unwrap().len() as u64, seed);
}

#[test]
fn a_pack_holds_a_bounded_number_of_chunks() {
    let mut builder = PackBuilder::new();
    for seed in 0..ENTRIES_MAX as u32 {
        assert!(!builder.is_ripe());
        let chunk = seed.to_le_bytes();
        builder.push(ChunkId::of(&chunk), &chunk).unwrap();
    }
    assert!(builder.is_ripe());
    let chunk = ChunkId::of(b"one more");
    assert_eq!(builder.push(chunk, b"one more"), Err(PackError::Full { chunk }));
    let (_, pack, entries) = builder.finish();
    assert!(read_footer(pack.len() as u64, &pack).unwrap() == Footer::Entries(entries));
}

#[test]
fn a_flipped_bit_never_becomes_content() {
    let (id, pack, _) = pack_of(&small());
    for bit in 0..pack.len() * 8 {
        let mut bytes = pack.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(PackId::of(&bytes), id);
        // A flip inside a frame may be one that zstd does not care about; then the content is right.
        if let Ok(chunks) = read_all(&bytes) {
            assert_eq!(chunks, small(), "bit {bit}");
        }
    }
}

#[test]
fn a_truncated_pack_is_refused() {
    let (_, pack, _) = pack_of(&small());
    for len in 0..pack.len() {
        let error = read_footer(len as u64, &pack[..len]).unwrap_err();
        assert!(error.to_string().starts_with("Pack "), "{len}: {error}");
    }
}

#[test]
fn future_versions_are_refused_by_number() {
    let (_, mut pack, _) = pack_of(&small());
    let text = "Pack has format version 9, this release knows versions up to 1";
    let at = pack.len() - 5;
    pack[at] = 9;
    pack[4] = 9;
    assert_eq!(check_header(&pack).unwrap_err().to_string(), text);
    let error = read_footer(pack.len() as u64, &pack).unwrap_err();
    assert_eq!(error.to_string(), text);
    assert!(matches!(error, PackError::Wire(WireError::Future { .. })));
}

#[test]
fn a_record_that_grows_is_refused() {
    // A frame of 4 MiB of zeros behind an entry that tells 1000 bytes.
    let zeros = vec![0; CHUNK_MAX];
    let (_, pack, entries) = pack_of(std::slice::from_ref(&zeros));
    let record = &pack[entries[0].range().start as usize..entries[0].range().end as usize];
    let lying = PackEntry { raw_len: 1000, ..entries[0] };
    assert!(matches!(lying.decode(record), Err(PackError::Record { .. })));
    let lying = PackEntry { raw_len: u32::MAX, ..entries[0] };
    assert!(matches!(lying.decode(record), Err(PackError::Length { .. })));
    assert!(entries[0].decode(record).unwrap().into_owned() == zeros);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunks_come_back(
        kinds in prop::collection::vec((any::<u64>(), 1_usize..100_000, any::<bool>()), 0..12),
    ) {
        let make = |(seed, len, dense): &(u64, usize, bool)| if *dense { noise(*seed, *len) } else { text(*seed, *len) };
        let mut chunks: Vec<Vec<u8>> = kinds.iter().map(make).collect();
        let mut seen = std::collections::BTreeSet::new();
        chunks.retain(|chunk| seen.insert(chunk.clone()));
        let (_, pack, entries) = pack_of(&chunks);
        prop_assert!(read_all(&pack).unwrap() == chunks);
        for entry in &entries {
            prop_assert!(entry.form == Form::Raw || entry.stored_len < entry.raw_len);
        }
    }

    #[test]
    fn noise_is_not_a_pack(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        index_len in 0_usize..120,
        count in 0_u8..4,
    ) {
        // With a trailer that fits, so that the index itself is reached.
        let start = bytes.len().saturating_sub(index_len);
        bytes.insert(start, count);
        let len = (bytes.len() - start) as u32;
        bytes.extend_from_slice(&len.to_le_bytes());
        let check = blake3::hash(&bytes[start..]);
        bytes.extend_from_slice(&check.as_bytes()[..8]);
        bytes.extend_from_slice(b"\x01Posi");
        if let Ok(Footer::Entries(entries)) = read_footer(bytes.len() as u64, &bytes) {
            prop_assert!(entries.iter().all(|entry| entry.range().end <= bytes.len() as u64));
        }
    }
}
