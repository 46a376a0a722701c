//! Packs over stores: chunks come back verified, damage is named, and the index needs only the object.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use isotherm_core::content::{ChunkId, Form, PackId};
use isotherm_store::{ChunkStore, Fault, FaultyStore, FolderStore, Location, MemoryStore, PackStore, StoreError, StoreErrorKind};
use proptest::prelude::*;

fn noise(seed: u64, len: usize) -> Bytes {
    // A linear congruence is noise enough that zstd gives up.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(byte).collect()
}

fn text(seed: u64, len: usize) -> Bytes {
    format!("layer {seed} of a drawing; ").bytes().cycle().take(len).collect()
}

fn named(chunks: &[Bytes]) -> Vec<(ChunkId, Bytes)> {
    chunks.iter().map(|bytes| (ChunkId::of(bytes), bytes.clone())).collect()
}

async fn write(packs: &PackStore, chunks: &[Bytes]) -> (PackId, Vec<Location>) {
    let (pack, entries) = packs.write_pack(named(chunks)).await.unwrap();
    (pack, entries.into_iter().map(|entry| Location { pack, entry }).collect())
}

/// The chunks of records.
async fn read(packs: &PackStore, locations: &[Location]) -> Result<Vec<Bytes>, StoreError> {
    let records = packs.read_records(locations).await?;
    let chunk = |(location, record): (&Location, &Bytes)| Bytes::from(location.entry.decode(record).unwrap().into_owned());
    Ok(locations.iter().zip(&records).map(chunk).collect())
}

fn assert_names(error: &StoreError, kind: StoreErrorKind, pack: PackId) {
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.to_string().contains(&pack.to_string()), "the pack is not named: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_back_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let packs = PackStore::new(Arc::new(FolderStore::open(dir.path()).await.unwrap()));
    let chunks = [noise(1, 300_000), text(2, 400_000), noise(3, 1), text(4, 5_000)];
    let (pack, locations) = write(&packs, &chunks).await;
    assert_eq!(locations[1].entry.form, Form::Zstd);
    for (location, chunk) in locations.iter().zip(&chunks) {
        assert!(packs.read_chunk(location).await.unwrap() == *chunk);
    }
    let backwards: Vec<Location> = locations.iter().rev().chain(&locations).copied().collect();
    let all = read(&packs, &backwards).await.unwrap();
    assert!(all.iter().eq(chunks.iter().rev().chain(&chunks)));
    let entries: Vec<_> = locations.iter().map(|location| location.entry).collect();
    assert_eq!(packs.read_index(pack).await.unwrap(), entries);
    assert_eq!(packs.verify(pack).await.unwrap(), entries);
    // The same chunks make the same pack, and writing it again is fine.
    assert_eq!(write(&packs, &chunks).await.0, pack);
    let listed: Vec<_> = packs.list_packs().try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|(pack, _)| *pack).collect::<Vec<_>>(), [pack]);
    packs.delete_packs(&[pack]).await.unwrap();
    assert_names(&packs.read_index(pack).await.unwrap_err(), StoreErrorKind::NotFound, pack);
}

#[tokio::test]
async fn a_long_index_takes_a_second_read() {
    let inner = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let packs = PackStore::new(Arc::clone(&inner) as _);
    let chunks: Vec<Bytes> = (0..5_000_u32).map(|number| Bytes::copy_from_slice(&number.to_le_bytes())).collect();
    let (pack, locations) = write(&packs, &chunks).await;
    let before = inner.calls();
    assert_eq!(packs.read_index(pack).await.unwrap().len(), 5_000);
    assert_eq!(inner.calls() - before, 3, "length, end, longer end");
    // Records that touch are read with one request.
    let before = inner.calls();
    assert_eq!(read(&packs, &locations).await.unwrap(), chunks);
    assert_eq!(inner.calls() - before, 1);
}

#[tokio::test]
async fn a_wrong_chunk_is_not_written() {
    let store = Arc::new(MemoryStore::new());
    let packs = PackStore::new(Arc::clone(&store) as _);
    let wrong = vec![(ChunkId::of(b"this"), Bytes::from_static(b"that"))];
    let error = packs.write_pack(wrong).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.to_string().contains(&ChunkId::of(b"this").to_string()), "{error}");
    let left: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn every_flipped_bit_of_a_stored_pack_is_found_and_named() {
    let store = Arc::new(MemoryStore::new());
    let packs = PackStore::new(Arc::clone(&store) as _);
    let chunks = [noise(1, 40), text(2, 200), noise(3, 30)];
    let (pack, locations) = write(&packs, &chunks).await;
    let key = PackStore::key_of(pack);
    let whole = store.get(&key).await.unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        store.replace(key.clone(), bytes.into());
        assert_names(&packs.verify(pack).await.unwrap_err(), StoreErrorKind::Corrupt, pack);
        for (location, chunk) in locations.iter().zip(&chunks) {
            match packs.read_chunk(location).await {
                Ok(bytes) => assert_eq!(bytes, chunk, "bit {bit}"),
                Err(error) => assert_names(&error, StoreErrorKind::Corrupt, pack),
            }
        }
        match read(&packs, &locations).await {
            Ok(all) => assert_eq!(all, chunks, "bit {bit}"),
            Err(error) => assert_names(&error, StoreErrorKind::Corrupt, pack),
        }
        if let Err(error) = packs.read_index(pack).await {
            assert_names(&error, StoreErrorKind::Corrupt, pack);
        }
    }
}

#[tokio::test]
async fn a_cut_pack_still_gives_the_chunks_it_has() {
    let store = Arc::new(MemoryStore::new());
    let packs = PackStore::new(Arc::clone(&store) as _);
    let chunks = [noise(1, 1000), noise(2, 1000), noise(3, 1000)];
    let (pack, locations) = write(&packs, &chunks).await;
    let key = PackStore::key_of(pack);
    let whole = store.get(&key).await.unwrap();
    store.replace(key, whole.slice(..2500));
    for (location, chunk) in locations.iter().zip(&chunks[..2]) {
        assert_eq!(packs.read_chunk(location).await.unwrap(), chunk);
    }
    assert_names(&packs.read_chunk(&locations[2]).await.unwrap_err(), StoreErrorKind::Corrupt, pack);
    assert_names(&read(&packs, &locations).await.unwrap_err(), StoreErrorKind::Corrupt, pack);
    assert_names(&packs.read_index(pack).await.unwrap_err(), StoreErrorKind::Corrupt, pack);
}

#[tokio::test]
async fn a_read_that_fails_can_be_tried_again() {
    let inner = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let packs = PackStore::new(Arc::clone(&inner) as _);
    let chunks = [noise(1, 500), noise(2, 500)];
    let (_, first) = write(&packs, &chunks[..1]).await;
    let (_, second) = write(&packs, &chunks[1..]).await;
    inner.fail_at(1, Fault::Before(StoreErrorKind::Unavailable));
    assert!(read(&packs, &[first[0], second[0]]).await.unwrap_err().is_retryable());
    assert_eq!(read(&packs, &[first[0], second[0]]).await.unwrap(), chunks);
}

#[tokio::test]
async fn a_lost_answer_is_made_up_by_writing_again() {
    let inner = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let packs = PackStore::new(Arc::clone(&inner) as _);
    let chunks = [noise(1, 500), text(2, 500)];
    inner.fail_at(0, Fault::After(StoreErrorKind::Unavailable));
    assert!(packs.write_pack(named(&chunks)).await.unwrap_err().is_retryable());
    let (_, locations) = write(&packs, &chunks).await;
    assert_eq!(read(&packs, &locations).await.unwrap(), chunks);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_list_of_locations_is_answered_in_order(
        lens in prop::collection::vec(1_usize..200_000, 1..12),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let packs = PackStore::new(Arc::new(MemoryStore::new()));
            let mut known = Vec::new();
            let chunks: Vec<Bytes> = lens.iter().zip(0..).map(|(len, seed)| noise(seed, len + 8)).collect();
            for half in chunks.chunks(chunks.len().div_ceil(2)) {
                let (_, locations) = write(&packs, half).await;
                known.extend(locations.into_iter().zip(half));
            }
            let picked: Vec<_> = picks.iter().map(|pick| known[pick.index(known.len())]).collect();
            let locations: Vec<Location> = picked.iter().map(|(location, _)| *location).collect();
            let all = read(&packs, &locations).await.unwrap();
            assert!(all.iter().eq(picked.into_iter().map(|(_, chunk)| chunk)));
        });
    }
}
