//! One round: seeding, download, the delay of a change, a large file, small changes in it, memory and disk.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Options;
use super::data;
use super::rows::{Rows, percentile};
use super::world::{SERVERS, World};

/// The agents take a change when it has rested for this long, in milliseconds.
const QUIET_MS: f64 = 500.0;
const DELAYS: usize = 30;
const DELTAS: u64 = 10;
const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn round(binary: &Path, folder: &Path, options: &Options, rows: &mut Rows) -> Result<()> {
    let (small, large_mib) = (options.small, options.large_mib);
    let mut world = World::start(binary, folder)?;
    let [detroit, munich] = SERVERS;
    let bytes = data::small_files(&world.site(detroit).join("small"), small, options.largest_kib)?;
    let objects = (small + small.div_ceil(100) + 1) as f64;
    let up = timed(|| world.join(detroit).and_then(|()| world.synced()))?;
    rows.add("upload of small files", "objects/s", ">= 5000", objects / up);
    rows.add("bytes of it", "MiB/s", "", bytes as f64 / MIB / up);
    let down = timed(|| world.join(munich).and_then(|()| world.synced()))?;
    rows.add("download of small files", "objects/s", ">= 3000", objects / down);
    memory(&world, objects, rows)?;
    delays(&world, "delay of a change, idle", rows)?;
    rescan(&mut world, objects, rows)?;
    large(&world, large_mib, rows)?;
    deltas(&world, large_mib, rows)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

fn memory(world: &World, objects: f64, rows: &mut Rows) -> Result<()> {
    let (_, sender) = world.agents[0].memory_kib()?;
    let (_, receiver) = world.agents[1].memory_kib()?;
    let (_, service) = world.service.memory_kib()?;
    rows.add("agent memory, most (sender)", "MiB", "<= 300 at 1 M", sender as f64 / 1024.0);
    rows.add("agent memory, most (receiver)", "MiB", "<= 300 at 1 M", receiver as f64 / 1024.0);
    rows.add("service memory, most", "MiB", "", service as f64 / 1024.0);
    rows.add("records on disk", "bytes/object", "", std::fs::metadata(world.records())?.len() as f64 / objects);
    rows.add("catalog on disk", "bytes/object", "", data::bytes_below(&world.catalogs(SERVERS[1]))? as f64 / objects);
    Ok(())
}

/// From the end of a write on one server to the file on the other, beyond the quiet time.
fn delays(world: &World, name: &'static str, rows: &mut Rows) -> Result<()> {
    let mut values = Vec::with_capacity(DELAYS);
    for number in 0..DELAYS {
        values.push(delay(world, number, "idle")?);
    }
    rows.add(name, "ms (p50)", "<= 100", percentile(&mut values, 0.5));
    rows.add("the slowest of 30 such", "ms", "", percentile(&mut values, 1.0));
    Ok(())
}

fn delay(world: &World, number: usize, kind: &str) -> Result<f64> {
    let name = format!("{kind}{number}.txt");
    let there = world.site(SERVERS[1]).join(&name);
    std::fs::write(world.site(SERVERS[0]).join(&name), name.as_bytes())?;
    let written = Instant::now();
    while !there.exists() {
        if written.elapsed() > Duration::from_secs(60) {
            bail!("{name} has not arrived within a minute");
        }
        std::thread::sleep(Duration::from_millis(1)); // tidy: wait for the file
    }
    Ok(written.elapsed().as_secs_f64() * 1000.0 - QUIET_MS)
}

/// An agent that finds everything as it left it.
fn rescan(world: &mut World, objects: f64, rows: &mut Rows) -> Result<()> {
    let mut agent = world.agents.remove(1);
    agent.stop();
    let agent = world.agent(SERVERS[1])?;
    world.agents.push(agent);
    let again = timed(|| world.synced())?;
    rows.add("start and scan of unchanged files", "objects/s", ">= 100000", objects / again);
    Ok(())
}

fn large(world: &World, mib: u64, rows: &mut Rows) -> Result<()> {
    let (from, to) = (world.site(SERVERS[0]).join("large.bin"), world.site(SERVERS[1]).join("large.bin"));
    let outside = world.site("outside.bin");
    data::large_file(&outside, mib, 7)?;
    let copy = world.site("copy.bin");
    let copied = timed(|| {
        let done = Command::new("cp").arg(&outside).arg(&copy).status()?.success();
        if !done || !Command::new("sync").arg("-f").arg(&copy).status()?.success() {
            bail!("cp failed");
        }
        Ok(())
    })?;
    std::fs::rename(&copy, &from)?;
    std::fs::remove_file(&outside)?;
    let started = Instant::now();
    let mut values = Vec::new();
    for number in 0.. {
        values.push(delay(world, number, "busy")?);
        if to.exists() {
            break;
        }
    }
    let arrived = started.elapsed().as_secs_f64();
    world.synced()?;
    rows.add("large file from write to arrival", "MiB/s", "", mib as f64 / arrived);
    rows.add("cp and sync of the same file", "MiB/s", "", mib as f64 / copied);
    rows.add("delay of a change meanwhile, slowest", "ms", "<= 1000 (p99)", percentile(&mut values, 1.0));
    Ok(())
}

/// Bytes that one changed byte of the large file sends.
fn deltas(world: &World, mib: u64, rows: &mut Rows) -> Result<()> {
    let path = world.site(SERVERS[0]).join("large.bin");
    let mut noise = data::Noise::new(11);
    for (name, insert) in [("one changed byte sends", false), ("one inserted byte sends", true)] {
        let mut values = Vec::new();
        for _ in 0..DELTAS {
            let before = data::bytes_below(&world.objects())?;
            let at = noise.next() % (mib * 1024 * 1024);
            if insert {
                data::insert_byte(&path, &path.with_extension("tmp"), at)?
            } else {
                data::change_byte(&path, at)?
            }
            world.synced()?;
            values.push((data::bytes_below(&world.objects())? - before) as f64 / MIB);
        }
        rows.add(name, "MiB (p50)", "<= 2.5", percentile(&mut values, 0.5));
    }
    Ok(())
}
