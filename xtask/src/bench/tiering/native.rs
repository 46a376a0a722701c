//! Work on files that are here, on the guarded volume and on the bare one in turn; other products do the same.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::data::{Noise, large_file};
use super::super::rows::Rows;
use super::office::{Office, done};

/// Small files that are opened, looked at and read.
pub(super) const SMALL: usize = 2_000;
/// The large file, in MiB: it stays in memory, so that disks are not what is measured.
const LARGE_MIB: u64 = 256;
/// What the guarded side takes part in.
const GROUP: &str = "native";
const PAGE: usize = 4 << 10;
const PIECE: usize = 1 << 20;
/// How long one run of one work is, about.
const RUN: Duration = Duration::from_millis(250);

/// A kind of work: what it is called, what is asked for with each guard, and one turn of it, given the folder and the turn's number.
type Work = (&'static str, [&'static str; 2], fn(&Place, u64) -> Result<()>);

pub(super) const WORKS: [Work; 7] = [
    ("read 4 KiB", [">= 0.95", ">= 0.7"], |place, turn| {
        let mut page = [0; PAGE];
        Ok(place.large.read_exact_at(&mut page, place.page(turn))?)
    }),
    ("read in sequence", [">= 0.95", ">= 0.7"], |place, turn| {
        let mut piece = place.piece();
        Ok(place.large.read_exact_at(&mut piece, turn % LARGE_MIB * PIECE as u64)?)
    }),
    ("write 4 KiB", [">= 0.95", ">= 0.7"], |place, turn| Ok(place.large.write_all_at(&[7; PAGE], place.page(turn))?)),
    ("write in sequence", [">= 0.95", ">= 0.7"], |place, turn| {
        Ok(place.large.write_all_at(&place.piece(), turn % LARGE_MIB * PIECE as u64)?)
    }),
    ("open, read, close", [">= 0.9", ">= 0.8"], |place, turn| {
        let mut page = [0; PAGE];
        let file = File::open(&place.small[turn as usize % SMALL])?;
        Ok(file.read_exact_at(&mut page, 0)?)
    }),
    ("stat", [">= 0.97", ">= 0.97"], |place, turn| Ok(fs::metadata(&place.small[turn as usize % SMALL]).map(drop)?)),
    ("create, write, close, unlink", [">= 0.5", ">= 0.25"], |place, turn| {
        let path = place.folder.join(format!("new-{}", turn % 64));
        fs::write(&path, [7; PAGE])?;
        Ok(fs::remove_file(&path)?)
    }),
];

/// The files that are worked on, in one place.
pub(super) struct Place {
    folder: PathBuf,
    large: File,
    small: Vec<PathBuf>,
}

impl Place {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let folder = folder.join(GROUP);
        fs::create_dir_all(&folder)?;
        large_file(&folder.join("large"), LARGE_MIB, 3)?;
        let small: Vec<PathBuf> = (0..SMALL).map(|at| folder.join(format!("small-{at}"))).collect();
        small.iter().try_for_each(|path| fs::write(path, [5; PAGE]))?;
        let large = File::options().read(true).write(true).open(folder.join("large"))?;
        Ok(Self { folder, large, small })
    }

    /// Has all of it in memory once more, as a reader does.
    fn read(&self) -> Result<()> {
        let mut piece = self.piece();
        (0..LARGE_MIB).try_for_each(|at| self.large.read_exact_at(&mut piece, at * PIECE as u64))?;
        Ok(self.small.iter().try_for_each(|path| fs::read(path).map(drop))?)
    }

    fn page(&self, turn: u64) -> u64 {
        Noise::new(turn).next() % (LARGE_MIB << 20 >> 12) * PAGE as u64
    }

    fn piece(&self) -> Vec<u8> {
        vec![0; PIECE]
    }
}

/// Has files of both sides in memory in the same way: what was written and waits for the disk is in larger pieces than what was read, and
/// the agent has made durable what it has sent.
pub(super) fn settle(places: [&Place; 2]) -> Result<()> {
    done(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "1").context("Cannot have the kernel forget what is in memory")?;
    places.iter().try_for_each(|place| place.read())
}

/// A thousand stubs.
fn stubs(office: &Office) -> Result<()> {
    let folder = office.plain(GROUP).join("stubs");
    fs::create_dir_all(&folder)?;
    (0..1_000).try_for_each(|at| fs::write(folder.join(format!("stub-{at}")), [1; 3 * PAGE]))?;
    office.synced()
}

pub(super) fn measure(office: &Office, pairs: usize, rows: &mut Rows) -> Result<()> {
    office.share(GROUP)?;
    office.guard(GROUP)?;
    let folders = [office.bare().join(GROUP), office.guarded(GROUP)];
    let places = [Place::new(&folders[0])?, Place::new(&folders[1])?];
    // Some are stubs there, as on any such volume.
    stubs(office)?;
    settle(places.each_ref())?;
    let guard = usize::from(office.guard == "filesystem");
    for work @ (name, targets, _) in WORKS {
        rows.add(
            format!("{name}, {} by {}", office.fs, office.guard),
            "of bare",
            targets[guard],
            ratio(work, places.each_ref(), pairs)?,
        );
    }
    // Else the agent reads what was written while the next is measured.
    office.synced()?;
    let copied = copied(&folders, 2, &|| office.synced())?;
    rows.add(format!("cp -a of documents, {} by {}", office.fs, office.guard), "of bare", "", copied);
    Ok(())
}

/// How fast a real tree is copied to the second folder, of the first: the median of so many pairs in each order.
pub(super) fn copied(folders: &[PathBuf; 2], pairs: usize, settled: &dyn Fn() -> Result<()>) -> Result<f64> {
    let source = Path::new("/usr/share/doc");
    let copies = [0, 1].map(|side: usize| folders[side].join("copied"));
    let mut ratios = Vec::new();
    for turn in 0..2 * pairs {
        let mut took = [0.0; 2];
        for at in [turn % 2, 1 - turn % 2] {
            let begun = Instant::now();
            done(Command::new("cp").arg("-a").arg(source).arg(&copies[at]))?;
            took[at] = begun.elapsed().as_secs_f64();
            // Else the other copy meets what this one has left: pages that are written back, and files that the agent reads and sends.
            done(&mut Command::new("sync"))?;
            settled()?;
        }
        ratios.push(took[0] / took[1]);
        copies.iter().try_for_each(fs::remove_dir_all)?;
        done(&mut Command::new("sync"))?;
        settled()?;
    }
    Ok(middle(ratios))
}

/// How fast the second side is, of the first: the median of pairs.
pub(super) fn ratio((_, _, work): Work, places: [&Place; 2], pairs: usize) -> Result<f64> {
    let run = |side: usize, turns: u64| -> Result<f64> {
        let begun = Instant::now();
        (0..turns).try_for_each(|turn| work(places[side], turn))?;
        Ok(begun.elapsed().as_secs_f64())
    };
    // What another work has written comes not in the way of this one.
    done(&mut Command::new("sync"))?;
    let mut turns = [long_enough(|turns| run(0, turns))?, long_enough(|turns| run(1, turns))?];
    // The same work for both, unless one of them would take minutes for it.
    if turns[1] >= turns[0] / 8 {
        turns[1] = turns[0];
    }
    let mut ratios = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        // Whoever is first has another cache.
        let mut rates = [0.0; 2];
        for side in [pair % 2, 1 - pair % 2] {
            rates[side] = turns[side] as f64 / run(side, turns[side])?;
        }
        ratios.push(rates[1] / rates[0]);
    }
    Ok(middle(ratios))
}

/// So many turns that a run is long enough, and everything is in memory.
fn long_enough(time: impl Fn(u64) -> Result<f64>) -> Result<u64> {
    let mut turns = 64;
    while time(turns)? < RUN.as_secs_f64() / 2.0 {
        turns *= 2;
        if turns > 1 << 32 {
            bail!("Nothing takes no time");
        }
    }
    Ok(turns)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
