//! Manifests: one layout, one encoding, one id; and nothing hostile gets through the decoder.
#![allow(clippy::unwrap_used)]

use isotherm_core::content::manifest::{LEAF_MAX, LEN_MAX};
use isotherm_core::content::{
    CHUNK_MAX, ChunkId, Decoded, HOLE_MIN, Manifest, ManifestBuilder, ManifestError, ManifestId, Part, WireError,
};
use proptest::prelude::*;

fn data(seed: u64, len: u32) -> Part {
    Part::Data { chunk: ChunkId::of(&seed.to_le_bytes()), len }
}

fn hole(len: u64) -> Part {
    Part::Hole { len }
}

fn small() -> Manifest {
    Manifest::new(vec![data(1, 300_000), hole(HOLE_MIN), data(2, 1), data(1, 300_000)]).unwrap()
}

fn decode_whole(id: ManifestId, bytes: &[u8]) -> Manifest {
    match Manifest::decode(id, bytes).unwrap() {
        Decoded::Whole(manifest) => manifest,
        Decoded::Index(index) => panic!("an index of {} chunks", index.chunks().len()),
    }
}

#[test]
fn the_empty_file() {
    let encoded = Manifest::empty().encode();
    assert!(encoded.extra_chunks.is_empty());
    assert_eq!(decode_whole(encoded.id, &encoded.bytes), Manifest::empty());
    assert_eq!(Manifest::empty().len(), 0);
    assert_eq!(Manifest::empty().parts_in(0..u64::MAX).count(), 0);
}

/// Ids are kept for ever: an encoding that changes needs a new format version, and the old one stays readable.
#[test]
fn ids_are_those_of_the_first_release() {
    assert_eq!(Manifest::empty().id().to_string(), GOLDEN_EMPTY);
    assert_eq!(small().id().to_string(), GOLDEN_SMALL);
}

const GOLDEN_EMPTY: &str = "2987c768cc5414c455523b386bc537a993eab0a4968cde90f3457051928cfdd1";
const GOLDEN_SMALL: &str = "4031f6563f275de5644d54825e4f14b273972fbdd8f8ccaac15fb86df272d73f";

#[test]
fn what_is_not_canonical_is_refused() {
    let rows: [(Vec<Part>, usize, &str); 6] = [
        (vec![data(1, 5), data(2, 0)], 1, "is empty"),
        (vec![hole(0)], 0, "is a hole that is too short"),
        (vec![hole(HOLE_MIN - 1)], 0, "is a hole that is too short"),
        (vec![hole(HOLE_MIN), hole(HOLE_MIN)], 1, "is a hole that follows a hole"),
        (vec![data(1, CHUNK_MAX as u32 + 1)], 0, "is longer than a chunk can be"),
        (vec![hole(LEN_MAX), data(1, 1)], 1, "ends past the longest file"),
    ];
    for (parts, part, why) in rows {
        assert_eq!(Manifest::new(parts).unwrap_err(), ManifestError::Part { part, why });
    }
    assert_eq!(Manifest::new(vec![hole(LEN_MAX)]).unwrap().len(), LEN_MAX);
}

#[test]
fn parts_in_a_range() {
    let manifest = small();
    let at = [0, 300_000, 300_000 + HOLE_MIN, 300_001 + HOLE_MIN];
    let end = manifest.len();
    let rows: [(std::ops::Range<u64>, &[usize]); 10] = [
        (0..0, &[]),
        (0..1, &[0]),
        (0..300_000, &[0]),
        (299_999..300_001, &[0, 1]),
        (300_000..at[2] + 1, &[1, 2]),
        (at[2]..at[2], &[]),
        (at[2]..at[3] + 1, &[2, 3]),
        (0..u64::MAX, &[0, 1, 2, 3]),
        (end - 1..end, &[3]),
        (end..end + 1, &[]),
    ];
    for (range, parts) in rows {
        let expected: Vec<(u64, Part)> = parts.iter().map(|part| (at[*part], manifest.parts()[*part])).collect();
        let found: Vec<(u64, Part)> = manifest.parts_in(range.clone()).map(|placed| (placed.offset, placed.part)).collect();
        assert_eq!(found, expected, "{range:?}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let encoded = small().encode();
    for bit in 0..encoded.bytes.len() * 8 {
        let mut bytes = encoded.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(encoded.id, &bytes).is_err(), "bit {bit}, id known");
        assert!(Manifest::decode_unnamed(&bytes).is_err(), "bit {bit}, id not known");
    }
}

#[test]
fn every_truncation_is_named() {
    let encoded = small().encode();
    for len in 0..encoded.bytes.len() {
        let error = Manifest::decode(encoded.id, &encoded.bytes[..len]).unwrap_err();
        assert!(error.to_string().starts_with("Manifest is truncated"), "{len}: {error}");
    }
    let longer = [&encoded.bytes[..], &[0]].concat();
    let error = Manifest::decode_unnamed(&longer).unwrap_err();
    assert_eq!(error.to_string(), "Manifest is not canonical: bytes follow its end");
}

#[test]
fn a_future_version_is_refused_by_number() {
    let mut bytes = small().encode().bytes;
    bytes[4] = 7;
    let error = Manifest::decode_unnamed(&bytes).unwrap_err();
    let text = "Manifest has format version 7, this release knows versions up to 1";
    assert_eq!(error.to_string(), text);
    assert!(matches!(error, ManifestError::Wire(WireError::Future { found: 7, known: 1, .. })));
}

#[test]
fn another_manifest_is_refused_by_id() {
    let wanted = Manifest::empty().id();
    let encoded = small().encode();
    let error = Manifest::decode(wanted, &encoded.bytes).unwrap_err();
    assert_eq!(error, ManifestError::OtherId { wanted, found: encoded.id });
}

#[test]
fn no_chunk_has_the_id_of_a_manifest() {
    let encoded = small().encode();
    assert_ne!(ChunkId::of(&encoded.bytes).as_bytes(), encoded.id.as_bytes());
}

fn large() -> Manifest {
    Manifest::new((0..100_000).map(|seed| data(seed, 1 << 20)).collect()).unwrap()
}

#[test]
fn a_large_manifest_is_chunked() {
    let manifest = large();
    let encoded = manifest.encode();
    assert!(encoded.bytes.len() < LEAF_MAX);
    assert!(encoded.extra_chunks.len() > 1);
    let Decoded::Index(index) = Manifest::decode(encoded.id, &encoded.bytes).unwrap() else { panic!("it is not an index") };
    let named: Vec<(ChunkId, u32)> = encoded.extra_chunks.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect();
    assert_eq!(index.chunks(), named);
    let pieces: Vec<&[u8]> = encoded.extra_chunks.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert!(index.assemble(pieces.iter().copied()).unwrap() == manifest);

    let error = index.assemble(pieces[1..].iter().copied()).unwrap_err();
    assert!(matches!(error, ManifestError::IndexChunk { wanted, .. } if wanted == named[0].0));
    let error = index.assemble(pieces[..1].iter().copied()).unwrap_err();
    assert!(error.to_string().starts_with("Manifest index is truncated"), "{error}");
}

#[test]
fn a_change_in_a_large_manifest_moves_few_of_its_chunks() {
    let mut parts = large().parts().to_vec();
    parts.insert(60_000, data(u64::MAX, 77));
    let before = large().encode().extra_chunks;
    let after = Manifest::new(parts).unwrap().encode().extra_chunks;
    // The number of parts stands in the first chunk and the check sum in the last, so those move as well.
    let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
    assert!(new <= 4, "{new} of {} chunks are new", after.len());
}

#[test]
fn ids_read_and_write_as_text() {
    let id = small().id();
    assert_eq!(id.to_string().parse::<ManifestId>().unwrap(), id);
    assert_eq!(id.to_string().len(), 64);
    let upper = id.to_string().to_uppercase();
    let error = upper.parse::<ManifestId>().unwrap_err().to_string();
    assert!(error.starts_with("Manifest id "), "{error}");
    assert!("".parse::<ChunkId>().is_err());
    assert_eq!(postcard::to_allocvec(&id).unwrap(), id.as_bytes());
    assert_eq!(postcard::from_bytes::<ManifestId>(id.as_bytes()).unwrap(), id);
}

/// A step of reading a file.
#[derive(Debug, Clone)]
enum Step {
    /// That many bytes of noise of a seed.
    Data(u8, usize),
    /// Zeros that the file system keeps as data.
    Zeros(usize),
    Hole(u64),
}

impl Step {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Hole(len) => vec![0; *len as usize],
            Self::Zeros(len) => vec![0; *len],
            Self::Data(seed, len) => {
                let mut bytes = vec![0; *len];
                blake3::Hasher::new().update(&[*seed]).finalize_xof().fill(&mut bytes);
                bytes
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (any::<u8>(), 0_usize..700_000).prop_map(|(seed, len)| Step::Data(seed, len)),
        (0_usize..200_000).prop_map(Step::Zeros),
        (0_u64..200_000).prop_map(Step::Hole),
    ];
    prop::collection::vec(step, 0..12)
}

/// Builds from pieces of at most `piece` bytes; returns the manifest and the content put together from it.
fn build(steps: &[Step], piece: usize) -> (Manifest, Vec<u8>) {
    let mut chunks = std::collections::BTreeMap::new();
    let mut keep = |id: ChunkId, bytes: &[u8]| -> Result<(), ManifestError> {
        chunks.insert(id, bytes.to_vec());
        Ok(())
    };
    let mut builder = ManifestBuilder::new();
    for step in steps {
        match step {
            Step::Data(..) | Step::Zeros(_) => {
                step.bytes().chunks(piece).for_each(|piece| builder.data(piece, &mut keep).unwrap())
            }
            Step::Hole(len) => {
                builder.hole(len / 2);
                builder.hole(len - len / 2);
            }
        }
    }
    let manifest = builder.finish(&mut keep).unwrap();
    let mut content = Vec::new();
    for part in manifest.parts() {
        match part {
            Part::Data { chunk, .. } => content.extend_from_slice(&chunks[chunk]),
            Part::Hole { len } => content.resize(content.len() + *len as usize, 0),
        }
    }
    (manifest, content)
}

#[test]
fn content_that_is_too_long_is_refused() {
    let mut builder = ManifestBuilder::new();
    builder.hole(u64::MAX);
    builder.hole(u64::MAX);
    let error = builder.finish(|_, _| Ok::<(), ManifestError>(())).unwrap_err();
    assert_eq!(error, ManifestError::Part { part: 0, why: "ends past the longest file" });
}

fn with_check(mut bytes: Vec<u8>) -> Vec<u8> {
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..8]);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_built_manifest_holds_the_content(steps in steps(), piece in 1_000_usize..1_000_000) {
        let (manifest, content) = build(&steps, piece);
        let plain: Vec<u8> = steps.iter().flat_map(Step::bytes).collect();
        prop_assert!(content == plain, "the content differs");
        prop_assert_eq!(manifest.len(), content.len() as u64);
        let (again, _) = build(&steps, usize::MAX);
        prop_assert_eq!(&again, &manifest);
        let as_data: Vec<Step> = steps.iter().map(|step| match step { Step::Hole(len) => Step::Zeros(*len as usize), other => other.clone() }).collect();
        prop_assert_eq!(&build(&as_data, piece).0, &manifest, "holes kept as data make another version");
        let encoded = manifest.encode();
        prop_assert_eq!(decode_whole(encoded.id, &encoded.bytes), manifest);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        // A changed byte under a check sum that fits again: an honest check sum proves nothing about the writer.
        let mut bytes = small().encode().bytes;
        bytes.truncate(bytes.len() - 8);
        let at = at.index(bytes.len());
        bytes[at] = value;
        let bytes = with_check(bytes);
        if let Ok(Decoded::Whole(manifest)) = Manifest::decode_unnamed(&bytes) {
            prop_assert_eq!(manifest.encode().bytes, bytes);
        }
    }

    #[test]
    fn noise_is_not_a_manifest(body in prop::collection::vec(any::<u8>(), 0..120), kind in 0_u8..3) {
        let mut bytes = vec![b'i', b's', b'o', b'M', 1, kind, body.len() as u8];
        bytes.extend_from_slice(&body);
        let bytes = with_check(bytes);
        if let Ok(Decoded::Whole(manifest)) = Manifest::decode_unnamed(&bytes) {
            prop_assert_eq!(manifest.encode().bytes, bytes);
        }
        prop_assert!(Manifest::decode_unnamed(&body).is_err());
    }

    #[test]
    fn hostile_counts_are_refused_before_they_allocate(count in 1_u64.., kind in 0_u8..2) {
        let mut body = Vec::new();
        let mut left = count;
        while left >= 0x80 {
            body.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        body.push(left as u8);
        let mut bytes = vec![b'i', b's', b'o', b'M', 1, kind, body.len() as u8];
        bytes.extend_from_slice(&body);
        let error = Manifest::decode_unnamed(&with_check(bytes)).unwrap_err().to_string();
        prop_assert!(error.contains("truncated") || error.contains("too many parts"), "{}", error);
    }
}
