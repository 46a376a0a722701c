//! How fast a namespace comes as stubs and what it takes, how fast a gate arms, and how fast it is planned what goes of many files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::super::data::{bytes_below, tree};
use super::super::rows::Rows;
use super::super::world::text;
use super::office::{Office, done};
use super::stubs::timed;

const KIB: f64 = 1_024.0;
const GROUP: &str = "many";
/// Files of one plan that are told of; a plan that is carried out has twice as many.
const TOLD: &str = "10000";

/// The files are made at the plain server, and come as stubs.
pub(super) fn plain_first(office: &mut Office, files: usize, rows: &mut Rows) -> Result<()> {
    office.share(GROUP)?;
    make(&office.plain(GROUP), files)?;
    office.synced()?;
    come(office, files, rows)?;
    arming(office, files, rows)
}

/// The files are made on the guarded volume, which is where they are whole and can be planned for; then that is made anew, and they come
/// as stubs. So there is one copy of them at a time, and nothing is left of the first when the second is measured.
pub(super) fn guarded_first(office: &mut Office, files: usize, rows: &mut Rows) -> Result<()> {
    rows.note(format!(
        "{files} files of 8 KiB were made on the guarded volume and sent from there; it was made anew for the stubs"
    ));
    office.ask(&["group", "create", GROUP, "--delete-limit", "100%"])?;
    office.guard(GROUP)?;
    let (here, count) = (office.guarded(GROUP), files as f64);
    let sent = timed(|| {
        make(&here, files)?;
        office.synced()?;
        Ok(String::new())
    })?;
    let fs = office.fs.clone();
    rows.add(format!("whole files made and sent, {fs}"), "objects/s", "", count / sent);
    rows.add(format!("agent memory, most, meanwhile, {fs}"), "MiB", "<= 300 at 1 M", office.agent_memory()? as f64 / KIB);
    office.stop_munich();
    office.start_munich()?;
    let scanned = timed(|| office.synced().map(|()| String::new()))?;
    rows.add(format!("start and scan of unchanged files, {fs}"), "objects/s", ">= 100000", count / scanned);
    // What was made just now goes only then.
    office.set_only(GROUP, &["--grace", "0s"])?;
    office.synced()?;
    if let Err(error) = planning(office, &here, files, rows) {
        // What comes after it can be measured without.
        rows.absent(format!("planning what goes next of whole files, {fs}"), "files/s", &format!("{error:#}").replace('\n', " "));
    }
    rows.add(format!("agent memory, most, since it began again, {fs}"), "MiB", "", office.agent_memory()? as f64 / KIB);
    office.leave(GROUP)?;
    office.renew()?;
    come(office, files, rows)?;
    arming(office, files, rows)
}

/// Small files, a hundred in a folder.
fn make(folder: &Path, files: usize) -> Result<()> {
    for number in 0..files {
        let directory = folder.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        // The least that is tiered, so that the disk of the service is not what is measured.
        let mut bytes = vec![0; 8 << 10];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        fs::write(directory.join(format!("file{number}.bin")), bytes)?;
    }
    Ok(())
}

/// All that are whole are looked at, and the coldest are found.
fn planning(office: &Office, here: &Path, files: usize, rows: &mut Rows) -> Result<()> {
    let count = files as f64;
    let mut told = String::new();
    let next = timed(|| {
        told = office.ask_munich(&["heat", "--next", "--count", TOLD, "--json", text(here)?])?;
        Ok(String::new())
    })?;
    let found = told.matches(".bin\"").count();
    if found < files.min(TOLD.parse()?) {
        bail!("Of {files} whole files {found} would go next");
    }
    rows.add(format!("planning what goes next of whole files, {}", office.fs), "files/s", "", count / next);
    let looked = timed(|| office.ask_munich(&["tier", "--dry-run", text(here)?]))?;
    rows.add(format!("looking what would go of all of them, {}", office.fs), "files/s", "", count / looked);
    Ok(())
}

/// A new endpoint gets everything of its share, without contents.
fn come(office: &Office, files: usize, rows: &mut Rows) -> Result<()> {
    let fs = &office.fs;
    let (before, kernel, catalogs) = (used(&office.volume())?, slab_kib()?, bytes_below(&office.catalogs())?);
    let took = timed(|| office.guard(GROUP).map(|()| String::new()))?;
    let objects = tree(&office.guarded(GROUP))?.objects.len();
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
