//! An office: a service, a server with a plain folder (detroit), and one with a guarded volume (munich), as processes that
//! can be killed and started again.
//!
//! **Invariant:** nothing of it outlives the test: processes, mounts and loop devices go when it is dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use isotherm_gate::testing::{Fs, LoopVolume};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Ended, isotherm, until};
use crate::rescue::{Watchdog, abandon};

/// A part of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Service,
    Gate,
    Keeper,
    /// The agent of the plain server.
    Detroit,
    /// The agent of the guarded one.
    Munich,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Office {
    processes: Vec<(Part, Child)>,
    url: String,
    device: String,
    home: PathBuf,
    watchdog: Option<Watchdog>,
    // Last: what everything lies on goes after everything.
    _room: LoopVolume,
}

impl Office {
    /// Everything runs, the group `plans` has an endpoint on both servers; `None` where that cannot be.
    pub(crate) fn open(fs: Fs) -> Option<Self> {
        let office = Self::closed(fs)?;
        office.join("detroit", &office.plain(), "off");
        office.join("munich", &office.guarded(), "on");
        office.settle();
        Some(office)
    }

    /// The same without endpoints.
    pub(crate) fn closed(fs: Fs) -> Option<Self> {
        Self::guarded_by(fs, "auto")
    }

    /// The same, guarded like this.
    pub(crate) fn guarded_by(fs: Fs, guard: &str) -> Option<Self> {
        if isotherm_gate::guard::Group::new().is_err() {
            eprintln!("skipped: the kernel does not ask before content is touched, or not this user");
            return None;
        }
        // A file system that can clone files: a clone of the image is what a power cut leaves.
        let room = LoopVolume::new(Fs::Xfs, 4_096)?;
        let home = room.path().join("office");
        for folder in ["plain", "volume", "run"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        let image = home.join("image");
        File::create(&image).and_then(|file| file.set_len(640 << 20)).unwrap();
        fs.format(&image).unwrap();
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image)).trim().to_owned();
        let watchdog = Some(Watchdog::of(&home));
        let mut office = Self { processes: Vec::new(), url: String::new(), device, home, watchdog, _room: room };
        office.start(Part::Service);
        office.start(Part::Gate);
        let (device, volume) = (office.device.clone(), office.home.join("volume"));
        office.ask_gate(&["volume", "add", &device, volume.to_str().unwrap(), "--guard", guard]).expect(0);
        fs::create_dir_all(office.guarded()).unwrap();
        office.start(Part::Detroit);
        office.start(Part::Munich);
        // People save by rename here, many times in a second.
        office.run(&["group", "create", "plans", "--delete-limit", "100%"]).expect(0);
        Some(office)
    }

    /// Makes a folder an endpoint.
    pub(crate) fn join(&self, server: &str, folder: &Path, tiering: &str) {
        self.join_with(server, folder, &["--tiering", tiering]);
    }

    /// The same with these settings.
    pub(crate) fn join_with(&self, server: &str, folder: &Path, settings: &[&str]) {
        let path = folder.to_str().unwrap();
        let mut all = vec!["endpoint", "create", "--group", "plans", "--server", server, "--path", path];
        all.extend(settings);
        until("an agent has come", || self.run(&all).code == Some(0));
    }

    /// Changes settings of the guarded endpoint.
    pub(crate) fn set(&self, settings: &[&str]) {
        let endpoints = self.run(&["endpoint", "list", "--json"]).expect(0).json();
        let all = endpoints.as_array().unwrap();
        let munich = all.iter().find(|one| one["endpoint"]["server"] == "munich").unwrap();
        let mut arguments = vec!["endpoint", "set", munich["endpoint"]["id"].as_str().unwrap()];
        arguments.extend(settings);
        self.run(&arguments).expect(0);
    }

    /// What users of the plain server see.
    pub(crate) fn plain(&self) -> PathBuf {
        self.home.join("plain")
    }

    /// What users of the guarded server see.
    pub(crate) fn guarded(&self) -> PathBuf {
        self.home.join("volume/plans")
    }

    /// The image of the guarded volume.
    pub(crate) fn image(&self) -> PathBuf {
        self.home.join("image")
    }

    /// A folder for what a test needs beside.
    pub(crate) fn beside(&self) -> &Path {
        &self.home
    }

    /// Runs a command that asks the service.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["--service", &self.url];
        all.extend(arguments);
        isotherm(&all)
    }

    /// Runs a command that asks the gate.
    pub(crate) fn ask_gate(&self, arguments: &[&str]) -> Ended {
        let run = self.run_folder();
        let mut all = arguments.to_vec();
        all.extend(["--run", run.to_str().unwrap()]);
        isotherm(&all)
    }

    /// Gives up or brings back content on the guarded server.
    pub(crate) fn residency(&self, command: &str, path: &Path) -> Ended {
        isotherm(&[command, path.to_str().unwrap(), "--state", self.state(Part::Munich).to_str().unwrap(), "--json"])
    }

    /// Asks the guarded server's agent.
    pub(crate) fn ask_munich(&self, arguments: &[&str]) -> Ended {
        let state = self.state(Part::Munich);
        let mut all = arguments.to_vec();
        all.extend(["--state", state.to_str().unwrap()]);
        isotherm(&all)
    }

    /// How warm a folder of the guarded server is.
    pub(crate) fn heat(&self, path: &Path, json: bool) -> Ended {
        let state = self.state(Part::Munich);
        let mut all = vec!["heat", path.to_str().unwrap(), "--state", state.to_str().unwrap()];
        all.extend(json.then_some("--json"));
        isotherm(&all).expect(0)
    }

    /// What would be tiered of a path.
    pub(crate) fn tier_plan(&self, path: &Path) -> Value {
        let state = self.state(Part::Munich);
        isotherm(&["tier", "--dry-run", path.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]).expect(0).json()
    }

    /// Brings back content on the guarded server, also of what was changed without it.
    pub(crate) fn mend(&self, path: &Path) -> Ended {
        isotherm(&["recall", "--mend", path.to_str().unwrap(), "--state", self.state(Part::Munich).to_str().unwrap()])
    }

    /// What the guarded server's agent says of a file.
    pub(crate) fn shown(&self, path: &Path) -> Value {
        let state = self.state(Part::Munich);
        isotherm(&["file", "show", path.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]).expect(0).json()
    }

    /// Tiers until all that can be is tiered.
    pub(crate) fn tier_all(&self) {
        let folder = self.guarded();
        until("all is tiered", || self.residency("tier", &folder).code == Some(0));
    }

    /// Waits until both servers agree.
    pub(crate) fn settle(&self) {
        let ended = self.run(&["wait", "--synced", "--timeout", "100"]);
        assert_eq!(ended.code, Some(0), "{ended:?}\n{}", self.logs());
    }

    /// What is wrong, as administrators see it.
    pub(crate) fn problems(&self) -> Vec<Value> {
        self.run(&["problems", "--json"]).json()["problems"].as_array().unwrap().clone()
    }

    /// Waits until the guarded server says that so many files have their content in the share only.
    pub(crate) fn counts_tiered(&self, files: u64) {
        let said = || -> Option<u64> {
            let status = self.run(&["status", "--json"]).json();
            let endpoints = status["groups"][0]["endpoints"].as_array()?.clone();
            let munich = endpoints.into_iter().find(|one| one["endpoint"]["server"] == "munich")?;
            munich["report"]["counts"]["tiered_files"].as_u64()
        };
        until("the status counts tiered files", || said() == Some(files));
    }

    fn run_folder(&self) -> PathBuf {
        self.home.join("run")
    }

    fn state(&self, part: Part) -> PathBuf {
        self.home.join(format!("state-{part:?}"))
    }

    /// Starts a part; the keeper is started by the gate.
    pub(crate) fn start(&mut self, part: Part) {
        let run = self.run_folder();
        let (state, run) = (self.state(part), run.to_str().unwrap());
        let state = state.to_str().unwrap();
        let listen = self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0").to_owned();
        let arguments: Vec<&str> = match part {
            Part::Service => vec!["service", "run", "--data", state, "--listen", &listen],
            Part::Gate => vec!["gate", "run", "--state", state, "--run", run],
            Part::Keeper => return,
            Part::Detroit => vec!["agent", "run", "--state", state, "--run", run, "--name", "detroit", "--service", &self.url],
            Part::Munich => vec!["agent", "run", "--state", state, "--run", run, "--name", "munich", "--service", &self.url],
        };
        let log = File::options().create(true).append(true).open(self.log(part)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
        command
            .args(&arguments)
            .envs(self.clock(part))
            .env_remove("ISOTHERM_SERVICE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        if part == Part::Service {
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            self.url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        }
        self.processes.push((part, child));
        if part == Part::Gate {
            until("the gate answers", || self.ask_gate(&["volume", "list"]).code != Some(5));
        }
    }

    /// Moves the clock of the guarded server's agent, from its next start on and while it runs, by so many days: true time is not
    /// moved, nor are times of files.
    pub(crate) fn move_clock(&self, days: i64) {
        // In one step: who reads it has the one or the other.
        let next = self.home.join("clock.next");
        fs::write(&next, format!("{days:+}d\n")).unwrap();
        fs::rename(next, self.home.join("clock")).unwrap();
    }

    fn clock(&self, part: Part) -> Vec<(&'static str, std::ffi::OsString)> {
        let moved = self.home.join("clock");
        if part != Part::Munich || !moved.exists() {
            return Vec::new();
        }
        vec![
            ("LD_PRELOAD", format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH).into()),
            ("FAKETIME_TIMESTAMP_FILE", moved.into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }

    /// Ends a part as a crash does.
    pub(crate) fn kill(&mut self, part: Part) {
        if part == Part::Keeper {
            let killed = self.keepers();
            killed.iter().for_each(|keeper| kill_process(*keeper, Signal::KILL).unwrap_or_default());
            // Or it might be taken for the next one.
            until("the keeper is dead", || !self.keepers().iter().any(|keeper| killed.contains(keeper)));
            return;
        }
        for (_, mut child) in self.processes.extract_if(.., |(one, _)| *one == part) {
            child.kill().unwrap();
            child.wait().unwrap();
            forget_clock(&child);
        }
    }

    /// Ends a part as administrators do.
    pub(crate) fn stop(&mut self, part: Part) {
        for (_, mut child) in self.processes.extract_if(.., |(one, _)| *one == part) {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            // Who waits at the gate is refused after a minute.
            until("it has ended, before anybody is refused", || child.try_wait().unwrap().is_some());
        }
    }

    /// The keepers of this office, of which there should be one.
    pub(crate) fn keepers(&self) -> Vec<Pid> {
        let run = self.run_folder();
        let is_it = |command: &[u8]| {
            let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
            words.contains(&&b"keep"[..]) && words.contains(&run.as_os_str().as_encoded_bytes())
        };
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let keepers = processes.filter(|id: &i32| fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|command| is_it(&command)));
        keepers.filter_map(Pid::from_raw).collect()
    }

    /// Whether only stubs are asked about.
    pub(crate) fn is_by_inode(&self) -> bool {
        self.ask_gate(&["volume", "list", "--json"]).json()[0]["by_inode"] == true
    }

    /// Whether somebody answers for the volume, guarded twice.
    pub(crate) fn is_whole(&self) -> bool {
        self.ask_gate(&["volume", "list"]).code == Some(0)
    }

    fn log(&self, part: Part) -> PathBuf {
        self.home.join(format!("log-{part:?}"))
    }

    /// What all parts have said.
    pub(crate) fn logs(&self) -> String {
        let parts = [Part::Service, Part::Gate, Part::Detroit, Part::Munich];
        let said = |part: Part| format!("--- {part:?}\n{}", fs::read_to_string(self.log(part)).unwrap_or_default());
        parts.map(said).join("\n")
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        self.watchdog = None;
        abandon(&self.home);
        for (_, child) in &mut self.processes {
            // Whom nobody could kill in all that time is not waited for any longer.
            for _ in 0..1_000 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5)); // tidy: wait what was killed has no event for its end
            }
            forget_clock(child);
        }
        let volume = self.home.join("volume");
        if unmount(&volume, UnmountFlags::empty()).is_err() {
            let _ = unmount(&volume, UnmountFlags::DETACH);
        }
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
    }
}

/// Takes away what `libfaketime` leaves of a process that was killed.
fn forget_clock(child: &Child) {
    for kind in ["faketime_shm_", "sem.faketime_sem_"] {
        // There is none of a process whose clock was not moved.
        let _ = fs::remove_file(format!("/dev/shm/{kind}{}", child.id()));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Blocks on disk, in units of 512 bytes.
pub(crate) fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().blocks()
}
