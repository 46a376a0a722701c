//! Masks over what is not here, on real file systems.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use isotherm_gate::testing::on_each_fs;
use isotherm_gate::{FsKind, MaskPool, Root, StubFile, mask_byte};

/// Far more than a pool of a small volume has, and no whole number of blocks.
const LEN: u64 = (24 << 20) + 777;
const MIB: u64 = 1 << 20;

fn seek(file: &File, from: u64, whence: fn(u64) -> rustix::fs::SeekFrom) -> u64 {
    rustix::fs::seek(file, whence(from)).unwrap_or(LEN)
}

#[test]
fn only_holes_are_masked_and_nothing_else_is_given_up() {
    on_each_fs(320, |volume| {
        let path = volume.path().join("film");
        File::create(&path).unwrap().set_len(LEN).unwrap();
        let root = Root::open(volume.path()).unwrap();
        let free = || root.space().unwrap().free;
        let file = StubFile::open(&root.dir().inode(OsStr::new("film")).unwrap()).unwrap();
        let part = vec![7_u8; 3 << 20];
        file.fill(5 * MIB, &part).unwrap();
        file.flush().unwrap();
        let pool = MaskPool::new(&root).unwrap();
        root.sync().unwrap();
        let before = free();

        file.mask(&pool, [0..10 * MIB, 12 * MIB..LEN]).unwrap();
        file.mask(&pool, std::iter::once(0..LEN)).unwrap();
        root.sync().unwrap();
        let reader = File::open(&path).unwrap();
        let is_shared = root.fs() != FsKind::Ext4;
        let blocks = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(blocks >= LEN - LEN % 4_096, "{blocks} of {LEN} bytes have blocks");
        let mut found = vec![0; usize::try_from(LEN).unwrap()];
        reader.read_exact_at(&mut found, 0).unwrap();
        let expected = |at: u64| match at {
            at if (5 * MIB..8 * MIB).contains(&at) => 7,
            at if is_shared && at < LEN - LEN % 4_096 => mask_byte(at),
            _ => 0,
        };
        assert!(
            found.iter().zip(0..).all(|(byte, at)| *byte == expected(at)),
            "the mask says that it is one, and spares what is here"
        );
        if is_shared {
            assert_eq!(seek(&reader, 0, rustix::fs::SeekFrom::Hole), LEN - LEN % 4_096, "no hole shows but the last block's");
            assert!(before - free() < MIB, "all masks are the same blocks");
        } else {
            assert!(before - free() > 20 * MIB, "its room is reserved");
        }

        file.give_up_within([0..5 * MIB, 8 * MIB..LEN]).unwrap();
        root.sync().unwrap();
        let blocks = fs::metadata(&path).unwrap().blocks() * 512;
        assert!((3 * MIB..=3 * MIB + 65_536).contains(&blocks), "{blocks} are left of 3 MiB");
        reader.read_exact_at(&mut found, 0).unwrap();
        let expected = |at: u64| if (5 * MIB..8 * MIB).contains(&at) { 7 } else { 0 };
        assert!(found.iter().zip(0..).all(|(byte, at)| *byte == expected(at)));
    });
}

#[test]
fn what_is_written_over_a_mask_is_the_files_own() {
    on_each_fs(320, |volume| {
        let paths = ["one", "other"].map(|name| volume.path().join(name));
        let root = Root::open(volume.path()).unwrap();
        let pool = MaskPool::new(&root).unwrap();
        let files = ["one", "other"].map(|name| {
            File::create(volume.path().join(name)).unwrap().set_len(4 * MIB).unwrap();
            let file = StubFile::open(&root.dir().inode(OsStr::new(name)).unwrap()).unwrap();
            file.mask(&pool, std::iter::once(0..4 * MIB)).unwrap();
            file
        });
        files[0].fill(MIB + 5, &[9; 10]).unwrap();
        root.sync().unwrap();
        let at = |path: &std::path::Path, from: u64| {
            let mut found = [0; 10];
            File::open(path).unwrap().read_exact_at(&mut found, from).unwrap();
            found
        };
        assert_eq!(at(&paths[0], MIB + 5), [9; 10]);
        assert_eq!(at(&paths[1], MIB + 5), at(&paths[0], 2 * MIB + 5), "the other file still shows its mask");
    });
}
