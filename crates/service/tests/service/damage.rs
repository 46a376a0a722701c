//! A pack that is damaged in one place: nothing else that lies in it is lost, to nobody.

use isotherm_core::namespace::Change;
use isotherm_service::backup;

use crate::check::{check, flip, packs};
use crate::garbage::{AT_ONCE, collect, keep};
use crate::world::{Data, FORKS, Running, World, noise, read};

fn silent(_done: u64, _all: u64) {}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_good_in_a_damaged_pack_leaves_it() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (first, second) = (noise(1, 200_000), noise(3, 200_000));
    world.writer.create_in_one_pack(&[(b"first", &first), (b"second", &second)]).await;
    let pack = packs(world.folder.path()).remove(0);
    flip(&pack);
    let to = tempfile::tempdir().unwrap();
    let done = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((done.damaged.len(), done.lost_chunks), (1, 0), "nobody has looked yet");
    let status = check(world.client(), true).await;
    assert_eq!((status.findings_count, status.hurt_count, status.rewritten_packs), (1, 1, 1), "{status:?}");
    // What is good is in every backup from now on, and what is not is told.
    let done = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((done.damaged, done.lost_chunks), (Vec::new(), 1));
    world.writer.upload(&[Data::Bytes(&first)]).await;
    let status = check(world.client(), true).await;
    assert_eq!((status.findings_count, status.rewritten_packs), (0, 0), "{status:?}");
    let done = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((done.damaged, done.lost_chunks), (Vec::new(), 0));
    let folder = world.stop().await;
    assert_eq!(collect(folder.path(), AT_ONCE).await.deleted_packs, 1);
    assert!(!pack.exists(), "nothing is wanted of it");
    let running = Running::start(to.path()).await;
    assert!(read(&running, b"first").await == first && read(&running, b"second").await == second);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_was_cut_short_gives_what_is_before_the_cut() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (first, second) = (noise(1, 200_000), noise(3, 200_000));
    world.writer.create_in_one_pack(&[(b"first", &first), (b"second", &second)]).await;
    let pack = packs(world.folder.path()).remove(0);
    let whole = std::fs::read(&pack).unwrap();
    std::fs::write(&pack, &whole[..300_000]).unwrap();
    let status = check(world.client(), false).await;
    let hurt: Vec<_> = status.hurt.iter().map(|file| file.path.path.as_str()).collect();
    assert_eq!((hurt, status.rewritten_packs), (vec!["second"], 1), "{status:?}");
    assert!(status.findings[0].contains("it has 300000 bytes") && status.findings[0].ends_with("1 chunk of it is lost"));
    world.stop().await;
}

/// Each check says which pack to put back, for as long as something of it is missing.
#[tokio::test(flavor = "multi_thread")]
async fn later_checks_name_the_pack_of_what_is_missing() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| noise(1 + 2 * seed, 50_000)).collect();
    world.writer.create_in_one_pack(&[(b"a", &contents[0]), (b"b", &contents[1]), (b"c", &contents[2])]).await;
    let pack = packs(world.folder.path()).remove(0);
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = std::fs::read(&pack).unwrap();
    std::fs::remove_file(&pack).unwrap();
    check(world.client(), false).await;
    for deep in [false, true] {
        let status = check(world.client(), deep).await;
        let expected = format!("Pack {name}: 3 chunks of it are missing since an earlier check");
        assert_eq!((status.findings, status.hurt_count), (vec![expected], 3));
    }
    for bytes in &contents[..2] {
        world.writer.upload(&[Data::Bytes(bytes)]).await;
    }
    let status = check(world.client(), false).await;
    assert_eq!(status.findings, [format!("Pack {name}: 1 chunk of it is missing since an earlier check")]);
    std::fs::write(&pack, whole).unwrap();
    assert_eq!(check(world.client(), true).await.findings_count, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_goes_once_nothing_names_it() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (node, at) = world.writer.create(b"gone", &noise(1, 100_000)).await;
    let pack = packs(world.folder.path()).remove(0);
    flip(&pack);
    check(world.client(), true).await;
    world.client().change_group("plans", &keep(0)).await.unwrap();
    let folder = world.stop().await;
    assert_eq!(collect(folder.path(), AT_ONCE).await.condemned_chunks, 0, "it is named");
    let running = Running::start(folder.path()).await;
    let mut writer = crate::world::Writer::attach(&running.client, "detroit").await;
    writer.commit(Change::Delete { node, place: at, content: at }).await;
    running.stop().await;
    for _ in 0..2 {
        collect(folder.path(), AT_ONCE).await;
    }
    assert!(!pack.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_pack_does_not_keep_others_from_being_rewritten() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let contents: Vec<Vec<u8>> = (0..30).map(|seed| noise(101 + 2 * seed, 10_000)).collect();
    for (number, bytes) in contents.iter().enumerate() {
        world.writer.create(format!("f{number}").as_bytes(), bytes).await;
    }
    let folder = world.stop().await;
    let damaged = packs(folder.path()).remove(0);
    flip(&damaged);
    assert_eq!(collect(folder.path(), AT_ONCE).await.rewritten_packs, 29);
    collect(folder.path(), AT_ONCE).await;
    let left = packs(folder.path());
    assert!(left.len() == 2 && left.contains(&damaged), "{left:?}");
}

/// In a tiny pack most bytes are its index, and all of its content may be live.
#[tokio::test(flavor = "multi_thread")]
async fn tiny_packs_are_not_rewritten_for_their_index() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    for name in [&b"one"[..], b"two", b"three"] {
        world.writer.create(name, name).await;
    }
    let folder = world.stop().await;
    assert_eq!(collect(folder.path(), AT_ONCE).await.rewritten_packs, 0);
}
