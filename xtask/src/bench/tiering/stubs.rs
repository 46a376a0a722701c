//! How fast contents go and come back.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use super::super::data::large_file;
use super::super::rows::{Rows, percentile};
use super::super::world::text;
use super::get::Getter;
use super::namespace;
use super::office::{Office, SERVERS, done, until};

/// Files of 64 KiB that go and come together.
const MOVED: usize = 10_000;
/// Stubs that are opened, of each size.
const OPENED: u64 = 15;
const LARGE_MIB: u64 = 1_024;
/// Files of that size that are streamed.
const FILMS: u64 = 3;
/// What the beginning of a file that is streamed comes in.
const UNIT: u64 = 1 << 20;

pub(super) fn measure(office: &mut Office, getter: &Path, files: usize, rows: &mut Rows) -> Result<()> {
    namespace::plain_first(office, files, rows)?;
    moving(office, rows)?;
    opened(office, getter, rows)?;
    large(office, rows)
}

/// What somebody waits for who opens a file.
pub(super) fn opened(office: &Office, getter: &Path, rows: &mut Rows) -> Result<()> {
    opening(office, getter, rows)?;
    streaming(office, getter, rows)
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

/// Somebody opens files that are not here; a plain client gets as much from the service, of another file, in turn.
fn opening(office: &Office, getter: &Path, rows: &mut Rows) -> Result<()> {
    office.share("opened")?;
    office.guard("opened")?;
    let mut getter = office.getter(getter, "opened")?;
    // By the second name the product takes this program for one that reads plainly and need not wait until all is durable.
    for (program, who) in [("xtask", ""), ("smbd", " by Samba or a player")] {
        fs::write("/proc/self/comm", program)?;
        for (size, kib) in [("64 KiB", 64), ("4 MiB", 4 << 10)] {
            let name = format!("first byte of a stub of {size}{who}, {}", office.fs);
            one_size(office, &mut getter, (program, kib), &name, rows)?;
        }
    }
    Ok(fs::write("/proc/self/comm", "xtask")?)
}

fn one_size(office: &Office, getter: &mut Getter, (program, kib): (&str, u64), name: &str, rows: &mut Rows) -> Result<()> {
    let path = |number: u64| format!("opened-{program}-{kib}-{number}");
    for number in 0..2 * OPENED {
        let mib = 1.max(kib >> 10);
        let whole = office.plain("opened").join(path(number));
        // Of their own: what the service has read a moment ago is read faster.
        large_file(&whole, mib, 77 + number + if program == "smbd" { 1_000 } else { 0 })?;
        File::options().write(true).open(&whole)?.set_len(kib << 10)?;
    }
    office.synced()?;
    let (mut pairs, mut written) = (Pairs::default(), Vec::new());
    for number in 0..OPENED {
        let stub = office.guarded("opened").join(path(2 * number));
        if fs::metadata(&stub)?.blocks() > 8 {
            bail!("{} is no stub", stub.display());
        }
        pairs.add(|| Ok(1_000.0 * timed(|| first_byte(&stub))?), || getter.get(&path(2 * number + 1), (kib << 10, 0)))?;
        written.push(1_000.0 * timed(|| durably(&office.bare().join(path(number)), kib << 10))?);
    }
    pairs.show(name, "a GET of as much", rows);
    rows.add(format!("{name}: a new file of as much, durable"), "ms", "", percentile(&mut written, 0.5));
    Ok(())
}

/// Times in milliseconds of two things that are done in turn.
#[derive(Default)]
struct Pairs([Vec<f64>; 3]);

impl Pairs {
    fn add(&mut self, one: impl FnOnce() -> Result<f64>, other: impl FnOnce() -> Result<f64>) -> Result<()> {
        // Whoever is second finds everything awake.
        let (one, other) = if self.0[0].len().is_multiple_of(2) {
            let one = one()?;
            (one, other()?)
        } else {
            let other = other()?;
            (one()?, other)
        };
        self.0.iter_mut().zip([one, other, one / other]).for_each(|(all, value)| all.push(value));
        Ok(())
    }

    /// Medians, the last one of the ratios of pairs.
    fn show(mut self, name: &str, other: &str, rows: &mut Rows) {
        let [one, get, ratio] = self.0.each_mut().map(|all| percentile(all, 0.5));
        rows.add(name, "ms", "", one);
        rows.add(format!("{name}: {other}"), "ms", "", get);
        rows.add(format!("{name}: of {other}"), "of it", "<= 1.5", ratio);
    }
}

/// A program that streams reads the first bytes of large files, and then one of them from end to end.
fn streaming(office: &Office, getter: &Path, rows: &mut Rows) -> Result<()> {
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
    let first = |film: &Path| Ok(1_000.0 * timed(|| play(film, &["bs=4K", "count=1"]))?);
    let mut getter = office.getter(getter, "films")?;
    let mut pairs = Pairs::default();
    for number in 0..FILMS {
        // What the program itself takes counts for both. Before it may open a film the end has to be there, and then it reads the beginning.
        let gets = || Ok(first(&office.plain("films").join("film0"))? + getter.get(&format!("film{number}"), (UNIT, UNIT))?);
        pairs.add(|| first(&film(number)), gets)?;
    }
    let name = format!("first byte of a stub of 1 GiB, streamed, {}", office.fs);
    pairs.show(&name, "a GET of its ends, and the program", rows);
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

/// What a disk takes for it.
fn durably(path: &Path, len: u64) -> Result<String> {
    let mut file = File::create_new(path)?;
    file.write_all(&vec![7; len.try_into()?])?;
    file.sync_all()?;
    Ok(String::new())
}

pub(super) fn timed(work: impl FnOnce() -> Result<String>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}
