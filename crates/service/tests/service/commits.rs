//! Commits by several writers, sent twice, fenced, and by clients of another time.

use isotherm_api::Code;
use isotherm_api::management::{GroupChange, Quota};
use isotherm_api::sync::Attach;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::name::Case;
use isotherm_core::namespace::{Answer, Based, Change, Refusal};
use isotherm_core::node::Content;

use crate::world::{Data, World, Writer, create};

fn edit(node: NodeId, base: Version, content: Content) -> Change {
    Change::Update { node, metadata: None, content: Some(Based { base, value: content }) }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_file_conflict_and_see_each_other() {
    let mut world = World::new().await;
    let mut other = Writer::attach(world.client(), "detroit").await;
    let (node, version) = world.writer.create(b"plan.dwg", b"first").await;
    let ours = Content::File(world.writer.upload(&[Data::Bytes(b"ours")]).await);
    let theirs = Content::File(other.upload(&[Data::Bytes(b"theirs")]).await);
    assert_eq!(other.commit(edit(node, version, theirs.clone())).await, Answer::Applied(Version(2)));
    match world.writer.commit(edit(node, version, ours)).await {
        Answer::Conflict(present) => assert_eq!(present.content, theirs),
        answer => panic!("{answer:?}"),
    }
    let (nodes, _) = world.writer.follow(world.writer.start()).await;
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].content, theirs);
    let history = world.client().history(world.writer.group, &[node, NodeId([9; 16])], 10).await.unwrap();
    assert_eq!(history[0].len(), 2);
    assert_eq!(history[0][0], theirs.file().unwrap().manifest);
    assert!(history[1].is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_get_one_version_each() {
    let world = World::new().await;
    let mut writers = Vec::new();
    for number in 0..8 {
        writers.push(Writer::attach(world.client(), &format!("server-{number}")).await);
    }
    let tasks = writers.into_iter().enumerate().map(|(number, mut writer)| {
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for file in 0..20 {
                let name = format!("{number}-{file}");
                let node = writer.node();
                match writer.commit(create(node, NodeId::ROOT, name.as_bytes(), Content::Directory)).await {
                    Answer::Applied(version) => versions.push(version.0),
                    answer => panic!("{answer:?}"),
                }
            }
            versions
        })
    });
    let mut versions = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        versions.extend(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=160).collect::<Vec<_>>());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_21_an_operation_sent_twice_is_done_once() {
    let mut world = World::new().await;
    let content = Content::File(world.writer.upload(&[Data::Bytes(b"x")]).await);
    let node = world.writer.node();
    let operation = world.writer.operation(create(node, NodeId::ROOT, b"a", content));
    let batch = world.writer.batch(vec![operation]);
    for _ in 0..3 {
        let answers = world.client().commit(world.writer.group, &batch).await.unwrap();
        assert_eq!(answers, [Answer::Applied(Version(1))]);
    }
    let mut other = batch.clone();
    other.operations[0].change = create(node, NodeId::ROOT, b"b", Content::Directory);
    let answers = world.client().commit(world.writer.group, &other).await.unwrap();
    assert_eq!(answers, [Answer::Refused(Refusal::ReusedOperation)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_there_is_named() {
    let mut world = World::new().await;
    let (manifest, packs) = crate::world::pack(&[Data::Bytes(b"something")]);
    let file = isotherm_core::node::FileContent {
        manifest: manifest.id(),
        size: manifest.len(),
        modified: isotherm_core::ids::Timestamp(0),
        link: None,
    };
    let node = world.writer.node();
    let change = create(node, NodeId::ROOT, b"a", Content::File(file));
    let missing = |answer| match answer {
        Answer::Missing(chunks) => chunks,
        answer => panic!("{answer:?}"),
    };
    let chunks = missing(world.writer.commit(change.clone()).await);
    assert_eq!(chunks[0].as_bytes(), manifest.id().as_bytes(), "first the manifest");
    world.client().put_manifests(world.writer.group, vec![manifest.encode().bytes]).await.unwrap();
    let chunks = missing(world.writer.commit(change.clone()).await);
    assert_eq!(chunks, manifest.chunks().map(|(chunk, _)| chunk).collect::<Vec<_>>());
    world.client().put_pack(world.writer.group, packs[0].clone()).await.unwrap();
    assert_eq!(world.writer.commit(change).await, Answer::Applied(Version(1)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_run_of_the_agent_is_fenced() {
    let mut world = World::new().await;
    let again = Attach { name: "munich".into(), server: Some(world.writer.server) };
    let attached = world.client().attach(&again).await.unwrap();
    assert!(attached.epoch > world.writer.epoch);
    assert_eq!(attached.server, world.writer.server);
    let node = world.writer.node();
    let answer = world.writer.commit(create(node, NodeId::ROOT, b"a", Content::Directory)).await;
    assert_eq!(answer, Answer::Refused(Refusal::Fenced));
    let error = world.client().assignments(world.writer.server, world.writer.epoch, 0, 0).await.unwrap_err();
    assert_eq!(error.code, Code::Fenced);
    let stolen = Attach { name: "munich".into(), server: None };
    assert_eq!(world.client().attach(&stolen).await.unwrap_err().code, Code::Exists);
    let unknown = world.writer.batch(Vec::new());
    let unknown = isotherm_core::namespace::Batch { server: isotherm_core::ids::ServerId([5; 16]), ..unknown };
    assert_eq!(world.client().commit(world.writer.group, &unknown).await.unwrap_err().code, Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_version_is_told_both() {
    let world = World::new().await;
    let old = world.client().clone().with_protocol(77);
    let error = old.snapshot(world.writer.group).await.unwrap_err();
    assert_eq!(error.code, Code::Protocol);
    assert_eq!(error.code.status(), 426);
    assert!(error.message.contains("77") && error.message.contains(&format!("version {}", isotherm_api::PROTOCOL)), "{error}");
    assert!(!error.retryable);
    assert!(old.groups().await.is_ok(), "the management API has no protocol version");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_refuses_until_it_is_raised() {
    let mut world = World::new().await;
    let set = |quota| GroupChange { quota: Some(quota), ..GroupChange::default() };
    world.client().change_group("plans", &set(Quota::Bytes(10))).await.unwrap();
    let content = Content::File(world.writer.upload(&[Data::Bytes(b"eleven bytes")]).await);
    let node = world.writer.node();
    let change = create(node, NodeId::ROOT, b"a", content);
    assert!(matches!(
        world.writer.commit(change.clone()).await,
        Answer::Refused(Refusal::Quota { quota: 10, used: 0, more: 12 })
    ));
    world.client().change_group("plans", &set(Quota::Unlimited)).await.unwrap();
    assert_eq!(world.writer.commit(change).await, Answer::Applied(Version(1)));
    assert_eq!(world.client().group("plans").await.unwrap().usage, 12);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_insensitive_share_folds_names() {
    let mut world = World::with_case(Case::Insensitive).await;
    let (node, _) = world.writer.create("Pläne.dwg".as_bytes(), b"x").await;
    let other = world.writer.node();
    let answer = world.writer.commit(create(other, NodeId::ROOT, "PLÄNE.DWG".as_bytes(), Content::Directory)).await;
    assert!(matches!(answer, Answer::Conflict(holder) if holder.id == node));
    let mut download = world.client().download("plans", "pläne.DWG".as_bytes(), None).await.unwrap();
    assert_eq!(download.next_piece().await.unwrap().unwrap(), &b"x"[..]);
    world.stop().await;
}
