//! Packs, chunks and manifests: what is damaged is refused whole, what is kept is verified.

use isotherm_api::share::ManifestAnswer;
use isotherm_api::{ApiError, Client, Code};
use isotherm_core::content::{ChunkId, Decoded, Manifest, ManifestId, PackBuilder, Part};
use isotherm_core::ids::GroupId;

use crate::world::{Data, World, noise, pack};

fn small_pack(contents: &[&[u8]]) -> (Vec<ChunkId>, Vec<u8>) {
    let mut builder = PackBuilder::new();
    let ids: Vec<ChunkId> = contents.iter().map(|bytes| ChunkId::of(bytes)).collect();
    for (id, bytes) in ids.iter().zip(contents) {
        builder.push(*id, bytes).unwrap();
    }
    (ids, builder.finish().1)
}

async fn chunks(client: &Client, group: GroupId, ids: &[ChunkId]) -> Result<Vec<Option<Vec<u8>>>, ApiError> {
    let mut stream = client.get_chunks(group, ids).await?;
    let mut found = Vec::new();
    while let Some((_, bytes)) = stream.next_chunk().await? {
        found.push(bytes.map(|bytes| bytes.to_vec()));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out() {
    let world = World::new().await;
    let (client, group) = (world.client(), world.writer.group);
    let big = noise(5, 3_000_000);
    let (ids, bytes) = small_pack(&[b"one", &[7; 100_000], &big]);
    let absent = ChunkId::of(b"absent");
    let asked = [ids[2], absent, ids[0], ids[1], ids[0]];
    assert_eq!(client.have(group, &asked).await.unwrap(), [false; 5]);
    for _ in 0..2 {
        assert_eq!(client.put_pack(group, bytes.clone()).await.unwrap().chunks, 3);
    }
    assert_eq!(client.have(group, &asked).await.unwrap(), [true, false, true, true, true]);
    let found = chunks(client, group, &asked).await.unwrap();
    assert_eq!(found[0].as_deref(), Some(&big[..]));
    assert_eq!(found[1], None);
    assert_eq!((found[2].as_deref(), found[4].as_deref()), (Some(&b"one"[..]), Some(&b"one"[..])));
    assert_eq!(found[3].as_deref(), Some(&[7; 100_000][..]));
    assert!(client.have(group, &[]).await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_leaves_nothing() {
    let world = World::new().await;
    let (client, group) = (world.client(), world.writer.group);
    let (ids, good) = small_pack(&[b"one", b"two", &noise(3, 500)]);
    let objects = world.folder.path().join("objects");
    for at in (0..good.len()).step_by(7).chain([good.len() - 1]) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        let error = client.put_pack(group, flipped).await.unwrap_err();
        assert_eq!(error.code, Code::Invalid, "byte {at}: {error}");
        let error = client.put_pack(group, good[..at].to_vec()).await.unwrap_err();
        assert_eq!(error.code, Code::Invalid, "cut at {at}: {error}");
    }
    assert_eq!(client.have(group, &ids).await.unwrap(), [false; 3]);
    assert_eq!(count_files(&objects.join("packs")), 0);
    client.put_pack(group, good).await.unwrap();
    assert_eq!(client.have(group, &ids).await.unwrap(), [true; 3]);
    world.stop().await;
}

fn count_files(folder: &std::path::Path) -> usize {
    let Ok(entries) = folder.read_dir() else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

/// Changes the last byte of the only pack's records; the index stays whole.
fn damage_the_pack(folder: &std::path::Path) {
    let mut path = folder.join("objects/packs");
    while path.is_dir() {
        path = path.read_dir().unwrap().next().unwrap().unwrap().path();
    }
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    // Objects are read-only on purpose; this is what a bad disk does.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_store_is_an_error_that_names_chunk_and_pack() {
    let mut world = World::new().await;
    let bytes = noise(9, 3000);
    world.writer.create(b"a", &bytes).await;
    let id = ChunkId::of(&bytes);
    damage_the_pack(world.folder.path());
    let error = chunks(world.client(), world.writer.group, &[id]).await.unwrap_err();
    assert_eq!((error.code, error.code.status()), (Code::Corrupt, 500));
    assert!(error.message.contains(&id.to_string()) && error.message.contains("pack"), "{error}");
    let error = world.client().download("plans", b"a", None).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.message.contains(&id.to_string()), "{error}");
    assert!(world.client().groups().await.is_ok(), "the service goes on");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_checked_and_kept() {
    let world = World::new().await;
    let (client, group) = (world.client(), world.writer.group);
    let (manifest, _) = pack(&[Data::Bytes(b"x"), Data::Hole(1 << 20)]);
    let encoded = manifest.encode();
    let empty = Manifest::empty().encode();
    let answers = client.put_manifests(group, vec![encoded.bytes.clone(), empty.bytes.clone()]).await.unwrap();
    assert_eq!(answers, [ManifestAnswer::Stored(encoded.id), ManifestAnswer::Stored(empty.id)]);
    let absent = ManifestId::of(b"absent");
    let found = client.get_manifests(group, &[empty.id, absent, encoded.id]).await.unwrap();
    assert_eq!(found[0].as_deref(), Some(&empty.bytes[..]));
    assert_eq!(found[1], None);
    assert_eq!(found[2].as_deref(), Some(&encoded.bytes[..]));
    let mut broken = encoded.bytes;
    broken[9] ^= 1;
    let other = Manifest::new(vec![Part::Hole { len: 1 << 30 }]).unwrap().encode();
    let error = client.put_manifests(group, vec![other.bytes, broken]).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.contains("Manifest 1"), "{error}");
    assert_eq!(client.get_manifests(group, &[other.id]).await.unwrap(), [None], "all or none");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_manifest_needs_its_own_chunks_first() {
    let mut world = World::new().await;
    let (client, group) = (world.client().clone(), world.writer.group);
    let chunk = noise(1, 100);
    let (id, len) = (ChunkId::of(&chunk), chunk.len() as u32);
    let parts = (0..40_000).map(|_| Part::Data { chunk: id, len });
    let manifest = Manifest::new(parts.collect()).unwrap();
    let encoded = manifest.encode();
    assert!(matches!(Manifest::decode(encoded.id, &encoded.bytes), Ok(Decoded::Index(_))));
    let answers = client.put_manifests(group, vec![encoded.bytes.clone()]).await.unwrap();
    let own: Vec<ChunkId> = encoded.extra_chunks.iter().map(|(id, _)| *id).collect();
    assert_eq!(answers, [ManifestAnswer::Missing(own)]);
    let mut builder = PackBuilder::new();
    builder.push(id, &chunk).unwrap();
    for (id, bytes) in &encoded.extra_chunks {
        builder.push(*id, bytes).unwrap();
    }
    client.put_pack(group, builder.finish().1).await.unwrap();
    let answers = client.put_manifests(group, vec![encoded.bytes]).await.unwrap();
    assert_eq!(answers, [ManifestAnswer::Stored(encoded.id)]);
    let file = isotherm_core::node::FileContent {
        manifest: encoded.id,
        size: manifest.len(),
        modified: isotherm_core::ids::Timestamp(0),
        link: None,
    };
    let node = world.writer.node();
    let change = crate::world::create(node, isotherm_core::ids::NodeId::ROOT, b"big", isotherm_core::node::Content::File(file));
    assert!(matches!(world.writer.commit(change).await, isotherm_core::namespace::Answer::Applied(_)));
    let mut download = client.download("plans", b"big", Some((99, 301))).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = download.next_piece().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes, [&chunk[99..], &chunk, &chunk, &chunk[..1]].concat());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_messages_are_refused_by_name() {
    let world = World::new().await;
    let (client, group) = (world.client(), world.writer.group);
    let unknown = GroupId([9; 16]);
    let error = client.put_pack(unknown, small_pack(&[b"x"]).1).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let error = client.put_pack(group, Vec::new()).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    let ids = vec![ChunkId::of(b""); isotherm_api::limits::IDS_MAX + 1];
    assert_eq!(client.have(group, &ids).await.unwrap_err().code, Code::TooLarge);
    world.stop().await;
}
