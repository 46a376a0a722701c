//! Groups, servers, endpoints, status, barriers, conflicts, problems and the audit log.

use isotherm_api::management::{EndpointChange, GroupChange, KeepChange, NewEndpoint, PolicyChange, Quota, ServerChange};
use isotherm_api::sync::{
    Attach, Counts, Direction, EndpointReport, EndpointState, InitialUpload, Problem, RecentChange, Report, Watch,
};
use isotherm_api::{Client, Code};
use isotherm_core::bandwidth::{InForce, LIMITS_MAX, Limit, Rate};
use isotherm_core::ids::{Cursor, EndpointId, NodeId, Version};
use isotherm_core::name::Case;
use isotherm_core::node::Content;
use isotherm_core::tiering::Policy;

use crate::world::{PATIENCE, World, Writer, create, group};

pub(crate) fn endpoint(server: &str, path: &str) -> NewEndpoint {
    NewEndpoint {
        group: "plans".into(),
        server: server.into(),
        path: path.into(),
        initial_upload: InitialUpload::Merge,
        tiering: false,
        policy: PolicyChange::default(),
    }
}

pub(crate) fn report(writer: &Writer, id: EndpointId, version: u64, barrier: u64) -> Report {
    let one = EndpointReport {
        endpoint: id,
        cursor: Cursor { incarnation: writer.incarnation, version: Version(version) },
        agreed: true,
        barrier,
        state: EndpointState::Synced,
        watch: Watch::Scan { reason: "No privileges".into() },
        counts: Counts { files: 3, ..Counts::default() },
        unsafe_since_ms: None,
        problems: vec![Problem {
            path: b"a\xff".to_vec(),
            code: "busy".into(),
            text: "File is busy".into(),
            remedy: "Close it".into(),
            since_ms: 5,
        }],
        problems_total: 7,
        recent: vec![RecentChange { path: b"b".to_vec(), direction: Direction::Up, delay_ms: 12 }],
    };
    Report { epoch: writer.epoch, agent_version: "9.9".into(), endpoints: vec![one] }
}

async fn code<T>(result: impl Future<Output = Result<T, isotherm_api::ApiError>>) -> Code {
    match result.await {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error.code,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_have_one_name_each_and_go_without_endpoints() {
    let world = World::new().await;
    let client = world.client();
    assert_eq!(code(client.create_group(&group("plans", Case::Sensitive))).await, Code::Exists);
    assert_eq!(code(client.create_group(&group("a b", Case::Sensitive))).await, Code::Invalid);
    let mut bad = group("bad", Case::Sensitive);
    bad.exclusions = vec!["[".into()];
    assert_eq!(code(client.create_group(&bad)).await, Code::Invalid);
    let change = GroupChange {
        quota: Some(Quota::Bytes(5)),
        exclusions: Some(vec!["*.tmp".into()]),
        max_delete_fraction: Some(0.25),
        ..GroupChange::default()
    };
    let changed = client.change_group("plans", &change).await.unwrap();
    assert_eq!((changed.quota, changed.exclusions.len(), changed.max_delete_fraction), (Some(5), 1, 0.25));
    assert_eq!(client.group("plans").await.unwrap(), changed);
    let bad = GroupChange { max_delete_fraction: Some(1.5), ..GroupChange::default() };
    assert_eq!(code(client.change_group("plans", &bad)).await, Code::Invalid);
    let made = client.create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap();
    assert_eq!(code(client.delete_group("plans")).await, Code::InUse);
    assert_eq!(code(client.delete_server("munich")).await, Code::InUse);
    client.forget_endpoint(made.id).await.unwrap();
    let hold = |hold| GroupChange { keep: KeepChange { hold: Some(hold), ..KeepChange::default() }, ..GroupChange::default() };
    client.change_group("plans", &hold(true)).await.unwrap();
    assert_eq!(code(client.delete_group("plans")).await, Code::InUse);
    client.change_group("plans", &hold(false)).await.unwrap();
    client.delete_group("plans").await.unwrap();
    assert_eq!(code(client.group("plans")).await, Code::NotFound);
    assert_eq!(code(client.snapshot(world.writer.group)).await, Code::NotFound);
    client.delete_server("munich").await.unwrap();
    assert!(client.servers().await.unwrap().is_empty());
    let actions: Vec<String> = client.audit(None, 100).await.unwrap().into_iter().rev().map(|entry| entry.action).collect();
    let wanted =
        "group.create server.register group.set endpoint.create endpoint.forget group.set group.set group.delete server.delete";
    assert_eq!(actions.join(" "), wanted);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_a_server_never_overlap() {
    let world = World::new().await;
    let client = world.client();
    client.create_group(&group("other", Case::Sensitive)).await.unwrap();
    client.attach(&Attach { name: "detroit".into(), server: None }).await.unwrap();
    let made = client.create_endpoint(&endpoint("munich", "/srv//plans/")).await.unwrap();
    assert_eq!(made.path, "/srv/plans");
    let other = |server: &str, path: &str| NewEndpoint { group: "other".into(), ..endpoint(server, path) };
    for path in ["/srv/plans", "/srv/plans/below", "/srv"] {
        assert_eq!(code(client.create_endpoint(&other("munich", path))).await, Code::Overlap, "{path}");
    }
    for path in ["srv/plans", "/srv/../plans", "/"] {
        assert_eq!(code(client.create_endpoint(&other("munich", path))).await, Code::Invalid, "{path}");
    }
    assert_eq!(code(client.create_endpoint(&endpoint("munich", "/elsewhere"))).await, Code::Exists);
    assert_eq!(code(client.create_endpoint(&endpoint("nobody", "/x"))).await, Code::NotFound);
    client.create_endpoint(&other("munich", "/srv/plans2")).await.unwrap();
    client.create_endpoint(&endpoint("detroit", "/srv/plans")).await.unwrap();
    assert_eq!(client.endpoints().await.unwrap().len(), 3);
    assert_eq!(client.group("plans").await.unwrap().endpoints, 2);
    world.stop().await;
}

/// Waits for assignments other than those of `revision`.
async fn next(client: &Client, writer: &Writer, revision: u64) -> isotherm_api::sync::Assignments {
    let asked = client.assignments(writer.server, writer.epoch, revision, 60_000);
    tokio::time::timeout(PATIENCE / 2, asked).await.expect("woken, not timed out").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_learn_of_their_endpoints_and_let_go_of_them() {
    let world = World::new().await;
    let (client, writer) = (world.client(), &world.writer);
    let first = next(client, writer, 0).await;
    assert!(first.endpoints.is_empty());
    let made = client.create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap();
    let second = next(client, writer, first.revision).await;
    assert_eq!((second.endpoints[0].endpoint, &second.endpoints[0].path[..]), (made.id, "/srv/plans"));
    assert_eq!(second.endpoints[0].group, writer.group);
    assert!(client.pause_endpoint(made.id).await.unwrap().paused);
    assert!(next(client, writer, second.revision).await.endpoints[0].paused);
    client.resume_endpoint(made.id).await.unwrap();
    let change = EndpointChange { initial_upload: Some(InitialUpload::Authoritative), ..EndpointChange::default() };
    client.change_endpoint(made.id, &change).await.unwrap();
    let policy =
        |free_percent| PolicyChange { free_percent: Some(free_percent), older_than_s: Some(60), ..PolicyChange::default() };
    let policy = |percent| EndpointChange { policy: policy(percent), ..EndpointChange::default() };
    assert_eq!(code(client.change_endpoint(made.id, &policy(100))).await, Code::Invalid);
    client.change_endpoint(made.id, &policy(33)).await.unwrap();
    let never = PolicyChange { older_than_s: Some(0), keep: Some(vec!["*.lnk".into()]), ..PolicyChange::default() };
    client.change_endpoint(made.id, &EndpointChange { policy: never, ..EndpointChange::default() }).await.unwrap();
    client.confirm_deletes(made.id).await.unwrap();
    let third = next(client, writer, second.revision).await;
    let (mode, confirmed) = (third.endpoints[0].initial_upload, third.endpoints[0].confirmed_deletes);
    assert_eq!((third.endpoints[0].paused, mode), (false, InitialUpload::Authoritative));
    let expected = Policy { free_percent: 33, keep: vec!["*.lnk".into()], ..Policy::default() };
    assert_eq!(third.endpoints[0].policy, expected);
    assert!(confirmed >= made.created_ms, "no number that a backup which was put back could repeat");
    let mut gone = report(writer, made.id, 0, 0);
    gone.endpoints[0].state = EndpointState::Removed;
    client.report(writer.server, &gone, InForce::default()).await.unwrap();
    assert_eq!(client.endpoints().await.unwrap().len(), 1, "nobody asked for that");
    client.delete_endpoint(made.id, isotherm_api::sync::OnStubs::Wait).await.unwrap();
    assert!(next(client, writer, third.revision).await.endpoints[0].deleting);
    client.report(writer.server, &gone, InForce::default()).await.unwrap();
    assert!(client.endpoints().await.unwrap().is_empty());
    assert_eq!(code(client.pause_endpoint(made.id)).await, Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_server_are_kept_and_it_tells_what_of_them_is_in_force() {
    let world = World::new().await;
    let (client, writer) = (world.client(), &world.writer);
    let limits: Vec<Limit> =
        ["up=5MiB/s,mon-fri,08:00-18:00", "down=64KiB/s,demand"].iter().map(|text| text.parse().unwrap()).collect();
    let change = |limits: &[Limit]| ServerChange { limits: Some(limits.to_vec()) };
    assert_eq!(client.servers().await.unwrap()[0].limits, []);
    let before = client.assignments(writer.server, writer.epoch, 0, 0).await.unwrap().revision;
    let asked = client.assignments(writer.server, writer.epoch, before, 60_000);
    let new = change(&limits);
    let (asked, changed) = tokio::join!(asked, client.change_server("munich", &new));
    assert!(asked.unwrap().revision > before, "the agent looks at once");
    assert_eq!(changed.unwrap().limits, limits);
    let entry = client.audit(None, 1).await.unwrap().remove(0);
    assert_eq!((entry.action.as_str(), entry.subject.as_str()), ("server.limits", "munich"));
    assert_eq!(entry.detail, "up=5MiB/s,mon-fri,08:00-18:00 down=64KiB/s,demand");
    // What is not said stays.
    assert_eq!(client.change_server("munich", &ServerChange::default()).await.unwrap().limits, limits);
    let many = vec![limits[0]; LIMITS_MAX + 1];
    assert_eq!(code(client.change_server("munich", &change(&many))).await, Code::Invalid);
    assert_eq!(code(client.change_server("nowhere", &change(&[]))).await, Code::NotFound);

    let in_force = InForce { up: Rate::new(5 << 20), down: None, demand: Rate::new(64 << 10) };
    let said = Report { epoch: writer.epoch, agent_version: "9.9".into(), endpoints: Vec::new() };
    client.report(writer.server, &said, in_force).await.unwrap();
    let shown = client.status().await.unwrap().servers.remove(0);
    assert_eq!((shown.limits, shown.in_force), (limits, in_force));
    client.report(writer.server, &said, InForce::default()).await.unwrap();
    assert!(client.servers().await.unwrap()[0].in_force.is_nothing());
    assert_eq!(client.change_server("munich", &change(&[])).await.unwrap().limits, []);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_latest_reports_and_problems() {
    let world = World::new().await;
    let (client, writer) = (world.client(), &world.writer);
    let made = client.create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap();
    assert!(client.endpoint(made.id).await.unwrap().report.is_none());
    client.report(writer.server, &report(writer, made.id, 0, 0), InForce::default()).await.unwrap();
    let status = client.status().await.unwrap();
    let shown = status.groups[0].endpoints[0].report.clone().unwrap();
    assert!(status.groups[0].endpoints[0].online && status.servers[0].online);
    assert_eq!(status.servers[0].agent_version.as_deref(), Some("9.9"));
    assert_eq!((shown.counts.files, shown.problems, shown.recent[0].delay_ms), (3, 7, 12));
    assert_eq!(shown.state, EndpointState::Synced);
    let problems = client.problems().await.unwrap();
    assert_eq!((problems.total, problems.problems.len()), (7, 1));
    assert_eq!(problems.problems[0].path.bytes().unwrap(), b"a\xff");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_is_reached_when_all_endpoints_agree_with_the_share() {
    let mut world = World::new().await;
    let client = world.client().clone();
    let made = client.create_endpoint(&endpoint("munich", "/srv/plans")).await.unwrap();
    assert_eq!(code(client.barrier("plans", 1, 0)).await, Code::NotFound);
    let barrier = client.set_barrier("plans").await.unwrap();
    assert_eq!(next(&client, &world.writer, 0).await.endpoints[0].barrier, barrier);
    let missing = client.barrier("plans", barrier, 0).await.unwrap();
    assert!(!missing.reached && missing.missing[0].reason.contains("No report"));
    let node = world.writer.node();
    world.writer.commit(create(node, NodeId::ROOT, b"a", Content::Directory)).await;
    for (version, reached, reason) in [(0, barrier, "version 0 of 1"), (1, 0, "not looked at the whole folder")] {
        client.report(world.writer.server, &report(&world.writer, made.id, version, reached), InForce::default()).await.unwrap();
        let status = client.barrier("plans", barrier, 0).await.unwrap();
        assert!(status.missing[0].reason.contains(reason), "{status:?}");
    }
    let (asking, writer) = (client.clone(), &world.writer);
    let waiting = tokio::spawn(async move { asking.barrier("plans", barrier, 60_000).await });
    client.report(writer.server, &report(writer, made.id, 1, barrier), InForce::default()).await.unwrap();
    let status = tokio::time::timeout(PATIENCE / 2, waiting).await.expect("woken, not timed out").unwrap().unwrap();
    assert!(status.reached && status.missing.is_empty());
    client.pause_endpoint(made.id).await.unwrap();
    let later = client.set_barrier("plans").await.unwrap();
    assert!(client.barrier("plans", later, 0).await.unwrap().reached, "a paused endpoint is not waited for");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflict_copies_are_listed_until_somebody_renames_them() {
    let mut world = World::new().await;
    let directory = world.writer.node();
    world.writer.commit(create(directory, NodeId::ROOT, b"d", Content::Directory)).await;
    let (kept, _) = world.writer.create(b"plan", b"x").await;
    let copy = world.writer.node();
    let mut change = create(copy, directory, b"plan-munich", Content::Directory);
    if let isotherm_core::namespace::Change::Create { conflict_of, .. } = &mut change {
        *conflict_of = Some(kept);
    }
    world.writer.commit(change).await;
    let conflicts = world.client().conflicts("plans").await.unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].path.path, "d/plan-munich");
    assert_eq!(conflicts[0].kept.as_ref().unwrap().path, "plan");
    assert!(conflicts[0].since_ms > 0);
    let place = isotherm_core::node::Place { parent: directory, name: isotherm_core::name::Name::new(b"mine").unwrap() };
    let base = Version(3);
    let rename =
        isotherm_core::namespace::Change::Move { node: copy, place: isotherm_core::namespace::Based { base, value: place } };
    assert_eq!(world.writer.commit(rename).await, isotherm_core::namespace::Answer::Applied(Version(4)));
    assert!(world.client().conflicts("plans").await.unwrap().is_empty());
    world.stop().await;
}
