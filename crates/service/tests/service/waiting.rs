//! Case 10: after records were put back nothing is collected before every server has offered what it has.

use isotherm_api::Code;
use isotherm_api::collect::{CollectRequest, CollectStatus, CollectionWait};
use isotherm_core::bandwidth::InForce;
use isotherm_core::ids::{Cursor, EndpointId};
use isotherm_service::backup;

use crate::garbage::{AT_ONCE, collect};
use crate::management::{endpoint, report};
use crate::world::{Data, FORKS, Running, World, Writer, noise};

async fn waits(running: &Running) -> Option<CollectionWait> {
    running.client.status().await.unwrap().collection_waits
}

/// What the endpoint says when it has looked at everything since this barrier.
async fn agree(running: &Running, writer: &Writer, endpoint: EndpointId, cursor: Cursor, barrier: u64) {
    let mut report = report(writer, endpoint, cursor.version.0, barrier);
    report.endpoints[0].cursor = cursor;
    running.client.report(writer.server, &report, InForce::default()).await.unwrap();
}

async fn ended(running: &Running) -> CollectStatus {
    loop {
        let status = running.client.collection().await.unwrap().unwrap();
        if status.ended {
            return status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next question
    }
}

/// A backup is made, then a content that it has as garbage is named. Collected before the server is back, it would be gone.
#[tokio::test(flavor = "multi_thread")]
async fn case_10_nothing_is_collected_before_every_server_is_back() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", &noise(1, 50_000)).await;
    let id = world.client().create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap().id;
    let bytes = noise(3, 50_000);
    world.writer.upload(&[Data::Bytes(&bytes)]).await;
    let to = tempfile::tempdir().unwrap();
    backup(world.folder.path(), to.path(), false, &|_, _| {}).await.unwrap();
    assert_eq!(waits(&world.running).await, None, "the original goes on");
    let before = world.client().group("plans").await.unwrap();
    world.writer.create(b"named since", &bytes).await;
    let late = world.writer.head().await;
    let World { running, writer, folder: _folder } = world;
    running.stop().await;

    let running = Running::start(to.path()).await;
    let wait = waits(&running).await.unwrap();
    assert_eq!(wait.missing.iter().map(|one| one.server.as_str()).collect::<Vec<_>>(), ["munich"]);
    let refused = running.client.start_collection(CollectRequest::default()).await.unwrap_err();
    assert!(refused.code == Code::InUse && refused.message.contains("missing: munich"), "{refused:?}");
    // What it reached before, and what it knows and the backup does not, says nothing.
    agree(&running, &writer, id, late, before.barrier).await;
    assert_eq!(waits(&running).await.unwrap().missing.len(), 1);
    let barrier = running.client.group("plans").await.unwrap().barrier;
    assert!(barrier >= wait.since_ms);
    agree(&running, &writer, id, late, barrier).await;
    assert_eq!(waits(&running).await.unwrap().missing.len(), 1, "it has not found out yet");
    running.stop().await;

    // A restart forgets nothing.
    let running = Running::start(to.path()).await;
    assert_eq!(waits(&running).await.unwrap().since_ms, wait.since_ms);
    let page = running.client.feed(writer.group, late, 10, 0).await.unwrap();
    assert!(page.start_over);
    assert_eq!(waits(&running).await.unwrap().since_ms, wait.since_ms);
    let group = running.client.group("plans").await.unwrap();
    let cursor = Cursor { incarnation: group.incarnation, version: group.head };
    assert_eq!(group.barrier, barrier);
    agree(&running, &writer, id, cursor, before.barrier).await;
    assert_eq!(waits(&running).await.unwrap().missing.len(), 1, "that was the barrier before");
    agree(&running, &writer, id, cursor, group.barrier).await;
    assert_eq!(waits(&running).await.unwrap().missing, []);
    running.client.start_collection(CollectRequest::default()).await.unwrap();
    let status = ended(&running).await;
    assert!(status.collected.is_some(), "{status:?}");
    assert_eq!(waits(&running).await, None);
    running.stop().await;
    assert!(collect(to.path(), AT_ONCE).await.condemned_chunks == 1, "from now on garbage goes");
}

/// A snapshot of the whole machine says nothing. What the agents know does, also if the lives of the share that they know began
/// after it, and if somebody else was there first.
#[tokio::test(flavor = "multi_thread")]
async fn case_10_an_agent_of_a_later_life_tells_that_the_machine_was_set_back() {
    let _no_forks = FORKS.read().await;
    for others_first in [false, true] {
        let mut world = World::new().await;
        world.writer.create(b"a", b"a").await;
        world.client().create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap();
        let group = world.writer.group;
        let folder = world.stop().await;
        let snapshot = tempfile::tempdir().unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(folder.path()).arg(snapshot.path().join("data")).status();
        assert!(copied.unwrap().success());
        let running = Running::start(folder.path()).await;
        let mut writer = Writer::attach(&running.client, "detroit").await;
        writer.create(b"later", b"b").await;
        let known = writer.head().await;
        running.stop().await;

        let running = Running::start(&snapshot.path().join("data")).await;
        assert_eq!(waits(&running).await, None, "nobody can know yet");
        if others_first {
            Writer::attach(&running.client, "berlin").await.create(b"other", b"c").await;
        }
        // Who knows nothing, and who knows no more than there is, tell nothing.
        let mut early = known;
        (early.incarnation, early.version) = (isotherm_core::ids::Incarnation(0), isotherm_core::ids::Version(0));
        running.client.feed(group, early, 10, 0).await.unwrap();
        assert_eq!(waits(&running).await, None);
        assert!(running.client.feed(group, known, 10, 0).await.unwrap().start_over);
        assert!(waits(&running).await.is_some(), "others first: {others_first}");
        let strays = isotherm_api::check::CheckRequest { deep: false, delete_strays: true };
        running.client.start_check(strays).await.unwrap();
        let refused = loop {
            let status = running.client.check().await.unwrap().unwrap();
            if status.phase == isotherm_api::check::CheckPhase::Done {
                break status.failed;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next question
        };
        assert!(refused.unwrap().contains("every server has offered"), "packs that nothing names may be all that is left");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_waives_a_server_that_never_comes_back() {
    let _no_forks = FORKS.read().await;
    let world = World::new().await;
    world.client().create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap();
    let to = tempfile::tempdir().unwrap();
    backup(world.folder.path(), to.path(), false, &|_, _| {}).await.unwrap();
    world.stop().await;
    let running = Running::start(to.path()).await;
    assert!(running.client.start_collection(CollectRequest::default()).await.is_err());
    running.client.start_collection(CollectRequest { waive: true }).await.unwrap();
    assert_eq!(ended(&running).await.failed, None);
    assert_eq!(waits(&running).await, None);
    let log = running.client.audit(None, 1).await.unwrap();
    assert_eq!((log[0].action.as_str(), log[0].detail.as_str()), ("service.gc-goes-on", "waived"));
    running.stop().await;
}
