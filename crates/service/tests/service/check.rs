//! Checks: damage is found with the files that it hurts, servers learn what is wanted, and an upload mends it.

use std::path::{Path, PathBuf};

use isotherm_api::Code;
use isotherm_api::check::{CheckPhase, CheckRequest, CheckStatus};
use isotherm_api::client::Client;
use isotherm_api::management::{EndpointChange, NewEndpoint, PolicyChange};
use isotherm_api::share::{Wanted, WantedRequest};
use isotherm_api::sync::InitialUpload;
use isotherm_core::ids::{Epoch, NodeId};
use isotherm_core::namespace::{Answer, Based, Change};
use isotherm_core::node::Content;

use isotherm_service::{Ages, Options, Service};

use crate::world::{Data, FORKS, Running, World, Writer, noise, pack, read};

pub(crate) async fn check(client: &Client, deep: bool) -> CheckStatus {
    client.start_check(CheckRequest { deep, delete_strays: false }).await.unwrap();
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
pub(crate) fn packs(folder: &Path) -> Vec<PathBuf> {
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
    assert!(status.findings[0].contains("1 chunk of it is lost"), "{status:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_read_is_a_finding_and_the_rest_is_checked() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", &noise(1, 100_000)).await;
    world.writer.create(b"b", &noise(3, 100_000)).await;
    let all = packs(world.folder.path());
    let [shut, other] = [&all[0], &all[1]].map(|pack| pack.parent().unwrap().to_owned());
    assert_ne!(shut, other);
    // No symlink is followed, so what lies behind this one cannot be read.
    let aside = shut.with_extension("aside");
    std::fs::rename(&shut, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &shut).unwrap();
    flip(&all[1]);
    let status = check(world.client(), true).await;
    assert_eq!((status.hurt_count, status.failed.as_deref()), (2, None), "{status:?}");
    let name = shut.file_name().unwrap().to_str().unwrap();
    let is_named = |finding: &String| finding.contains(&format!("packs/{name}")) && finding.contains("cannot be opened");
    assert!(status.findings.iter().any(is_named), "{status:?}");
    std::fs::remove_file(&shut).unwrap();
    std::fs::rename(&aside, &shut).unwrap();
    assert_eq!(check(world.client(), true).await.hurt_count, 1, "it can be read again");
    world.stop().await;
}

pub(crate) fn flip(pack: &Path) {
    let mut stored = std::fs::read(pack).unwrap();
    stored[1_000] ^= 1;
    std::fs::write(pack, &stored).unwrap();
}

/// Makes the writer's server one that is asked for content; gives its endpoint.
async fn join(world: &World) -> isotherm_core::ids::EndpointId {
    let endpoint = NewEndpoint {
        group: "plans".into(),
        server: "munich".into(),
        path: "/srv/plans".into(),
        initial_upload: InitialUpload::Merge,
        tiering: false,
        policy: PolicyChange::default(),
    };
    world.client().create_endpoint(&endpoint).await.unwrap().id
}

fn request(writer: &Writer) -> WantedRequest {
    WantedRequest { server: writer.server, epoch: writer.epoch, seen: 0, after: None, limit: 100, wait_ms: 0 }
}

async fn wanted(world: &World) -> Wanted {
    world.client().wanted(world.writer.group, &request(&world.writer)).await.unwrap()
}

fn nodes(wanted: &Wanted) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = wanted.contents.iter().map(|one| one.node).collect();
    nodes.sort();
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_wanted_until_it_was_sent_again() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = noise(1, 300_000);
    world.writer.create(b"small", b"small").await;
    let (large, at) = world.writer.create(b"large", &bytes).await;
    let (copy, _) = world.writer.create(b"copy", &bytes).await;
    join(&world).await;
    assert_eq!(wanted(&world).await, Wanted::default());
    flip(&packs(world.folder.path())[0]);
    // Whoever waits is told.
    let (client, group) = (world.client().clone(), world.writer.group);
    let asked = WantedRequest { wait_ms: 60_000, ..request(&world.writer) };
    let waiting = tokio::spawn(async move { client.wanted(group, &asked).await.unwrap() });
    check(world.client(), true).await;
    let told = waiting.await.unwrap();
    let mut both = vec![large, copy];
    both.sort();
    assert_eq!((nodes(&told), told.next), (both.clone(), None));
    let again = WantedRequest { seen: told.round, ..request(&world.writer) };
    let answer = world.client().wanted(group, &again).await.unwrap();
    assert_eq!((answer.round, answer.contents.len()), (told.round, 0), "it is no news any more");
    // In pages, each node comes once.
    let mut found = Vec::new();
    let mut page = WantedRequest { limit: 1, ..request(&world.writer) };
    loop {
        let answer = world.client().wanted(group, &page).await.unwrap();
        found.extend(nodes(&answer));
        page.after = answer.next;
        if answer.next.is_none() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, both);
    // Another content of a node is its own; the old one is wanted no more on its account.
    let value = Content::File(world.writer.upload(&[Data::Bytes(b"new")]).await);
    let change = Change::Update { node: large, metadata: None, content: Some(Based { base: at, value }) };
    assert!(matches!(world.writer.commit(change).await, Answer::Applied(_)));
    assert_eq!(nodes(&wanted(&world).await), [copy]);
    world.writer.upload(&[Data::Bytes(&bytes)]).await;
    assert_eq!(wanted(&world).await.contents, []);
    let status = check(world.client(), true).await;
    assert_eq!((status.findings_count, status.hurt_count, status.repaired), (0, 0, 1), "{status:?}");
    assert_eq!(check(world.client(), true).await.repaired, 0, "it is told once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_server_at_work_is_asked_and_the_damage_outlives_a_restart() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = noise(1, 300_000);
    let (node, _) = world.writer.create(b"large", &bytes).await;
    let pack = packs(world.folder.path()).remove(0);
    std::fs::remove_file(&pack).unwrap();
    let status = check(world.client(), false).await;
    assert_eq!((status.findings_count, status.hurt_count), (1, 1), "{status:?}");
    assert_eq!(wanted(&world).await.contents, [], "its server has no endpoint of the group");
    let endpoint = join(&world).await;
    let pause = |paused| EndpointChange { paused: Some(paused), ..EndpointChange::default() };
    world.client().change_endpoint(endpoint, &pause(true)).await.unwrap();
    assert_eq!(wanted(&world).await.contents, []);
    world.client().change_endpoint(endpoint, &pause(false)).await.unwrap();
    let older = WantedRequest { epoch: Epoch(0), ..request(&world.writer) };
    assert_eq!(world.client().wanted(world.writer.group, &older).await.unwrap_err().code, Code::Fenced);
    world.running.stop().await;
    world.running = Running::start(world.folder.path()).await;
    world.writer.client = world.running.client.clone();
    assert_eq!(nodes(&wanted(&world).await), [node]);
    // A check before the repair changes nothing about it.
    assert_eq!(check(world.client(), false).await.hurt_count, 1);
    assert_eq!(nodes(&wanted(&world).await), [node]);
    world.writer.upload(&[Data::Bytes(&bytes)]).await;
    assert_eq!((wanted(&world).await.contents, pack.exists()), (Vec::new(), true));
    let status = check(world.client(), true).await;
    assert_eq!((status.findings_count, status.repaired), (0, 1), "{status:?}");
    world.client().change_endpoint(endpoint, &pause(true)).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_stays_damaged_until_its_pack_is_put_back() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (node, at) = world.writer.create(b"plan", &noise(1, 300_000)).await;
    join(&world).await;
    let value = Content::File(world.writer.upload(&[Data::Bytes(b"new")]).await);
    world.writer.commit(Change::Update { node, metadata: None, content: Some(Based { base: at, value }) }).await;
    let pack = packs(world.folder.path()).remove(0);
    let whole = std::fs::read(&pack).unwrap();
    flip(&pack);
    for _ in 0..2 {
        let status = check(world.client(), true).await;
        let hurt: Vec<_> = status.hurt.iter().map(|file| (file.path.path.as_str(), file.old)).collect();
        assert_eq!((status.findings_count, hurt), (1, vec![("plan", true)]), "{status:?}");
        assert_eq!(wanted(&world).await.contents, [], "no server has it");
    }
    std::fs::write(&pack, whole).unwrap();
    let status = check(world.client(), false).await;
    assert_eq!((status.findings_count, status.hurt_count), (0, 0), "{status:?}");
    world.stop().await;
}

/// A check of a folder that is not served, which deletes strays that the one before has seen.
async fn check_strays(folder: &Path, grace_ms: u64) -> CheckStatus {
    // Ages count in whole milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next millisecond
    let service = Service::open(Options::at(folder)).await.unwrap();
    let wanted = CheckRequest { deep: true, delete_strays: true };
    service.check(wanted, Ages { grace_ms, ..Ages::default() }).await.unwrap()
}

/// Puts a pack into the store that nobody has told the service of.
fn put_stray(folder: &Path, bytes: &[u8]) -> PathBuf {
    let id = isotherm_core::content::PackId::of(bytes).to_string();
    let stray = folder.join("objects/packs").join(&id[..2]).join(&id);
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, bytes).unwrap();
    stray
}

#[tokio::test(flavor = "multi_thread")]
async fn strays_are_deleted_when_a_later_check_still_sees_them() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let bytes = noise(1, 100_000);
    world.writer.create(b"named", &bytes).await;
    let folder = world.stop().await;
    let stray = put_stray(folder.path(), &pack(&[Data::Bytes(&noise(3, 50_000))]).1[0]);
    let later = pack(&[Data::Bytes(b"named later")]).1.remove(0);
    let on_its_way = put_stray(folder.path(), &later);
    for grace_ms in [Ages::default().grace_ms, Ages::default().grace_ms] {
        let status = check_strays(folder.path(), grace_ms).await;
        assert_eq!((status.findings_count, status.stray_packs, status.deleted_strays), (0, 2, 0), "{status:?}");
        assert!(status.stray_bytes > 50_000 && stray.exists(), "it may be on its way: {status:?}");
    }
    // One of them becomes known in between.
    let running = Running::start(folder.path()).await;
    let group = running.client.group("plans").await.unwrap().id;
    running.client.put_pack(group, later).await.unwrap();
    running.stop().await;
    let status = check_strays(folder.path(), 0).await;
    assert_eq!((status.findings_count, status.stray_packs, status.deleted_strays), (0, 0, 1), "{status:?}");
    assert!(status.deleted_bytes > 50_000 && !stray.exists() && on_its_way.exists(), "{status:?}");
    // One that came since has its own time.
    put_stray(folder.path(), &pack(&[Data::Bytes(b"another")]).1[0]);
    assert_eq!(check_strays(folder.path(), 0).await.deleted_strays, 0);
    assert_eq!(check_strays(folder.path(), 0).await.deleted_strays, 1);
    let running = Running::start(folder.path()).await;
    assert!(read(&running, b"named").await == bytes);
    running.stop().await;
}
