//! Versions and restores through HTTP, and records of earlier releases.

use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{AsOf, RestoreCopy, RestoreItem, RestoreOne, RestoreOutcome, RestoreRequest, RestoreWhat};
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::name::Name;
use isotherm_core::namespace::{Answer, Based, Change};
use isotherm_core::node::{Content, Node, Place};
use isotherm_core::tiering::Policy;
use isotherm_service::{Ages, Options, Service};

use crate::world::{Data, FORKS, Running, World, Writer, create};

pub(crate) async fn plan(world: &World, path: &str, what: RestoreWhat) -> Vec<RestoreItem> {
    let request = RestoreRequest { path: ShownPath::new(path.as_bytes()), what, before: None };
    let plan = world.client().restore_plan("plans", &request).await.unwrap();
    assert_eq!(plan.next, None);
    plan.items
}

pub(crate) async fn apply(world: &World, items: &[RestoreItem]) -> Vec<RestoreOutcome> {
    let wanted: Vec<_> =
        items.iter().map(|item| RestoreOne { node: item.node, expected: item.expected, target: item.target }).collect();
    world.client().restore("plans", &wanted).await.unwrap()
}

pub(crate) async fn live(world: &World) -> Vec<Node> {
    let (nodes, _) = world.writer.follow(world.writer.start()).await;
    nodes.into_iter().filter(Node::is_live).collect()
}

async fn read(world: &World, path: &[u8]) -> Vec<u8> {
    let mut download = world.client().download("plans", path, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = download.next_piece().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

pub(crate) async fn edit(writer: &mut Writer, node: NodeId, base: Version, bytes: &[u8]) -> Version {
    let value = Content::File(writer.upload(&[Data::Bytes(bytes)]).await);
    match writer.commit(Change::Update { node, metadata: None, content: Some(Based { base, value }) }).await {
        Answer::Applied(version) => version,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn delete(node: NodeId, place: Version, content: Version) -> Change {
    Change::Delete { node, place, content }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_path_outlive_the_node() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (first, made) = world.writer.create(b"plan.dwg", b"one").await;
    let edited = edit(&mut world.writer, first, made, b"two").await;
    world.writer.commit(delete(first, made, edited)).await;
    let (second, _) = world.writer.create(b"plan.dwg", b"three").await;
    let found = world.client().versions("plans", b"plan.dwg").await.unwrap();
    let shown: Vec<_> = found.iter().map(|one| (one.node, one.deleted, one.replaced_ms.is_none())).collect();
    assert_eq!(shown, [(second, false, true), (first, true, true), (first, false, false), (first, false, false)]);
    assert!(found.iter().all(|one| one.server.as_deref() == Some("munich")));
    assert!(world.client().versions("plans", b"never").await.is_err());
    // The earlier content as a new file.
    let copy =
        RestoreCopy { path: ShownPath::new(b"plan.dwg"), moment: AsOf::Version(made), to: ShownPath::new(b"old plan.dwg") };
    world.client().restore_copy("plans", &copy).await.unwrap();
    assert_eq!((read(&world, b"old plan.dwg").await, read(&world, b"plan.dwg").await), (b"one".to_vec(), b"three".to_vec()));
    let again = world.client().restore_copy("plans", &copy).await.unwrap_err();
    assert_eq!(again.code, isotherm_api::Code::Exists);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_tells_the_path_that_it_had() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let place = |parent, name: &[u8]| Place { parent, name: Name::new(name).unwrap() };
    let directory = world.writer.node();
    let made = match world.writer.commit(create(directory, NodeId::ROOT, b"old", Content::Directory)).await {
        Answer::Applied(version) => version,
        other => panic!("{other:?}"),
    };
    let (node, at) = world.writer.create(b"plan", b"one").await;
    let inside = Based { base: at, value: place(directory, b"plan.dwg") };
    world.writer.commit(Change::Move { node, place: inside }).await;
    let renamed = Based { base: made, value: place(NodeId::ROOT, b"new") };
    world.writer.commit(Change::Move { node: directory, place: renamed }).await;
    edit(&mut world.writer, node, at, b"two").await;
    let found = world.client().versions("plans", b"new/plan.dwg").await.unwrap();
    let paths: Vec<_> = found.iter().map(|one| one.path.path.as_str()).collect();
    assert_eq!(paths, ["new/plan.dwg", "old/plan.dwg", "plan"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_deleted_comes_back_whole() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let directory = world.writer.node();
    world.writer.commit(create(directory, NodeId::ROOT, b"house", Content::Directory)).await;
    let mut versions = Vec::new();
    for name in [b"a", b"b", b"c"] {
        let content = Content::File(world.writer.upload(&[Data::Bytes(name)]).await);
        let node = world.writer.node();
        let Answer::Applied(version) = world.writer.commit(create(node, directory, name, content)).await else { panic!() };
        versions.push((node, version));
    }
    for (node, version) in versions {
        world.writer.commit(delete(node, version, version)).await;
    }
    world.writer.commit(delete(directory, Version(1), Version(1))).await;
    assert!(live(&world).await.is_empty());
    let items = plan(&world, "house", RestoreWhat::Deleted).await;
    assert_eq!(items.len(), 4);
    assert!(apply(&world, &items).await.iter().all(|one| *one == RestoreOutcome::Done));
    assert_eq!(live(&world).await.len(), 4);
    assert_eq!(read(&world, b"house/b").await, b"b");
    world.stop().await;
}

/// One server renames and overwrites everything and leaves a note; another one goes on working on one file.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_did_is_undone_and_the_others_work_stays() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (one, one_at) = world.writer.create(b"one", b"1").await;
    let (two, two_at) = world.writer.create(b"two", b"2").await;
    let before = world.client().status().await.unwrap().now_ms;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next millisecond
    let mut malware = Writer::attach(world.client(), "detroit").await;
    for (node, at, name) in [(one, one_at, "one.locked"), (two, two_at, "two.locked")] {
        edit(&mut malware, node, at, b"noise").await;
        let place = Place { parent: NodeId::ROOT, name: Name::new(name.as_bytes()).unwrap() };
        malware.commit(Change::Move { node, place: Based { base: at, value: place } }).await;
    }
    malware.create(b"README-PAY.txt", b"pay").await;
    let now = live(&world).await.into_iter().find(|node| node.id == two).unwrap();
    edit(&mut world.writer, two, now.versions.content, b"saved by hand").await;
    let what = RestoreWhat::Server { server: "detroit".into(), from_ms: before, until_ms: u64::MAX / 2 };
    let items = plan(&world, "", what).await;
    let (skipped, todo): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| item.action == isotherm_api::revisions::RestoreAction::Skip);
    assert_eq!((skipped.len(), skipped[0].path.path.as_str()), (1, "two.locked"));
    apply(&world, &todo).await;
    let names: Vec<_> = live(&world).await.iter().map(|node| node.place.name.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!((read(&world, b"one").await, read(&world, b"two.locked").await), (b"1".to_vec(), b"saved by hand".to_vec()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_share_as_of_a_version() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (one, one_at) = world.writer.create(b"one", b"1").await;
    let (_, moment) = world.writer.create(b"two", b"2").await;
    edit(&mut world.writer, one, one_at, b"changed").await;
    world.writer.create(b"new", b"3").await;
    let what = |exact| RestoreWhat::AsOf { moment: AsOf::Version(moment), exact };
    assert_eq!(plan(&world, "", what(false)).await.len(), 1);
    let items = plan(&world, "/", what(true)).await;
    assert_eq!(items.len(), 2);
    apply(&world, &items).await;
    assert_eq!((live(&world).await.len(), read(&world, b"one").await), (2, b"1".to_vec()));
    // Now it is what it was, and a second plan is empty.
    assert!(plan(&world, "", what(true)).await.is_empty());
    world.stop().await;
}

/// A copy of a data folder that was written when the tables had this version.
pub(crate) fn kept(tables: u32) -> tempfile::TempDir {
    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/tables-{tables}"));
    let folder = tempfile::tempdir().unwrap();
    copy(&kept, folder.path());
    folder
}

/// They have a server, whose traffic nothing limits.
#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_7_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(7);
    for _ in 0..2 {
        let running = Running::start(folder.path()).await;
        let status = running.client.status().await.unwrap();
        let endpoint = &status.groups[0].endpoints[0].endpoint;
        assert_eq!((endpoint.tiering, endpoint.policy.free_percent), (true, 33));
        assert_eq!((status.servers[0].name.as_str(), &status.servers[0].limits[..]), ("munich", &[][..]));
        running.stop().await;
    }
}

/// They have an endpoint that tiers, and said nothing of what goes.
#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_6_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(6);
    for _ in 0..2 {
        let running = Running::start(folder.path()).await;
        let status = running.client.status().await.unwrap();
        let endpoint = &status.groups[0].endpoints[0].endpoint;
        assert_eq!((endpoint.tiering, &endpoint.policy), (true, &Policy::default()));
        running.stop().await;
    }
}

/// They have an endpoint, which did not tier.
#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_5_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(5);
    for _ in 0..2 {
        let running = Running::start(folder.path()).await;
        let status = running.client.status().await.unwrap();
        let endpoint = &status.groups[0].endpoints[0].endpoint;
        assert_eq!((endpoint.path.as_str(), endpoint.tiering), ("/srv/plans", false));
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_4_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(4);
    for _ in 0..2 {
        let running = Running::start(folder.path()).await;
        assert_eq!(running.client.versions("plans", b"one.txt").await.unwrap().len(), 1);
        let what = RestoreWhat::AsOf { moment: AsOf::Version(Version(2)), exact: true };
        let request = RestoreRequest { path: ShownPath::new(b""), what, before: None };
        let plan = running.client.restore_plan("plans", &request).await.unwrap();
        assert_eq!(plan.items.len(), 1, "nothing of it was let go");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_3_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(3);
    for _ in 0..2 {
        let running = Running::start(folder.path()).await;
        let status = crate::check::check(&running.client, true).await;
        assert_eq!((status.findings_count, status.nodes, status.packs, status.repaired), (0, 3, 2, 0), "{status:?}");
        assert_eq!(running.client.versions("plans", b"one.txt").await.unwrap().len(), 2);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_2_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(2);
    let service = Service::open(Options::at(folder.path())).await.unwrap();
    service.collect(Ages::default()).await.unwrap();
    drop(service);
    let running = Running::start(folder.path()).await;
    let space = running.client.group("plans").await.unwrap().space.unwrap();
    // One file with two names, and with a version before; another one that was deleted.
    assert_eq!((space.files, space.distinct), (14, 17));
    assert_eq!(running.client.versions("plans", b"one.txt").await.unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_tables_of_version_1_are_brought_forward() {
    let _no_forks = FORKS.read().await;
    let folder = kept(1);
    for _ in 0..2 {
        let running = Running::start(folder.path()).await;
        let group = running.client.group("plans").await.unwrap();
        assert_eq!((group.keep.days, group.keep.hold), (30, false));
        let found = running.client.versions("plans", b"one.txt").await.unwrap();
        assert_eq!(found.len(), 2);
        // A name that a node has lost is found too: the link was moved.
        assert_eq!(running.client.versions("plans", b"link").await.unwrap().len(), 2);
        assert!(running.client.versions("plans", b"sub/two.txt").await.unwrap().iter().any(|one| one.deleted));
        running.stop().await;
    }
}

pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_that_cannot_be_meant_are_refused_by_name() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (plan, made) = world.writer.create(b"plan", b"one").await;
    let (_, other) = world.writer.create(b"note", b"note").await;
    let edited = edit(&mut world.writer, plan, made, b"two").await;
    let now = world.client().status().await.unwrap().now_ms;
    let day = 24 * 60 * 60 * 1000;
    let asked = |path: &str, what: RestoreWhat| {
        let request = RestoreRequest { path: ShownPath::new(path.as_bytes()), what, before: None };
        let client = world.client();
        async move { client.restore_plan("plans", &request).await }
    };
    let as_of = |moment, exact| RestoreWhat::AsOf { moment, exact };
    let server = |from_ms, until_ms| RestoreWhat::Server { server: "munich".into(), from_ms, until_ms };
    for (path, what, says) in [
        ("plan", as_of(AsOf::Version(Version(99_999)), false), "Version 99999 does not exist"),
        ("", as_of(AsOf::Version(Version(99_999)), true), "Version 99999 does not exist"),
        ("plan", as_of(AsOf::Version(other), false), "is none of plan"),
        ("plan", as_of(AsOf::Ms(4_070_908_800_000), false), "Moment 2099-01-01T00:00:00Z lies in the future"),
        ("plan", as_of(AsOf::Ms(now - day), false), "lies before group plans was made"),
        ("", as_of(AsOf::Ms(now - day), true), "lies before group plans was made"),
        ("", server(4_070_908_800_000, u64::MAX / 2), "Moment 2099-01-01T00:00:00Z lies in the future"),
        ("", server(now - day, u64::MAX / 2), "lies before group plans was made"),
        ("", server(now, now - 1), "ends before it begins"),
    ] {
        let error = asked(path, what.clone()).await.unwrap_err();
        assert!(error.message.contains(says), "{what:?}: {error}");
    }
    let copy = |version| {
        let (path, to) = (ShownPath::new(b"plan"), ShownPath::new(b"old plan"));
        let (client, copy) = (world.client(), RestoreCopy { path, moment: AsOf::Version(version), to });
        async move { client.restore_copy("plans", &copy).await }
    };
    assert!(copy(other).await.unwrap_err().message.contains("is none of plan"));
    copy(made).await.unwrap();
    assert_eq!(read(&world, b"old plan").await, b"one");
    // Its own versions are fine, and so is any version of the share for all of it.
    assert_eq!(asked("plan", as_of(AsOf::Version(made), false)).await.unwrap().items.len(), 1);
    assert_eq!(asked("plan", as_of(AsOf::Version(edited), false)).await.unwrap().items.len(), 0);
    assert_eq!(asked("", as_of(AsOf::Version(other), true)).await.unwrap().items.len(), 2);
    world.stop().await;
}
