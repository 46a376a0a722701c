//! Files to measure with: the same ones in every run, and bytes that do not compress.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

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

/// Makes so many files of 1 to 32 KiB, a hundred in a folder; gives their bytes.
pub(super) fn small_files(folder: &Path, count: usize) -> Result<u64> {
    let mut noise = Noise::new(1);
    let mut bytes = vec![0; 32 * 1024];
    let mut sum = 0;
    for number in 0..count {
        let directory = folder.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        let len = 1024 + (noise.next() % (31 * 1024)) as usize;
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

/// Saves the file with one more byte at a place, as editors do.
pub(super) fn insert_byte(path: &Path, at: u64) -> Result<()> {
    let copy = path.with_extension("tmp");
    let (mut from, mut to) = (File::open(path)?, File::create(&copy)?);
    std::io::copy(&mut std::io::Read::take(&mut from, at), &mut to)?;
    to.write_all(b"!")?;
    std::io::copy(&mut from, &mut to)?;
    fs::rename(copy, path)?;
    Ok(())
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
