//! Performing steps on real file systems: what they make, and that they never take away what they did not expect.
#![allow(clippy::unwrap_used)]

#[path = "support/volumes.rs"]
mod volumes;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use isotherm_agent::engine::StepResult;
use isotherm_core::ids::{LinkId, NodeId};
use isotherm_core::name::Name;
use isotherm_core::node::Content;
use isotherm_core::plan::{Action, Expected, Parent, Spot, Step};
use isotherm_gate::testing::{Fs, LoopVolume, on_each_fs};
use volumes::{Bench, files, is_done, node, plain, run};

/// An access list that gives user 1234 read access, as the share has it.
const ACL: &[u8] = b"u::rw-,u:#1234:r--,g::r--,m::r--,o::---";

#[test]
fn creates_everything_in_one_batch() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let large: Vec<u8> = (0..9_000_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut metadata = plain(0o4640);
        metadata.xattrs.insert(b"user.note".to_vec(), b"\0binary".to_vec());
        metadata.xattrs.insert(b"system.posix_acl_access".to_vec(), ACL.to_vec());
        metadata.xattrs.insert(b"user.".to_vec(), b"no such attribute".to_vec());
        let inside = Spot { node: node(1), parent: Parent::Planned(node(1)), name: Name::new(b"a\n\xff").unwrap() };
        let file = |bytes: &[u8]| Content::File(bench.share.put(&[Ok(bytes)]));
        let results = bench.perform(vec![
            bench.create(1, b"folder", Content::Directory, plain(0o2750)),
            Step {
                node: node(2),
                action: Action::Create { at: inside, content: file(b"inside"), metadata: plain(0o600), link_to: None },
            },
            bench.create(3, b"plan", file(&large), metadata.clone()),
            bench.create(4, b"empty", file(b""), plain(0o644)),
            bench.create(5, b"link", Content::Symlink { target: b"/no\xffwhere".to_vec() }, plain(0)),
            bench.create(6, b"sparse", Content::File(bench.share.put(&[Err(5 << 20), Ok(b"x"), Err(1 << 20)])), plain(0o644)),
        ]);
        assert!(results.iter().all(is_done), "{results:?}");
        let at = |name: &str| volume.path().join(name);
        assert_eq!(fs::read(at("plan")).unwrap(), large);
        assert_eq!(fs::metadata(at("plan")).unwrap().mtime_nsec(), 123_456_789);
        assert_eq!(fs::metadata(at("folder")).unwrap().mode() & 0o7777, 0o2750);
        let sparse = fs::metadata(at("sparse")).unwrap();
        assert_eq!((sparse.len(), sparse.blocks() * 512 <= 64 << 10), ((6 << 20) + 1, true));
        let StepResult::Done(Some(after)) = &results[2] else { panic!("{results:?}") };
        metadata.xattrs.remove(&b"user."[..]);
        let seen = bench.seen(b"plan");
        assert_eq!((&after.handle, &after.print, after.shown.mode), (&seen.handle, &seen.print, 0o4640));
        assert_eq!(
            (&after.shown.xattrs, seen.metadata.map(|seen| seen.xattrs).as_ref()),
            (&metadata.xattrs, Some(&metadata.xattrs))
        );
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

#[test]
fn replaces_moves_removes_and_changes_metadata() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let at = |name: &str| volume.path().join(name);
        fs::write(at("plan"), "old").unwrap();
        let expected = bench.expected(b"plan");
        assert!(is_done(&bench.one(bench.replace(expected.clone(), b"new"))));
        assert_eq!(fs::read(at("plan")).unwrap(), b"new");
        // What the step expected is gone by now.
        assert_eq!(bench.one(bench.replace(expected, b"newer")), StepResult::Surprise);

        let to = bench.spot(b"moved");
        let expected = bench.expected(b"plan");
        let step = Step { node: node(9), action: Action::Move { expected: expected.clone(), to: to.clone(), conflict_of: None } };
        let StepResult::Done(Some(after)) = bench.one(step.clone()) else { panic!() };
        assert_eq!((&after.handle, after.print), (&bench.seen(b"moved").handle, bench.seen(b"moved").print));
        assert_eq!(bench.one(step), StepResult::Surprise);

        let expected = bench.expected(b"moved");
        let (metadata, content) = (plain(0o600), bench.share.put(&[Ok(b"new")]));
        let before = bench.seen(b"moved").metadata.unwrap();
        let stale = isotherm_core::node::Metadata { mode: 0o7, ..before.clone() };
        let action = Action::SetMetadata {
            expected: expected.clone(),
            metadata: metadata.clone(),
            before: stale,
            base: metadata.clone(),
            content: None,
        };
        assert_eq!(bench.one(Step { node: node(9), action }), StepResult::Surprise, "somebody has changed the mode meanwhile");
        let action = Action::SetMetadata { expected, metadata: metadata.clone(), before, base: metadata, content: Some(content) };
        let StepResult::Done(Some(after)) = bench.one(Step { node: node(9), action }) else { panic!() };
        assert_eq!((after.shown.mode, after.print), (0o600, bench.seen(b"moved").print));

        let content = Content::File(bench.share.put(&[Ok(b"new")]));
        let action = Action::Remove { expected: bench.expected(b"moved"), content };
        assert_eq!(bench.one(Step { node: node(9), action }), StepResult::Done(None));
        assert!(!at("moved").exists());
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

/// The catalog may forget a node as soon as a step is done. What had its name and lay in staging must not be there after a power
/// cut then: nobody would know it, and it would be given back as a user's file.
#[test]
fn what_was_displaced_is_gone_for_good_once_a_step_is_done() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        for name in ["replaced", "removed"] {
            fs::write(volume.path().join(name), "old").unwrap();
        }
        let content = Content::File(bench.share.put(&[Ok(b"old")]));
        let action = Action::Remove { expected: bench.expected(b"removed"), content };
        let steps = vec![bench.replace(bench.expected(b"replaced"), b"new"), Step { node: node(9), action }];
        assert!(bench.perform(steps).iter().all(is_done));
        // What the disk has at this moment.
        let (image, cut) = (volume.outside().join("image"), volume.outside().join("cut"));
        run("cp", &["--sparse=always", image.to_str().unwrap()], &cut);
        drop(bench);
        run("umount", &[], volume.path());
        run("mount", &["-o", "loop", cut.to_str().unwrap()], volume.path());
        let staging = volume.path().join(".isotherm/staging");
        let left: Vec<_> = fs::read_dir(staging).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?} on {}", volume.fs().name());
        assert_eq!(fs::read(volume.path().join("replaced")).unwrap(), b"new");
        assert!(!volume.path().join("removed").exists());
    });
}

#[test]
fn a_step_does_nothing_where_it_finds_something_else() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let at = |name: &str| volume.path().join(name);
        fs::write(at("taken"), "user").unwrap();
        let content = || Content::File(bench.share.put(&[Ok(b"share")]));
        assert_eq!(bench.one(bench.create(1, b"taken", content(), plain(0o644))), StepResult::Occupied);
        assert_eq!(bench.one(bench.create(1, b"taken", Content::Directory, plain(0o755))), StepResult::Occupied);

        // A file in a folder that was to be made first, and was not.
        let inside = Spot { node: node(1), parent: Parent::Planned(node(1)), name: Name::new(b"x").unwrap() };
        let action = Action::Create { at: inside, content: content(), metadata: plain(0o644), link_to: None };
        assert_eq!(bench.one(Step { node: node(2), action }), StepResult::Skipped);

        // Somebody has it open for writing; then he is done and has written.
        let expected = bench.expected(b"taken");
        let writer = File::options().append(true).open(at("taken")).unwrap();
        assert_eq!(bench.one(bench.replace(expected.clone(), b"share")), StepResult::Busy);
        let remove = |expected: &Expected| Step {
            node: node(9),
            action: Action::Remove { expected: expected.clone(), content: content() },
        };
        assert_eq!(bench.one(remove(&expected)), StepResult::Busy);
        fs::write(at("taken"), "user again").unwrap();
        drop(writer);
        assert_eq!(bench.one(bench.replace(expected.clone(), b"share")), StepResult::Surprise);
        assert_eq!(bench.one(remove(&expected)), StepResult::Surprise);
        assert_eq!(fs::read(at("taken")).unwrap(), b"user again");

        // A directory goes only when it is empty.
        fs::create_dir_all(at("full/inner")).unwrap();
        let expected = bench.expected(b"full");
        let step = Step { node: node(9), action: Action::Remove { expected, content: Content::Directory } };
        assert_eq!(bench.one(step.clone()), StepResult::Surprise);
        fs::remove_dir(at("full/inner")).unwrap();
        assert_eq!(bench.one(step), StepResult::Done(None));
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

#[test]
fn a_folder_that_left_the_endpoint_is_not_written_to() {
    on_each_fs(64, |volume| {
        let root = volume.path().join("root");
        fs::create_dir_all(root.join("folder")).unwrap();
        let bench = Bench::new(&root);
        let folder = bench.seen(b"folder").handle;
        fs::rename(root.join("folder"), volume.path().join("outside")).unwrap();
        let at = Spot { node: node(1), parent: Parent::Inode(folder), name: Name::new(b"x").unwrap() };
        let content = Content::File(bench.share.put(&[Ok(b"share")]));
        let action = Action::Create { at, content, metadata: plain(0o644), link_to: None };
        assert_eq!(bench.one(Step { node: node(2), action }), StepResult::Surprise);
        assert_eq!(fs::read_dir(volume.path().join("outside")).unwrap().count(), 0);
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

#[test]
fn case_01_a_save_at_the_same_moment_is_never_lost() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let at = |name: &str| volume.path().join(name);
        let mut met = 0;
        for round in 0..400_u32 {
            fs::write(at("plan"), format!("old {round}")).unwrap();
            let expected = bench.expected(b"plan");
            let step = if round % 3 == 0 {
                Step { node: node(9), action: Action::Remove { expected, content: Content::File(bench.share.put(&[Ok(b"x")])) } }
            } else {
                bench.replace(expected, format!("share {round}").as_bytes())
            };
            let save = format!("user {round}");
            fs::write(at("new"), &save).unwrap();
            let result = std::thread::scope(|scope| {
                let user = scope.spawn(|| {
                    // Somewhere between the first look and the last name change.
                    let until = Instant::now() + Duration::from_micros(u64::from(round) * 13 % 6_000);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    if round % 2 == 0 {
                        fs::rename(at("new"), at("plan")).unwrap();
                    } else {
                        fs::write(at("plan"), &save).unwrap();
                    }
                });
                let result = bench.one(step);
                user.join().unwrap();
                result
            });
            met += u32::from(!is_done(&result));
            let found = files(volume.path(), "plan");
            assert!(found.values().any(|bytes| *bytes == save.as_bytes()), "round {round}: {result:?}, {found:?}");
            for name in found.keys() {
                fs::remove_file(at(name)).unwrap();
            }
            assert_eq!(bench.staged(), Vec::<String>::new());
        }
        assert!(met > 0, "user and agent never met");
    });
}

#[test]
fn hard_links_are_made_and_broken() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let at = |name: &str| volume.path().join(name);
        fs::write(at("one"), "shared").unwrap();
        fs::write(at("three"), "other").unwrap();
        let mut content = bench.share.put(&[Ok(b"shared")]);
        content.link = Some(LinkId([1; 16]));
        let content = Content::File(content);
        let link_to = || Some(bench.expected(b"one"));
        let action =
            Action::Create { at: bench.spot(b"two"), content: content.clone(), metadata: plain(0o644), link_to: link_to() };
        assert!(is_done(&bench.one(Step { node: node(2), action })));
        let expected = bench.expected(b"three");
        let action = Action::Replace { expected, content, metadata: plain(0o644), link_to: link_to() };
        assert!(is_done(&bench.one(Step { node: node(3), action })));
        let inode = |name: &str| fs::metadata(at(name)).unwrap().ino();
        assert_eq!((inode("one"), inode("one"), fs::metadata(at("one")).unwrap().nlink()), (inode("two"), inode("three"), 3));
        assert!(is_done(&bench.one(bench.replace(bench.expected(b"two"), b"alone"))));
        assert_eq!((fs::read(at("one")).unwrap(), fs::read(at("two")).unwrap()), (b"shared".to_vec(), b"alone".to_vec()));
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

#[test]
fn a_full_volume_is_a_problem_with_a_remedy() {
    let Some(volume) = LoopVolume::new(Fs::Ext4, 16) else { return };
    let bench = Bench::new(volume.path());
    let large: Vec<u8> = (0..24_000_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let content = Content::File(bench.share.put(&[Ok(&large)]));
    let StepResult::Failed { text, remedy } = bench.one(bench.create(1, b"large", content, plain(0o644))) else { panic!() };
    assert!(text.contains("'large'") && text.contains("no space left"), "{text}");
    assert!(remedy.contains("Make room"), "{remedy}");
    assert_eq!(bench.staged(), Vec::<String>::new());
    let content = Content::File(bench.share.put(&[Ok(b"small")]));
    // A file system may give freed blocks back only when its journal has committed: what does not fit yet is tried again.
    let create = || bench.one(bench.create(2, b"small", content.clone(), plain(0o644)));
    let mut results = vec![create()];
    while results.len() < 3 && matches!(&results[results.len() - 1], StepResult::Failed { .. }) {
        fs::File::open(volume.path()).unwrap().sync_all().unwrap();
        results.push(create());
    }
    assert!(is_done(&results[results.len() - 1]), "{results:?}");
}

#[test]
fn a_large_fetch_that_breaks_off_goes_on_where_it_was() {
    on_each_fs(128, |volume| {
        let bench = Bench::new(volume.path());
        let noise: Vec<u8> =
            (0..30_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ (at >> 16) as u8).collect();
        let content = bench.share.put(&[Ok(&noise)]);
        let all = bench.share.chunk_count();
        let create = || bench.create(1, b"large", Content::File(content.clone()), plain(0o644));
        bench.share.break_after(all * 2 / 3);
        assert!(matches!(bench.one(create()), StepResult::Away(_)));
        let first = bench.share.given();
        let kept = bench.staged();
        assert_eq!(kept.len(), 1, "{kept:?}");
        // Bytes that were spoilt meanwhile are fetched again too.
        let part = volume.path().join(".isotherm/staging").join(&kept[0]);
        let spoilt = fs::OpenOptions::new().write(true).open(&part).unwrap();
        std::os::unix::fs::FileExt::write_at(&spoilt, b"spoilt", 100).unwrap();
        bench.share.break_after(usize::MAX);
        assert!(is_done(&bench.one(create())));
        assert_eq!(fs::read(volume.path().join("large")).unwrap(), noise);
        let second = bench.share.given() - first;
        assert!(second >= all - first && second <= all - first + 2, "{first} and {second} of {all}");
        assert_eq!(bench.staged(), Vec::<String>::new());
        // Another content of the node makes the part of the first one worthless.
        bench.share.break_after(bench.share.given() + 1);
        let other = Content::File(bench.share.put(&[Ok(&noise[..20_000_000])]));
        assert!(matches!(bench.one(bench.create(2, b"b", other, plain(0o644))), StepResult::Away(_)));
        let third = Content::File(bench.share.put(&[Ok(&noise[..10_000_000])]));
        bench.share.break_after(usize::MAX);
        assert!(is_done(&bench.one(bench.create(2, b"b", third, plain(0o644)))));
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

#[test]
fn what_cannot_be_done_says_why_and_leaves_all_as_it_was() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let at = |name: &str| volume.path().join(name);
        fs::write(at("fixed"), "user").unwrap();
        run("chattr", &["+i"], &at("fixed"));
        let result = bench.one(bench.replace(bench.expected(b"fixed"), b"share"));
        run("chattr", &["-i"], &at("fixed"));
        let StepResult::Failed { text, remedy } = result else { panic!("{result:?}") };
        assert!(text.contains("'fixed'") && remedy.contains("chattr"), "{text} {remedy}");
        assert_eq!(fs::read(at("fixed")).unwrap(), b"user");

        let content = Content::File(bench.share.put(&[Ok(b"lost")]));
        bench.share.lose_chunks();
        let StepResult::Failed { text, .. } = bench.one(bench.create(1, b"lost", content.clone(), plain(0o644))) else {
            panic!()
        };
        assert!(text.contains("not in the share"), "{text}");
        *bench.share.away.lock().unwrap() = true;
        assert!(matches!(bench.one(bench.create(1, b"lost", content, plain(0o644))), StepResult::Away(_)));
        assert!(!at("lost").exists());
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

#[test]
fn parked_nodes_live_in_staging() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        symlink("x", volume.path().join("a")).unwrap();
        let staging = bench.volume.staging_handle().unwrap();
        let to = Spot { node: NodeId::PARKED, parent: Parent::Inode(staging.clone()), name: Name::new(b"parked-1").unwrap() };
        let expected = bench.expected(b"a");
        let back = Expected { spot: to.clone(), ..expected.clone() };
        let steps = [(expected, to), (back, bench.spot(b"b"))];
        let steps = steps.map(|(expected, to)| Step { node: node(1), action: Action::Move { expected, to, conflict_of: None } });
        let results = bench.perform(steps.into());
        assert!(results.iter().all(is_done), "{results:?}");
        assert_eq!(fs::read_link(volume.path().join("b")).unwrap(), Path::new("x"));
    });
}
