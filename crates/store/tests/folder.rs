//! The folder store on a real file system: full disks, left-overs, symlinks, two processes.
#![allow(clippy::unwrap_used)]
// A skipped test says why.
#![allow(clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures_util::TryStreamExt;
use isotherm_store::{ChunkStore, FolderStore, Key, Listed, StoreErrorKind};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn mebibyte(fill: u8) -> Bytes {
    vec![fill; 1 << 20].into()
}

async fn list(store: &FolderStore) -> Vec<Listed> {
    let mut listed: Vec<Listed> = store.list(None).try_collect().await.unwrap();
    listed.sort();
    listed
}

/// A small tmpfs that is gone at the end, however the test ends.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where mounting is not allowed, with the reason printed.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        if dir.path().metadata().unwrap().uid() != 0 {
            eprintln!("skipped: only root can mount a small disk");
            return None;
        }
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "isotherm-test"]).arg(dir.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                eprintln!("skipped: no small disk can be mounted here: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_half_written() {
    let Some(disk) = SmallDisk::mount("size=4m") else { return };
    let store = FolderStore::open(disk.path()).await.unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let key = key(&format!("packs/{:02}/x", kept.len()));
        match store.put(&key, mebibyte(kept.len() as u8)).await {
            Ok(()) => kept.push(key),
            Err(error) => break error,
        }
        assert!(kept.len() < 5, "the disk never gets full");
    };
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert!(error.to_string().starts_with(&format!("Object packs/{:02}/x cannot be written", kept.len())), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(list(&store).await.len(), kept.len());
    assert_eq!(fs::read_dir(disk.path().join(".tmp")).unwrap().count(), 0, "a temporary file is left");
    for (fill, key) in kept.iter().enumerate() {
        assert!(store.get(key).await.unwrap() == mebibyte(fill as u8));
    }
    // Deleting works on a full disk and makes room.
    store.delete_many(&kept[..1]).await.unwrap();
    store.put(&key("packs/new"), mebibyte(9)).await.unwrap();
}

#[tokio::test]
async fn a_disk_without_inodes_is_full() {
    let Some(disk) = SmallDisk::mount("size=4m,nr_inodes=8") else { return };
    let store = FolderStore::open(disk.path()).await.unwrap();
    let mut put = 0;
    let error = loop {
        match store.put(&key(&format!("o-{put}")), Bytes::from_static(b"x")).await {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
        assert!(put < 8, "the disk never gets full");
    };
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert_eq!(list(&store).await.len(), put);
}

#[tokio::test]
async fn left_over_temporary_files_are_swept_and_never_listed() {
    let dir = tempfile::tempdir().unwrap();
    drop(FolderStore::open(dir.path()).await.unwrap());
    fs::write(dir.path().join(".tmp/0"), b"half of an obj").unwrap();
    fs::write(dir.path().join(".tmp/17"), b"").unwrap();
    let store = FolderStore::open(dir.path()).await.unwrap();
    assert_eq!(fs::read_dir(dir.path().join(".tmp")).unwrap().count(), 0);
    store.put(&key("a/b"), Bytes::from_static(b"whole")).await.unwrap();
    fs::write(dir.path().join(".tmp/99"), b"another writer").unwrap();
    assert_eq!(list(&store).await, [Listed { key: key("a/b"), len: 5 }]);
}

#[tokio::test]
async fn objects_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made/by/the/store");
    let store = FolderStore::open(&folder).await.unwrap();
    store.put(&key("a/b/c"), Bytes::from_static(b"bytes")).await.unwrap();
    drop(store);
    let store = FolderStore::open(&folder).await.unwrap();
    assert_eq!(store.get(&key("a/b/c")).await.unwrap(), "bytes");
    store.put(&key("a/b/c"), Bytes::from_static(b"bytes")).await.unwrap();
    let files = files_in(&folder);
    assert_eq!(files, [folder.join(".lock"), folder.join("a/b/c")]);
    assert_eq!(files[1].metadata().unwrap().mode() & 0o777, 0o600, "others can read content");
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = FolderStore::open(dir.path()).await.unwrap();
    let error = FolderStore::open(dir.path()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied);
    assert_eq!(error.to_string(), "Store is in use by another process");
    drop(first);
    FolderStore::open(dir.path()).await.unwrap();
}

#[tokio::test]
async fn symlinks_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let store = FolderStore::open(dir.path()).await.unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    for name in ["out/secret", "file"] {
        let key = key(name);
        assert_eq!(store.get(&key).await.unwrap_err().kind, StoreErrorKind::Denied, "{name}");
        assert_eq!(store.size(&key).await.unwrap_err().kind, StoreErrorKind::Denied, "{name}");
        let put = store.put(&key, Bytes::from_static(b"mine")).await;
        assert_eq!(put.unwrap_err().kind, StoreErrorKind::Denied, "{name}");
    }
    assert_eq!(store.delete_many(&[key("out/secret")]).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(list(&store).await, []);
}

#[tokio::test]
async fn what_is_not_a_file_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(dir.path()).await.unwrap();
    assert!(Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap().success());
    store.put(&key("folder/x"), Bytes::from_static(b"x")).await.unwrap();
    for name in ["fifo", "folder"] {
        assert_eq!(store.get(&key(name)).await.unwrap_err().kind, StoreErrorKind::Denied, "{name}");
    }
    assert_eq!(list(&store).await.len(), 1);
}
