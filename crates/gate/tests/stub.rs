//! Records and content of stubs on real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use isotherm_gate::testing::{SharedMapping, on_each_fs};
use isotherm_gate::{ErrorKind, Inode, Root, StubFile};

const LEN: usize = 300_001;

fn content() -> Vec<u8> {
    (0..LEN).map(|at| (at / 7 % 251) as u8 + 1).collect()
}

/// A program that another test starts has everything open for a moment between fork and exec.
fn becomes_idle(file: &StubFile) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_idle(file) {
        assert!(std::time::Instant::now() < until, "somebody has the file open");
        std::thread::sleep(std::time::Duration::from_millis(1)); // tidy: wait between looks, with a deadline above
    }
}

fn is_idle(file: &StubFile) -> bool {
    let is_alone = file.take_alone().unwrap();
    file.let_others_in().unwrap();
    is_alone
}

fn inode(root: &Root, name: &str) -> Inode {
    root.dir().inode(OsStr::new(name)).unwrap()
}

#[test]
fn content_is_given_up_and_filled_in_and_length_and_time_stay() {
    on_each_fs(64, |volume| {
        let path = volume.path().join("plan");
        fs::write(&path, content()).unwrap();
        let root = Root::open(volume.path()).unwrap();
        let inode = inode(&root, "plan");
        let before = inode.stat().unwrap();
        let file = StubFile::open(&inode).unwrap();
        assert_eq!((file.record().unwrap(), file.has_data().unwrap()), (None, true));
        file.set_record(b"what it stands for").unwrap();
        file.flush().unwrap();
        file.give_up().unwrap();
        inode.set_mtime(before.mtime_ns).unwrap();
        assert_eq!(file.record().unwrap().unwrap(), b"what it stands for");
        assert!(!file.has_data().unwrap());
        let stub = inode.stat().unwrap();
        assert_eq!((stub.size, stub.mtime_ns, &stub.handle), (before.size, before.mtime_ns, &before.handle));
        root.sync().unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() <= 8, "at most a block for the attribute");
        for (at, piece) in content().chunks(70_000).enumerate() {
            file.fill(at as u64 * 70_000, piece).unwrap();
        }
        file.flush().unwrap();
        file.remove_record().unwrap();
        file.remove_record().unwrap();
        assert_eq!(file.record().unwrap(), None);
        assert!(fs::read(&path).unwrap() == content());
    });
}

#[test]
fn a_file_is_idle_only_while_nobody_has_it_open_or_mapped() {
    on_each_fs(64, |volume| {
        let path = volume.path().join("plan");
        fs::write(&path, content()).unwrap();
        let root = Root::open(volume.path()).unwrap();
        let inode = inode(&root, "plan");
        let file = StubFile::open(&inode).unwrap();
        becomes_idle(&file);
        let reader = File::open(&path).unwrap();
        assert!(!is_idle(&file));
        drop(reader);
        let writer = File::options().append(true).open(&path).unwrap();
        assert!(!is_idle(&file));
        drop(writer);
        let mapping = SharedMapping::new(&File::options().read(true).write(true).open(&path).unwrap(), LEN).unwrap();
        assert!(!is_idle(&file), "mapped, and its descriptor closed");
        drop(mapping);
        becomes_idle(&file);
    });
}

#[test]
fn who_opens_a_file_that_is_taken_waits_until_others_are_let_in() {
    on_each_fs(64, |volume| {
        let path = volume.path().join("plan");
        fs::write(&path, content()).unwrap();
        let root = Root::open(volume.path()).unwrap();
        let file = StubFile::open(&inode(&root, "plan")).unwrap();
        becomes_idle(&file);
        assert!(file.take_alone().unwrap());
        let reader = std::thread::spawn(move || fs::read(path).unwrap());
        // Unless it waits for the lease it has read the holes by then.
        file.give_up().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50)); // tidy: wait long enough for a reader who does not wait
        assert!(!reader.is_finished());
        file.fill(0, &content()).unwrap();
        file.let_others_in().unwrap();
        assert!(reader.join().unwrap() == content(), "he did not see what was there meanwhile");
        becomes_idle(&file);
    });
}

#[test]
fn only_regular_files_are_opened() {
    on_each_fs(64, |volume| {
        fs::create_dir(volume.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("elsewhere", volume.path().join("link")).unwrap();
        let root = Root::open(volume.path()).unwrap();
        for name in ["folder", "link"] {
            assert_eq!(StubFile::open(&inode(&root, name)).unwrap_err().kind(), ErrorKind::NotRegular);
        }
        fs::write(volume.path().join("empty"), "").unwrap();
        let empty = StubFile::open(&inode(&root, "empty")).unwrap();
        empty.give_up().unwrap();
        assert!(!empty.has_data().unwrap());
    });
}
