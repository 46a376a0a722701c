//! Files to measure with: the same ones in every run, and bytes that do not compress.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A stream of bytes that looks random.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

/// Makes so many files of 1 KiB to so many, a hundred in a folder; gives their bytes.
pub(super) fn small_files(folder: &Path, count: usize, largest_kib: usize) -> Result<u64> {
    let mut noise = Noise::new(1);
    let spread = (largest_kib.max(2) as u64 - 1) * 1024;
    let mut bytes = vec![0; 1024 + spread as usize];
    let mut sum = 0;
    for number in 0..count {
        let directory = folder.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let len = 1024 + (noise.next() % spread) as usize;
        noise.fill(&mut bytes[..len]);
        fs::write(directory.join(format!("file{number}.bin")), &bytes[..len])?;
        sum += len as u64;
    }
    Ok(sum)
}

/// Makes one file of so many MiB, durable.
pub(super) fn large_file(path: &Path, mib: u64, seed: u64) -> Result<()> {
    let mut noise = Noise::new(seed);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        noise.fill(&mut piece);
        file.write_all(&piece)?;
    }
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(())
}

/// Changes one byte in place.
pub(super) fn change_byte(path: &Path, at: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[!byte[0]], at)?;
    Ok(())
}

/// Saves the file with one more byte at a place, as editors do: by way of a copy that takes its name.
pub(super) fn insert_byte(path: &Path, copy: &Path, at: u64) -> Result<()> {
    let (mut from, mut to) = (File::open(path)?, File::create(copy)?);
    std::io::copy(&mut std::io::Read::take(&mut from, at), &mut to)?;
    to.write_all(b"!")?;
    std::io::copy(&mut from, &mut to)?;
    fs::rename(copy, path)?;
    Ok(())
}

/// One byte.
pub(super) fn byte(path: &Path, at: u64) -> Result<u8> {
    let mut byte = [0];
    File::open(path)?.read_exact_at(&mut byte, at)?;
    Ok(byte[0])
}

/// Files, folders and symlinks below a folder.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// Their paths from the folder on, and the folder itself as an empty one.
    pub(super) objects: Vec<PathBuf>,
    pub(super) bytes: u64,
}

pub(super) fn tree(root: &Path) -> Result<Tree> {
    let mut tree = Tree { root: root.to_owned(), objects: vec![PathBuf::new()], bytes: bytes_below(root)? };
    let mut next = 0;
    while let Some(path) = tree.objects.get(next) {
        next += 1;
        let path = path.clone();
        if root.join(&path).symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(root.join(&path))? {
                tree.objects.push(path.join(entry?.file_name()));
            }
        }
    }
    Ok(tree)
}

/// 10,000 small files, 500 of 1 to 4 MiB, 20 of 64 MiB, 500 symlinks, 500 empty folders, 50 paths of 40 folders.
pub(super) fn mixed_tree(root: &Path) -> Result<Tree> {
    small_files(&root.join("small"), 10_000, 32)?;
    for folder in ["middle", "large", "links", "empty"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for number in 0..500 {
        large_file(&root.join(format!("middle/file{number}.bin")), 1 + number % 4, 100 + number)?;
        std::os::unix::fs::symlink(format!("../middle/file{number}.bin"), root.join(format!("links/link{number}")))?;
        fs::create_dir(root.join(format!("empty/folder{number}")))?;
    }
    for number in 0..20 {
        large_file(&root.join(format!("large/file{number}.bin")), 64, 1_000 + number)?;
    }
    for number in 0..50 {
        let mut deep = root.join(format!("deep{number}"));
        deep.extend((0..40).map(|level| format!("level{level}")));
        fs::create_dir_all(&deep)?;
        fs::write(deep.join("file.txt"), format!("{number}"))?;
    }
    tree(root)
}

/// Whether both are of one kind and hold the same.
pub(super) fn is_same(one: &Path, other: &Path) -> Result<bool> {
    let (Ok(first), Ok(second)) = (one.symlink_metadata(), other.symlink_metadata()) else { return Ok(false) };
    if first.file_type() != second.file_type() {
        return Ok(false);
    }
    if first.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if first.is_dir() {
        return Ok(true);
    }
    Ok(first.len() == second.len() && has_same_bytes(File::open(one)?, File::open(other)?)?)
}

fn has_same_bytes(one: File, other: File) -> Result<bool> {
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    let mut pieces = [vec![0; 1 << 16], vec![0; 1 << 16]];
    loop {
        let [first, second] = &mut pieces;
        let count = one.read(first)?;
        other.read_exact(&mut second[..count])?;
        if first[..count] != second[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

/// Bytes of all files below a folder.
pub(super) fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}
