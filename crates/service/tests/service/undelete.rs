//! Undeletes: where things come back, and that one that was broken off goes on.

use isotherm_api::Code;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{AsOf, RestoreAction, RestoreItem, RestoreOutcome, RestoreRequest, RestoreWhat};
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::namespace::{Answer, Based, Change};
use isotherm_core::node::{Content, Place};

use crate::garbage::{AT_ONCE, collect, keep};
use crate::revisions::{apply, delete, plan};
use crate::world::{Data, FORKS, Running, World, Writer, create, read};

async fn make(writer: &mut Writer, parent: NodeId, name: &[u8], content: Content) -> (NodeId, Version) {
    let node = writer.node();
    match writer.commit(create(node, parent, name, content)).await {
        Answer::Applied(version) => (node, version),
        other => panic!("{other:?}"),
    }
}

async fn file(writer: &mut Writer, parent: NodeId, name: &[u8]) -> (NodeId, Version) {
    let content = Content::File(writer.upload(&[Data::Bytes(name)]).await);
    make(writer, parent, name, content).await
}

/// Makes a directory with files in it and in a directory below, and deletes all of it.
async fn deleted_tree(writer: &mut Writer) {
    let (top, top_at) = make(writer, NodeId::ROOT, b"few", Content::Directory).await;
    let (inner, inner_at) = make(writer, top, b"inner", Content::Directory).await;
    for (parent, name) in [(inner, b"c"), (inner, b"d"), (top, b"a"), (top, b"b")] {
        let (node, at) = file(writer, parent, name).await;
        writer.commit(delete(node, at, at)).await;
    }
    for (node, at) in [(inner, inner_at), (top, top_at)] {
        writer.commit(delete(node, at, at)).await;
    }
}

fn shown(items: &[RestoreItem]) -> Vec<(&str, Option<&str>)> {
    let mut shown: Vec<_> =
        items.iter().map(|item| (item.path.path.as_str(), item.to.as_ref().map(|to| to.path.as_str()))).collect();
    shown.sort_unstable();
    shown
}

async fn refused(world: &World, path: &str) -> isotherm_api::ApiError {
    let request = RestoreRequest { path: ShownPath::new(path.as_bytes()), what: RestoreWhat::Deleted, before: None };
    world.client().restore_plan("plans", &request).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undelete_that_was_broken_off_goes_on() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    deleted_tree(&mut world.writer).await;
    let mut left = plan(&world, "few", RestoreWhat::Deleted).await;
    assert_eq!(left.len(), 6);
    // Each run gets to one file, and the directories above it come back with that.
    for files in (0..4).rev() {
        left.retain(|item| !["few", "few/inner"].contains(&item.path.path.as_str()));
        left.sort_by_key(|item| std::cmp::Reverse(item.path.path.clone()));
        assert_eq!(apply(&world, &left[..1]).await, [RestoreOutcome::Done]);
        if files > 0 {
            left = plan(&world, "few", RestoreWhat::Deleted).await;
            assert_eq!(left.len(), files, "{:?}", shown(&left));
        }
    }
    assert_eq!(read(&world.running, b"few/inner/d").await, b"d");
    assert!(refused(&world, "few").await.message.contains("is not deleted"));
    // What somebody deletes after that is not a part of it.
    let found = world.client().versions("plans", b"few/a").await.unwrap();
    world.writer.commit(delete(found[0].node, found[0].version, found[0].version)).await;
    assert!(refused(&world, "few").await.message.contains("is not deleted"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lay_in_a_deleted_directory_comes_back_into_its_namesake() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    deleted_tree(&mut world.writer).await;
    make(&mut world.writer, NodeId::ROOT, b"few", Content::Directory).await;
    let items = plan(&world, "few/a", RestoreWhat::Deleted).await;
    assert_eq!(shown(&items), [("few/a", None)]);
    assert_eq!(apply(&world, &items).await, [RestoreOutcome::Done]);
    assert_eq!(read(&world.running, b"few/a").await, b"a");
    // The rest by the name of the directory, which is there and is no more than a place.
    let items = plan(&world, "few", RestoreWhat::Deleted).await;
    assert_eq!(shown(&items), [("few/b", None), ("few/inner", None), ("few/inner/c", None), ("few/inner/d", None)]);
    apply(&world, &items).await;
    assert_eq!(read(&world.running, b"few/inner/c").await, b"c");
    assert!(refused(&world, "few").await.message.contains("is not deleted"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_where_things_go_and_the_outcome_where_they_are() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (archive, _) = make(&mut world.writer, NodeId::ROOT, b"archive", Content::Directory).await;
    let (moved, moved_at) = file(&mut world.writer, archive, b"moved").await;
    let (taken, taken_at) = file(&mut world.writer, NodeId::ROOT, b"plan.dwg").await;
    let (house, house_at) = make(&mut world.writer, NodeId::ROOT, b"house", Content::Directory).await;
    let (door, door_at) = file(&mut world.writer, house, b"door").await;
    let then = AsOf::Version(door_at);
    let place = |parent, name: &[u8]| Place { parent, name: isotherm_core::name::Name::new(name).unwrap() };
    let change = Change::Move { node: moved, place: Based { base: moved_at, value: place(NodeId::ROOT, b"elsewhere") } };
    world.writer.commit(change).await;
    for (node, at) in [(taken, taken_at), (door, door_at), (house, house_at)] {
        world.writer.commit(delete(node, at, at)).await;
    }
    file(&mut world.writer, NodeId::ROOT, b"plan.dwg").await;
    // A file has the name of the directory.
    file(&mut world.writer, NodeId::ROOT, b"house").await;
    let items = plan(&world, "", RestoreWhat::AsOf { moment: then, exact: false }).await;
    assert_eq!(
        shown(&items),
        [
            ("elsewhere", Some("archive/moved")),
            ("house", Some("house-restored")),
            ("house/door", Some("house-restored/door")),
            ("plan.dwg", Some("plan-restored.dwg")),
        ]
    );
    let beside = |name: &[u8], at: &[u8]| RestoreOutcome::Beside { name: ShownPath::new(name), at: ShownPath::new(at) };
    for (path, outcome) in [
        ("elsewhere", RestoreOutcome::Done),
        ("house/door", beside(b"door", b"house-restored/door")),
        ("plan.dwg", beside(b"plan-restored.dwg", b"plan-restored.dwg")),
    ] {
        let item = items.iter().find(|item| item.path.path == path).unwrap().clone();
        assert_eq!(apply(&world, &[item]).await, [outcome]);
    }
    // With `exact` the names are free by then.
    let items = plan(&world, "", RestoreWhat::AsOf { moment: then, exact: true }).await;
    assert!(items.iter().any(|item| item.action == RestoreAction::Delete));
    assert!(items.iter().all(|item| item.to.as_ref().is_none_or(|to| to.path != "house-restored")), "{:?}", shown(&items));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_any_more_is_told() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (node, at) = world.writer.create(b"plan", b"one").await;
    world.writer.commit(delete(node, at, at)).await;
    world.client().change_group("plans", &keep(0)).await.unwrap();
    let folder = world.stop().await;
    collect(folder.path(), AT_ONCE).await;
    let running = Running::start(folder.path()).await;
    let request = RestoreRequest { path: ShownPath::new(b"plan"), what: RestoreWhat::Deleted, before: None };
    let items = running.client.restore_plan("plans", &request).await.unwrap().items;
    assert_eq!(items.iter().map(|item| item.action).collect::<Vec<_>>(), [RestoreAction::Lost]);
    let never = RestoreRequest { path: ShownPath::new(b"never"), ..request };
    assert_eq!(running.client.restore_plan("plans", &never).await.unwrap_err().code, Code::NotFound);
    running.stop().await;
}
