//! Checks: damage is found with the files that it hurts, and an upload mends it.

use std::path::{Path, PathBuf};

use isotherm_api::check::{CheckPhase, CheckStatus};
use isotherm_api::client::Client;

use crate::world::{Data, FORKS, World, noise};

async fn check(client: &Client, deep: bool) -> CheckStatus {
    client.start_check(deep).await.unwrap();
    loop {
        let status = client.check().await.unwrap().unwrap();
        if status.phase == CheckPhase::Done {
            assert_eq!(status.failed, None);
            return status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await; // tidy: wait for the check
    }
}

/// The stored packs, largest first.
fn packs(folder: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder.join("objects/packs")).unwrap();
    let mut packs: Vec<PathBuf> =
        folders.flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap()).map(|entry| entry.unwrap().path()).collect();
    packs.sort_by_key(|path| std::cmp::Reverse(std::fs::metadata(path).unwrap().len()));
    packs
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_an_upload_mends_it() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = noise(1, 300_000);
    world.writer.create(b"small", b"small").await;
    world.writer.create(b"large", &bytes).await;
    let status = check(world.client(), true).await;
    assert_eq!((status.findings_count, status.nodes, status.contents, status.packs), (0, 2, 2, 2), "{status:?}");
    let pack = packs(world.folder.path()).remove(0);
    let mut stored = std::fs::read(&pack).unwrap();
    stored[1_000] ^= 1;
    std::fs::write(&pack, &stored).unwrap();
    // Its length is right, so only reading finds it.
    assert_eq!(check(world.client(), false).await.findings_count, 0);
    let status = check(world.client(), true).await;
    let hurt: Vec<_> = status.hurt.iter().map(|file| (file.path.path.as_str(), file.old)).collect();
    assert_eq!((status.findings_count, hurt), (1, vec![("large", false)]), "{status:?}");
    assert!(status.findings[0].contains("1 chunks of it are lost"), "{status:?}");
    world.writer.upload(&[Data::Bytes(&bytes)]).await;
    let status = check(world.client(), true).await;
    assert_eq!((status.findings_count, status.hurt_count), (0, 0), "{status:?}");
    let mut download = world.client().download("plans", b"large", None).await.unwrap();
    let mut read = Vec::new();
    while let Some(piece) = download.next_piece().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == bytes);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_lost_is_named_and_strays_are_counted() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", &noise(1, 100_000)).await;
    let pack = packs(world.folder.path()).remove(0);
    let stray = pack.with_file_name(pack.file_name().unwrap().to_str().unwrap().chars().rev().collect::<String>());
    let folder = world.folder.path().join("objects/packs").join(&stray.file_name().unwrap().to_str().unwrap()[..2]);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::rename(&pack, folder.join(stray.file_name().unwrap())).unwrap();
    let status = check(world.client(), false).await;
    assert_eq!((status.findings_count, status.stray_packs, status.hurt_count), (1, 1, 1), "{status:?}");
    assert!(status.findings[0].contains("is lost"), "{status:?}");
    world.stop().await;
}
