//! Change detection on real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use isotherm_gate::testing::{Fs, LoopVolume, SharedMapping, on_each_fs};
use isotherm_gate::watch::UnavailableReason;
use isotherm_gate::{Change, ErrorKind, FileHandle, FsKind, Root, Watch};

fn start(volume: &LoopVolume) -> (Root, Watch) {
    let root = Root::open(volume.path()).unwrap();
    let mut watch = Watch::new(&root).unwrap();
    assert!(drained(&mut watch).is_empty());
    (root, watch)
}

fn drained(watch: &mut Watch) -> Vec<Change> {
    let mut changes = Vec::new();
    watch
        .drain(|batch| {
            assert!(!batch.overflow);
            changes.extend(batch.changes);
        })
        .unwrap();
    changes
}

/// The kinds of a change as letters, in a fixed order.
fn letters(change: &Change) -> String {
    let k = change.kinds;
    let all = [
        (k.created, 'C'),
        (k.deleted, 'D'),
        (k.moved, 'R'),
        (k.modified, 'm'),
        (k.closed_write, 'w'),
        (k.attrib, 'a'),
        (k.gone, 'G'),
        (k.is_dir, '/'),
    ];
    all.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
}

/// All letters that were told about `name` in `directory`, sorted and once each.
fn told(changes: &[Change], directory: &FileHandle, name: &str) -> String {
    let mut all: Vec<char> = changes
        .iter()
        .filter(|change| change.directory.as_ref() == Some(directory) && change.name == name.as_bytes())
        .flat_map(|change| letters(change).chars().collect::<Vec<_>>())
        .collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().collect()
}

#[test]
fn each_operation_is_told_with_place_and_inode() {
    on_each_fs(64, |volume| {
        let (root, mut watch) = start(volume);
        let path = volume.path();
        let top = root.handle().clone();
        let handle = |name: &str| root.dir().stat(OsStr::new(name)).unwrap().unwrap().handle;

        let mut file = File::create(path.join("f")).unwrap();
        file.write_all(b"hello").unwrap();
        drop(file);
        let changes = drained(&mut watch);
        assert_eq!(told(&changes, &top, "f"), "Cmw");
        let f = handle("f");
        assert!(changes.iter().all(|change| change.target.as_ref() == Some(&f)), "{changes:?}");
        assert!(changes.iter().all(|change| change.pid == std::process::id() as i32));

        fs::set_permissions(path.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(told(&drained(&mut watch), &top, "f"), "a");

        fs::create_dir(path.join("d")).unwrap();
        assert_eq!(told(&drained(&mut watch), &top, "d"), "/C");
        let d = handle("d");

        fs::rename(path.join("f"), path.join("d/g")).unwrap();
        let moves: Vec<Change> = drained(&mut watch).into_iter().filter(|change| change.kinds.moved).collect();
        assert_eq!(moves.len(), 2);
        assert_eq!((moves[0].directory.as_ref(), &moves[0].name[..]), (Some(&top), &b"f"[..]));
        assert_eq!((moves[1].directory.as_ref(), &moves[1].name[..]), (Some(&d), &b"g"[..]));
        assert!(moves.iter().all(|change| change.target.as_ref() == Some(&f)));

        fs::hard_link(path.join("d/g"), path.join("h")).unwrap();
        assert!(told(&drained(&mut watch), &top, "h").contains('C'));
        symlink("nowhere", path.join("s")).unwrap();
        assert_eq!(told(&drained(&mut watch), &top, "s"), "C");

        fs::remove_file(path.join("d/g")).unwrap();
        assert!(told(&drained(&mut watch), &d, "g").contains('D'));
        fs::remove_file(path.join("h")).unwrap();
        let changes = drained(&mut watch);
        assert!(told(&changes, &top, "h").contains('D'));
        assert!(changes.iter().any(|change| change.kinds.gone && change.target.as_ref() == Some(&f)), "{changes:?}");

        fs::remove_dir(path.join("d")).unwrap();
        assert!(told(&drained(&mut watch), &top, "d").starts_with("/D"));
    });
}

#[test]
fn exchange_tells_all_four_places() {
    on_each_fs(64, |volume| {
        let (root, mut watch) = start(volume);
        fs::write(volume.path().join("a"), "1").unwrap();
        fs::write(volume.path().join("b"), "2").unwrap();
        drained(&mut watch);
        root.dir().rename_exchange(OsStr::new("a"), root.dir(), OsStr::new("b")).unwrap();
        let names: Vec<Vec<u8>> =
            drained(&mut watch).into_iter().filter(|change| change.kinds.moved).map(|change| change.name).collect();
        assert_eq!(names, [b"a", b"b", b"b", b"a"]);
    });
}

#[test]
fn a_mapping_is_told_when_it_goes() {
    on_each_fs(64, |volume| {
        let (root, mut watch) = start(volume);
        let path = volume.path().join("f");
        fs::write(&path, [0; 4096]).unwrap();
        let mapping = SharedMapping::new(&File::options().read(true).write(true).open(&path).unwrap(), 4096).unwrap();
        drained(&mut watch);
        mapping.store(7, 7);
        assert_eq!(told(&drained(&mut watch), root.handle(), "f"), "");
        drop(mapping);
        assert_eq!(told(&drained(&mut watch), root.handle(), "f"), "w");
    });
}

#[test]
fn names_are_bytes() {
    on_each_fs(64, |volume| {
        let (_root, mut watch) = start(volume);
        let wanted: [&[u8]; 4] = [b"new\nline", b"bad-\xff\xfe", &[b'z'; 255], b"\xc3\xa4"];
        for name in wanted {
            File::create(volume.path().join(OsStr::from_bytes(name))).unwrap();
        }
        let created: Vec<Vec<u8>> =
            drained(&mut watch).into_iter().filter(|change| change.kinds.created).map(|change| change.name).collect();
        assert_eq!(created, wanted);
    });
}

#[test]
fn writes_through_the_private_clone_are_left_out() {
    on_each_fs(64, |volume| {
        let (root, mut watch) = start(volume);
        assert!(watch.own_mount_ignored());
        let staging = root.staging().unwrap();
        let staged = staging.create("n").unwrap();
        drained(&mut watch);
        staged.write_at(&[1; 10_000], 0).unwrap();
        staged.sync().unwrap();
        drop(staged);
        assert_eq!(drained(&mut watch), []);
        // Names belong to no mount: these are told, with our pid.
        staging.dir().rename_noreplace(OsStr::new("n"), root.dir(), OsStr::new("f")).unwrap();
        let changes = drained(&mut watch);
        assert_eq!(changes.iter().filter(|change| change.kinds.moved).count(), 2);
        assert!(changes.iter().all(|change| change.pid == std::process::id() as i32));
        // The same file written where users see it is told.
        fs::write(volume.path().join("f"), "theirs").unwrap();
        assert!(told(&drained(&mut watch), root.handle(), "f").contains('w'));
    });
}

#[test]
fn other_processes_and_binds_are_told_with_their_pid() {
    on_each_fs(64, |volume| {
        let (root, mut watch) = start(volume);
        let mut child = Command::new("touch").arg(volume.path().join("f")).spawn().unwrap();
        let pid = child.id() as i32;
        assert!(child.wait().unwrap().success());
        let changes = drained(&mut watch);
        assert!(told(&changes, root.handle(), "f").contains('C'));
        assert!(changes.iter().all(|change| change.pid == pid));

        let bind = volume.outside().join("bind");
        fs::create_dir(&bind).unwrap();
        assert!(Command::new("mount").arg("--bind").arg(volume.path()).arg(&bind).status().unwrap().success());
        let written = fs::write(bind.join("g"), "x");
        assert!(Command::new("umount").arg(&bind).status().unwrap().success());
        written.unwrap();
        assert!(told(&drained(&mut watch), root.handle(), "g").contains('w'));
    });
}

#[test]
fn places_outside_of_the_root_are_told_too() {
    on_each_fs(64, |volume| {
        fs::create_dir(volume.path().join("endpoint")).unwrap();
        let root = Root::open(&volume.path().join("endpoint")).unwrap();
        let mut watch = Watch::new(&root).unwrap();
        fs::write(volume.path().join("elsewhere"), "x").unwrap();
        let changes = drained(&mut watch);
        assert!(!changes.is_empty());
        let outside = root.open_dir(changes[0].directory.as_ref().unwrap()).unwrap();
        assert!(!root.contains(&outside).unwrap());
    });
}

#[test]
fn hundreds_of_kilobytes_of_events_all_arrive() {
    on_each_fs(64, |volume| {
        let (root, mut watch) = start(volume);
        // With names of 200 bytes an event has about 300; the buffer of one read holds fewer than these.
        let name = |n: usize| format!("{n:0200}");
        for n in 0..3000 {
            File::create(volume.path().join(name(n))).unwrap();
        }
        let mut batches = 0;
        let mut created = Vec::new();
        watch
            .drain(|batch| {
                batches += 1;
                assert!(!batch.overflow);
                created.extend(batch.changes.into_iter().filter(|change| change.kinds.created));
            })
            .unwrap();
        assert!(batches > 1);
        let wanted: Vec<Vec<u8>> = (0..3000).map(|n| name(n).into_bytes()).collect();
        assert_eq!(created.iter().map(|change| change.name.clone()).collect::<Vec<_>>(), wanted);
        assert!(created.iter().all(|change| change.directory.as_ref() == Some(root.handle())));
    });
}

#[test]
fn a_waiting_reader_gets_changes_and_can_be_woken() {
    on_each_fs(64, |volume| {
        let (_root, mut watch) = start(volume);
        assert_eq!(watch.read_batch(Some(Duration::ZERO)).unwrap(), isotherm_gate::Batch::default());
        let waker = watch.waker();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = Vec::new();
                loop {
                    let batch = watch.read_batch(None).unwrap();
                    seen.extend(batch.changes);
                    if batch.woken {
                        return seen;
                    }
                }
            });
            fs::write(volume.path().join("f"), "x").unwrap();
            waker.wake();
            let seen = reader.join().unwrap();
            assert!(seen.iter().any(|change| change.name == b"f"));
        });
        // One wake ends one wait.
        assert!(!watch.read_batch(Some(Duration::ZERO)).unwrap().woken);
    });
}

#[test]
fn what_cannot_be_watched_says_why() {
    let root = Root::open(Path::new("/proc")).map_err(|error| error.kind());
    match root {
        Ok(root) => {
            let reason = Watch::new(&root).unwrap_err().reason;
            assert!(matches!(
                reason,
                UnavailableReason::FileSystem(FsKind::Other(_)) | UnavailableReason::NotPrivileged | UnavailableReason::Other(_)
            ));
        }
        Err(kind) => assert_eq!(kind, ErrorKind::Unsupported),
    }
}

#[test]
fn a_subvolume_that_is_not_mounted_itself_says_so() {
    on_each_fs(64, |volume| {
        if volume.fs() != Fs::Btrfs {
            return;
        }
        let sub = volume.path().join("sub");
        assert!(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&sub).status().unwrap().success());
        let root = Root::open(&sub).unwrap();
        assert_eq!(Watch::new(&root).unwrap_err().reason, UnavailableReason::Subvolume);
        // From the volume's own top the subvolume is another device.
        let top = Root::open(volume.path()).unwrap();
        assert_eq!(top.dir().open_dir(OsStr::new("sub")).unwrap_err().kind(), ErrorKind::CrossDevice);
    });
}
