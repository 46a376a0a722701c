//! The data folder over the service's life: restarts, a second service, other formats, damage.

use isotherm_core::ids::NodeId;
use isotherm_core::namespace::{Answer, Batch, Life, Reader, Refusal};
use isotherm_core::node::Content;
use isotherm_service::{Options, Service, ServiceError};

use crate::world::{FORKS, Running, World};

async fn open_error(data: &std::path::Path) -> ServiceError {
    match Service::open(Options::at(data)).await {
        Ok(_) => panic!("this folder must be refused"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_restart() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (node, version) = world.writer.create(b"plan.dwg", b"content").await;
    let before = world.client().group("plans").await.unwrap();
    let (group, server) = (world.writer.group, world.writer.server);
    let cursor = world.writer.start();
    let folder = world.stop().await;
    let again = Running::start(folder.path()).await;
    assert_eq!(again.client.group("plans").await.unwrap(), before);
    assert_eq!(again.client.servers().await.unwrap()[0].id, server);
    let page = again.client.feed(group, cursor, 10, 0).await.unwrap();
    assert_eq!((page.nodes[0].id, page.nodes[0].versions.last), (node, version));
    let mut download = again.client.download("plans", b"plan.dwg", None).await.unwrap();
    assert_eq!(download.next_piece().await.unwrap().unwrap(), &b"content"[..]);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_looks_into_what_the_service_keeps() {
    use std::os::unix::fs::PermissionsExt as _;
    let _no_forks = FORKS.read().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let folder = tempfile::tempdir().unwrap();
    let [given, fresh, backup] = ["given", "above/fresh", "backup"].map(|name| folder.path().join(name));
    // Records and packs of an earlier release, for everybody to read.
    std::fs::create_dir_all(given.join("objects")).unwrap();
    std::fs::set_permissions(&given, std::fs::Permissions::from_mode(0o2775)).unwrap();
    for data in [&given, &fresh] {
        Running::start(data).await.stop().await;
        std::fs::set_permissions(data.join("records.sqlite"), std::fs::Permissions::from_mode(0o644)).unwrap();
        Running::start(data).await.stop().await;
        assert_eq!((mode(&data.join("records.sqlite")), mode(&data.join("objects"))), (0o600, 0o700));
    }
    isotherm_service::backup(&fresh, &backup, false, &|_, _| {}).await.unwrap();
    assert_eq!((mode(&backup.join("records.sqlite")), mode(&backup.join("objects"))), (0o600, 0o700));
    assert_eq!((mode(&fresh), mode(&backup)), (0o700, 0o700), "what was made here");
    assert_eq!(mode(&given), 0o2775, "what was there stays as somebody made it");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let refused = isotherm_service::backup(&fresh, folder.path(), false, &|_, _| {}).await;
    assert!(refused.is_err());
    assert_eq!(mode(folder.path()), 0o1777, "nobody else's folder is touched");
}

/// Restarting a service is no restore, and each run says where the one before ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_over_into_the_next_runs_life() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", b"x").await;
    let (group, cursor) = (world.writer.group, world.writer.head().await);
    let stale = world.writer.directory(b"b");
    let folder = world.stop().await;
    let again = Running::start(folder.path()).await;
    let quiet = again.client.feed(group, cursor, 10, 0).await.unwrap();
    assert_eq!((quiet.cursor, quiet.start_over), (cursor, false), "nothing was changed yet");
    // The first change begins the life; whoever made it in the one before reads on, and makes it again.
    assert_eq!(again.client.commit(group, &stale).await.unwrap(), [Answer::Refused(Refusal::Incarnation)]);
    let page = again.client.feed(group, cursor, 10, 0).await.unwrap();
    assert_ne!(page.cursor.incarnation, cursor.incarnation);
    assert_eq!((page.start_over, page.nodes.len(), page.cursor.version), (false, 0, cursor.version));
    assert_eq!(page.lives, [Life { incarnation: cursor.incarnation, ended: cursor.version }]);
    let fresh = Batch { incarnation: page.cursor.incarnation, ..stale };
    assert!(matches!(again.client.commit(group, &fresh).await.unwrap()[..], [Answer::Applied(_)]));
    again.stop().await;
}

/// What was answered in the life before is answered so again: the answer may have been lost when the service ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_outlives_its_life() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let group = world.writer.group;
    let (first, second) = (world.writer.directory(b"a"), world.writer.directory(b"b"));
    let answers = world.client().commit(group, &first).await.unwrap();
    let folder = world.stop().await;
    let again = Running::start(folder.path()).await;
    assert_eq!(again.client.commit(group, &second).await.unwrap(), [Answer::Refused(Refusal::Incarnation)]);
    assert_eq!(again.client.commit(group, &first).await.unwrap(), answers);
    again.stop().await;
}

/// A file system snapshot keeps every inode: nothing in the folder tells that it was put back.
#[tokio::test(flavor = "multi_thread")]
async fn case_10_a_folder_put_back_in_place_is_found_out_by_whoever_knows_more() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", b"x").await;
    let (group, early) = (world.writer.group, world.writer.head().await);
    let (lost, other) = (world.writer.directory(b"lost"), world.writer.directory(b"other"));
    let folder = world.stop().await;
    let records = folder.path().join("records.sqlite");
    let snapshot = std::fs::read(&records).unwrap();

    let run = Running::start(folder.path()).await;
    run.client.commit(group, &lost).await.unwrap();
    let life = run.client.feed(group, early, 10, 0).await.unwrap().cursor;
    let batch = Batch { incarnation: life.incarnation, ..lost };
    assert!(matches!(run.client.commit(group, &batch).await.unwrap()[..], [Answer::Applied(_)]));
    let late = run.client.feed(group, life, 10, 0).await.unwrap().cursor;
    run.stop().await;

    for file in ["records.sqlite-wal", "records.sqlite-shm"] {
        let _ = std::fs::remove_file(folder.path().join(file));
    }
    std::fs::write(&records, snapshot).unwrap();
    let again = Running::start(folder.path()).await;
    // Somebody who knew no more than the snapshot overtakes the one who did.
    again.client.commit(group, &other).await.unwrap();
    let present = again.client.feed(group, early, 10, 0).await.unwrap();
    assert!(!present.start_over, "all that it knows is there");
    let batch = Batch { incarnation: present.cursor.incarnation, ..other };
    assert!(
        matches!(again.client.commit(group, &batch).await.unwrap()[..], [Answer::Applied(version)] if version >= late.version)
    );
    assert!(again.client.feed(group, late, 10, 0).await.unwrap().start_over, "it knows what was taken back");
    // By an answer only.
    let by_answer = Reader { cursor: early, newest: late.version };
    assert!(again.client.feed(group, by_answer, 10, 0).await.unwrap().start_over);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_folder_is_refused() {
    let _no_forks = FORKS.read().await;
    let world = World::new().await;
    let error = open_error(world.folder.path()).await;
    assert!(matches!(error, ServiceError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another service"));
    let folder = world.stop().await;
    Service::open(Options::at(folder.path())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_formats_are_refused_by_name() {
    let _no_forks = FORKS.read().await;
    let folder = World::new().await.stop().await;
    let file = folder.path().join("format");
    std::fs::write(&file, "isotherm service data, format 7\n").unwrap();
    let text = open_error(folder.path()).await.to_string();
    assert!(text.contains("format 7") && text.contains("format 1"), "{text}");
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(open_error(folder.path()).await, ServiceError::Format { .. }), "a folder that lost its format");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_named() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    for number in 0..50 {
        let node = world.writer.node();
        let name = format!("directory-{number}");
        let change = crate::world::create(node, NodeId::ROOT, name.as_bytes(), Content::Directory);
        world.writer.commit(change).await;
    }
    let folder = world.stop().await;
    let file = folder.path().join("records.sqlite");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    let text = open_error(folder.path()).await.to_string();
    assert!(text.contains("records.sqlite"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_are_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(Options::at(folder.path())).await.unwrap();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = service.serve(listener, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, ServiceError::NotLoopback(_)));
    assert!(error.to_string().contains("loopback"), "{error}");
}
