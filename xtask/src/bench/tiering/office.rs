//! A service, an agent with a plain folder, and an agent with a guarded volume, beside a volume like it that nobody guards.
//!
//! Invariant: what was started, mounted and attached is gone when the office is dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::world::{PATIENCE_S, Running, free_port, text};
use super::get::Getter;

/// Size of each volume; its image takes what is written to it.
const VOLUME_BYTES: u64 = 24 << 30;

/// A plain folder, the guarded volume, and the one that nobody guards.
pub(super) const SERVERS: [&str; 3] = ["detroit", "munich", "zurich"];

pub(super) struct Office {
    binary: PathBuf,
    folder: PathBuf,
    url: String,
    pub(super) fs: String,
    pub(super) guard: String,
    devices: Vec<String>,
    _service: Running,
    pub(super) gate: Option<Running>,
    agents: [Running; 3],
}

impl Office {
    pub(super) fn open(binary: &Path, folder: &Path, fs: &str, guard: &str) -> Result<Self> {
        for name in ["run", "plain", "bare", "guarded"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let start = |name: &str, arguments: &[&str]| part((binary, &url, folder), name, arguments);
        let listen = url.trim_start_matches("http://");
        let service = start("service", &["service", "run", "--data", text(&folder.join("service"))?, "--listen", listen])?;
        until("the service answers", || ask(binary, &url, &["status"]).is_ok())?;
        let run = folder.join("run");
        let gate = start("gate", &["gate", "run", "--state", text(&folder.join("gate"))?, "--run", text(&run)?])?;
        let [detroit, munich, zurich] = SERVERS.map(|name| agent((binary, &url, folder), name));
        let agents = [detroit?, munich?, zurich?];
        let (binary, folder, devices) = (binary.to_owned(), folder.to_owned(), Vec::new());
        let (fs, guard) = (fs.to_owned(), guard.to_owned());
        let mut office = Self { binary, folder, url, fs, guard, devices, _service: service, gate: Some(gate), agents };
        office.mount()?;
        for server in SERVERS {
            until("the agent is registered", || office.ask(&["server", "list"]).is_ok_and(|list| list.contains(server)))?;
        }
        Ok(office)
    }

    fn mount(&mut self) -> Result<()> {
        for name in ["bare", "guarded"] {
            let device = self.made(name)?;
            self.devices.push(device);
        }
        // As the gate mounts.
        done(Command::new("mount").args(["-o", "noatime"]).args([&self.devices[0], text(&self.bare())?]))?;
        until("the gate answers", || self.ask_gate(&["volume", "list"]).is_ok())?;
        self.attach()
    }

    /// An empty volume on a loop device.
    fn made(&self, name: &str) -> Result<String> {
        let image = self.folder.join(format!("{name}.img"));
        File::create(&image)?.set_len(VOLUME_BYTES)?;
        done(Command::new(format!("mkfs.{}", self.fs)).arg("-q").arg(&image))?;
        Ok(done(Command::new("losetup").args(["--find", "--show"]).arg(&image))?.trim().to_owned())
    }

    fn attach(&self) -> Result<()> {
        self.ask_gate(&["volume", "add", &self.devices[1], text(&self.volume())?, "--guard", &self.guard]).map(drop)
    }

    /// The guarded volume is made anew: nothing of what was on it is left, nor of what its agent held in memory.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.stop_munich();
        self.ask_gate(&["volume", "remove", text(&self.volume())?])?;
        // The gate lets go of it a moment later, and a device that is in use is detached only then: until then the old file system still
        // writes to its image, which therefore must not be the new one's.
        done(Command::new("losetup").args(["--detach", &self.devices[1]]))?;
        let image = self.folder.join("guarded.img");
        let attached = || done(Command::new("losetup").arg("--associated").arg(&image));
        until("the old volume is let go of", || attached().is_ok_and(|told| told.trim().is_empty()))?;
        fs::remove_file(&image)?;
        self.devices[1] = self.made("guarded")?;
        self.attach()?;
        self.start_munich()
    }

    /// Ends the agent of the guarded volume.
    pub(super) fn stop_munich(&mut self) {
        self.agents[1].stop();
    }

    /// Begins it again.
    pub(super) fn start_munich(&mut self) -> Result<()> {
        self.agents[1] = agent((&self.binary, &self.url, &self.folder), SERVERS[1])?;
        Ok(())
    }

    /// Where all of it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A plain client of a group.
    pub(super) fn getter(&self, program: &Path, group: &str) -> Result<Getter> {
        Getter::start(program, &self.url, group)
    }

    /// The volume that nobody guards.
    pub(super) fn bare(&self) -> PathBuf {
        self.folder.join("bare")
    }

    /// The guarded one.
    pub(super) fn volume(&self) -> PathBuf {
        self.folder.join("guarded")
    }

    /// What users of the plain server see of a group.
    pub(super) fn plain(&self, group: &str) -> PathBuf {
        self.folder.join("plain").join(group)
    }

    /// What users of the guarded volume see of a group.
    pub(super) fn guarded(&self, group: &str) -> PathBuf {
        self.volume().join(group)
    }

    /// Catalogs of the guarded volume's agent.
    pub(super) fn catalogs(&self) -> PathBuf {
        self.folder.join("state-munich/endpoints")
    }

    /// Makes a group, with an endpoint on the plain server.
    pub(super) fn share(&self, group: &str) -> Result<()> {
        fs::create_dir_all(self.plain(group))?;
        self.ask(&["group", "create", group, "--delete-limit", "100%"])?;
        self.join(group, SERVERS[0], &self.plain(group), &[])?;
        self.synced()
    }

    /// The guarded server takes part. Its policy asks for no room, so that nothing goes that is measured.
    pub(super) fn guard(&self, group: &str) -> Result<()> {
        fs::create_dir_all(self.guarded(group))?;
        self.join(group, SERVERS[1], &self.guarded(group), &["--tiering", "on", "--free-space", "0%"])?;
        self.synced()
    }

    /// Makes a folder an endpoint.
    pub(super) fn join(&self, group: &str, server: &str, folder: &Path, settings: &[&str]) -> Result<()> {
        let all = ["endpoint", "create", "--group", group, "--server", server, "--path", text(folder)?];
        self.ask(&[&all[..], settings].concat()).map(drop)
    }

    /// Changes settings of a group's only endpoint.
    pub(super) fn set_only(&self, group: &str, settings: &[&str]) -> Result<()> {
        let id = self.only(group)?.context("No endpoint")?;
        self.ask(&[&["endpoint", "set", &id], settings].concat()).map(drop)
    }

    /// Takes a group's only endpoint out of it; its files stay.
    pub(super) fn leave(&self, group: &str) -> Result<()> {
        let id = self.only(group)?.context("No endpoint")?;
        self.ask(&["endpoint", "delete", &id])?;
        until("its server has let it go", || self.only(group).is_ok_and(|left| left.is_none()))
    }

    /// The id of a group's only endpoint.
    fn only(&self, group: &str) -> Result<Option<String>> {
        let told = self.ask(&["endpoint", "list", "--group", group, "--json"])?.replace(' ', "");
        Ok(told.split_once("\"id\":\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned))
    }

    /// Waits until everything is the same everywhere.
    pub(super) fn synced(&self) -> Result<()> {
        self.ask(&["wait", "--synced", "--timeout", &PATIENCE_S.to_string()]).map(drop)
    }

    /// Asks the service.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String> {
        ask(&self.binary, &self.url, arguments)
    }

    /// Asks the gate.
    pub(super) fn ask_gate(&self, arguments: &[&str]) -> Result<String> {
        let run = self.folder.join("run");
        self.ask(&[arguments, &["--run", text(&run)?]].concat())
    }

    /// Asks the agent of the guarded volume.
    pub(super) fn ask_munich(&self, arguments: &[&str]) -> Result<String> {
        let state = self.folder.join("state-munich");
        self.ask(&[arguments, &["--state", text(&state)?]].concat())
    }

    /// Ends the gate as a crash does not: it stops, and another one begins. Gives the time until that one asks about stubs alone.
    pub(super) fn restart_gate(&mut self) -> Result<Duration> {
        // The agent waits for the next one meanwhile.
        drop(self.gate.take());
        let began = Instant::now();
        let (run, state) = (self.folder.join("run"), self.folder.join("gate"));
        let mut command = Command::new(&self.binary);
        command.args(["gate", "run", "--state", text(&state)?, "--run", text(&run)?]);
        self.gate = Some(Running::start(&mut command, &self.folder.join("gate-again.log"))?);
        until("the gate asks about stubs alone", || {
            self.ask_gate(&["volume", "list", "--json"]).is_ok_and(|list| list.replace(' ', "").contains("\"by_inode\":true"))
        })?;
        Ok(began.elapsed())
    }

    /// The most memory that the guarded volume's agent has taken, in KiB.
    pub(super) fn agent_memory(&self) -> Result<u64> {
        Ok(self.agents[1].memory_kib()?.1)
    }

    /// The keepers that its gates have started.
    fn keepers(&self) -> Vec<String> {
        let run = self.folder.join("run");
        let is_it = |process: &str| {
            fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| {
                let mut words = line.split(|byte| *byte == 0);
                words.any(|word| word == b"keep") && words.any(|word| word == run.as_os_str().as_encoded_bytes())
            })
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && is_it(name)).collect()
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.agents.iter_mut().for_each(Running::stop);
        if let Ok(volume) = text(&self.volume()) {
            self.ask_gate(&["volume", "remove", volume]).ok();
        }
        drop(self.gate.take());
        for keeper in self.keepers() {
            Command::new("kill").args(["-KILL", &keeper]).status().ok();
        }
        for folder in ["bare", "guarded"] {
            Command::new("umount").args(["-q", "-l"]).arg(self.folder.join(folder)).status().ok();
        }
        for device in &self.devices {
            Command::new("losetup").args(["--detach", device]).status().ok();
        }
    }
}

fn part((binary, url, folder): (&Path, &str, &Path), name: &str, arguments: &[&str]) -> Result<Running> {
    let mut command = Command::new(binary);
    Running::start(command.args(arguments).env("ISOTHERM_SERVICE", url), &folder.join(format!("{name}.log")))
}

fn agent(of: (&Path, &str, &Path), name: &str) -> Result<Running> {
    let (state, run) = (of.2.join(format!("state-{name}")), of.2.join("run"));
    part(of, name, &["agent", "run", "--state", text(&state)?, "--run", text(&run)?, "--name", name])
}

fn ask(binary: &Path, url: &str, arguments: &[&str]) -> Result<String> {
    done(Command::new(binary).args(arguments).env("ISOTHERM_SERVICE", url))
}

/// Runs a command to its end; gives what it said.
pub(super) fn done(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        bail!("{command:?}: {}", told.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > Duration::from_secs(300) {
            bail!("Not within 300 s: {what}");
        }
        std::thread::sleep(Duration::from_millis(10)); // tidy: wait for a program
    }
    Ok(())
}
