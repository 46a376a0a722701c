//! Pictures of folders, and their comparison: names, kinds, bytes, metadata, links, holes.
//!
//! It compares what is promised to travel and nothing else: times of regular files only, no inode numbers.
//!
//! **Invariant:** nothing is followed; a symlink is the text of its target.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

/// Files above this may not be stored in full where they were sparse.
const SPARSE_FROM: u64 = 1 << 20;

/// What is compared of one name.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    /// Seconds and nanoseconds of regular files (semantics.md#times).
    mtime: Option<(i64, i64)>,
    target: Option<PathBuf>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same inode.
    linked_to: Option<PathBuf>,
    mostly_hole: bool,
}

/// A folder at one moment.
#[derive(Debug)]
pub(crate) struct Picture {
    root: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

impl Picture {
    pub(crate) fn of(root: &Path) -> Self {
        let mut picture = Self { root: root.to_owned(), entries: BTreeMap::new() };
        let mut first_names = BTreeMap::new();
        for path in walk(root) {
            let entry = entry(&root.join(&path), &path, &mut first_names);
            picture.entries.insert(path, entry);
        }
        picture
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What differs, one line each; empty if nothing does.
    fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        for (path, entry) in &self.entries {
            match other.entries.get(path) {
                None => writeln!(text, "only in {}: {path:?}", self.root.display()).unwrap(),
                Some(found) if found != entry => writeln!(text, "{path:?}: {entry:?}\n    {found:?}").unwrap(),
                Some(_) if !same_bytes(&self.root.join(path), &other.root.join(path)) => {
                    writeln!(text, "{path:?}: other bytes").unwrap();
                }
                Some(_) => {}
            }
        }
        for path in other.entries.keys().filter(|path| !self.entries.contains_key(*path)) {
            writeln!(text, "only in {}: {path:?}", other.root.display()).unwrap();
        }
        text
    }
}

/// Fails with what differs; gives the number of names.
#[track_caller]
pub(crate) fn assert_equal(one: &Path, other: &Path) -> usize {
    let (one, other) = (Picture::of(one), Picture::of(other));
    let differences = one.differences(&other);
    let shown: Vec<&str> = differences.lines().take(20).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.lines().count(), shown.join("\n"));
    one.len()
}

/// All names below a folder, in order, without what is not synced.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        // A folder that goes while others work is not there.
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if folder.as_os_str().is_empty() && (name == ".isotherm" || name == "lost+found") {
                continue;
            }
            let path = folder.join(&name);
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

fn entry(path: &Path, name: &Path, first_names: &mut BTreeMap<u64, PathBuf>) -> Entry {
    let stat = fs::symlink_metadata(path).unwrap();
    let kind = stat.file_type();
    assert!(!kind.is_socket() && !kind.is_fifo(), "{path:?} does not travel");
    let linked_to =
        (!stat.is_dir() && stat.nlink() > 1).then(|| first_names.entry(stat.ino()).or_insert(name.to_owned()).clone());
    Entry {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        size: if stat.is_dir() { 0 } else { stat.size() },
        mtime: stat.is_file().then(|| (stat.mtime(), stat.mtime_nsec())),
        target: stat.is_symlink().then(|| fs::read_link(path).unwrap()),
        attributes: attributes(path),
        linked_to,
        mostly_hole: stat.is_file() && stat.size() >= SPARSE_FROM && stat.blocks() * 512 < stat.size() / 2,
    }
}

/// Extended attributes that travel, access lists among them.
fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names = names.filter(|name| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_"));
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length = lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
        value[..length].to_vec()
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Whether two regular files hold the same; true for everything else.
fn same_bytes(one: &Path, other: &Path) -> bool {
    if !fs::symlink_metadata(one).unwrap().is_file() {
        return true;
    }
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (read, also) = (fill(&mut one, &mut left), fill(&mut other, &mut right));
        if left[..read] != right[..also] {
            return false;
        }
        if read == 0 {
            return true;
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            read => filled += read,
        }
    }
    filled
}
