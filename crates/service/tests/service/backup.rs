//! Backups of a data folder that is served: what is in them, what a second one copies, and what refuses.

use isotherm_core::namespace::{Based, Change};
use isotherm_core::node::Content;
use isotherm_service::backup;

use crate::world::{Data, FORKS, Running, World, noise, read};

fn silent(_done: u64, _all: u64) {}

#[tokio::test(flavor = "multi_thread")]
async fn case_10_a_backup_of_a_running_service_is_served_as_a_new_life() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let to = tempfile::tempdir().unwrap();
    let (a, b) = (noise(1, 300_000), noise(3, 200_000));
    let (node, at) = world.writer.create(b"a", &a).await;
    let first = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((first.copied_packs, first.packs, first.damaged.len()), (1, 1, 0));
    let again = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((again.copied_packs, again.packs), (0, 1), "nothing is new");

    let value = Content::File(world.writer.upload(&[Data::Bytes(&b)]).await);
    world.writer.commit(Change::Update { node, metadata: None, content: Some(Based { base: at, value }) }).await;
    let group = world.writer.group;
    let third = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((third.copied_packs, third.packs), (1, 2));
    let then = world.writer.head().await;
    world.writer.create(b"later", b"x").await;
    let later = world.writer.head().await;
    world.stop().await;

    let running = Running::start(to.path()).await;
    assert!(read(&running, b"a").await == b);
    assert!(!running.client.feed(group, then, 10, 0).await.unwrap().start_over, "the backup has all that it knows");
    assert!(running.client.feed(group, later, 10, 0).await.unwrap().start_over, "the backup is another life of the share");
    let refused = backup(to.path(), to.path(), false, &silent).await.unwrap_err();
    assert!(refused.to_string().contains("lies in the data folder"), "{refused}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_named_and_what_is_not_a_backup_stays() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", &noise(1, 300_000)).await;
    let folder = world.stop().await;
    let packs = folder.path().join("objects/packs");
    let pack = std::fs::read_dir(&packs).unwrap().next().unwrap().unwrap().path();
    let pack = std::fs::read_dir(pack).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let to = tempfile::tempdir().unwrap();
    let done = backup(folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((done.damaged.len(), done.copied_packs), (1, 0));

    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("thesis.doc"), "mine").unwrap();
    let refused = backup(folder.path(), other.path(), false, &silent).await.unwrap_err();
    assert!(refused.to_string().contains("holds other files"), "{refused}");
    let refused = backup(other.path(), to.path(), false, &silent).await.unwrap_err();
    assert!(refused.to_string().contains("is no data folder"), "{refused}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 1);
    // A folder that is being served is not written to.
    let running = Running::start(to.path()).await;
    let refused = backup(folder.path(), to.path(), false, &silent).await.unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_rotted_is_found_and_made_again() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = noise(1, 300_000);
    world.writer.create(b"a", &bytes).await;
    let to = tempfile::tempdir().unwrap();
    backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    crate::check::flip(&crate::check::packs(to.path())[0]);
    let done = backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    assert_eq!((done.copied_packs, done.damaged_copies), (0, 0), "nobody has read it");
    // As long as the pack itself is damaged too, nothing is well.
    let pack = crate::check::packs(world.folder.path()).remove(0);
    crate::check::flip(&pack);
    let done = backup(world.folder.path(), to.path(), true, &silent).await.unwrap();
    assert_eq!((done.copied_packs, done.damaged_copies, done.damaged.len()), (0, 1, 1));
    crate::check::flip(&pack);
    let done = backup(world.folder.path(), to.path(), true, &silent).await.unwrap();
    assert_eq!((done.copied_packs, done.damaged_copies, done.damaged.len()), (1, 1, 0));
    let done = backup(world.folder.path(), to.path(), true, &silent).await.unwrap();
    assert_eq!((done.copied_packs, done.damaged_copies), (0, 0));
    world.stop().await;
    let running = Running::start(to.path()).await;
    assert!(read(&running, b"a").await == bytes);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_to_a_folder_of_any_name() {
    use std::os::unix::ffi::OsStrExt as _;
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", b"one").await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff of \xe4"));
    for copied in [1, 0] {
        assert_eq!(backup(world.folder.path(), &to, false, &silent).await.unwrap().copied_packs, copied);
    }
    world.stop().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let running = Running::start(&to).await;
    assert!(read(&running, b"a").await == b"one");
    running.stop().await;
}

fn files_in(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_in(&path)) } else { found.push((path.clone(), std::fs::read(&path).unwrap())) }
    }
    found.sort();
    found
}

/// The disk of the data was not mounted, and the service began anew on the empty folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_backup_of_another_service_is_left_alone() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = noise(1, 300_000);
    world.writer.create(b"a", &bytes).await;
    let to = tempfile::tempdir().unwrap();
    backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    let before = files_in(to.path());
    // One that is empty, and one whose group has the same name.
    let empty = tempfile::tempdir().unwrap();
    Running::start(empty.path()).await.stop().await;
    let other = World::new().await.stop().await;
    for data in [&empty, &other] {
        let refused = backup(data.path(), to.path(), false, &silent).await.unwrap_err().to_string();
        let names = [data.path(), to.path()].map(|path| path.to_str().unwrap().to_owned());
        assert!(names.iter().all(|name| refused.contains(name)) && refused.contains("with the groups plans"), "{refused}");
        assert!(files_in(to.path()) == before);
    }
    // Its own goes on, and so does the backup of one that was put back from it.
    backup(world.folder.path(), to.path(), false, &silent).await.unwrap();
    world.stop().await;
    let back = tempfile::tempdir().unwrap();
    crate::revisions::copy(to.path(), back.path());
    let running = Running::start(back.path()).await;
    assert!(read(&running, b"a").await == bytes);
    running.stop().await;
    backup(back.path(), to.path(), false, &silent).await.unwrap();
}

/// Records of earlier releases have no identity; what they know of groups has to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_an_earlier_release_made_goes_on() {
    let _no_forks = FORKS.read().await;
    let (data, to, other) = (crate::revisions::kept(4), crate::revisions::kept(4), crate::revisions::kept(3));
    Running::start(data.path()).await.stop().await;
    backup(data.path(), to.path(), false, &silent).await.unwrap();
    let refused = backup(other.path(), to.path(), false, &silent).await.unwrap_err().to_string();
    assert!(refused.contains("a service of an earlier release"), "{refused}");
}
