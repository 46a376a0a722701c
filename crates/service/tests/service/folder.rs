//! The data folder over the service's life: restarts, a second service, other formats, damage.

use isotherm_core::ids::NodeId;
use isotherm_core::namespace::{Answer, Refusal};
use isotherm_core::node::Content;
use isotherm_service::{Options, Service, ServiceError};

use crate::world::{FORKS, Running, World};

async fn open_error(data: &std::path::Path) -> ServiceError {
    match Service::open(Options { data: data.to_owned() }).await {
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
async fn case_10_a_restored_folder_begins_a_new_life() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    world.writer.create(b"a", b"x").await;
    let (group, cursor) = (world.writer.group, world.writer.start());
    let node = world.writer.node();
    let change = crate::world::create(node, NodeId::ROOT, b"b", Content::Directory);
    let operation = world.writer.operation(change);
    let stale = world.writer.batch(vec![operation]);
    let folder = world.stop().await;
    let service = Service::open(Options { data: folder.path().to_owned() }).await.unwrap();
    service.renew_shares().await.unwrap();
    drop(service);
    let again = Running::start(folder.path()).await;
    assert!(again.client.feed(group, cursor, 10, 0).await.unwrap().start_over);
    assert_eq!(again.client.commit(group, &stale).await.unwrap(), [Answer::Refused(Refusal::Incarnation)]);
    assert_eq!(again.client.tree("plans", b"").await.unwrap().entries.len(), 1, "what is there stays");
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
    Service::open(Options { data: folder.path().to_owned() }).await.unwrap();
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
    let service = Service::open(Options { data: folder.path().to_owned() }).await.unwrap();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = service.serve(listener, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, ServiceError::NotLoopback(_)));
    assert!(error.to_string().contains("loopback"), "{error}");
}
