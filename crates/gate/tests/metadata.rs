//! Metadata, read and written, on real file systems.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use isotherm_gate::testing::on_each_fs;
use isotherm_gate::{ErrorKind, FsKind, Inode, Metadata, Root};

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

fn inode(root: &Root, name: &str) -> Inode {
    root.dir().inode(OsStr::new(name)).unwrap()
}

fn run(program: &str, args: &[&str], path: &Path) {
    assert!(Command::new(program).args(args).arg(path).status().unwrap().success(), "{program} {args:?}");
}

/// A POSIX ACL as the kernel takes it: owner, these users with all rights, group, mask, others.
fn acl(users: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, perm: u16, id: u32| {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    };
    entry(0x01, 6, u32::MAX);
    for uid in users {
        entry(0x02, 7, uid);
    }
    entry(0x04, 4, u32::MAX);
    entry(0x10, 5, u32::MAX);
    entry(0x20, 0, u32::MAX);
    bytes
}

fn set(pairs: &[(&str, &[u8])]) -> Xattrs {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

#[test]
fn attributes_round_trip_and_those_of_the_machine_stay_hidden() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        run("setfattr", &["-n", "security.bpf.isotherm", "-v", "record"], &path);
        run("setfattr", &["-n", "trusted.machine", "-v", "x"], &path);
        let f = inode(&root, "f");
        assert_eq!(f.read_xattrs().unwrap(), Xattrs::new());

        let wanted = set(&[
            ("user.empty", b""),
            ("user.bytes", b"\0\xff\n"),
            ("user.DOSATTRIB", &[9; 200]),
            ("security.NTACL", &[4; 300]),
            ("system.posix_acl_access", &acl([1000, 1001])),
        ]);
        let metadata = Metadata { mode: 0o650, uid: 7, gid: 8, set: wanted.clone(), remove: Vec::new() };
        f.write_metadata(&metadata).unwrap();
        assert_eq!(f.read_xattrs().unwrap(), wanted);
        let stat = f.stat().unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid), (0o650, 7, 8));

        let remove = vec![
            b"user.bytes".to_vec(),
            b"user.never".to_vec(),
            b"system.posix_acl_access".to_vec(),
            b"system.posix_acl_default".to_vec(),
        ];
        f.write_metadata(&Metadata { mode: 0o600, uid: 7, gid: 8, set: Xattrs::new(), remove }).unwrap();
        let left: Vec<_> = f.read_xattrs().unwrap().into_keys().collect();
        assert_eq!(left, [&b"security.NTACL"[..], b"user.DOSATTRIB", b"user.empty"]);
        assert_eq!(f.stat().unwrap().mode, 0o600);

        for name in ["security.bpf.isotherm", "security.capability", "trusted.machine"] {
            let bad = Metadata { set: set(&[(name, b"x")]), ..Metadata::default() };
            assert_eq!(f.write_metadata(&bad).unwrap_err().kind(), ErrorKind::InvalidName, "{name}");
            let bad = Metadata { remove: vec![name.as_bytes().to_vec()], ..Metadata::default() };
            assert_eq!(f.write_metadata(&bad).unwrap_err().kind(), ErrorKind::InvalidName, "{name}");
        }
    });
}

#[test]
fn a_change_of_owner_keeps_setuid_and_the_acl_keeps_its_mask() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        let f = inode(&root, "f");
        f.write_metadata(&Metadata { mode: 0o6751, uid: 1000, gid: 1000, ..Metadata::default() }).unwrap();
        assert_eq!(f.stat().unwrap().mode, 0o6751);
        // The file's group bits are the mask of its ACL: 5 of the ACL, 5 of the mode.
        let with_acl =
            Metadata { mode: 0o650, uid: 0, gid: 0, set: set(&[("system.posix_acl_access", &acl([1000]))]), remove: Vec::new() };
        f.write_metadata(&with_acl).unwrap();
        assert_eq!(f.stat().unwrap().mode, 0o650);
        assert_eq!(f.read_xattrs().unwrap(), with_acl.set);
    });
}

#[test]
fn directories_take_default_acls_and_symlinks_only_an_owner() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        fs::create_dir(volume.path().join("d")).unwrap();
        symlink("nowhere", volume.path().join("s")).unwrap();
        let d = root.dir().open_dir(OsStr::new("d")).unwrap().as_inode().unwrap();
        let wanted = set(&[("system.posix_acl_default", &acl([1000])), ("user.a", b"b")]);
        d.write_metadata(&Metadata { mode: 0o2770, uid: 5, gid: 6, set: wanted.clone(), remove: Vec::new() }).unwrap();
        assert_eq!((d.stat().unwrap().mode, d.stat().unwrap().gid), (0o2770, 6));
        assert_eq!(d.read_xattrs().unwrap(), wanted);

        let s = inode(&root, "s");
        s.write_metadata(&Metadata { mode: 0o600, uid: 5, gid: 6, ..Metadata::default() }).unwrap();
        s.set_mtime(1_000_000_001).unwrap();
        let stat = s.stat().unwrap();
        assert_eq!((stat.uid, stat.gid, stat.mtime_ns), (5, 6, 1_000_000_001));
        assert_eq!(s.read_xattrs().unwrap(), Xattrs::new());
        let bad = Metadata { uid: 5, gid: 6, set: set(&[("user.a", b"b")]), ..Metadata::default() };
        assert!(matches!(s.write_metadata(&bad).unwrap_err().kind(), ErrorKind::Denied | ErrorKind::Unsupported));
    });
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        fs::write(volume.path().join("f"), "x").unwrap();
        let f = inode(&root, "f");
        for mtime_ns in [1_234_567_890_123_456_789, 1, 0, -1, -1_000_000_000] {
            f.set_mtime(mtime_ns).unwrap();
            assert_eq!(f.stat().unwrap().mtime_ns, mtime_ns);
        }
    });
}

#[test]
fn what_does_not_fit_is_named() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        fs::write(volume.path().join("f"), "x").unwrap();
        let f = inode(&root, "f");
        let huge = Metadata { mode: 0o600, set: set(&[("system.posix_acl_access", &acl(1..6000))]), ..Metadata::default() };
        assert_eq!(f.write_metadata(&huge).unwrap_err().kind(), ErrorKind::AclTooLarge);
        let mut many = Xattrs::new();
        for n in 0..400 {
            many.insert(format!("user.number-{n}").into_bytes(), vec![1; 3000]);
        }
        let answer = f.write_metadata(&Metadata { mode: 0o600, set: many, ..Metadata::default() });
        if root.fs() == FsKind::Ext4 {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::NoSpaceForXattr);
        } else {
            answer.unwrap();
            assert_eq!(f.read_xattrs().unwrap().keys().filter(|name| name.starts_with(b"user.")).count(), 400);
        }
        let beyond = Metadata { mode: 0o600, set: set(&[("user.big", &[1; 65_537])]), ..Metadata::default() };
        assert_eq!(f.write_metadata(&beyond).unwrap_err().kind(), ErrorKind::NoSpaceForXattr);
    });
}

#[test]
fn an_immutable_file_is_named_as_such() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        let f = inode(&root, "f");
        run("chattr", &["+i"], &path);
        let all = [
            Metadata { mode: 0o600, uid: 1, ..Metadata::default() },
            Metadata { mode: 0o640, ..Metadata::default() },
            Metadata { mode: 0o644, set: set(&[("user.a", b"b")]), ..Metadata::default() },
        ];
        let kinds: Vec<_> = all.iter().map(|metadata| f.write_metadata(metadata).unwrap_err().kind()).collect();
        run("chattr", &["-i"], &path);
        assert_eq!(kinds, [ErrorKind::Immutable; 3]);
    });
}
