//! A service and agents of the released binary, in a folder of their own.
//!
//! Invariant: what was started is ended when the world is dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest wait for anything: a hung world ends the benchmark.
pub(super) const PATIENCE_S: u64 = 1_800;

/// How long a program may take to end when it is asked to.
const ENDING: Duration = Duration::from_secs(30);

/// One running program.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    pub(super) fn stop(&mut self) {
        if !self.is_alive() {
            // It has ended: its number may be another program's by now.
            return;
        }
        // SIGTERM, so that it leaves its folder as after any stop.
        let pid = self.0.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|status| status.success());
        if !asked {
            self.0.kill().ok();
        }
        let asked_at = Instant::now();
        while self.is_alive() && asked_at.elapsed() < ENDING {
            std::thread::sleep(Duration::from_millis(10)); // tidy: wait for a program to end
        }
        // Of no effect on one that has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }

    /// Whether it has not ended by itself.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Starts a program that says what it has to say into a file.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?).spawn()?;
        Ok(Self(child))
    }

    /// Kilobytes of memory: now, and at most so far.
    pub(super) fn memory_kib(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let value = |name: &str| -> Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("No {name} in status"))?;
            Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
        };
        Ok((value("VmRSS:")?, value("VmHWM:")?))
    }
}

pub(super) struct World {
    binary: PathBuf,
    folder: PathBuf,
    url: String,
    pub(super) service: Running,
    pub(super) agents: Vec<Running>,
}

/// The servers of a world.
pub(super) const SERVERS: [&str; 2] = ["detroit", "munich"];

impl World {
    pub(super) fn start(binary: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let data = folder.join("service");
        let listen = format!("127.0.0.1:{port}");
        let service = spawn(binary, folder, "service", &["service", "run", "--data", text(&data)?, "--listen", &listen])?;
        let mut world = Self { binary: binary.to_owned(), folder: folder.to_owned(), url, service, agents: Vec::new() };
        world.until("the service answers", || world.command(&["status"]).is_ok())?;
        world.run(&["group", "create", "plans"])?;
        for server in SERVERS {
            fs::create_dir_all(world.site(server))?;
            let agent = world.agent(server)?;
            world.agents.push(agent);
        }
        Ok(world)
    }

    /// Starts an agent.
    pub(super) fn agent(&self, server: &str) -> Result<Running> {
        let state = self.folder.join(format!("state-{server}"));
        let arguments = ["agent", "run", "--state", text(&state)?, "--service", &self.url, "--name", server];
        let agent = spawn(&self.binary, &self.folder, server, &arguments)?;
        self.until("the agent is registered", || self.command(&["server", "list"]).is_ok_and(|list| list.contains(server)))?;
        Ok(agent)
    }

    pub(super) fn site(&self, server: &str) -> PathBuf {
        self.folder.join(server)
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.folder.join("service/objects")
    }

    pub(super) fn records(&self) -> PathBuf {
        self.folder.join("service/records.sqlite")
    }

    pub(super) fn catalogs(&self, server: &str) -> PathBuf {
        self.folder.join(format!("state-{server}/endpoints"))
    }

    /// Makes the endpoint of a server.
    pub(super) fn join(&self, server: &str) -> Result<()> {
        let site = self.site(server);
        self.run(&["endpoint", "create", "--group", "plans", "--server", server, "--path", text(&site)?])
    }

    /// Waits until everything is the same everywhere.
    pub(super) fn synced(&self) -> Result<()> {
        self.run(&["wait", "--synced", "--timeout", &PATIENCE_S.to_string()])
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        self.command(arguments).map(drop)
    }

    fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary).args(arguments).env("ISOTHERM_SERVICE", &self.url).output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            bail!("isotherm {}: {}", arguments.join(" "), told.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
        let started = Instant::now();
        while !is_so() {
            if started.elapsed() > Duration::from_secs(30) {
                bail!("Not within 30 s: {what}; see the logs in {}", self.folder.display());
            }
            std::thread::sleep(Duration::from_millis(20)); // tidy: wait for a program to start
        }
        Ok(())
    }
}

fn spawn(binary: &Path, folder: &Path, name: &str, arguments: &[&str]) -> Result<Running> {
    Running::start(Command::new(binary).args(arguments), &folder.join(format!("{name}.log")))
}

pub(super) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
