//! Names, links, bits and times that a careless program trips over.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::tree::{assert_equal, walk};

const KINDS: [Fs; 2] = [Fs::Ext4, Fs::Xfs];

/// Names as users make them, and as they do not.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"new\nline"[..],
        b"\n",
        b"\xff\xfe\x80",
        b"-rf",
        b"--",
        b"-",
        b" ",
        b" leading",
        b"trailing ",
        b"trailing.",
        b"...",
        b"back\\slash",
        b"quo\"te's",
        b"*?[a]",
        b"$(true)",
        b"\x01\x1b[31m",
        b"nul-like%00",
        b"Plan.TXT",
        b"plan.txt",
        b"PLAN.txt",
        "Größe".as_bytes(),
        "Gro\u{308}ße".as_bytes(),
        "\u{202e}txt".as_bytes(),
        "日本".as_bytes(),
        b".hidden",
        b"con",
        b"a:b",
    ]
    .iter()
    .map(|name| name.to_vec())
    .collect();
    names.push(vec![b'n'; 255]);
    names.push(vec![0xff; 255]);
    names
}

fn at(folder: &Path, name: &[u8]) -> std::path::PathBuf {
    folder.join(OsStr::from_bytes(name))
}

// semantics.md#names
#[test]
fn every_name_travels_as_it_is_for_files_folders_and_links() {
    let Some(fleet) = Fleet::sharing(KINDS, &["--delete-limit", "100%"]) else { return };
    let [detroit, munich] = fleet.folders();
    for parent in ["files", "folders", "links"] {
        fs::create_dir(detroit.join(parent)).unwrap();
    }
    for name in odd_names() {
        fs::write(at(&detroit.join("files"), &name), &name).unwrap();
        fs::create_dir(at(&detroit.join("folders"), &name)).unwrap();
        fs::write(at(&at(&detroit.join("folders"), &name), &name), "inside").unwrap();
        symlink(OsStr::from_bytes(&name), at(&detroit.join("links"), &name)).unwrap();
    }
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 3 + 4 * odd_names().len());
    // The other site's users give each name to another file.
    let names = odd_names();
    let files = munich.join("files");
    fs::rename(at(&files, &names[0]), munich.join("aside")).unwrap();
    for pair in names.windows(2) {
        fs::rename(at(&files, &pair[1]), at(&files, &pair[0])).unwrap();
    }
    fs::rename(munich.join("aside"), at(&files, names.last().unwrap())).unwrap();
    fleet.settle_clean();
    assert_equal(&munich, &detroit);
    assert_eq!(fs::read(at(&detroit.join("files"), b"\n")).unwrap(), names[2]);
    for name in &names {
        fs::remove_dir_all(at(&detroit.join("folders"), name)).unwrap();
    }
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 3 + 2 * names.len());
}

// semantics.md#case-choice, #case-kept
#[test]
fn changing_only_the_case_is_a_rename_on_both_kinds_of_share() {
    for case in ["sensitive", "insensitive"] {
        let Some(fleet) = Fleet::sharing(KINDS, &["--case", case]) else { return };
        let [detroit, munich] = fleet.folders();
        fs::create_dir(detroit.join("Hall")).unwrap();
        fs::write(detroit.join("Hall/Report.DOC"), "text").unwrap();
        fleet.settle_clean();
        let node = fleet.node(SITES[0], &detroit.join("Hall/Report.DOC"));
        fs::rename(munich.join("Hall/Report.DOC"), munich.join("Hall/REPORT.doc")).unwrap();
        fs::rename(munich.join("Hall"), munich.join("HALL")).unwrap();
        fleet.settle_clean();
        assert_equal(&detroit, &munich);
        assert_eq!(fleet.node(SITES[0], &detroit.join("HALL/REPORT.doc")), node, "{case}");
        assert_eq!(walk(&detroit).len(), 2, "{case}: {:?}", walk(&detroit));
    }
}

// semantics.md#case-collision
#[test]
fn case_23_names_that_differ_in_case_only_are_both_kept_on_a_case_insensitive_share() {
    let Some(fleet) = Fleet::sharing(KINDS, &["--case", "insensitive"]) else { return };
    let [detroit, munich] = fleet.folders();
    // One user's two names, equal in bytes: still two files, and removing one leaves the other.
    fs::write(detroit.join("Plan.txt"), "same").unwrap();
    fs::write(detroit.join("plan.TXT"), "same").unwrap();
    fs::write(munich.join("Other.txt"), "from munich").unwrap();
    fs::write(detroit.join("other.txt"), "from detroit").unwrap();
    fleet.settle();
    assert_equal(&detroit, &munich);
    let names = walk(&detroit);
    assert_eq!(names.len(), 4, "{names:?}");
    let texts: Vec<String> = names.iter().map(|name| fs::read_to_string(detroit.join(name)).unwrap()).collect();
    for (text, times) in [("same", 2), ("from munich", 1), ("from detroit", 1)] {
        assert_eq!(texts.iter().filter(|found| *found == text).count(), times, "{names:?}: {texts:?}");
    }
    let folded: std::collections::BTreeSet<String> = names.iter().map(|name| name.to_str().unwrap().to_lowercase()).collect();
    assert_eq!(folded.len(), 4, "{names:?}");
    let first = names.iter().find(|name| fs::read(munich.join(name)).unwrap() == b"same").unwrap();
    fs::remove_file(munich.join(first)).unwrap();
    fleet.settle();
    assert_equal(&detroit, &munich);
    let left = walk(&detroit);
    assert_eq!(left.iter().filter(|name| fs::read(detroit.join(name)).unwrap() == b"same").count(), 1, "{left:?}");
}

// semantics.md#kinds: a symlink is never followed
#[test]
fn loops_of_symlinks_are_only_text() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir_all(detroit.join("deep/er")).unwrap();
    for (link, target) in
        [("itself", "itself"), ("a", "b"), ("b", "a"), ("deep/er/up", "../.."), ("root", "/"), ("gone", "no/where")]
    {
        symlink(target, detroit.join(link)).unwrap();
    }
    symlink("x".repeat(1_000), detroit.join("long")).unwrap();
    symlink(&munich, detroit.join("the other site")).unwrap();
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 10);
    // A folder becomes a link to a folder outside: nothing outside is touched.
    let outside = fleet.volume(SITES[0]).path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    fs::remove_dir_all(detroit.join("deep")).unwrap();
    symlink(&outside, detroit.join("deep")).unwrap();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    fs::remove_file(munich.join("deep")).unwrap();
    fs::create_dir(munich.join("deep")).unwrap();
    fs::write(munich.join("deep/precious"), "other").unwrap();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "precious");
}

// semantics.md#modes-and-attributes
#[test]
fn files_and_folders_without_permission_bits_travel() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir(detroit.join("closed")).unwrap();
    fs::write(detroit.join("closed/inside"), "inside").unwrap();
    fs::write(detroit.join("secret"), "secret").unwrap();
    for path in ["closed/inside", "closed", "secret"] {
        fs::set_permissions(detroit.join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 3);
    assert_eq!(fs::metadata(munich.join("closed")).unwrap().mode() & 0o7777, 0);
    fs::write(munich.join("closed/inside"), "changed").unwrap();
    fs::set_permissions(munich.join("secret"), fs::Permissions::from_mode(0o4000)).unwrap();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
}

/// A site whose clock is wrong gives its files wrong times; what was written later still follows what was there.
// semantics.md#edit-against-edit
#[test]
fn times_hours_off_decide_nothing_but_who_keeps_the_name() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    let save = |path: &Path, text: &str, time: SystemTime| {
        fs::write(path, text).unwrap();
        File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let now = SystemTime::now();
    for (name, time) in [
        ("ahead", now + hours(9)),
        ("behind", now - hours(9)),
        ("first", SystemTime::UNIX_EPOCH),
        ("before", SystemTime::UNIX_EPOCH - Duration::new(1_000, 1)),
        ("far", now + hours(24 * 365 * 20)),
        ("clash", now - hours(30)),
    ] {
        save(&detroit.join(name), "from detroit", time);
    }
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    // Each later edit has an earlier time than what it replaces.
    save(&munich.join("ahead"), "later edit", now);
    save(&munich.join("behind"), "later edit", now - hours(20));
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read_to_string(detroit.join("ahead")).unwrap(), "later edit");
    assert_eq!(fs::read_to_string(detroit.join("behind")).unwrap(), "later edit");
    // Two edits that do not know each other: the one whose clock is ahead keeps the name, the other is not lost.
    for site in SITES {
        fleet.stop_agent(site);
    }
    save(&detroit.join("clash"), "clock ahead", now + hours(9));
    save(&munich.join("clash"), "clock right", now);
    for site in SITES {
        fleet.start_agent(site);
    }
    fleet.settle();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read_to_string(detroit.join("clash")).unwrap(), "clock ahead");
    assert_eq!(fs::read_to_string(detroit.join("clash-munich")).unwrap(), "clock right");
}
