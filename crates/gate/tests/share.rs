//! Equal content in the same blocks, on real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use isotherm_gate::testing::on_each_fs;
use isotherm_gate::{ErrorKind, FsKind, Root, Shared, StubFile};

/// More than a piece, and no whole number of blocks.
const LEN: usize = (9 << 20) + 777;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * at / 7 + at / 4_096) as u8).collect()
}

#[test]
fn equal_bytes_become_the_same_blocks_and_nothing_else_changes() {
    on_each_fs(320, |volume| {
        let root = Root::open(volume.path()).unwrap();
        let (one, mut other) = (content(LEN), content(LEN));
        other[6 << 20] ^= 1;
        for (name, bytes) in [("one", &one), ("twin", &one), ("other", &other)] {
            fs::write(volume.path().join(name), bytes).unwrap();
        }
        root.sync().unwrap();
        let open = |name: &str| StubFile::open_to_look(&root.dir().inode(OsStr::new(name)).unwrap()).unwrap();
        let state = |name: &str| {
            let found = fs::metadata(volume.path().join(name)).unwrap();
            (found.mtime_nsec(), found.ctime_nsec(), found.atime_nsec(), found.blocks())
        };
        let before = ["one", "twin", "other"].map(state);
        let free = root.space().unwrap().free;
        let shared = open("twin").share_equal(0, &open("one"), 0, LEN as u64);
        if root.fs() == FsKind::Ext4 {
            assert_eq!(shared.unwrap_err().kind(), ErrorKind::Unsupported);
            return;
        }
        assert_eq!(shared, Ok(Shared::All));
        let shared = open("other").share_equal(0, &open("one"), 0, LEN as u64).unwrap();
        let Shared::Differs(from) = shared else { panic!("{shared:?}") };
        assert!((4 << 20..=6 << 20).contains(&from), "{from}");
        let rest = (8_u64 << 20, LEN as u64 - (8 << 20));
        assert_eq!(open("other").share_equal(rest.0, &open("one"), rest.0, rest.1), Ok(Shared::All));
        root.sync().unwrap();

        assert_eq!(["one", "twin", "other"].map(state), before, "times and sizes are as they were");
        // btrfs gives nothing free of what was written at once while any of it is in use.
        let least = if root.fs() == FsKind::Btrfs { 9 << 20 } else { 12 << 20 };
        assert!(root.space().unwrap().free >= free + least, "{} and then {}", free, root.space().unwrap().free);
        let shared = |name: &str| open(name).shared_blocks().unwrap().iter().map(|range| range.end - range.start).sum::<u64>();
        assert!(shared("twin") >= LEN as u64);
        let of_other = shared("other");
        assert!((5 << 20..7 << 20).contains(&of_other), "{of_other}");

        let twin = File::options().write(true).open(volume.path().join("twin")).unwrap();
        twin.write_all_at(&[9; 100], 5_000).unwrap();
        twin.sync_all().unwrap();
        assert!(fs::read(volume.path().join("one")).unwrap() == one, "who writes to one changes no other");
        assert!(fs::read(volume.path().join("other")).unwrap() == other);
        assert!((LEN as u64 - (1 << 20)..LEN as u64).contains(&shared("twin")));
        fs::remove_file(volume.path().join("one")).unwrap();
        root.sync().unwrap();
        let mut found = vec![0; LEN - 5_100];
        File::open(volume.path().join("twin")).unwrap().read_exact_at(&mut found, 5_100).unwrap();
        assert!(found == one[5_100..]);
    });
}
