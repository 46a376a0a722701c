//! Handles, directories and changes of names on real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use isotherm_gate::testing::{LoopVolume, on_each_fs};
use isotherm_gate::{ErrorKind, FileHandle, FsKind, GateError, Isolation, Kind, Liveness, Root};

fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn kind<T: std::fmt::Debug>(answer: Result<T, GateError>) -> ErrorKind {
    answer.unwrap_err().kind()
}

fn open(volume: &LoopVolume) -> Root {
    Root::open(volume.path()).unwrap()
}

#[test]
fn root_knows_its_volume() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        assert_eq!(root.fs().to_string(), volume.fs().name());
        assert_eq!(root.isolation(), Isolation::PrivateClone);
        assert_eq!(root.supports_reflink(), root.fs() != FsKind::Ext4);
        let space = root.space().unwrap();
        assert!(space.free > 0 && space.free <= space.total);
        assert!(root.is_still_at(volume.path()));
        assert!(!root.is_still_at(Path::new("/proc")));
        root.sync().unwrap();
    });
}

#[test]
fn root_refuses_symlinks_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    fs::create_dir_all(base.join("real/inner")).unwrap();
    symlink("real", base.join("way")).unwrap();
    fs::write(base.join("file"), "x").unwrap();
    assert_eq!(kind(Root::open(&base.join("way"))), ErrorKind::Symlink);
    assert_eq!(kind(Root::open(&base.join("way/inner"))), ErrorKind::Symlink);
    assert_eq!(kind(Root::open(&base.join("file"))), ErrorKind::NotDirectory);
    assert_eq!(kind(Root::open(&base.join("none"))), ErrorKind::NotFound);
    assert!(Root::open(&base.join("real/inner")).is_ok());
}

#[test]
fn the_visible_mount_is_not_kept_busy() {
    on_each_fs(64, |volume| {
        fs::write(volume.path().join("a"), "x").unwrap();
        let root = open(volume);
        let done = Command::new("umount").arg(volume.path()).status().unwrap();
        assert!(done.success());
        assert!(!root.is_still_at(volume.path()));
        assert!(root.dir().stat(os("a")).unwrap().is_some());
    });
}

#[test]
fn handle_survives_rename_and_dies_with_the_inode() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        fs::create_dir_all(volume.path().join("d/e")).unwrap();
        fs::write(volume.path().join("d/e/f"), "hello").unwrap();
        let d = root.dir().open_dir(os("d")).unwrap().stat_self().unwrap().handle;
        let f = root.dir().open_dir(os("d")).unwrap().open_dir(os("e")).unwrap().stat(os("f")).unwrap().unwrap();
        assert_eq!((f.kind, f.size, f.nlink), (Kind::File, 5, 1));
        assert!(f.btime_ns.is_some());

        fs::rename(volume.path().join("d/e/f"), volume.path().join("g")).unwrap();
        fs::rename(volume.path().join("d"), volume.path().join("moved")).unwrap();
        assert_eq!(root.dir().stat(os("g")).unwrap().unwrap().handle, f.handle);
        let stored = FileHandle::from_bytes(&f.handle.to_bytes()).unwrap();
        assert_eq!(root.inode(&stored).unwrap().stat().unwrap().ino, f.ino);
        let moved = root.open_dir(&d).unwrap();
        assert!(moved.stat(os("e")).unwrap().is_some());
        assert_eq!(kind(root.open_dir(&f.handle)), ErrorKind::NotDirectory);

        assert_eq!(root.is_alive(&f.handle).unwrap(), Liveness::Linked);
        let held = fs::File::open(volume.path().join("g")).unwrap();
        fs::remove_file(volume.path().join("g")).unwrap();
        assert_eq!(root.is_alive(&f.handle).unwrap(), Liveness::Unlinked);
        drop(held);
        assert_eq!(root.is_alive(&f.handle).unwrap(), Liveness::Gone);
        fs::write(volume.path().join("again"), "x").unwrap();
        assert_eq!(root.is_alive(&f.handle).unwrap(), Liveness::Gone);
        assert_eq!(kind(root.inode(&f.handle)), ErrorKind::Stale);

        fs::remove_dir(volume.path().join("moved/e")).unwrap();
        fs::remove_dir(volume.path().join("moved")).unwrap();
        assert_eq!(root.is_alive(&d).unwrap(), Liveness::Unlinked);
        drop(moved);
        assert_eq!(root.is_alive(&d).unwrap(), Liveness::Gone);
    });
}

#[test]
fn a_handle_of_nothing_is_stale_or_refused() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let mut stored = root.handle().to_bytes();
        let last = stored.len() - 1;
        stored[last] ^= 0x55;
        let error = root.inode(&FileHandle::from_bytes(&stored).unwrap()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Stale | ErrorKind::CrossDevice), "{error}");
    });
}

#[test]
fn directories_outside_of_the_root_are_told_apart() {
    on_each_fs(64, |volume| {
        fs::create_dir_all(volume.path().join("endpoint/in/deep")).unwrap();
        fs::create_dir_all(volume.path().join("elsewhere")).unwrap();
        let whole = open(volume);
        let root = Root::open(&volume.path().join("endpoint")).unwrap();
        let outside = whole.dir().open_dir(os("elsewhere")).unwrap().stat_self().unwrap().handle;
        let top = whole.handle();
        let inside = root.dir().open_dir(os("in")).unwrap().open_dir(os("deep")).unwrap();
        assert!(root.contains(root.dir()).unwrap());
        assert!(root.contains(&inside).unwrap());
        assert!(root.contains(&root.open_dir(&inside.stat_self().unwrap().handle).unwrap()).unwrap());
        assert!(!root.contains(&root.open_dir(&outside).unwrap()).unwrap());
        assert!(!root.contains(&root.open_dir(top).unwrap()).unwrap());
        fs::rename(volume.path().join("endpoint/in"), volume.path().join("elsewhere/in")).unwrap();
        assert!(!root.contains(&inside).unwrap());
    });
}

#[test]
fn no_symlink_is_followed_even_if_swapped_in_on_the_way() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let path = volume.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::create_dir_all(path.join("secret/b")).unwrap();
        fs::write(path.join("secret/b/f"), "secret").unwrap();
        let a = root.dir().open_dir(os("a")).unwrap();
        fs::rename(path.join("a"), path.join("was-a")).unwrap();
        symlink("secret", path.join("a")).unwrap();
        assert_eq!(kind(root.dir().open_dir(os("a"))), ErrorKind::Symlink);
        assert_eq!(a.open_dir(os("b")).unwrap().stat(os("f")).unwrap(), None);
        fs::remove_dir(path.join("was-a/b")).unwrap();
        symlink("../secret/b", path.join("was-a/b")).unwrap();
        assert_eq!(kind(a.open_dir(os("b"))), ErrorKind::Symlink);
        let link = a.stat(os("b")).unwrap().unwrap();
        assert_eq!((link.kind, link.size), (Kind::Symlink, 11));
        assert_eq!(a.read_link(os("b")).unwrap(), b"../secret/b");
        for name in ["..", ".", "", "b/f", "../secret"] {
            assert_eq!(kind(a.stat(os(name))), ErrorKind::InvalidName, "{name}");
        }
    });
}

#[test]
fn a_mount_inside_is_not_entered() {
    on_each_fs(64, |volume| {
        fs::create_dir(volume.path().join("m")).unwrap();
        let root = open(volume);
        let inner = volume.path().join("m");
        assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&inner).status().unwrap().success());
        fs::write(inner.join("on tmpfs"), "x").unwrap();
        let late = open(volume);
        let seen: Vec<_> = [&root, &late].map(|root| root.dir().open_dir(os("m")).unwrap().stat(os("on tmpfs")).unwrap()).into();
        assert!(Command::new("umount").arg(&inner).status().unwrap().success());
        assert_eq!(seen, [None, None]);
    });
}

#[test]
fn listing_is_whole_with_odd_names() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let mut wanted: Vec<Vec<u8>> = (0..5000).map(|n| format!("file-{n:05}-with-a-longer-name").into_bytes()).collect();
        wanted.extend([b"new\nline".to_vec(), b"bad-\xff\xfe-utf8".to_vec(), b"\xc3\xa4".to_vec(), vec![b'z'; 255]]);
        for name in &wanted {
            fs::write(volume.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.clear();
            root.dir()
                .list(|entry| {
                    if entry.kind == Some(Kind::File) {
                        seen.push(entry.name.as_bytes().to_vec());
                    }
                })
                .unwrap();
        }
        seen.sort();
        wanted.sort();
        assert_eq!(seen, wanted);
        let odd = OsStr::from_bytes(b"bad-\xff\xfe-utf8");
        assert_eq!(root.dir().stat(odd).unwrap().unwrap().kind, Kind::File);
    });
}

#[test]
fn case_27_listing_a_removed_directory_is_an_error() {
    on_each_fs(64, |volume| {
        fs::create_dir(volume.path().join("d")).unwrap();
        let d = open(volume).dir().open_dir(os("d")).unwrap();
        fs::remove_dir(volume.path().join("d")).unwrap();
        let mut seen = 0;
        assert_eq!(kind(d.list(|_| seen += 1)), ErrorKind::NotFound);
        assert_eq!(seen, 0);
    });
}

#[test]
fn case_01_what_an_exchange_displaces_is_kept() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let staging = root.staging().unwrap();
        let read = |name: &str| fs::read_to_string(volume.path().join(name)).unwrap();
        fs::write(volume.path().join("f"), "old").unwrap();
        let old = root.dir().stat(os("f")).unwrap().unwrap().handle;
        staging.create("n1").unwrap().write_at(b"new", 0).unwrap();

        assert_eq!(kind(staging.dir().rename_noreplace(os("n1"), root.dir(), os("f"))), ErrorKind::Exists);
        staging.dir().rename_exchange(os("n1"), root.dir(), os("f")).unwrap();
        assert_eq!(read("f"), "new");
        assert_eq!(staging.dir().stat(os("n1")).unwrap().unwrap().handle, old);
        staging.dir().rename_noreplace(os("n1"), root.dir(), os("g")).unwrap();
        assert_eq!(read("g"), "old");
        assert_eq!(kind(root.dir().rename_exchange(os("f"), root.dir(), os("none"))), ErrorKind::NotFound);
        assert_eq!(kind(root.dir().rename_noreplace(os("none"), root.dir(), os("x"))), ErrorKind::NotFound);
    });
}

#[test]
fn making_linking_and_removing() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let dir = root.dir();
        dir.mkdir(os("d"), 0o750).unwrap();
        assert_eq!(dir.stat(os("d")).unwrap().unwrap().mode & 0o700, 0o700);
        assert_eq!(kind(dir.mkdir(os("d"), 0o750)), ErrorKind::Exists);
        fs::write(volume.path().join("d/f"), "x").unwrap();
        let d = dir.open_dir(os("d")).unwrap();
        d.link(os("f"), dir, os("second")).unwrap();
        assert_eq!(dir.stat(os("second")).unwrap().unwrap().nlink, 2);
        assert_eq!(kind(d.link(os("f"), dir, os("second"))), ErrorKind::Exists);
        assert_eq!(kind(dir.rmdir(os("d"))), ErrorKind::NotEmpty);
        assert_eq!(kind(dir.unlink(os("d"))), ErrorKind::IsDirectory);
        assert_eq!(kind(dir.rmdir(os("second"))), ErrorKind::NotDirectory);
        d.unlink(os("f")).unwrap();
        assert_eq!(kind(d.unlink(os("f"))), ErrorKind::NotFound);
        dir.rmdir(os("d")).unwrap();
        let target = OsStr::from_bytes(b"to\n\xffnowhere");
        dir.symlink(os("s"), target).unwrap();
        assert_eq!(dir.read_link(os("s")).unwrap(), target.as_bytes());
        assert_eq!(kind(dir.symlink(os("s"), target)), ErrorKind::Exists);
        dir.sync().unwrap();
    });
}

#[test]
fn immutable_files_are_named_as_such() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let path = volume.path().join("fixed");
        fs::write(&path, "x").unwrap();
        fs::write(volume.path().join("free"), "x").unwrap();
        let chattr = |how: &str| Command::new("chattr").arg(how).arg(&path).status().unwrap().success();
        assert!(chattr("+i"));
        let staging = root.staging().unwrap();
        let answers = [
            kind(root.dir().unlink(os("fixed"))),
            kind(root.dir().rename_noreplace(os("fixed"), staging.dir(), os("x"))),
            kind(root.dir().rename_exchange(os("free"), root.dir(), os("fixed"))),
            kind(root.dir().link(os("fixed"), root.dir(), os("second"))),
            kind(root.dir().inode(os("fixed")).unwrap().set_mtime(0)),
        ];
        let marked = root.dir().stat(os("fixed")).unwrap().unwrap().immutable;
        assert!(chattr("-i"));
        assert_eq!(answers, [ErrorKind::Immutable; 5]);
        assert!(marked);
        root.dir().unlink(os("fixed")).unwrap();
    });
}

#[test]
fn a_read_only_volume_and_a_full_one_are_named() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let staging = root.staging().unwrap();
        let file = staging.create("big").unwrap();
        let block = vec![7; 4 << 20];
        let mut offset = 0;
        let error = loop {
            match file.write_at(&block, offset) {
                Ok(()) => offset += block.len() as u64,
                Err(error) => break error,
            }
            // Delayed allocation finds out late.
            if let Err(error) = file.sync() {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        drop(file);
        staging.remove(os("big")).unwrap();
        drop((staging, root));
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(volume.path()).status().unwrap().success());
        assert_eq!(kind(open(volume).dir().mkdir(os("d"), 0o700)), ErrorKind::ReadOnly);
    });
}
