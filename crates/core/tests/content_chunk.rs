//! The cuts of the chunker: the same for every feeding, and the same in every release.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use isotherm_core::content::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, ChunkId, Chunker};
use proptest::prelude::*;

/// Bytes that never change: the extendable output of BLAKE3 of a seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn chunks_of(content: &[u8], feed: &[usize]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut keep = |chunk: &[u8]| {
        chunks.push(chunk.to_vec());
        Ok::<(), Infallible>(())
    };
    let mut chunker = Chunker::new();
    let mut rest = content;
    for len in feed.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (head, tail) = rest.split_at((*len).min(rest.len()));
        let Ok(()) = chunker.push(head, &mut keep);
        assert!(chunker.kept() < CHUNK_MAX);
        rest = tail;
    }
    let Ok(()) = chunker.finish(&mut keep);
    assert_eq!(chunker.kept(), 0);
    chunks
}

#[test]
fn empty_content_has_no_chunk() {
    assert_eq!(chunks_of(&[], &[1]), Vec::<Vec<u8>>::new());
}

#[test]
fn short_content_is_one_chunk() {
    for len in [1, 2, 4095, CHUNK_MIN - 1, CHUNK_MIN] {
        let content = noise(1, len);
        assert_eq!(chunks_of(&content, &[len]), vec![content], "{len} bytes");
    }
}

#[test]
fn content_without_places_to_cut_has_longest_chunks() {
    let lens: Vec<usize> = chunks_of(&vec![0; 9 * 1024 * 1024], &[1 << 20]).iter().map(Vec::len).collect();
    assert_eq!(lens, [CHUNK_MAX, CHUNK_MAX, 1024 * 1024]);
}

/// If this fails after an update of a library, do not change the numbers: every share in the world would send its
/// unchanged files again. Keep the old cuts.
#[test]
fn cuts_are_those_of_the_first_release() {
    let content = noise(0x1507_4e12, 16 * 1024 * 1024 + 12_345);
    let chunks = chunks_of(&content, &[content.len()]);
    let lens: Vec<usize> = chunks.iter().map(Vec::len).collect();
    assert_eq!(lens, GOLDEN_LENS);
    let first = ChunkId::of(&chunks[0]).to_string();
    assert_eq!(first, GOLDEN_FIRST);
}

const GOLDEN_LENS: [usize; 14] =
    [529459, 1252262, 1270336, 1218828, 643478, 824217, 2881499, 1222169, 1233995, 1173330, 1679022, 984089, 1109614, 767263];
const GOLDEN_FIRST: &str = "fc02cbf99592f20678dd123ddd830a10584d5f5f057274a97619a2a60af7bffe";

#[test]
fn lengths_keep_their_bounds_and_aim_at_the_average() {
    let content = noise(2, 64 * 1024 * 1024);
    let chunks = chunks_of(&content, &[content.len()]);
    let (last, whole) = chunks.split_last().unwrap();
    assert!(last.len() <= CHUNK_MAX);
    assert!(whole.iter().all(|chunk| (CHUNK_MIN..=CHUNK_MAX).contains(&chunk.len())));
    let average = content.len() / chunks.len();
    assert!((CHUNK_AVERAGE / 2..CHUNK_AVERAGE * 2).contains(&average), "average {average}");
}

#[test]
fn an_inserted_byte_changes_few_chunks() {
    let content = noise(3, 24 * 1024 * 1024);
    let mut edited = content.clone();
    edited.insert(9_000_001, 0x55);
    let before: std::collections::BTreeSet<Vec<u8>> = chunks_of(&content, &[1 << 20]).into_iter().collect();
    let after = chunks_of(&edited, &[1 << 20]);
    assert!(after.concat() == edited);
    let new = after.iter().filter(|chunk| !before.contains(*chunk)).count();
    assert!(new <= 2, "{new} new chunks");
}

#[test]
fn finish_begins_a_new_run() {
    let content = noise(4, 7 * 1024 * 1024);
    let mut chunks = Vec::new();
    let mut keep = |chunk: &[u8]| {
        chunks.push(chunk.to_vec());
        Ok::<(), Infallible>(())
    };
    let mut chunker = Chunker::new();
    for _ in 0..2 {
        let Ok(()) = chunker.push(&content, &mut keep);
        let Ok(()) = chunker.finish(&mut keep);
    }
    let once = chunks_of(&content, &[content.len()]);
    assert!(chunks == [once.clone(), once].concat());
}

#[test]
fn an_error_of_the_sink_is_handed_on() {
    let mut chunker = Chunker::new();
    let content = noise(5, 5 * 1024 * 1024);
    assert_eq!(chunker.push(&content, |_| Err("disk is gone")), Err("disk is gone"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn feeding_does_not_move_cuts(
        seed in any::<u64>(),
        len in 0_usize..(11 * 1024 * 1024),
        zeros in 0_usize..(5 * 1024 * 1024),
        feed in prop::collection::vec(1_usize..(5 * 1024 * 1024), 1..6),
    ) {
        // Zeros in front make longest chunks, whose cut falls on the last kept byte.
        let content = [vec![0; zeros], noise(seed, len)].concat();
        let whole = chunks_of(&content, &[content.len().max(1)]);
        // One tiny piece alone would make millions of calls.
        let feed = [&feed[..], &[1 << 20]].concat();
        let fed = chunks_of(&content, &feed);
        prop_assert!(whole == fed, "the cuts differ");
        prop_assert!(whole.concat() == content, "the chunks are not the content");
    }

    #[test]
    fn small_feeding_does_not_move_cuts(seed in any::<u64>(), step in 997_usize..70_000) {
        let content = noise(seed, 6 * 1024 * 1024);
        let whole = chunks_of(&content, &[content.len()]);
        prop_assert!(whole == chunks_of(&content, &[step, 1, 4096]));
    }
}
