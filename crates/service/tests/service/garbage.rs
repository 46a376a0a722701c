//! Garbage collection: what is named stays, what is not goes, and nobody is surprised by it.

use std::path::Path;

use isotherm_api::collect::Collected;
use isotherm_api::management::{GroupChange, KeepChange};
use isotherm_core::content::ChunkId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::namespace::{Answer, Based, Change};
use isotherm_core::node::Content;
use isotherm_service::{Ages, Options, Service};

use crate::world::{Data, FORKS, Running, World, create, noise, read};

pub(crate) const AT_ONCE: Ages = Ages { pin_ms: 0, grace_ms: 0, horizon_ms: u64::MAX };

pub(crate) async fn collect(folder: &Path, ages: Ages) -> Collected {
    // Ages count in whole milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next millisecond
    let service = Service::open(Options::at(folder)).await.unwrap();
    service.collect(ages).await.unwrap()
}

fn bytes_stored(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        sum += if kind.is_dir() { bytes_stored(&entry.path()) } else { entry.metadata().unwrap().len() };
    }
    sum
}

pub(crate) fn keep(days: u32) -> GroupChange {
    GroupChange { keep: KeepChange { days: Some(days), ..KeepChange::default() }, ..GroupChange::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_stays_and_the_rest_goes() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (a, b, old) = (noise(1, 300_000), noise(3, 300_000), noise(5, 300_000));
    world.writer.create(b"a", &a).await;
    let (node, at) = world.writer.create(b"b", &old).await;
    let value = Content::File(world.writer.upload(&[Data::Bytes(&b)]).await);
    world.writer.commit(Change::Update { node, metadata: None, content: Some(Based { base: at, value }) }).await;
    // Nothing ever names this one.
    world.writer.upload(&[Data::Bytes(&noise(7, 300_000))]).await;
    let folder = world.stop().await;
    let objects = folder.path().join("objects");
    let before = bytes_stored(&objects);
    // Versions are kept, and uploads have a day.
    let done = collect(folder.path(), Ages::default()).await;
    assert_eq!((done, bytes_stored(&objects)), (Collected::default(), before));
    let done = collect(folder.path(), AT_ONCE).await;
    assert_eq!((done.condemned_chunks, done.forgotten_contents, done.expired_versions), (1, 1, 0), "{done:?}");
    let running = Running::start(folder.path()).await;
    running.client.change_group("plans", &keep(0)).await.unwrap();
    running.stop().await;
    let done = collect(folder.path(), AT_ONCE).await;
    assert_eq!((done.condemned_chunks, done.expired_versions), (1, 1), "{done:?}");
    let done = collect(folder.path(), AT_ONCE).await;
    assert_eq!(done.condemned_chunks, 0, "{done:?}");
    assert!(bytes_stored(&objects) < before * 6 / 10, "{} of {before}", bytes_stored(&objects));
    let running = Running::start(folder.path()).await;
    assert!(read(&running, b"a").await == a && read(&running, b"b").await == b);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_11_condemned_chunks_are_asked_for_again() {
    let _no_forks = FORKS.read().await;
    let world = World::new().await;
    let bytes = noise(5, 200_000);
    let content = world.writer.upload(&[Data::Bytes(&bytes)]).await;
    let chunk = ChunkId::of(&bytes);
    let group = world.writer.group;
    let folder = world.stop().await;
    let done = collect(folder.path(), Ages { grace_ms: u64::MAX / 4, ..AT_ONCE }).await;
    assert_eq!((done.condemned_chunks, done.deleted_packs), (1, 0));
    let running = Running::start(folder.path()).await;
    // Its pack is still there, and yet nobody may build on it.
    assert_eq!(running.client.have(group, &[chunk]).await.unwrap(), [false]);
    let mut writer = crate::world::Writer::attach(&running.client, "detroit").await;
    let node = writer.node();
    let named = create(node, NodeId::ROOT, b"file", Content::File(content));
    assert!(matches!(writer.commit(named.clone()).await, Answer::Missing(_)));
    writer.upload(&[Data::Bytes(&bytes)]).await;
    assert!(matches!(writer.commit(named).await, Answer::Applied(Version(1))));
    running.stop().await;
    for _ in 0..2 {
        collect(folder.path(), AT_ONCE).await;
    }
    let running = Running::start(folder.path()).await;
    assert!(read(&running, b"file").await == bytes);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_packs_become_one_and_everything_can_be_read() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let contents: Vec<Vec<u8>> = (0..40).map(|seed| noise(100 + 2 * seed, 10_000)).collect();
    for (number, bytes) in contents.iter().enumerate() {
        world.writer.create(format!("f{number}").as_bytes(), bytes).await;
    }
    let folder = world.stop().await;
    let done = collect(folder.path(), AT_ONCE).await;
    assert!(done.rewritten_packs >= 40, "{done:?}");
    let done = collect(folder.path(), AT_ONCE).await;
    assert_eq!(done.rewritten_packs, 0, "{done:?}");
    let packs = std::fs::read_dir(folder.path().join("objects/packs")).unwrap();
    let left: usize = packs.map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count()).sum();
    assert_eq!(left, 1);
    let running = Running::start(folder.path()).await;
    for (number, bytes) in contents.iter().enumerate() {
        assert!(read(&running, format!("f{number}").as_bytes()).await == *bytes, "f{number}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_26_deletions_are_forgotten_after_the_horizon_and_old_readers_start_over() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (gone, at) = world.writer.create(b"gone", b"x").await;
    let early = world.writer.start();
    world.writer.create(b"stays", b"y").await;
    let group = world.writer.group;
    world.writer.commit(Change::Delete { node: gone, place: at, content: at }).await;
    let (_, heard) = world.writer.follow(world.writer.start()).await;
    let before = isotherm_core::ids::Cursor { version: Version(heard.version.0 - 1), ..heard };
    let folder = world.stop().await;
    let forget = Ages { horizon_ms: 0, ..AT_ONCE };
    // As long as a version of it is kept, it can be undeleted.
    assert_eq!(collect(folder.path(), forget).await.forgotten_nodes, 0);
    let running = Running::start(folder.path()).await;
    running.client.change_group("plans", &keep(0)).await.unwrap();
    assert!(!running.client.feed(group, before, 10, 0).await.unwrap().start_over);
    running.stop().await;
    let done = collect(folder.path(), forget).await;
    assert_eq!((done.forgotten_nodes, done.expired_versions), (1, 1), "{done:?}");
    let running = Running::start(folder.path()).await;
    assert!(running.client.feed(group, before, 10, 0).await.unwrap().start_over, "it has not heard of the deletion");
    assert!(!running.client.feed(group, heard, 10, 0).await.unwrap().start_over);
    assert!(running.client.feed(group, early, 10, 0).await.unwrap().start_over, "it may know the node by an answer");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_takes_is_measured() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = vec![b'a'; 60_000];
    world.writer.create(b"one", &bytes).await;
    world.writer.create(b"two", &bytes).await;
    assert_eq!(world.client().group("plans").await.unwrap().space, None);
    let folder = world.stop().await;
    collect(folder.path(), AT_ONCE).await;
    let running = Running::start(folder.path()).await;
    let space = running.client.group("plans").await.unwrap().space.unwrap();
    assert_eq!((space.files, space.distinct), (120_000, 60_000));
    assert!(space.stored < 1_000, "{space:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_groups_share_counts_for_each_of_them() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (first, second, third) = (noise(1, 60_000), noise(3, 50_000), noise(5, 40_000));
    for (name, bytes) in [(&b"one"[..], &first), (b"two", &second)] {
        world.writer.create(name, bytes).await;
    }
    let case = isotherm_core::name::Case::Sensitive;
    for name in ["models", "empty"] {
        world.client().create_group(&crate::world::group(name, case)).await.unwrap();
    }
    // The same server's writer, now in the second group.
    let models = world.client().group("models").await.unwrap();
    (world.writer.group, world.writer.incarnation) = (models.id, models.incarnation);
    let (node, at) = world.writer.create(b"copy", &second).await;
    let value = Content::File(world.writer.upload(&[Data::Bytes(&third)]).await);
    // The copy is an old version there.
    world.writer.commit(Change::Update { node, metadata: None, content: Some(Based { base: at, value }) }).await;
    let folder = world.stop().await;
    collect(folder.path(), AT_ONCE).await;
    let running = Running::start(folder.path()).await;
    for (name, files, distinct) in [("plans", 110_000, 110_000), ("models", 40_000, 90_000), ("empty", 0, 0)] {
        let space = running.client.group(name).await.unwrap().space.unwrap();
        assert_eq!((space.files, space.distinct), (files, distinct), "{name}");
    }
    running.stop().await;
}
