//! Others who have a hand in a guarded volume: somebody who freezes it for a snapshot, a virus scanner that is asked about each
//! opening too. Nobody waits for anybody for ever, and everybody sees the content.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::{number_of, text};

const KINDS: [Fs; 3] = [Fs::Ext4, Fs::Xfs, Fs::Btrfs];

fn freeze(volume: &Path) -> Child {
    Command::new("fsfreeze").arg("--freeze").arg(volume).spawn().unwrap()
}

/// Thaws a volume also where a test fails: an agent that waits for that could not even be killed.
struct Thaws(PathBuf);

impl Drop for Thaws {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).output();
    }
}

fn thaw(volume: &Path) {
    assert!(Command::new("fsfreeze").arg("--unfreeze").arg(volume).status().unwrap().success());
}

fn waiting(office: &Office) -> u64 {
    office.ask_gate(&["volume", "list", "--json"]).json()[0]["waiting"].as_u64().unwrap()
}

/// An office with stubs of which nothing is here.
fn with_stubs(fs: Fs, files: u64) -> Option<Office> {
    let office = Office::open(fs)?;
    for at in 0..files {
        fs::write(office.plain().join(format!("{at}")), text(at, 60_000)).unwrap();
    }
    office.settle();
    office.tier_all();
    Some(office)
}

fn reads(office: &Office, at: u64) -> JoinHandle<std::io::Result<Vec<u8>>> {
    let path = office.guarded().join(format!("{at}"));
    std::thread::spawn(move || fs::read(path))
}

// semantics.md#frozen-volumes
#[test]
fn a_frozen_volume_keeps_writers_waiting_and_nobody_else() {
    for fs in KINDS {
        let Some(office) = with_stubs(fs, 4) else { return };
        let volume = office.guarded().parent().unwrap().to_owned();
        let _thaws = Thaws(volume.clone());
        assert_eq!(number_of(&fs::read(office.guarded().join("3")).unwrap()), Ok(3));
        assert!(freeze(&volume).wait().unwrap().success());
        // Its content has to be written, and waits for that.
        let reader = reads(&office, 0);
        until("a reader waits", || waiting(&office) > 0);
        assert_eq!(number_of(&fs::read(office.guarded().join("3")).unwrap()), Ok(3), "what is here is read as ever");
        thaw(&volume);
        assert_eq!(number_of(&reader.join().unwrap().unwrap()), Ok(0), "on {}", fs.name());
        office.settle();
    }
}

// semantics.md#frozen-volumes
/// Who empties a file that is opened holds a freeze up, and a freeze that waits holds up whoever writes after it: also the agent, if
/// it had to write before it could answer.
#[test]
fn a_freeze_that_meets_somebody_who_empties_a_stub_ends() {
    for fs in KINDS {
        let Some(mut office) = with_stubs(fs, 12) else { return };
        let volume = office.guarded().parent().unwrap().to_owned();
        let _thaws = Thaws(volume.clone());
        office.kill(Part::Munich);
        let path = office.guarded().join("0");
        let emptying = std::thread::spawn(move || OpenOptions::new().write(true).truncate(true).open(path).map(drop));
        until("somebody waits who empties a file", || waiting(&office) > 0);
        let mut freezing = freeze(&volume);
        let readers: Vec<_> = (1..12).map(|at| reads(&office, at)).collect();
        until("readers wait too", || waiting(&office) > 11);
        office.start(Part::Munich);
        // He is told without anything being written; then the freeze comes, and ends.
        emptying.join().unwrap().unwrap();
        assert!(freezing.wait().unwrap().success());
        thaw(&volume);
        for (at, reader) in (1..12).zip(readers) {
            assert_eq!(number_of(&reader.join().unwrap().unwrap()), Ok(at), "on {}", fs.name());
        }
        assert!(fs::read(office.guarded().join("0")).unwrap().is_empty());
        office.settle();
    }
}

/// A scanner that is asked about each opening of the file system, reads all of the file, and says what it saw.
const SCANNER: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
group = libc.fanotify_init(0x4 | 0x1, os.O_RDONLY | os.O_LARGEFILE if hasattr(os, 'O_LARGEFILE') else os.O_RDONLY)
mask = ctypes.c_uint64(0x00010000)
if group < 0 or libc.fanotify_mark(group, 0x1 | 0x100, mask, -100, sys.argv[1].encode()) < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print('ready', flush=True)
while True:
    events = os.read(group, 4096)
    while events:
        length, version, _, header, what, fd, pid = struct.unpack('=IBBHQii', events[:24])
        events = events[length:]
        data = b''
        try:
            data = os.pread(fd, 1 << 20, 0)
        except OSError:
            pass
        path = os.readlink('/proc/self/fd/%d' % fd)
        if '/plans/' in path and '.isotherm' not in path:
            print(os.path.basename(path), pid, len(data), data.count(0), flush=True)
        os.write(group, struct.pack('=iI', fd, 1))
        os.close(fd)
";

// semantics.md#frozen-volumes
#[test]
fn a_virus_scanner_sees_the_content_and_holds_nobody_up() {
    for fs in KINDS {
        let Some(office) = with_stubs(fs, 12) else { return };
        let volume = office.guarded().parent().unwrap().to_owned();
        let mut scanner = Command::new("python3");
        let mut scanner = Ended(scanner.args(["-c", SCANNER]).arg(&volume).stdout(Stdio::piped()).spawn().unwrap());
        let mut said = BufReader::new(scanner.0.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // While it goes on: with a full pipe it would answer nobody any more.
        let seen = std::thread::spawn(move || said.lines().map_while(Result::ok).collect::<Vec<String>>());
        let readers: Vec<_> = (0..12).map(|at| reads(&office, at)).collect();
        for (at, reader) in readers.into_iter().enumerate() {
            assert_eq!(number_of(&reader.join().unwrap().unwrap()), Ok(at as u64), "on {}", fs.name());
        }
        // Tiered and read once more, with the scanner asked about what the agent itself opens.
        office.tier_all();
        assert_eq!(blocks(&office.guarded().join("5")), 0);
        let mut whole = File::open(office.guarded().join("5")).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut whole, &mut bytes).unwrap();
        assert_eq!(number_of(&bytes), Ok(5));
        drop(scanner);
        // It was asked after the content had come: what this process opened had no hole.
        let own = std::process::id().to_string();
        let seen = seen.join().unwrap();
        let mut lines: Vec<Vec<&str>> = seen.iter().map(|line| line.split(' ').collect()).collect();
        // It may have died in the middle of a line.
        lines.pop_if(|words| words.len() < 4);
        assert!(lines.iter().all(|words| words.len() >= 4), "{seen:?}");
        let own: Vec<Vec<&str>> = lines.into_iter().filter(|words| words[1] == own).collect();
        assert!(own.len() >= 13, "{seen:?}");
        assert!(
            own.iter().all(|words| words[2] == "60000" && words[3].parse::<u64>().unwrap() < 2_000),
            "{own:?} on {}",
            fs.name()
        );
        office.settle();
    }
}

/// Ends a process also where a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes a lease on a file and does not give it back when it is asked to: the kernel takes it away after some time.
fn takes_a_lease(path: &Path) -> Ended {
    let program = "import fcntl, signal, sys, time\n\
                   signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                   held = [open(path, 'r+') for path in sys.argv[1:]]\n\
                   [fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK) for file in held]\n\
                   print('held', flush=True)\n\
                   time.sleep(300)\n";
    let mut child = Command::new("python3").args(["-c", program]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    Ended(child)
}

/// Who keeps a lease on his own files keeps nobody but those who open just these.
#[test]
fn leases_of_users_keep_nobody_else_waiting() {
    // The whole file system is asked about, whole files too.
    let Some(office) = Office::guarded_by(Fs::Xfs, "filesystem") else { return };
    office.join("detroit", &office.plain(), "off");
    office.join("munich", &office.guarded(), "on");
    for at in 0..4 {
        fs::write(office.plain().join(format!("{at}")), text(at, 60_000)).unwrap();
    }
    office.settle();
    office.tier_all();
    let own = ["own-0", "own-1", "own-2"].map(|name| office.guarded().join(name));
    own.iter().for_each(|path| fs::write(path, b"mine").unwrap());
    office.settle();
    let leases: Vec<Ended> = own.iter().map(|path| takes_a_lease(path)).collect();
    let kept: Vec<_> = own.iter().cloned().map(|path| std::thread::spawn(move || fs::read(path))).collect();
    // Long before the kernel takes a lease away.
    let begun = std::time::Instant::now();
    for at in 0..4 {
        assert_eq!(number_of(&reads(&office, at).join().unwrap().unwrap()), Ok(at));
    }
    let took = begun.elapsed();
    let lease: u64 = fs::read_to_string("/proc/sys/fs/lease-break-time").unwrap().trim().parse().unwrap();
    assert!(took.as_secs() < lease, "readers of stubs waited {took:?} for the leases of others");
    drop(leases);
    for reader in kept {
        assert_eq!(reader.join().unwrap().unwrap(), b"mine");
    }
}
