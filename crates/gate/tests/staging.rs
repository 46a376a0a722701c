//! The product's own files on an endpoint's volume: small files and staging.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use isotherm_gate::testing::{LoopVolume, on_each_fs};
use isotherm_gate::{ErrorKind, GateError, Root};

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
fn small_files_are_replaced_whole() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let dir = root.dir();
        assert_eq!(dir.read_small(os("marker"), 100).unwrap(), None);
        fs::write(volume.path().join("marker.new"), "left by a crash").unwrap();
        dir.write_small(os("marker"), b"one").unwrap();
        dir.write_small(os("marker"), b"twotwo").unwrap();
        assert_eq!(dir.read_small(os("marker"), 6).unwrap().unwrap(), b"twotwo");
        assert_eq!(kind(dir.read_small(os("marker"), 5)), ErrorKind::TooLarge);
        assert_eq!(dir.stat(os("marker.new")).unwrap(), None);
        assert_eq!(dir.stat(os("marker")).unwrap().unwrap().mode, 0o600);
        symlink("marker", volume.path().join("link")).unwrap();
        assert_eq!(kind(dir.read_small(os("link"), 100)), ErrorKind::Symlink);
        assert!(Command::new("mkfifo").arg(volume.path().join("pipe")).status().unwrap().success());
        assert_eq!(kind(dir.read_small(os("pipe"), 100)), ErrorKind::NotRegular);
    });
}

#[test]
fn staging_is_ours_alone() {
    on_each_fs(64, |volume| {
        let root = open(volume);
        let own = volume.path().join(isotherm_gate::STAGE_DIR);
        symlink("/tmp", &own).unwrap();
        assert_eq!(kind(root.staging()), ErrorKind::Symlink);
        fs::remove_file(&own).unwrap();
        fs::create_dir(&own).unwrap();
        std::os::unix::fs::chown(&own, Some(12345), None).unwrap();
        assert_eq!(kind(root.staging()), ErrorKind::Untrusted);
        std::os::unix::fs::chown(&own, Some(0), None).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();

        let staging = root.staging().unwrap();
        for dir in [&own, &own.join("staging")] {
            assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o7777, 0o700);
        }
        staging.create("a").unwrap().write_at(b"left over", 0).unwrap();
        assert_eq!(kind(staging.create("a")), ErrorKind::Exists);
        assert_eq!(kind(staging.create("../a")), ErrorKind::InvalidName);
        staging.dir().mkdir(os("d"), 0o700).unwrap();
        staging.dir().symlink(os("s"), os("a")).unwrap();
        assert_eq!(root.staging().unwrap().list().unwrap(), ["a", "d", "s"]);
        assert_eq!(staging.open("a").unwrap().stat().unwrap().size, 9);
        assert_eq!(kind(staging.open("s")), ErrorKind::Symlink);
        assert_eq!(kind(staging.open("d")), ErrorKind::IsDirectory);
        for name in staging.list().unwrap() {
            staging.remove(&name).unwrap();
        }
        assert!(staging.list().unwrap().is_empty());
    });
}
