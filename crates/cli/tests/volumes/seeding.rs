//! A real tree seeded at one site is the same at the other, also while people edit on both; and is not sent twice.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use isotherm_gate::testing::Fs;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};

use crate::fleet::{Fleet, SITES};
use crate::tree::{assert_equal, walk};
use crate::{Dice, sized};

/// A real tree that every machine has.
const SOURCE: &str = "/usr/share";

/// Copies the beginning of a real tree, with everything that `tar` can keep.
fn copy_real_tree(to: &Path, names_max: usize) {
    let all = walk(Path::new(SOURCE));
    let mut list = Vec::new();
    for path in all.iter().take(names_max) {
        list.extend(path.as_os_str().as_encoded_bytes());
        list.push(0);
    }
    fs::create_dir_all(to).unwrap();
    let mut pack = Command::new("tar")
        .args(["-C", SOURCE, "--no-recursion", "--null", "-T", "-", "-cf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let unpack = Command::new("tar").arg("-C").arg(to).args(["-xpf", "-"]).stdin(pack.stdout.take().unwrap()).spawn();
    pack.stdin.take().unwrap().write_all(&list).unwrap();
    assert!(unpack.unwrap().wait().unwrap().success() && pack.wait().unwrap().success(), "copying {SOURCE}");
}

/// Adds what a tree of packages lacks: attributes, access lists, links, holes, owners, times, bits.
fn decorate(folder: &Path) {
    let plain: Vec<PathBuf> =
        walk(folder).into_iter().filter(|path| folder.join(path).symlink_metadata().unwrap().is_file()).collect();
    for (number, path) in plain.iter().enumerate() {
        let path = folder.join(path);
        match number % 40 {
            0 => lsetxattr(&path, "user.note", format!("number {number}").as_bytes(), XattrFlags::empty()).unwrap(),
            1 => lsetxattr(&path, "system.posix_acl_access", &access_list(), XattrFlags::empty()).unwrap(),
            2 => fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)).unwrap(),
            3 => chown(&path, Some(1000 + number as u32), Some(54_321)).unwrap(),
            4 => fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap(),
            5 => {
                let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + number as u64, 123_456_789);
                File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
            }
            6 => fs::hard_link(&path, path.with_extension("linked")).unwrap(),
            _ => {}
        }
    }
    let extra = folder.join("0 extra");
    fs::create_dir(&extra).unwrap();
    lsetxattr(&extra, "user.empty", b"", XattrFlags::empty()).unwrap();
    lsetxattr(&extra, "system.posix_acl_default", &access_list(), XattrFlags::empty()).unwrap();
    fs::set_permissions(&extra, fs::Permissions::from_mode(0o3770)).unwrap();
    let mut sparse = File::create(extra.join("sparse")).unwrap();
    sparse.write_all(b"beginning").unwrap();
    sparse.seek(SeekFrom::Start(40 << 20)).unwrap();
    sparse.write_all(&[7; 300_000]).unwrap();
    sparse.set_len(90 << 20).unwrap();
    let link = extra.join("link");
    symlink("../nowhere/in particular", &link).unwrap();
    let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 987_654_321 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, &link, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Owner rwx, user 1234 r-x, group r--, mask r-x, others nothing, as the kernel takes it.
fn access_list() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [(1_u16, 7_u16, NOBODY), (2, 5, 1234), (4, 4, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY)] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// Edits of both sites' users. Each file belongs to one of them, so no edit meets another.
struct Editors {
    dice: Dice,
    written: BTreeMap<PathBuf, Vec<u8>>,
}

impl Editors {
    /// One edit of a site: a file that has come to it already, or a new one.
    fn edit(&mut self, fleet: &Fleet, files: &[PathBuf], round: usize) {
        let site = round % SITES.len();
        let folder = fleet.folder(SITES[site]);
        let text = format!("{} wrote this in round {round}\n", SITES[site]).repeat(1 + self.dice.roll(400)).into_bytes();
        let chosen = files[self.dice.roll(files.len() / 2) * 2 + site].clone();
        let path = if round % 4 < 2 && folder.join(&chosen).exists() { chosen } else { format!("new {round}.txt").into() };
        // As root, bits do not matter.
        fs::write(folder.join(&path), &text).unwrap();
        self.written.insert(path, text);
    }
}

fn seed(kinds: [Fs; 2]) {
    let files = sized(1_500, 200_000);
    let Some(mut fleet) = Fleet::on(kinds, sized(1_024, 4_096) as u64) else { return };
    let [detroit, munich] = fleet.folders();
    copy_real_tree(&detroit, files);
    decorate(&detroit);
    fleet.create_group(&[]);
    let started = Instant::now();
    fleet.start_agent(SITES[0]);
    fleet.join(SITES[0]);
    fleet.settle();
    let seeded = started.elapsed();
    fleet.start_agent(SITES[1]);
    fleet.join(SITES[1]);
    // Links would make two files one, which both sites might edit.
    let own = |path: &PathBuf| {
        detroit
            .join(path)
            .symlink_metadata()
            .is_ok_and(|stat| stat.is_file() && std::os::unix::fs::MetadataExt::nlink(&stat) == 1)
    };
    let list: Vec<PathBuf> = walk(&detroit).into_iter().filter(own).collect();
    let mut editors = Editors { dice: Dice(7), written: BTreeMap::new() };
    for round in 0..60 {
        editors.edit(&fleet, &list, round);
    }
    fleet.settle_clean();
    let both = started.elapsed();
    let names = assert_equal(&detroit, &munich);
    for (path, text) in &editors.written {
        assert_eq!(&fs::read(munich.join(path)).unwrap(), text, "{path:?}");
    }
    println!("{kinds:?}: {names} names, seeded in {seeded:.1?}, at the other after {:.1?} more", both - seeded);
}

// semantics.md#modes-and-attributes, #times, #owners, #hard-links, #sparse-files, #kinds
#[test]
fn a_real_tree_seeded_on_ext4_is_equal_on_xfs() {
    seed([Fs::Ext4, Fs::Xfs]);
}

#[test]
fn a_real_tree_seeded_on_xfs_is_equal_on_ext4() {
    seed([Fs::Xfs, Fs::Ext4]);
}

#[test]
fn a_tree_that_is_there_already_is_matched_and_not_sent_again() {
    let Some(mut fleet) = Fleet::on([Fs::Ext4, Fs::Xfs], 1_024) else { return };
    let [detroit, munich] = fleet.folders();
    copy_real_tree(&detroit, sized(1_000, 10_000));
    let copied = Command::new("cp").arg("-a").arg(&detroit).arg(&munich).status().unwrap();
    assert!(copied.success());
    fs::write(detroit.join("only detroit.txt"), "d").unwrap();
    fs::write(munich.join("only munich.txt"), "m").unwrap();
    fleet.create_group(&[]);
    fleet.start_agent(SITES[0]);
    fleet.join(SITES[0]);
    fleet.settle();
    let before = fleet.stored();
    fleet.start_agent(SITES[1]);
    fleet.join(SITES[1]);
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    let sent = fleet.stored() - before;
    assert!(sent < 4_096, "{sent} bytes were sent for a file of one byte");
    assert!(before > 100_000, "{before}");
}
