//! Copies of stubs, and records that cannot be used.

use std::fs;
use std::path::Path;
use std::process::Command;

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::{number_of, text};

/// The attribute that makes a file a stub.
const RECORD: &str = "security.bpf.isotherm";

fn set_record(path: &Path, value: &[u8]) {
    rustix::fs::setxattr(path, RECORD, value, rustix::fs::XattrFlags::empty()).unwrap();
}

// semantics.md#copies-of-tiered-files
/// Whoever copies a stub with all its attributes gets a file like any other, on both servers.
#[test]
fn copies_with_all_attributes_are_ordinary_files() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    fs::write(plain.join("stub"), text(1, 100_000)).unwrap();
    office.settle();
    let in_folder = |program: &str, arguments: &[&str]| {
        office.tier_all();
        let ended = Command::new(program).args(arguments).current_dir(&guarded).output().unwrap();
        // rsync lists the record, and the recall has taken it away by the time it is read.
        let is_fine = ended.status.success() || (program == "rsync" && ended.status.code() == Some(23));
        assert!(is_fine, "{program} {arguments:?}: {ended:?}");
    };
    in_folder("cp", &["-a", "stub", "archive"]);
    in_folder("cp", &["-a", "--sparse=always", "stub", "sparse"]);
    in_folder("rsync", &["-aX", "stub", "rsync"]);
    in_folder(
        "sh",
        &["-c", "tar --xattrs --xattrs-include='*' -S -cf - stub | (mkdir t; cd t; tar --xattrs --xattrs-include='*' -xf -)"],
    );
    // The record itself on a copy: what a tool would do that reads attributes before content.
    let record = {
        office.tier_all();
        read_record(&guarded.join("stub"))
    };
    fs::write(guarded.join("forged"), text(2, 50_000)).unwrap();
    set_record(&guarded.join("forged"), &record);
    office.settle();
    for name in ["archive", "sparse", "rsync", "t/stub"] {
        assert_eq!(number_of(&fs::read(plain.join(name)).unwrap()), Ok(1), "{name}");
    }
    until("the copied record is gone", || number_of(&fs::read(plain.join("forged")).unwrap_or_default()) == Ok(2));
    assert!(blocks(&guarded.join("forged")) > 0);
    assert_eq!(number_of(&fs::read(guarded.join("stub")).unwrap()), Ok(1));
}

/// `tar` compares the times of change of a file before and after it has read it: nothing may change them once it has been let through.
#[test]
fn an_archive_of_a_tiered_tree_finds_nothing_changed() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let folder = office.plain().join("tree");
        fs::create_dir(&folder).unwrap();
        for number in 0..40 {
            fs::write(folder.join(number.to_string()), text(number, 50_000 + 20_000 * number as usize)).unwrap();
        }
        office.settle();
        let archive = office.beside().join("archive");
        let ended = Command::new("tar").arg("-cf").arg(&archive).arg("tree").current_dir(office.guarded()).output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?} on {}", fs.name());
        let same = Command::new("tar").arg("-df").arg(&archive).current_dir(office.plain()).output().unwrap();
        assert!(same.status.success(), "{same:?} on {}", fs.name());
    }
}

fn read_record(path: &Path) -> Vec<u8> {
    let mut value = vec![0; 256];
    let len = rustix::fs::getxattr(path, RECORD, &mut value[..]).unwrap();
    value.truncate(len);
    value
}

/// A damaged, foreign, void or newer record is an errno and a problem with path and remedy; the rest goes on.
#[test]
fn case_06_bad_records_are_an_errno_and_a_problem() {
    let Some(office) = Office::open(Fs::Ext4) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    for at in 0..5 {
        fs::write(plain.join(format!("{at}")), text(at, 30_000)).unwrap();
    }
    office.settle();
    let record = read_record(&guarded.join("0"));
    let mut damaged = record.clone();
    damaged[20] ^= 1;
    set_record(&guarded.join("0"), &damaged);
    set_record(&guarded.join("1"), &[&[9], &record[1..]].concat());
    set_record(&guarded.join("2"), b"");
    // That of another file: void, and without a block.
    set_record(&guarded.join("3"), &read_record(&guarded.join("4")));
    for name in ["0", "1", "2", "3"] {
        let error = fs::read(guarded.join(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{name}");
        until("the problem is shown", || {
            let is_it = |problem: &serde_json::Value| problem["path"] == name && problem["code"] == "not_recalled";
            office.problems().iter().any(is_it)
        });
    }
    assert_eq!(number_of(&fs::read(guarded.join("4")).unwrap()), Ok(4));
    // Whoever writes it anew gets rid of it.
    fs::write(guarded.join("0"), text(100, 30_000)).unwrap();
    let arrived = || number_of(&fs::read(plain.join("0")).unwrap()) == Ok(100);
    until("the new content is in the share", arrived);
    for at in 1..5 {
        assert_eq!(number_of(&fs::read(plain.join(format!("{at}"))).unwrap()), Ok(at), "nothing of it reached the other server");
    }
}

// semantics.md#copies-of-tiered-files
/// What a backup of the raw volume brings back is no content: zeros where the content has other bytes, beside the record of the stub
/// that they were read from. What was made of a real copy is.
#[test]
fn case_06_a_copy_that_holds_zeros_instead_of_the_content_is_not_sent() {
    const LEN: usize = 12 << 20;
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    fs::write(plain.join("stub"), text(1, LEN)).unwrap();
    office.settle();
    let record = read_record(&guarded.join("stub"));
    let whole = text(1, LEN);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    let made = [
        ("zeros", with(&|bytes| bytes.fill(0))),
        ("half", with(&|bytes| bytes[LEN / 4..].fill(0))),
        ("torn", with(&|bytes| bytes[4_096 * 5..4_096 * 7].fill(0))),
        ("edited", with(&|bytes| bytes[5..9].copy_from_slice(b"mine"))),
        ("whole", whole.clone()),
    ];
    // In a folder that takes no part, and then moved: as a restore does it, they come with the record.
    let aside = guarded.parent().unwrap().join("aside");
    fs::create_dir(&aside).unwrap();
    for (name, bytes) in &made {
        fs::write(aside.join(name), bytes).unwrap();
        set_record(&aside.join(name), &record);
        fs::rename(aside.join(name), guarded.join(name)).unwrap();
    }
    for (name, bytes) in &made[3..] {
        until("what is whole is sent", || fs::read(plain.join(name)).is_ok_and(|found| found == *bytes));
    }
    for (name, _) in &made[..3] {
        until("the problem is shown", || {
            let is_it = |problem: &serde_json::Value| problem["path"] == *name && problem["code"] == "unreadable";
            office.problems().iter().any(is_it)
        });
        assert!(!plain.join(name).exists(), "{name}");
    }
}

// semantics.md#kernel-nfs
/// Stubs whose length was changed while nobody was asked (row 4): no server gets a byte of that, the problem names the file and
/// what helps, and that does help.
#[test]
fn case_04_stubs_that_were_changed_without_their_content_come_back_whole() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        let names = ["cut", "grown", "emptied-and-grown", "same", "deleted", "anew", "emptied"];
        for (at, name) in names.into_iter().enumerate() {
            fs::write(plain.join(name), text(at as u64, 50_000)).unwrap();
        }
        office.settle();
        // Without anybody who guards the volume, as a client of kernel NFS does at any time.
        for part in [Part::Munich, Part::Gate, Part::Keeper] {
            office.kill(part);
        }
        let set_len = |name: &str, lens: &[u64]| {
            for len in lens {
                fs::OpenOptions::new().write(true).open(guarded.join(name)).unwrap().set_len(*len).unwrap();
            }
        };
        set_len("cut", &[5_000]);
        set_len("grown", &[9_000_000]);
        set_len("emptied-and-grown", &[0, 60_000]);
        set_len("same", &[50_000]);
        set_len("deleted", &[4_096]);
        set_len("anew", &[4_095]);
        set_len("emptied", &[0]);
        office.start(Part::Gate);
        office.start(Part::Munich);
        let spoilt = &names[..3];
        for name in spoilt.iter().chain(&["deleted", "anew"]) {
            until("the problem is shown", || {
                let is_it = |problem: &serde_json::Value| problem["path"] == **name && problem["code"] == "changed_while_tiered";
                office.problems().iter().any(is_it)
            });
            let error = fs::read(guarded.join(name)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{name} on {}", fs.name());
        }
        until("what is empty is empty everywhere", || fs::metadata(plain.join("emptied")).unwrap().len() == 0);
        // Whoever waits is told why.
        let waited = office.run(&["wait", "--synced", "--timeout", "12"]).expect(3);
        assert!(waited.out.contains("something changed it while it was a stub"), "{waited:?}");
        assert!(waited.err.contains("Nothing moves, and there are problems"), "{waited:?}");

        let left = office.residency("recall", &guarded).expect(3).json();
        assert_eq!(left["left"], 5, "not without being asked for: {left}");
        fs::remove_file(guarded.join("deleted")).unwrap();
        fs::write(guarded.join("anew"), text(100, 30_000)).unwrap();
        office.mend(&guarded).expect(0);
        office.settle();
        for (at, name) in names.into_iter().enumerate().filter(|(_, name)| spoilt.contains(name) || *name == "same") {
            for folder in [&plain, &guarded] {
                assert_eq!(number_of(&fs::read(folder.join(name)).unwrap()), Ok(at as u64), "{name} on {}", fs.name());
            }
            let time = |folder: &Path| fs::metadata(folder.join(name)).unwrap().modified().unwrap();
            assert_eq!(time(&plain), time(&guarded), "that of the content comes back too: {name} on {}", fs.name());
        }
        office.run(&["undelete", "deleted"]).expect(0);
        office.settle();
        for folder in [&plain, &guarded] {
            assert_eq!(number_of(&fs::read(folder.join("deleted")).unwrap()), Ok(4), "{}", fs.name());
            assert_eq!(number_of(&fs::read(folder.join("anew")).unwrap()), Ok(100), "{}", fs.name());
            assert_eq!(fs::read(folder.join("emptied")).unwrap(), b"", "{}", fs.name());
        }
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
        office.run(&["conflicts"]).expect(0);
        office.run(&["service", "check", "--deep"]).expect(0);
    }
}
