//! Undoing what a server did, by its name: which servers are meant, and when nothing is left to do.

use isotherm_api::Code;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{RestoreAction, RestoreItem, RestoreOutcome, RestoreRequest, RestoreWhat};
use isotherm_api::sync::Attach;

use crate::revisions::{apply, edit, plan};
use crate::world::{FORKS, Running, World, Writer, read};

fn undo(server: &str, from_ms: u64) -> RestoreWhat {
    RestoreWhat::Server { server: server.to_owned(), from_ms, until_ms: u64::MAX / 2 }
}

fn paths(items: &[RestoreItem]) -> Vec<&str> {
    let mut paths: Vec<&str> = items.iter().map(|item| item.path.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_means_all_servers_that_ever_had_it() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let since = world.client().group("plans").await.unwrap().created_ms;
    let mut old = Writer::attach(world.client(), "oslo").await;
    old.create(b"old", b"1").await;
    // It gets another name, and is deleted under that one.
    world.client().attach(&Attach { name: "bergen".into(), server: Some(old.server) }).await.unwrap();
    world.client().delete_server("bergen").await.unwrap();
    let mut new = Writer::attach(world.client(), "oslo").await;
    new.create(b"new", b"2").await;
    world.writer.create(b"other", b"3").await;
    let author = |found: &[isotherm_api::revisions::VersionEntry]| found[0].server.clone().unwrap();
    assert_eq!(author(&world.client().versions("plans", b"old").await.unwrap()), "bergen");
    assert_eq!(author(&world.client().versions("plans", b"new").await.unwrap()), "oslo");
    assert_eq!(paths(&plan(&world, "", undo("oslo", since)).await), ["new", "old"]);
    assert_eq!(paths(&plan(&world, "", undo("bergen", since)).await), ["old"]);
    assert_eq!(paths(&plan(&world, "", undo(&old.server.to_string(), since)).await), ["old"]);
    for unknown in ["tromso", "00000000000000000000000000000000"] {
        let request = RestoreRequest { path: ShownPath::new(b""), what: undo(unknown, since), before: None };
        let error = world.client().restore_plan("plans", &request).await.unwrap_err();
        assert_eq!((error.code, error.message), (Code::NotFound, format!("Server {unknown} does not exist")));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_servers_that_an_earlier_release_deleted_are_known() {
    let _no_forks = FORKS.read().await;
    let folder = crate::revisions::kept(4);
    let running = Running::start(folder.path()).await;
    for (file, server) in [(&b"one.txt"[..], "munich"), (b"two.txt", "oslo"), (b"three.txt", "oslo")] {
        let found = running.client.versions("plans", file).await.unwrap();
        assert_eq!(found[0].server.as_deref(), Some(server));
    }
    let since = running.client.group("plans").await.unwrap().created_ms;
    let request = RestoreRequest { path: ShownPath::new(b""), what: undo("oslo", since), before: None };
    let items = running.client.restore_plan("plans", &request).await.unwrap().items;
    assert_eq!(paths(&items), ["three.txt", "two.txt"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_undo_has_nothing_to_do() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (node, at) = world.writer.create(b"plan", b"one").await;
    let before = world.client().status().await.unwrap().now_ms;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next millisecond
    let mut malware = Writer::attach(world.client(), "detroit").await;
    edit(&mut malware, node, at, b"noise").await;
    let (note, noted) = malware.create(b"README-PAY.txt", b"pay").await;
    let items = plan(&world, "", undo("detroit", before)).await;
    assert_eq!(items.len(), 2);
    assert!(apply(&world, &items).await.iter().all(|one| *one == RestoreOutcome::Done));
    assert_eq!(plan(&world, "", undo("detroit", before)).await, []);
    assert_eq!(read(&world.running, b"plan").await, b"one");
    // What somebody else has brought back since is his.
    let found = world.client().versions("plans", b"README-PAY.txt").await.unwrap();
    let (deleted, made) = (found[0].version, found[1].version);
    assert_eq!((found[0].deleted, made), (true, noted));
    let one = isotherm_api::revisions::RestoreOne { node: note, expected: deleted, target: Some(made) };
    world.client().restore("plans", &[one]).await.unwrap();
    let items = plan(&world, "", undo("detroit", before)).await;
    assert_eq!((items.len(), items[0].action), (1, RestoreAction::Skip));
    world.stop().await;
}
