//! How fast a namespace comes, and contents go and come back.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::super::data::{bytes_below, large_file, tree};
use super::super::rows::{Rows, percentile};
use super::super::world::text;
use super::office::{Office, SERVERS, done, until};

/// Files of 64 KiB that go and come together.
const MOVED: usize = 10_000;
/// Stubs that are opened, of each size.
const OPENED: u64 = 15;
const LARGE_MIB: u64 = 1_024;
/// Files of that size that are streamed.
const FILMS: u64 = 3;
const KIB: f64 = 1_024.0;

pub(super) fn measure(office: &mut Office, files: usize, rows: &mut Rows) -> Result<()> {
    namespace(office, files, rows)?;
    arming(office, files, rows)?;
    moving(office, rows)?;
    opening(office, rows)?;
    streaming(office, rows)?;
    large(office, rows)
}

/// A new endpoint gets everything of its share, without contents.
fn namespace(office: &Office, files: usize, rows: &mut Rows) -> Result<()> {
    let fs = &office.fs;
    office.share("many")?;
    for number in 0..files {
        let directory = office.plain("many").join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        // The least that is tiered, so that the disk of the service is not what is measured.
        let mut bytes = vec![0; 8 << 10];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        fs::write(directory.join(format!("file{number}.bin")), bytes)?;
    }
    office.synced()?;
    let (before, kernel, catalogs) = (used(&office.volume())?, slab_kib()?, bytes_below(&office.catalogs())?);
    let took = timed(|| office.guard("many").map(|()| String::new()))?;
    let objects = tree(&office.guarded("many"))?.objects.len();
    let stubs = files as f64;
    rows.add(format!("namespace as stubs, {fs}"), "objects/s", ">= 10000; then 20000", objects as f64 / took);
    done(Command::new("sync").arg("-f").arg(office.volume()))?;
    let disk = (used(&office.volume())? - before + bytes_below(&office.catalogs())? - catalogs) as f64;
    rows.add(format!("volume and catalog for a stub, {fs}"), "KiB", "<= 1.5", disk / stubs / KIB);
    rows.add(format!("kernel memory for a stub, {fs}"), "KiB", "", (slab_kib()? - kernel) / stubs);
    rows.add(format!("agent memory, most, {fs}"), "MiB", "<= 300 at 1 M", office.agent_memory()? as f64 / KIB);
    Ok(())
}

fn arming(office: &mut Office, files: usize, rows: &mut Rows) -> Result<()> {
    let took = office.restart_gate()?.as_secs_f64();
    rows.add(format!("a new gate arms, {}", office.fs), "stubs/s", "", files as f64 / took);
    let gate = office.gate.as_ref().context("No gate")?;
    rows.add(format!("gate memory for a stub, {}", office.fs), "bytes", "", gate.memory_kib()?.0 as f64 * KIB / (files as f64));
    Ok(())
}

/// Files of 64 KiB go, and come back.
fn moving(office: &Office, rows: &mut Rows) -> Result<()> {
    let fs = &office.fs;
    office.share("moved")?;
    office.guard("moved")?;
    let folder = office.plain("moved");
    for number in 0..MOVED {
        let mut bytes = vec![0; 64 << 10];
        bytes[..8].copy_from_slice(&(number as u64 + 1_000_000).to_le_bytes());
        fs::write(folder.join(format!("file{number}.bin")), bytes)?;
    }
    office.synced()?;
    let here = office.guarded("moved");
    let recalled = timed(|| office.ask_munich(&["recall", text(&here)?]))?;
    rows.add(format!("recall of files of 64 KiB, {fs}"), "files/s", "", MOVED as f64 / recalled);
    office.synced()?;
    let planned = timed(|| office.ask_munich(&["tier", "--dry-run", text(&here)?]))?;
    rows.add(format!("looking what would go, {fs}"), "files/s", "", MOVED as f64 / planned);
    let tiered = timed(|| office.ask_munich(&["tier", text(&here)?]))?;
    rows.add(format!("tiering of files of 64 KiB, {fs}"), "files/s", ">= 10000", MOVED as f64 / tiered);
    Ok(())
}

/// Somebody opens one that is not here.
fn opening(office: &Office, rows: &mut Rows) -> Result<()> {
    office.share("opened")?;
    office.guard("opened")?;
    for (name, kib) in [("64 KiB", 64), ("4 MiB", 4 << 10)] {
        let path = |folder: PathBuf, number: u64| folder.join(format!("opened-{kib}-{number}"));
        for number in 0..OPENED {
            let mib = 1.max(kib >> 10);
            let whole = path(office.plain("opened"), number);
            large_file(&whole, mib, 77 + number)?;
            File::options().write(true).open(&whole)?.set_len(kib << 10)?;
        }
        office.synced()?;
        let mut times = Vec::new();
        for number in 0..OPENED {
            let stub = path(office.guarded("opened"), number);
            if fs::metadata(&stub)?.blocks() > 8 {
                bail!("{} is no stub", stub.display());
            }
            times.push(1_000.0 * timed(|| first_byte(&stub))?);
        }
        rows.add(format!("first byte of a stub of {name}, {}", office.fs), "ms", "", percentile(&mut times, 0.5));
    }
    Ok(())
}

/// A program that streams reads the first bytes of large files, and then one of them from end to end.
fn streaming(office: &Office, rows: &mut Rows) -> Result<()> {
    office.share("films")?;
    for number in 0..FILMS {
        large_file(&office.plain("films").join(format!("film{number}")), LARGE_MIB, 200 + number)?;
    }
    office.synced()?;
    office.guard("films")?;
    let film = |number: u64| office.guarded("films").join(format!("film{number}"));
    // By this name the product knows it as one that streams.
    let player = office.volume().with_file_name("mpv");
    fs::copy("/bin/dd", &player)?;
    let play = |film: &Path, settings: &[&str]| {
        let mut command = Command::new(&player);
        done(command.arg(format!("if={}", film.display())).args(["of=/dev/null", "status=none"]).args(settings))
    };
    // The time of the program itself counts too.
    let mut times = Vec::new();
    for number in 0..FILMS {
        times.push(1_000.0 * timed(|| play(&film(number), &["bs=4K", "count=1"]))?);
    }
    rows.add(format!("first byte of a stub of 1 GiB, streamed, {}", office.fs), "ms", "", percentile(&mut times, 0.5));
    until("nobody streams", || (0..FILMS).all(|number| fs::metadata(film(number)).is_ok_and(|found| found.blocks() < 64 << 11)))?;
    let played = timed(|| play(&film(0), &["bs=64K"]))?;
    rows.add(format!("a large file streamed from end to end, {}", office.fs), "MiB/s", "", LARGE_MIB as f64 / played);
    for number in 0..FILMS {
        fs::remove_file(office.plain("films").join(format!("film{number}")))?;
    }
    office.synced()
}

/// A large content comes because somebody opens it, and as a whole file to an endpoint that does not tier, on a volume like it.
fn large(office: &Office, rows: &mut Rows) -> Result<()> {
    office.share("large")?;
    large_file(&office.plain("large").join("large.bin"), LARGE_MIB, 99)?;
    office.synced()?;
    office.guard("large")?;
    let guarded = office.guarded("large").join("large.bin");
    let recalled = timed(|| first_byte(&guarded))?;
    let folder = office.bare().join("large");
    fs::create_dir_all(&folder)?;
    let came = timed(|| {
        office.join("large", SERVERS[2], &folder, &[])?;
        until("the file comes", || folder.join("large.bin").exists())?;
        Ok(String::new())
    })?;
    rows.add(format!("recall of a large file, {}", office.fs), "MiB/s", "", LARGE_MIB as f64 / recalled);
    // With the moment until the endpoint has begun.
    rows.add(format!("the same, of a download of it, {}", office.fs), "of it", ">= 0.8", came / recalled);
    Ok(())
}

fn first_byte(path: &Path) -> Result<String> {
    File::open(path)?.read_exact(&mut [0])?;
    Ok(String::new())
}

fn timed(work: impl FnOnce() -> Result<String>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Bytes that are in use on a volume.
fn used(volume: &Path) -> Result<u64> {
    let told = done(Command::new("stat").args(["-f", "-c", "%b %f %S"]).arg(volume))?;
    let numbers: Vec<u64> = told.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [all, free, block] = numbers[..] else { bail!("stat says {told:?}") };
    Ok((all - free) * block)
}

/// Memory that the kernel keeps and can give back to nobody.
fn slab_kib() -> Result<f64> {
    // What it keeps of files that nobody needs goes first.
    done(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    let told = fs::read_to_string("/proc/meminfo")?;
    let line = told.lines().find(|line| line.starts_with("Slab:")).context("No Slab in /proc/meminfo")?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}
