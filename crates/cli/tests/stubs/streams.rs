//! Programs that read large files while they come.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isotherm_gate::testing::{Fs, SharedMapping};

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::text;

const MIB: u64 = 1 << 20;
/// Large enough to be streamed, and no whole number of blocks.
const LEN: u64 = 72 * MIB + 777;

/// This process, by a rule: the kernel cuts its name after fifteen bytes.
const OWN_NAME: &str = "stubs-*=stream";

/// Offices with a film that is tiered, and what is in it.
fn offices() -> Vec<(Office, PathBuf, Vec<u8>)> {
    let film = text(1, usize::try_from(LEN).unwrap());
    let of = |fs: Fs| {
        let office = Office::open(fs)?;
        office.set(&["--download", "on-demand", "--free-space", "1%", "--program", OWN_NAME]);
        fs::write(office.plain().join("film"), &film).unwrap();
        office.settle();
        let path = office.guarded().join("film");
        assert_eq!(blocks(&path), 0, "on {}", fs.name());
        Some((office, path, film.clone()))
    };
    Fs::ALL.into_iter().filter_map(of).collect()
}

/// `dd` by another name reads so many KiB from an offset in MiB.
fn read_by(office: &Office, name: &str, path: &Path, at: u64, kib: u64) -> Vec<u8> {
    let program = office.beside().join(name);
    if !program.exists() {
        copied(office, "/bin/dd", name);
    }
    let mut command = Command::new(program);
    command.arg(format!("if={}", path.display())).args(["bs=64K", &format!("skip={}", at * 16), &format!("count={}", kib / 64)]);
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    ended.stdout
}

fn part(film: &[u8], at: u64, len: u64) -> &[u8] {
    &film[usize::try_from(at).unwrap()..usize::try_from((at + len).min(LEN)).unwrap()]
}

fn read(file: &File, at: u64, len: u64) -> Vec<u8> {
    let mut found = vec![0; usize::try_from(len.min(LEN - at)).unwrap()];
    file.read_exact_at(&mut found, at).unwrap();
    found
}

/// How much of it is here by its record, in MiB; none where it is not partially tiered.
fn resident(office: &Office, path: &Path) -> Option<u64> {
    office.shown(path)["resident"].as_u64().map(|bytes| bytes / MIB)
}

// semantics.md#streaming
/// A player reads a part: it has that part at once, the file is partially tiered afterwards, and whoever reads all of it gets all.
#[test]
fn a_player_reads_a_part_and_the_rest_stays_in_the_share() {
    for (office, path, film) in offices() {
        let times = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let before = times(&path);
        assert!(read_by(&office, "mpv", &path, 40, 256) == part(&film, 40 * MIB, 256 << 10));
        until("the file is partially tiered", || resident(&office, &path).is_some_and(|resident| (1..12).contains(&resident)));
        assert_eq!(office.shown(&path)["state"], "synced", "what is here of it is in the share");
        until("the mask goes", || (MIB..12 * MIB).contains(&(blocks(&path) * 512)));
        assert_eq!(times(&path), before);
        let why = || office.ask_munich(&["why", path.to_str().unwrap(), "--json"]).expect(0).json();
        until("who read it is told", || why()["happened"][0]["what"] == "read_in_part");
        let told = why();
        let last = &told["happened"][0];
        assert_eq!((&last["program"], &told["because"]["what"]), (&"mpv".into(), &"arrived".into()), "{told}");
        assert!((MIB..12 * MIB).contains(&last["bytes"].as_u64().unwrap()) && last["waited_ms"].is_u64(), "{told}");
        assert_eq!(office.shown(&path)["state"], "synced");
        // What is here is not fetched again, and nobody else has to be asked for it.
        assert!(read_by(&office, "mpv", &path, 40, 256) == part(&film, 40 * MIB, 256 << 10));
        until("it is given up once more", || resident(&office, &path).is_some_and(|resident| resident < 12));
        // Whoever says so has all of it go.
        assert_eq!(office.residency("tier", &path).code, Some(0));
        until("nothing of it is here", || blocks(&path) * 512 < MIB && resident(&office, &path).is_none());
        assert_eq!(office.shown(&path)["state"], "synced");
        // Others get all of it.
        let copy = office.beside().join("copy");
        assert!(Command::new("cp").args([path.as_os_str(), copy.as_os_str()]).status().unwrap().success());
        assert!(fs::read(&copy).unwrap() == film, "cp sees holes or zeros");
        until("it is whole", || office.shown(&path)["tiered"] == false);
        assert_eq!(times(&path), before);
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#streaming
/// `unzip -l` reads the end of a large archive, and little else comes.
#[test]
fn what_is_in_an_archive_is_listed_without_the_archive() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        office.set(&["--download", "on-demand", "--free-space", "1%"]);
        fs::write(office.beside().join("film"), text(3, usize::try_from(LEN).unwrap())).unwrap();
        let archive = office.plain().join("archive.zip");
        let mut zip = Command::new("zip");
        let zipped = zip.args(["-q", "-0", "-j"]).arg(&archive).arg(office.beside().join("film")).status().unwrap();
        assert!(zipped.success());
        office.settle();
        let path = office.guarded().join("archive.zip");
        assert_eq!(blocks(&path), 0, "on {}", fs.name());
        let listed = Command::new("unzip").arg("-l").arg(&path).output().unwrap();
        let list = String::from_utf8_lossy(&listed.stdout);
        assert!(listed.status.success() && list.contains(&LEN.to_string()) && list.contains("film"), "{listed:?}");
        until("the file is partially tiered", || resident(&office, &path).is_some_and(|resident| (1..9).contains(&resident)));
        // All of it comes for whoever unpacks it.
        let tested = Command::new("unzip").args(["-t", "-q"]).arg(&path).output().unwrap();
        assert!(tested.status.success(), "{tested:?} on {}", fs.name());
    }
}

// semantics.md#streaming
/// Row 13: who comes through another mount, or is no such program, waits until the file is whole, also while somebody streams it.
#[test]
fn case_13_nobody_else_sees_a_mask() {
    for (office, path, film) in offices() {
        let mut through = Command::new("unshare");
        through.arg("-m").arg(copied(&office, "/bin/dd", "mpv")).arg(format!("if={}", path.display()));
        let through = through.args(["bs=64K", "count=1"]).output().unwrap();
        assert!(through.stdout == part(&film, 0, 64 << 10));
        until("it came whole", || office.shown(&path)["tiered"] == false);
        until("it is tiered again", || office.residency("tier", &path).code == Some(0));

        let player = File::open(&path).unwrap();
        assert!(read(&player, 50 * MIB, 4_096) == part(&film, 50 * MIB, 4_096));
        assert!(office.shown(&path)["tiered"] == true, "it is streamed");
        let copy = office.beside().join("copy");
        let arguments = ["--sparse=always".as_ref(), path.as_os_str(), copy.as_os_str()];
        assert!(Command::new("cp").args(arguments).status().unwrap().success());
        assert!(fs::read(&copy).unwrap() == film, "cp sees a mask");
        assert!(read(&player, 0, LEN) == film);
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#streaming
/// Row 13: a loop device on a file that is streamed is made when all of it is here.
#[test]
fn case_13_a_loop_device_sees_no_mask() {
    for (office, path, film) in offices() {
        let player = File::open(&path).unwrap();
        assert!(read(&player, 50 * MIB, 4_096) == part(&film, 50 * MIB, 4_096));
        assert!(office.shown(&path)["tiered"] == true, "it is streamed");
        let attached = Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(&path).output().unwrap();
        assert!(attached.status.success(), "{attached:?}");
        let device = LoopDevice(String::from_utf8(attached.stdout).unwrap().trim().to_owned());
        // A device has whole sectors.
        let sectors = usize::try_from(LEN / 512 * 512).unwrap();
        assert!(fs::read(&device.0).unwrap() == film[..sectors], "the device sees a mask on {}", office.logs());
        assert!(read(&player, 0, LEN) == film);
        drop(device);
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

struct LoopDevice(String);

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).output();
    }
}

fn copied(office: &Office, program: &str, name: &str) -> PathBuf {
    let copy = office.beside().join(name);
    // By a process of its own: one that another test starts just then would keep the copy open for writing, and nobody could run it.
    assert!(Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
    copy
}

// semantics.md#streaming
/// Row 19: whoever cuts a file that is streamed, by path or descriptor, or maps it, waits until it is whole.
#[test]
fn case_19_a_file_that_is_streamed_is_cut_when_it_is_whole() {
    for (office, path, film) in offices() {
        let player = File::open(&path).unwrap();
        assert!(read(&player, 70 * MIB, 4_096) == part(&film, 70 * MIB, 4_096));
        assert!(Command::new("truncate").args(["-s", "5000000"]).arg(&path).status().unwrap().success());
        assert!(fs::read(&path).unwrap() == film[..5_000_000]);
        assert!(read(&player, 4_000_000, 4_096) == film[4_000_000..4_004_096]);
        drop(player);
        office.settle();
        assert!(fs::read(office.plain().join("film")).unwrap() == film[..5_000_000]);

        fs::write(office.plain().join("other"), &film).unwrap();
        office.settle();
        let other = office.guarded().join("other");
        let player = File::open(&other).unwrap();
        assert!(read(&player, 0, 4_096) == part(&film, 0, 4_096));
        let mapped = SharedMapping::read_only(&player, usize::try_from(LEN).unwrap()).unwrap();
        assert!(mapped.bytes() == film[..]);
        until("a mapped file is whole", || office.shown(&other)["tiered"] == false);
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#streaming
/// Row 20: agent and gate end while somebody reads; he goes on with the next, and what is left of the mask goes.
#[test]
fn case_20_whoever_streams_goes_on_when_agent_or_gate_are_killed() {
    for (mut office, path, film) in offices() {
        let player = File::open(&path).unwrap();
        for (at, victim) in [(10, Part::Munich), (30, Part::Gate), (50, Part::Munich)] {
            assert!(read(&player, at * MIB, 3 * MIB) == part(&film, at * MIB, 3 * MIB));
            office.kill(victim);
            office.start(victim);
            assert!(read(&player, (at + 2) * MIB, 2 * MIB) == part(&film, (at + 2) * MIB, 2 * MIB));
        }
        office.kill(Part::Munich);
        drop(player);
        office.start(Part::Munich);
        until("what is left of the mask goes", || blocks(&path) * 512 < 40 * MIB);
        assert!(fs::read(&path).unwrap() == film);
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

/// Everything that guards the volume ends, somebody does something, and everything begins again.
fn unguarded(office: &mut Office, deed: impl FnOnce()) {
    let all = [Part::Munich, Part::Gate, Part::Keeper];
    all.iter().for_each(|part| office.kill(*part));
    deed();
    [Part::Gate, Part::Munich].iter().for_each(|part| office.start(*part));
    until("everything is guarded and answered for again", || office.is_whole());
}

// semantics.md#streaming
/// Row 18: what was cut and made long again while nobody was asked is not taken for a part that is here.
#[test]
fn case_18_a_part_that_was_cut_comes_anew() {
    for (mut office, path, film) in offices() {
        assert!(read_by(&office, "mpv", &path, 40, 4_096) == part(&film, 40 * MIB, 4 * MIB));
        until("the file is partially tiered", || resident(&office, &path).is_some_and(|resident| resident > 3));
        until("the mask goes", || blocks(&path) * 512 < 40 * MIB);
        unguarded(&mut office, || {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(41 * MIB + 5).unwrap();
            file.set_len(LEN).unwrap();
            file.sync_all().unwrap();
        });
        assert!(read_by(&office, "mpv", &path, 41, 1_024) == part(&film, 41 * MIB, MIB));
        let copy = office.beside().join("copy");
        assert!(Command::new("cp").args([path.as_os_str(), copy.as_os_str()]).status().unwrap().success());
        assert!(fs::read(&copy).unwrap() == film);
    }
}

// semantics.md#all-holders-die semantics.md#streaming
/// What somebody has written to a stub while nobody guarded it is not overwritten, and does not go with the mask.
#[test]
fn what_was_written_to_a_stub_is_not_masked_away() {
    for (mut office, path, film) in offices() {
        unguarded(&mut office, || {
            File::options().write(true).open(&path).unwrap().write_all_at(&[b'x'; 5_000], 50 * MIB).unwrap()
        });
        let (player, input) = (copied(&office, "/bin/dd", "mpv"), format!("if={}", path.display()));
        let played = Command::new(player).arg(input).args(["bs=64K", "skip=160", "count=1"]).output().unwrap();
        assert!(!played.status.success(), "whose it is nobody can tell");
        until("the problem is shown", || office.problems().len() == 1);
        let state = office.beside().join("state-Munich");
        assert!(blocks(&path) >= 10, "what he wrote is gone; {}", state.display());
        office.mend(&path).expect(0);
        assert!(fs::read(&path).unwrap() == film);
    }
}

// semantics.md#all-holders-die semantics.md#streaming
/// The same where somebody streams the file all the time: what comes for him is no reason to forget what else is there.
#[test]
fn what_was_written_beside_a_player_does_not_go_with_the_mask() {
    for (mut office, path, film) in offices() {
        let player = File::open(&path).unwrap();
        assert!(read(&player, 10 * MIB, 4_096) == part(&film, 10 * MIB, 4_096));
        unguarded(&mut office, || {
            File::options().write(true).open(&path).unwrap().write_all_at(&[b'x'; 4_096], 50 * MIB).unwrap();
        });
        assert!(read(&player, 70 * MIB, 4_096) == part(&film, 70 * MIB, 4_096));
        drop(player);
        until("the problem is shown", || office.problems().len() == 1);
        until("it is mended", || office.mend(&path).code == Some(0));
        assert!(fs::read(&path).unwrap() == film);
    }
}
