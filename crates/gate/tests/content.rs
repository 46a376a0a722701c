//! Reading content on real file systems: stubs, holes, changes, writers, snapshots.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use isotherm_gate::testing::{SharedMapping, on_each_fs};
use isotherm_gate::{ContentReader, ErrorKind, Extent, Finish, FsKind, GateError, Root, STUB_RECORD_XATTR};

fn reader(root: &Root, name: &str) -> Result<ContentReader, GateError> {
    ContentReader::open_named(root.dir(), OsStr::new(name))
}

fn extents(reader: &mut ContentReader) -> Vec<Extent> {
    std::iter::from_fn(|| reader.next_extent().unwrap()).collect()
}

fn read_all(reader: &ContentReader) -> Vec<u8> {
    let mut content = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match reader.read_at(&mut buffer, content.len() as u64).unwrap() {
            0 => return content,
            len => content.extend_from_slice(&buffer[..len]),
        }
    }
}

fn set_record(path: &Path) {
    assert!(Command::new("setfattr").args(["-n", STUB_RECORD_XATTR, "-v", "x"]).arg(path).status().unwrap().success());
}

#[test]
fn a_resting_file_is_read_as_one_version() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let wanted: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        fs::write(volume.path().join("f"), &wanted).unwrap();
        let mut by_name = reader(&root, "f").unwrap();
        assert_eq!(read_all(&by_name), wanted);
        assert_eq!(extents(&mut by_name), [Extent::Data { offset: 0, len: 100_000 }]);
        assert_eq!(by_name.finish().unwrap(), Finish::Unchanged(by_name.before().clone()));
        fs::rename(volume.path().join("f"), volume.path().join("g")).unwrap();
        let by_handle = ContentReader::open_handle(&root, &by_name.before().handle).unwrap();
        assert_eq!(read_all(&by_handle), wanted);
        fs::write(volume.path().join("empty"), "").unwrap();
        assert_eq!(extents(&mut reader(&root, "empty").unwrap()), []);
    });
}

#[test]
fn only_regular_files_are_read() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path();
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("f"), "x").unwrap();
        symlink("f", path.join("s")).unwrap();
        assert!(Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success());
        assert!(Command::new("mknod").arg(path.join("null")).args(["c", "1", "3"]).status().unwrap().success());
        for name in ["d", "s", "pipe", "null"] {
            assert_eq!(reader(&root, name).unwrap_err().kind(), ErrorKind::NotRegular, "{name}");
        }
        assert_eq!(reader(&root, "none").unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn case_05_a_stub_is_refused_before_and_after_reading() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        let mut open = reader(&root, "f").unwrap();
        set_record(&path);
        assert_eq!(open.finish().unwrap_err().kind(), ErrorKind::IsStub);
        assert_eq!(open.begin().unwrap_err().kind(), ErrorKind::IsStub);
        assert_eq!(reader(&root, "f").unwrap_err().kind(), ErrorKind::IsStub);
    });
}

#[test]
fn sparse_files_tell_their_holes() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let staged = root.staging().unwrap().create("sparse").unwrap();
        const MIB: u64 = 1 << 20;
        staged.set_len(10 * MIB).unwrap();
        staged.write_at(&vec![1; MIB as usize], 2 * MIB).unwrap();
        staged.write_at(&vec![2; 2 * MIB as usize], 6 * MIB).unwrap();
        staged.punch(7 * MIB, MIB).unwrap();
        staged.sync().unwrap();
        let mut open = ContentReader::open(staged.inode()).unwrap();
        let wanted = [
            Extent::Hole { offset: 0, len: 2 * MIB },
            Extent::Data { offset: 2 * MIB, len: MIB },
            Extent::Hole { offset: 3 * MIB, len: 3 * MIB },
            Extent::Data { offset: 6 * MIB, len: MIB },
            Extent::Hole { offset: 7 * MIB, len: 3 * MIB },
        ];
        assert_eq!(extents(&mut open), wanted);
        open.begin().unwrap();
        assert_eq!(extents(&mut open), wanted);
        assert!(staged.stat().unwrap().blocks * 512 < 3 * MIB);
    });
}

#[test]
fn a_change_while_reading_is_seen() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, vec![1; 10_000]).unwrap();
        let mtime_ns = root.dir().stat(OsStr::new("f")).unwrap().unwrap().mtime_ns;
        let changes: [&dyn Fn(&File); 4] = [
            &|file| file.write_all_at(b"x", 5).unwrap(),
            &|file| file.set_len(20_000).unwrap(),
            &|file| file.set_len(100).unwrap(),
            // Same size and an mtime that was put back: the ctime tells.
            &|file| {
                file.write_all_at(b"y", 5).unwrap();
                root.dir().inode(OsStr::new("f")).unwrap().set_mtime(mtime_ns).unwrap();
            },
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut open = reader(&root, "f").unwrap();
            read_all(&open);
            // Time stamps are only as fine as the kernel's tick; wait for the next one.
            next_tick(&root);
            change(&File::options().write(true).open(&path).unwrap());
            assert_eq!(open.finish().unwrap(), Finish::Changed, "change {n}");
            open.begin().unwrap();
            assert!(matches!(open.finish().unwrap(), Finish::Unchanged(_)), "change {n}");
        }
    });
}

/// Waits until the file system stamps a newer time.
fn next_tick(root: &Root) {
    let staging = root.staging().unwrap();
    let tick = staging.create("tick").unwrap();
    let stamp = || {
        tick.write_at(b"x", 0).unwrap();
        tick.stat().unwrap().mtime_ns
    };
    let first = stamp();
    while stamp() == first {
        std::thread::yield_now();
    }
    staging.remove(OsStr::new("tick")).unwrap();
}

#[test]
fn case_07_a_store_through_a_mapping_after_begin_is_seen() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, vec![1; 8192]).unwrap();
        let mapping = SharedMapping::new(&File::options().read(true).write(true).open(&path).unwrap(), 8192).unwrap();
        // The page is dirty already when reading begins, the case in which a later store moves no time stamp.
        mapping.store(0, 2);
        let open = reader(&root, "f").unwrap();
        assert!(!open.lease_probe().unwrap());
        next_tick(&root);
        mapping.store(1, 3);
        assert_eq!(open.finish().unwrap(), Finish::Changed);
        drop(mapping);
        assert!(reader(&root, "f").unwrap().lease_probe().unwrap());
    });
}

#[test]
fn writers_are_noticed_and_readers_are_not() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        let open = reader(&root, "f").unwrap();
        assert!(open.lease_probe().unwrap());
        let other_reader = File::open(&path).unwrap();
        assert!(open.lease_probe().unwrap());
        let writer = File::options().append(true).open(&path).unwrap();
        assert!(!open.lease_probe().unwrap());
        drop(writer);
        assert!(open.lease_probe().unwrap());
        drop(other_reader);
    });
}

#[test]
fn an_opener_in_the_middle_of_a_probe_harms_nobody() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        let open = reader(&root, "f").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(File::options().write(true).open(&path).unwrap());
                }
            });
            for _ in 0..20_000 {
                open.lease_probe().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(open.lease_probe().unwrap());
    });
}

#[test]
fn a_snapshot_keeps_the_moment() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let staging = root.staging().unwrap();
        let path = volume.path().join("log");
        fs::write(&path, vec![5; 50_000]).unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let open = reader(&root, "log").unwrap();
        let snapshot = match open.snapshot_to(&staging) {
            Err(error) => {
                assert_eq!((root.fs(), error.kind()), (FsKind::Ext4, ErrorKind::Unsupported));
                return;
            }
            Ok(snapshot) => snapshot,
        };
        assert_ne!(root.fs(), FsKind::Ext4);
        writer.write_all_at(&[6; 60_000], 0).unwrap();
        assert_eq!(&snapshot.source, open.before());
        assert_eq!(read_all(&snapshot.reader), vec![5; 50_000]);
        assert!(matches!(snapshot.reader.finish().unwrap(), Finish::Unchanged(stat) if stat.size == 50_000));
        assert_eq!(open.finish().unwrap(), Finish::Changed);
        assert!(staging.list().unwrap().is_empty());
        set_record(&path);
        assert_eq!(open.snapshot_to(&staging).unwrap_err().kind(), ErrorKind::IsStub);
    });
}

#[test]
fn reading_leaves_the_access_time_alone() {
    on_each_fs(64, |volume| {
        use std::os::unix::fs::MetadataExt;
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, "x").unwrap();
        assert!(Command::new("touch").args(["-a", "-d", "2001-01-01"]).arg(&path).status().unwrap().success());
        let before = fs::metadata(&path).unwrap().atime();
        read_all(&reader(&root, "f").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().atime(), before);
    });
}

#[test]
fn after_a_sync_only_files_with_a_writer_are_flushed_again() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let path = volume.path().join("f");
        fs::write(&path, vec![1; 8192]).unwrap();
        root.sync().unwrap();
        let inode = || root.dir().inode(OsStr::new("f")).unwrap();
        assert!(!inode().has_writer().unwrap());
        let calm = ContentReader::open_after_sync(&inode()).unwrap();
        assert!(matches!(calm.finish().unwrap(), Finish::Unchanged(_)));
        // With a dirty mapping a store after the beginning is seen all the same.
        let mapping = SharedMapping::new(&File::options().read(true).write(true).open(&path).unwrap(), 8192).unwrap();
        mapping.store(0, 2);
        assert!(inode().has_writer().unwrap());
        let open = ContentReader::open_after_sync(&inode()).unwrap();
        next_tick(&root);
        mapping.store(1, 3);
        assert_eq!(open.finish().unwrap(), Finish::Changed);
        fs::create_dir(volume.path().join("d")).unwrap();
        let directory = root.dir().inode(OsStr::new("d")).unwrap();
        assert_eq!(directory.has_writer().unwrap_err().kind(), ErrorKind::NotRegular);
    });
}
