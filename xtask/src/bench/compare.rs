//! The same work through several products: a tree, one small change, a large file, one byte of it.
//!
//! It deliberately looks at both folders only, in the same way for all: what a product says of itself counts for
//! nothing but the bytes that it sent. When all is measured, every byte is compared.
//!
//! Invariant: a product other than ours that is not there or fails costs its own rows, never those of the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::data::{self, Tree};
use super::rows::{Rows, percentile};
use super::world::PATIENCE_S;
use super::{Options, ours, rclone, syncthing};

const MIB: f64 = 1024.0 * 1024.0;
const DELTAS: u64 = 3;

/// What a product has to offer to be measured.
pub(super) trait Product {
    /// The name and version of what runs.
    fn version(&self) -> Result<String>;

    /// The folder that people change, and the one that shall become the same.
    fn folders(&self) -> [PathBuf; 2];

    /// How many small changes to measure.
    fn changes(&self) -> usize;

    /// Returns when a change has arrived. A product that works only when it is called is called here.
    fn carry(&mut self, arrived: &mut dyn FnMut() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !arrived()? {
            if started.elapsed() > Duration::from_secs(PATIENCE_S) {
                bail!("Nothing arrived within {PATIENCE_S} s");
            }
            std::thread::sleep(Duration::from_millis(1)); // tidy: wait for another program's work
        }
        Ok(())
    }

    /// Returns when the product has nothing left to do.
    fn settle(&mut self) -> Result<()>;

    /// Bytes that the first side has sent so far.
    fn sent(&self) -> Result<u64>;

    /// The most memory so far of all its processes together; nothing if none stays.
    fn memory_kib(&self) -> Result<Option<u64>>;
}

type Start<'a> = Box<dyn Fn(&Path) -> Result<Box<dyn Product>> + 'a>;

/// What to send.
struct Work {
    small: Tree,
    mixed: Option<Tree>,
    /// Only when products are compared: the other benchmark measures ours already.
    large: Option<(PathBuf, u64)>,
}

pub(super) fn round(binary: &Path, folder: &Path, options: &Options, rows: &mut Rows) -> Result<()> {
    let work = work(folder, options)?;
    let mut products: Vec<(&str, Start<'_>)> = vec![("Isotherm", Box::new(|folder| ours::start(binary, folder)))];
    if options.peers {
        products.push(("Syncthing", Box::new(syncthing::start)));
        products.push(("rclone bisync", Box::new(rclone::start)));
    }
    for (name, start) in products {
        let at = folder.join(name.replace(' ', "-"));
        fs::create_dir_all(&at)?;
        // What is left to write of the one before must not slow this one down.
        Command::new("sync").arg("-f").arg(&at).status()?;
        let outcome = start(&at).and_then(|mut product| measure(name, product.as_mut(), &at, &work, rows));
        fs::remove_dir_all(&at).ok();
        match outcome {
            Err(error) if name == "Isotherm" => return Err(error),
            Err(error) => rows.absent(format!("all other rows: {name}"), "", &format!("{error:#}").replace('\n', " ")),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn work(folder: &Path, options: &Options) -> Result<Work> {
    let source = folder.join("source");
    let small = source.join("small");
    data::small_files(&small, options.small, options.largest_kib)?;
    let mixed = options.mixed.then(|| data::mixed_tree(&source.join("mixed"))).transpose()?;
    let large = source.join("large.bin");
    if options.peers {
        data::large_file(&large, options.large_mib, 7)?;
    }
    Ok(Work { small: data::tree(&small)?, mixed, large: options.peers.then_some((large, options.large_mib)) })
}

fn measure(name: &str, product: &mut dyn Product, at: &Path, work: &Work, rows: &mut Rows) -> Result<()> {
    rows.note(format!("{name}: {}", product.version()?));
    product.settle()?;
    let left_out = tree(name, "small files", product, &work.small, rows)?;
    if left_out > 0 {
        bail!("{left_out} of the small files are not the same on both sides");
    }
    match product.memory_kib()? {
        Some(most) => rows.add(format!("most memory then, all processes: {name}"), "MiB", "", most as f64 / 1024.0),
        None => rows.absent(format!("most memory then, all processes: {name}"), "MiB", "no process stays"),
    }
    if work.large.is_some() {
        delays(name, product, rows)?;
    }
    if let Some(mixed) = &work.mixed {
        let left_out = tree(name, "mixed tree", product, mixed, rows)?;
        rows.add(format!("mixed tree, objects left out: {name}"), "objects", "0", left_out as f64);
    }
    if let Some((source, mib)) = &work.large {
        large(name, product, &at.join("large.tmp"), (source, *mib), rows)?;
        deltas(name, product, &at.join("large.tmp"), *mib, rows)?;
    }
    Ok(())
}

/// From the start of a copy into one folder until all of it is in the other. Gives how much is not the same there.
fn tree(name: &str, what: &str, product: &mut dyn Product, tree: &Tree, rows: &mut Rows) -> Result<usize> {
    let [here, there] = product.folders();
    let last = tree.root.file_name().context("A tree has a name")?;
    let mut awaited: Vec<PathBuf> = tree.objects.iter().map(|path| there.join(last).join(path)).collect();
    let started = Instant::now();
    if !Command::new("cp").arg("-a").arg(&tree.root).arg(&here).status()?.success() {
        bail!("cp failed");
    }
    product.carry(&mut || {
        while awaited.last().is_some_and(|path| path.symlink_metadata().is_ok()) {
            awaited.pop();
        }
        Ok(awaited.is_empty())
    })?;
    let took = started.elapsed().as_secs_f64();
    product.settle()?;
    rows.add(format!("{what}, copy to arrival of all: {name}"), "objects/s", "", tree.objects.len() as f64 / took);
    rows.add(format!("{what}, bytes of it: {name}"), "MiB/s", "", tree.bytes as f64 / MIB / took);
    let mut left_out = 0;
    for path in &tree.objects {
        left_out += usize::from(!data::is_same(&tree.root.join(path), &there.join(last).join(path))?);
    }
    Ok(left_out)
}

/// From the end of the write of a new small file until it is there, quiet times and all.
fn delays(name: &str, product: &mut dyn Product, rows: &mut Rows) -> Result<()> {
    let [here, there] = product.folders();
    let mut noise = data::Noise::new(13);
    let mut values = Vec::new();
    for number in 0..product.changes() {
        let file = format!("change{number}.txt");
        // Right after an arrival a product that looks once a second has just looked: it would always need a second.
        std::thread::sleep(Duration::from_millis(noise.next() % 1_000)); // tidy: wait for no fixed moment of its clock
        fs::write(here.join(&file), file.as_bytes())?;
        let written = Instant::now();
        product.carry(&mut || Ok(there.join(&file).exists()))?;
        values.push(written.elapsed().as_secs_f64() * 1000.0);
    }
    product.settle()?;
    rows.add(format!("one small change, all in: {name}"), "ms (p50)", "", percentile(&mut values, 0.5));
    rows.add(format!("the slowest of these: {name}"), "ms", "", percentile(&mut values, 1.0));
    Ok(())
}

fn large(name: &str, product: &mut dyn Product, copy: &Path, (source, mib): (&Path, u64), rows: &mut Rows) -> Result<()> {
    let [here, there] = product.folders().map(|folder| folder.join("large.bin"));
    fs::copy(source, copy)?;
    fs::File::open(copy)?.sync_all()?;
    fs::rename(copy, &here)?;
    let started = Instant::now();
    product.carry(&mut || Ok(there.metadata().is_ok_and(|found| found.len() == mib * 1024 * 1024)))?;
    let took = started.elapsed().as_secs_f64();
    product.settle()?;
    rows.add(format!("large file, write to arrival: {name}"), "MiB/s", "", mib as f64 / took);
    Ok(())
}

/// Bytes that one changed byte of the large file sends.
fn deltas(name: &str, product: &mut dyn Product, copy: &Path, mib: u64, rows: &mut Rows) -> Result<()> {
    let [here, there] = product.folders().map(|folder| folder.join("large.bin"));
    let mut noise = data::Noise::new(11);
    for (what, insert) in [("one changed byte of it sends", false), ("one inserted byte of it sends", true)] {
        let mut values = Vec::new();
        for _ in 0..DELTAS {
            let before = product.sent()?;
            let at = noise.next() % (mib * 1024 * 1024);
            if insert {
                data::insert_byte(&here, copy, at)?
            } else {
                data::change_byte(&here, at)?
            }
            let expected = (data::byte(&here, at)?, here.metadata()?.len());
            product.carry(&mut || {
                // The file may be away for a moment while it is replaced.
                Ok(data::byte(&there, at).is_ok_and(|byte| byte == expected.0)
                    && there.metadata().is_ok_and(|found| found.len() == expected.1))
            })?;
            product.settle()?;
            values.push((product.sent()? as f64 - before as f64) / MIB);
        }
        rows.add(format!("{what}: {name}"), "MiB (p50)", "", percentile(&mut values, 0.5));
    }
    if !data::is_same(&here, &there)? {
        bail!("The large file is not the same on both sides");
    }
    Ok(())
}
