//! Others through which files could be had, beside the volume that nobody guards: the same work on the same files, in turn.
//!
//! What they keep lies on that volume too. Their settings are their defaults, but where it says otherwise.
//!
//! Invariant: what was started and mounted is gone when a peer is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::rows::Rows;
use super::super::world::{Running, text};
use super::native::{self, Place, SMALL, WORKS};
use super::office::{Office, done, until};
use crate::{packages, product, tools};

/// A file system of somebody else that is mounted.
struct Peer {
    mount: PathBuf,
    /// What is to be known of it.
    about: String,
    /// Where it puts files some time after they were written.
    later: Option<PathBuf>,
    process: Running,
}

/// Begins one: given the root of the project, a folder on the bare volume, and where to mount.
type Start = fn(&Path, &Path, &Path) -> Result<Peer>;

const PEERS: [(&str, Start); 3] = [("JuiceFS", juicefs), ("rclone mount", rclone), ("FUSE passthrough", passthrough)];

/// What is said of the copy of a tree.
const COPY: &str = "cp -a of documents";

pub(super) fn measure(root: &Path, office: &Office, pairs: usize, rows: &mut Rows) -> Result<()> {
    let bare = office.bare().join("peers");
    let place = Place::new(&bare)?;
    let here = format!("{}/", office.folder().display());
    for (name, start) in PEERS {
        let (data, mount) = (bare.join(name), office.folder().join(format!("mounted {name}")));
        fs::create_dir_all(&data)?;
        fs::create_dir_all(&mount)?;
        let row = |work: &str| format!("{work}, {}: {name}", office.fs);
        // In one line, without where this run was.
        let said = |error: &anyhow::Error| {
            let text = format!("{error:#}").replace(&here, "");
            text.lines().next().unwrap_or_default().replace('"', "")
        };
        match start(root, &data, &mount) {
            Ok(peer) => {
                rows.note(format!("{name}: {}", peer.about));
                one(&peer, (&bare, &place), pairs, &mut |work, outcome| match outcome {
                    Ok(ratio) => rows.add(row(work), "of bare", "", ratio),
                    Err(error) => rows.absent(row(work), "of bare", &said(&error)),
                })?;
            }
            Err(error) => {
                let works = WORKS.iter().map(|(work, _, _)| *work).chain([COPY]);
                works.for_each(|work| rows.absent(row(work), "of bare", &said(&error)));
            }
        }
        fs::remove_dir_all(&data)?;
    }
    Ok(())
}

fn one(peer: &Peer, (bare, place): (&Path, &Place), pairs: usize, add: &mut dyn FnMut(&str, Result<f64>)) -> Result<()> {
    let theirs = Place::new(&peer.mount)?;
    peer.settled()?;
    let places = [place, &theirs];
    native::settle(places)?;
    for work in WORKS {
        add(work.0, native::ratio(work, places, pairs));
    }
    drop(theirs);
    let folders = [bare.to_owned(), peer.mount.clone()];
    add(COPY, native::copied(&folders, 1, &|| Ok(())));
    // What has failed left something.
    for folder in folders {
        fs::remove_dir_all(folder.join("copied")).ok();
    }
    Ok(())
}

impl Peer {
    fn mounted(mount: &Path, about: String, command: &mut Command) -> Result<Self> {
        let log = mount.with_extension("log");
        let process = Running::start(command, &log)?;
        let mut peer = Self { mount: mount.to_owned(), about, later: None, process };
        let began = Instant::now();
        while !is_mounted(mount) {
            if !peer.process.is_alive() || began.elapsed() > Duration::from_secs(60) {
                let log = fs::read_to_string(&log).unwrap_or_default();
                bail!("It did not mount: {}", log.lines().last().unwrap_or("it said nothing"));
            }
            std::thread::sleep(Duration::from_millis(20)); // tidy: wait for a program
        }
        Ok(peer)
    }

    /// Waits until small files are where they belong.
    fn settled(&self) -> Result<()> {
        let Some(later) = &self.later else { return Ok(()) };
        let count = || fs::read_dir(later.join("native")).map_or(0, Iterator::count);
        until("small files have been put where they belong", || count() >= SMALL)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself then; whatever else is done is for one that does not.
        let unmounted = Command::new("umount").arg(&self.mount).output().is_ok_and(|ended| ended.status.success());
        if !unmounted && is_mounted(&self.mount) {
            Command::new("umount").args(["-q", "-l"]).arg(&self.mount).status().ok();
        }
        self.process.stop();
    }
}

fn is_mounted(mount: &Path) -> bool {
    // Blanks are written as octal numbers there.
    let name = mount.to_string_lossy().replace(' ', "\\040");
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(1) == Some(&name)))
}

fn juicefs(root: &Path, data: &Path, mount: &Path) -> Result<Peer> {
    packages::ensure(packages::FUSE)?;
    let program = tools::of_python(root, tools::JUICEFS)?;
    let records = format!("sqlite3://{}", text(&data.join("records.db"))?);
    let bucket = format!("{}/", text(&data.join("objects"))?);
    // It keeps something in the home of its user.
    let command = || {
        let mut command = Command::new(&program);
        command.env("HOME", data);
        command
    };
    done(command().args(["format", "--storage", "file", "--bucket", &bucket, &records, "bench"]))?;
    let about =
        format!("{}; records in SQLite, objects in a folder, its cache in another, nothing else changed", tools::JUICEFS.1);
    let mut mounting = command();
    mounting.args(["mount", &records]).arg(mount).arg("--cache-dir").arg(data.join("cache"));
    Peer::mounted(mount, about, mounting.args(["--no-usage-report", "--no-syslog", "--metrics", "127.0.0.1:0"]))
}

fn rclone(root: &Path, data: &Path, mount: &Path) -> Result<Peer> {
    packages::ensure(packages::FUSE)?;
    let program = tools::of_python(root, tools::RCLONE)?;
    let about = format!("{}; of a local folder, --vfs-cache-mode full and --links, nothing else changed", tools::RCLONE.1);
    let remote = data.join("remote");
    fs::create_dir_all(&remote)?;
    let mut command = Command::new(program);
    command.env("RCLONE_CONFIG", data.join("none")).arg("mount").arg(&remote).arg(mount);
    command.args(["--links", "--vfs-cache-mode", "full", "--cache-dir"]).arg(data.join("cache"));
    let mut peer = Peer::mounted(mount, about, &mut command)?;
    peer.later = Some(remote);
    Ok(peer)
}

fn passthrough(root: &Path, data: &Path, mount: &Path) -> Result<Peer> {
    packages::ensure(packages::PASSTHROUGH)?;
    let program = product::target(root).join("tools/passthrough_ll");
    if !program.is_file() {
        fs::create_dir_all(product::target(root).join("tools"))?;
        let mut build = Command::new("cc");
        build.args(["-O2", "-D_FILE_OFFSET_BITS=64", "-I/usr/include/fuse3", packages::PASSTHROUGH_SOURCE, "-lfuse3", "-o"]);
        done(build.arg(&program))?;
    }
    let version = done(Command::new(&program).arg("--version"))?;
    let version = version.split_whitespace().find(|word| word.starts_with('3')).unwrap_or("3");
    let about = format!("passthrough_ll, the example of libfuse {version}, with cache=always");
    let source = format!("source={},cache=always", text(data)?);
    Peer::mounted(mount, about, Command::new(program).args(["-f", "-o", &source]).arg(mount))
}
