//! Real programs that read everything: a virus scanner, a backup, and an index of names, over a tree that is larger than its volume.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use isotherm_gate::testing::Fs;

use crate::office::{Office, blocks};
use crate::policies::old;
use crate::program::until;
use crate::rescue::Over;
use crate::texts::{number_of, text};

const MIB: u64 = 1 << 20;
/// Files of the tree, and their size: more than the volume has in all, and four times what it has for contents. What people use is a
/// quarter of that: what goes is chosen among what is known a moment after it came.
const FILES: u64 = 224;
const LEN_MIB: u64 = 3;
/// What is to stay free, in percent.
const FREE: u64 = 70;
/// Files that somebody has used before.
const USED: [u64; 4] = [100, 101, 102, 103];
/// Files that somebody opens meanwhile: programs that read everything come to them last.
const OPENED: std::ops::Range<u64> = 200..208;

fn name(number: u64) -> String {
    format!("plan-{number:03}")
}

/// Whether programs are there; where one is not, it is told which.
fn are_there(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect();
    let missing = programs.iter().find(|program| !folders.iter().any(|folder| folder.join(program).is_file()));
    if let Some(program) = missing {
        println!("SKIPPED {test}: there is no `{program}`");
    }
    missing.is_none()
}

/// An office with the tree, all of which is tiered but what people use.
fn tiered_tree(fs: Fs) -> Option<Office> {
    let office = Office::open(fs)?;
    office.set(&["--free-space", &FREE.to_string()]);
    for number in 0..FILES {
        old(&office.plain(), &name(number), number, LEN_MIB, 300);
    }
    office.settle();
    office.counts_tiered(FILES);
    for number in USED {
        read(&office, number);
    }
    Some(office)
}

/// As somebody who uses a file.
fn read(office: &Office, number: u64) {
    let path = office.guarded().join(name(number));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), office.logs()));
    assert_eq!(number_of(&bytes), Ok(number));
}

fn is_here(office: &Office, number: u64) -> bool {
    blocks(&office.guarded().join(name(number))) > 8
}

/// What a storm has left when it is over.
struct After {
    said: String,
    code: Option<i32>,
}

/// Lets a program read everything. Meanwhile somebody opens files, and the room that is left is watched.
fn storm(office: &Office, fs: Fs, program: &mut Command) -> After {
    let last_use = |number: u64| office.shown(&office.guarded().join(name(number)))["accessed_ms"].as_u64().unwrap();
    // Some of them: each is asked for with a command.
    let left_alone: Vec<u64> =
        (0..FILES).step_by(11).filter(|number| !USED.contains(number) && !OPENED.contains(number)).collect();
    let uses: Vec<u64> = left_alone.iter().map(|number| last_use(*number)).collect();
    let (is_over, least) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let volume = office.guarded();
    let space = || {
        let space = rustix::fs::statvfs(&volume).unwrap();
        (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)
    };
    let after = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                least.fetch_min(space().0, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(2)); // tidy: wait between two looks at a volume
            }
        });
        let _over = Over::of(&is_over, office);
        let said = File::create(office.beside().join("said")).unwrap();
        let program = program.stdin(Stdio::null()).stderr(said.try_clone().unwrap()).stdout(said);
        let mut program = Reaped(program.spawn().unwrap());
        until("it has begun to read", || program.is_over() || (0..10).any(|number| is_here(office, number)));
        for number in OPENED {
            assert!(!is_here(office, number), "it has not come so far: {}, on {}", name(number), fs.name());
            read(office, number);
        }
        // Whoever opened these did not wait for those that it had still to read.
        assert!(!program.is_over(), "on {}: it was over before somebody had opened {} files", fs.name(), OPENED.count());
        let code = program.0.wait().unwrap().code();
        After { said: fs::read_to_string(office.beside().join("said")).unwrap(), code }
    });
    // Contents that came a moment ago stay until the volume runs low, which is when a tenth of it is free; some may be on their way then.
    let (least, total) = (least.into_inner(), space().1);
    println!("{}: at least {} of {} MiB were free", fs.name(), least / MIB, total / MIB);
    assert!(least > total / 20, "{least} of {total} bytes were free on {}", fs.name());
    for number in USED.into_iter().chain(OPENED) {
        assert!(is_here(office, number), "{} had to go, on {}", name(number), fs.name());
    }
    for (number, before) in left_alone.into_iter().zip(uses) {
        assert_eq!(last_use(number), before, "{} on {}", name(number), fs.name());
    }
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    after
}

/// A program that does not outlive what goes on with it.
struct Reaped(Child);

impl Reaped {
    fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `sha256sum` says of a file.
fn hash(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

// semantics.md#programs
/// A virus scanner knows each file by the hash of all its bytes, so what it finds is what it was given; an index of names asks for nothing.
#[test]
fn a_virus_scanner_and_an_index_of_names_harm_nobody() {
    if !are_there("a_virus_scanner", &["clamscan", "updatedb.plocate", "plocate"]) {
        return;
    }
    let fs = Fs::Ext4;
    let Some(office) = tiered_tree(fs) else { return };
    let (guarded, index) = (office.guarded(), office.beside().join("index"));
    let mut updatedb = Command::new("updatedb.plocate");
    updatedb.args(["--prune-bind-mounts", "no", "--prunepaths", "", "--prunefs", "", "-l", "no", "-U"]).arg(&guarded);
    assert!(updatedb.arg("-o").arg(&index).status().unwrap().success());
    let listed = Command::new("plocate").arg("-d").arg(&index).args(["-c", "plan-"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), FILES.to_string(), "{listed:?}");
    let here: Vec<u64> = (0..FILES).filter(|number| is_here(&office, *number)).collect();
    assert_eq!(here, USED, "names are no contents, on {}", fs.name());

    let known = office.beside().join("known.hsb");
    let mut file = File::create(&known).unwrap();
    for number in 0..FILES {
        writeln!(file, "{}:{}:{}", hash(&office.plain().join(name(number))), LEN_MIB * MIB, name(number)).unwrap();
    }
    drop(file);
    let list = office.beside().join("list");
    let paths: Vec<String> = (0..FILES).map(|number| guarded.join(name(number)).to_str().unwrap().to_owned()).collect();
    fs::write(&list, paths.join("\n")).unwrap();
    let mut scanner = Command::new("clamscan");
    scanner.arg("--database").arg(&known).arg("--file-list").arg(&list).arg("--no-summary");
    let after = storm(&office, fs, &mut scanner);
    let found = |number: &u64| after.said.contains(&format!("{0}: {0}.UNOFFICIAL FOUND", name(*number)));
    let missed: Vec<u64> = (0..FILES).filter(|number| !found(number)).collect();
    // 1: something was found.
    assert_eq!((missed, after.code), (Vec::new(), Some(1)), "on {}: {}", fs.name(), after.said);
}

// semantics.md#programs
/// A backup has everything as it is.
#[test]
fn a_backup_of_everything_harms_nobody() {
    if !are_there("a_backup", &["restic"]) {
        return;
    }
    let Some(office) = tiered_tree(Fs::Xfs) else { return };
    let (repository, restored) = (office.beside().join("repository"), office.beside().join("restored"));
    let restic = || {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "isotherm").args(["--no-cache", "--quiet", "--repo"]).arg(&repository);
        command
    };
    assert!(restic().arg("init").status().unwrap().success());
    let after = storm(&office, Fs::Xfs, restic().arg("backup").arg(".").current_dir(office.guarded()));
    assert_eq!(after.code, Some(0), "{}", after.said);
    assert!(restic().args(["restore", "latest", "--target"]).arg(&restored).status().unwrap().success());
    for number in 0..FILES {
        let mut bytes = Vec::new();
        File::open(restored.join(name(number))).and_then(|mut file| file.read_to_end(&mut bytes)).unwrap();
        assert_eq!(number_of(&bytes), Ok(number));
        assert!(bytes == text(number, (LEN_MIB * MIB) as usize));
    }
}
