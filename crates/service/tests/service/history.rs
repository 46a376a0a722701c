//! What is not known any more: nothing is concluded from it.

use isotherm_api::Code;
use isotherm_api::path::ShownPath;
use isotherm_api::revisions::{AsOf, RestoreCopy, RestorePlan, RestoreRequest, RestoreWhat};
use isotherm_core::ids::Version;

use crate::garbage::{AT_ONCE, collect, keep};
use crate::revisions::{delete, edit};
use crate::world::{FORKS, Running, World};

async fn ask(running: &Running, path: &str, what: RestoreWhat) -> Result<RestorePlan, isotherm_api::ApiError> {
    let request = RestoreRequest { path: ShownPath::new(path.as_bytes()), what, before: None };
    running.client.restore_plan("plans", &request).await
}

async fn now(running: &Running) -> u64 {
    let now = running.client.status().await.unwrap().now_ms;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await; // tidy: wait for the next millisecond
    now
}

/// A file was edited and another one deleted, and what they were has expired: of then nobody knows what was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_is_older_than_what_is_kept_is_refused() {
    let _no_forks = FORKS.read().await;
    let mut world = World::new().await;
    let (plan, made) = world.writer.create(b"plan", b"one").await;
    let (note, noted) = world.writer.create(b"note", b"note").await;
    let then = now(&world.running).await;
    let edited = edit(&mut world.writer, plan, made, b"two").await;
    world.writer.commit(delete(note, noted, noted)).await;
    world.client().change_group("plans", &keep(0)).await.unwrap();
    let folder = world.stop().await;
    assert_eq!(collect(folder.path(), AT_ONCE).await.expired_versions, 2);
    let running = Running::start(folder.path()).await;
    let after = now(&running).await;
    let as_of = |moment, exact| RestoreWhat::AsOf { moment, exact };
    let undo = RestoreWhat::Server { server: "munich".into(), from_ms: then, until_ms: u64::MAX / 2 };
    for (path, what) in [
        ("", as_of(AsOf::Ms(then), true)),
        ("", as_of(AsOf::Ms(then), false)),
        ("", as_of(AsOf::Version(made), true)),
        ("plan", as_of(AsOf::Ms(then), true)),
        ("note", as_of(AsOf::Ms(then), false)),
        ("", undo),
    ] {
        let error = ask(&running, path, what.clone()).await.unwrap_err();
        assert!(error.code == Code::Invalid && error.message.contains("is known since"), "{path} {what:?}: {error}");
    }
    let copy = RestoreCopy { path: ShownPath::new(b"plan"), moment: AsOf::Ms(then), to: ShownPath::new(b"old plan") };
    assert!(running.client.restore_copy("plans", &copy).await.unwrap_err().message.contains("is known since"));
    for moment in [AsOf::Ms(after), AsOf::Version(Version(edited.0 + 1))] {
        assert_eq!(ask(&running, "", as_of(moment, true)).await.unwrap().items, []);
    }
    // Of one file more may be kept than of all.
    assert_eq!(ask(&running, "plan", as_of(AsOf::Version(edited), true)).await.unwrap().items, []);
    running.stop().await;
}
