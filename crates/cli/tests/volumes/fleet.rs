//! A service and agents on volumes of their own, which can be killed and started again at the same places.
//!
//! Logs go to files, so that a test can ask what was said and a failed test can show it.
//!
//! **Invariant:** processes end before their volumes go.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use isotherm_gate::testing::{Fs, LoopVolume};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Ended, isotherm, until};
use crate::{noted, sized};

/// The two servers of most tests.
pub(crate) const SITES: [&str; 2] = ["detroit", "munich"];

fn number(site: &str) -> usize {
    SITES.iter().position(|one| *one == site).unwrap()
}

/// A part of the product as a process; killed when dropped.
#[derive(Debug)]
struct Daemon {
    name: String,
    child: Child,
}

impl Daemon {
    fn start(name: &str, arguments: &[&str], log: &Path) -> Self {
        Self::start_in(None, name, arguments, log)
    }

    fn start_in(namespace: Option<&Path>, name: &str, arguments: &[&str], log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let program = env!("CARGO_BIN_EXE_isotherm");
        let mut command = Command::new(if namespace.is_some() { "nsenter" } else { program });
        if let Some(namespace) = namespace {
            // It becomes the program: the process is the same.
            command.arg(format!("--net={}", namespace.display())).arg(program);
        }
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        Self { name: name.to_owned(), child }
    }

    /// Stops it where it is: it neither sends nor writes any more. What it waits for in the kernel still happens.
    fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
        let tasks = format!("/proc/{}/task", self.child.id());
        until("a process stands still", || {
            fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // The state comes after the name in brackets. D waits for a disk, and stops when that has answered.
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'D', 'Z', 'X']))
            })
        });
    }

    /// Asks it to stop; gives its exit code.
    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut code = None;
        until("a process stops", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A way from an agent to the service.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// The address that the agent is told.
    pub(crate) url: Option<String>,
    /// The file of the network namespace in which the agent runs.
    pub(crate) namespace: Option<PathBuf>,
}

/// A service, its agents, and the volumes they live on.
#[derive(Debug)]
pub(crate) struct Fleet {
    // Fields are dropped in this order.
    agents: Vec<Daemon>,
    service: Option<Daemon>,
    pub(crate) url: String,
    /// How the agent of each site reaches the service, where that is not simply its address.
    ways: [Way; 2],
    /// What the service calls the server of each site.
    servers: [String; 2],
    data: PathBuf,
    states: [PathBuf; 2],
    homes: [PathBuf; 2],
    own: tempfile::TempDir,
    volumes: Vec<LoopVolume>,
}

impl Fleet {
    /// A service and one volume for each of the [`SITES`]; `None` where volumes cannot be made.
    pub(crate) fn on(kinds: [Fs; 2], size_mib: u64) -> Option<Self> {
        let volumes = kinds.into_iter().map(|fs| LoopVolume::new(fs, size_mib)).collect::<Option<Vec<_>>>()?;
        let own = tempfile::tempdir().unwrap();
        let homes = [0, 1].map(|at: usize| volumes[at].path().to_owned());
        let (data, states) = (own.path().join("service"), SITES.map(|site| own.path().join(format!("state-{site}"))));
        Some(Self::with(homes, states, data, own, volumes))
    }

    /// A service and no agents yet, with everything at places that somebody else looks after: each site's files, each
    /// agent's state, the service's data.
    pub(crate) fn at(homes: [PathBuf; 2], states: [PathBuf; 2], data: PathBuf) -> Self {
        Self::with(homes, states, data, tempfile::tempdir().unwrap(), Vec::new())
    }

    fn with(homes: [PathBuf; 2], states: [PathBuf; 2], data: PathBuf, own: tempfile::TempDir, volumes: Vec<LoopVolume>) -> Self {
        let (ways, servers) = (Default::default(), SITES.map(str::to_owned));
        let mut fleet =
            Self { agents: Vec::new(), service: None, url: String::new(), ways, servers, data, states, homes, own, volumes };
        fleet.start_service();
        fleet
    }

    /// As [`Fleet::on`], with both agents running and one group `plans` of a folder on each volume.
    pub(crate) fn sharing(kinds: [Fs; 2], group: &[&str]) -> Option<Self> {
        let mut fleet = Self::on(kinds, sized(512, 4_096) as u64)?;
        fleet.share(group);
        Some(fleet)
    }

    /// Starts both agents, with one group `plans` of a folder on each site.
    pub(crate) fn share(&mut self, group: &[&str]) {
        self.create_group(group);
        for site in SITES {
            self.start_agent(site);
            self.join(site);
        }
        self.settle();
    }

    pub(crate) fn create_group(&self, options: &[&str]) {
        let mut all = vec!["group", "create", "plans"];
        all.extend(options);
        self.run(&all).expect(0);
    }

    /// Makes the folder of a site an endpoint of the group.
    pub(crate) fn join(&self, site: &str) {
        fs::create_dir_all(self.folder(site)).unwrap();
        let folder = self.folder(site);
        self.run(&["endpoint", "create", "--group", "plans", "--server", self.server(site), "--path", folder.to_str().unwrap()])
            .expect(0);
    }

    pub(crate) fn volume(&self, site: &str) -> &LoopVolume {
        &self.volumes[number(site)]
    }

    /// What the service calls the server of a site.
    pub(crate) fn server(&self, site: &str) -> &str {
        &self.servers[number(site)]
    }

    /// The disk of each site, as its users see it.
    pub(crate) fn homes(&self) -> &[PathBuf; 2] {
        &self.homes
    }

    /// The folder that users of a site see.
    pub(crate) fn folder(&self, site: &str) -> PathBuf {
        self.homes[number(site)].join("plans")
    }

    pub(crate) fn folders(&self) -> [PathBuf; 2] {
        SITES.map(|site| self.folder(site))
    }

    /// Where the service keeps its data.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where an agent keeps its catalogs.
    pub(crate) fn state(&self, site: &str) -> PathBuf {
        self.states[number(site)].clone()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.own.path().join(format!("{name}.log"))
    }

    /// What a process has logged so far.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap_or_default()
    }

    /// Starts the service, at its former address if it had one.
    pub(crate) fn start_service(&mut self) {
        if let Err(line) = self.try_service() {
            panic!("{line}{}", self.log("service"));
        }
    }

    fn try_service(&mut self) -> Result<(), String> {
        let listen = self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0").to_owned();
        let arguments = ["service", "run", "--data", self.data.to_str().unwrap(), "--listen", &listen];
        let mut service = Daemon::start("service", &arguments, &self.log_path("service"));
        let mut line = String::new();
        BufReader::new(service.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.url = line.trim().strip_prefix("listening on ").ok_or(&line)?.to_owned();
        self.service = Some(service);
        Ok(())
    }

    /// Starts again what does not run, as the units of `docs/operations.md` do; gives how many had ended by themselves.
    pub(crate) fn revive(&mut self) -> usize {
        let mut revived = 0;
        for site in SITES {
            if self.agents.iter_mut().any(|agent| agent.name == site && agent.child.try_wait().unwrap().is_some()) {
                self.kill_agent(site);
                self.spawn_agent(site);
                revived += 1;
            }
        }
        if self.service.as_mut().is_some_and(|service| service.child.try_wait().unwrap().is_some()) {
            self.service = None;
            revived += 1;
        }
        if self.service.is_none() {
            // With a disk that is full or fails it may not come up; then the next call tries again.
            let _ = self.try_service();
        }
        revived
    }

    /// Starts a service that is expected to end by itself; gives what it said.
    pub(crate) fn refused_service(&self) -> Ended {
        isotherm(&["service", "run", "--data", self.data.to_str().unwrap(), "--listen", "127.0.0.1:0"])
    }

    /// Moves the service's data elsewhere. It must not run.
    pub(crate) fn keep_data_at(&mut self, data: PathBuf) {
        assert!(self.service.is_none(), "the service runs");
        self.data = data;
    }

    /// Freezes an agent, by the number of its site, or with 2 the service; it can only be killed then.
    pub(crate) fn freeze(&self, at: usize) {
        let frozen = match SITES.get(at) {
            Some(site) => self.agents.iter().find(|agent| agent.name == *site),
            None => self.service.as_ref(),
        };
        frozen.unwrap().freeze();
    }

    pub(crate) fn kill_service(&mut self) {
        self.service = None;
    }

    pub(crate) fn stop_service(&mut self) {
        assert_eq!(self.service.take().unwrap().stop(), Some(0), "{}", self.log("service"));
    }

    /// From its next start on, the agent of a site goes this way.
    pub(crate) fn go(&mut self, site: &str, way: Way) {
        self.ways[number(site)] = way;
    }

    /// Starts the agent of a site, without waiting for anything.
    pub(crate) fn spawn_agent(&mut self, site: &str) {
        let (state, way) = (self.state(site), &self.ways[number(site)]);
        let url = way.url.as_ref().unwrap_or(&self.url);
        let arguments = ["agent", "run", "--state", state.to_str().unwrap(), "--service", url, "--name", self.server(site)];
        self.agents.push(Daemon::start_in(way.namespace.as_deref(), site, &arguments, &self.log_path(site)));
    }

    /// Starts the agent of a site and waits until the service knows it.
    pub(crate) fn start_agent(&mut self, site: &str) {
        self.spawn_agent(site);
        until("the service knows the server", || {
            let servers = self.run(&["server", "list", "--json"]).expect(0).json();
            servers.as_array().unwrap().iter().any(|found| found["name"] == self.server(site) && found["online"] == true)
        });
    }

    fn take_agent(&mut self, site: &str) -> Daemon {
        let at = self.agents.iter().position(|agent| agent.name == site).unwrap();
        self.agents.remove(at)
    }

    pub(crate) fn kill_agent(&mut self, site: &str) {
        drop(self.take_agent(site));
    }

    pub(crate) fn stop_agent(&mut self, site: &str) {
        assert_eq!(self.take_agent(site).stop(), Some(0), "{}", self.log(site));
    }

    /// A server burns down: its agent is killed, and its disk and what the agent knew are gone for good. A new and
    /// empty machine of another name takes its place, on which nothing runs yet.
    pub(crate) fn lose(&mut self, site: &str) {
        self.kill_agent(site);
        let at = number(site);
        let fs = self.volumes[at].fs();
        // The loop device goes with the file system, the image with the volume.
        drop(self.volumes.remove(at));
        assert!(!self.homes[at].exists(), "the disk of {site} is still there");
        fs::remove_dir_all(&self.states[at]).unwrap();
        self.volumes.insert(at, LoopVolume::new(fs, sized(512, 4_096) as u64).unwrap());
        self.homes[at] = self.volumes[at].path().to_owned();
        self.servers[at] = format!("{site}-{}", noted());
    }

    /// Runs a command of an administrator.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut all = arguments.to_vec();
        all.extend(["--service", &self.url]);
        isotherm(&all)
    }

    /// Waits until both folders agree.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let seconds = sized(110, 600).to_string();
        let waited = self.run(&["wait", "--synced", "--timeout", &seconds]);
        if waited.code != Some(0) {
            let problems = self.run(&["problems"]);
            panic!("{waited:?}\n{problems:?}");
        }
    }

    /// Waits until both folders agree, and checks that nobody has to deal with anything.
    #[track_caller]
    pub(crate) fn settle_clean(&self) {
        self.settle();
        let (conflicts, problems) = (self.run(&["conflicts"]), self.run(&["problems"]));
        let versions = if conflicts.code == Some(0) { String::new() } else { self.conflict_stories() };
        assert_eq!((conflicts.code, problems.code), (Some(0), Some(0)), "{conflicts:?}\n{problems:?}\n{versions}");
    }

    /// The versions of each conflict copy and of what it is a copy of.
    fn conflict_stories(&self) -> String {
        let all = self.run(&["conflicts", "--json"]).json();
        let all = all.as_array().cloned().unwrap_or_default();
        let paths = all.iter().flat_map(|one| [&one["path"], &one["kept"]["path"]]).filter_map(Value::as_str);
        paths.map(|path| format!("{path}:\n{}\n", self.run(&["versions", path, "--json"]).out)).collect()
    }

    /// The endpoint of a site, as the service shows it.
    pub(crate) fn endpoint(&self, site: &str) -> Value {
        let ends = self.run(&["endpoint", "list", "--json"]).expect(0).json();
        ends.as_array().unwrap().iter().find(|one| one["endpoint"]["server"] == self.server(site)).unwrap().clone()
    }

    pub(crate) fn endpoint_id(&self, site: &str) -> String {
        self.endpoint(site)["endpoint"]["id"].as_str().unwrap().to_owned()
    }

    /// The node of a file, as the agent of a site knows it.
    pub(crate) fn node(&self, site: &str, path: &Path) -> String {
        let state = self.state(site);
        let ended = isotherm(&["file", "show", path.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]);
        ended.expect(0).json()["node"].as_str().unwrap().to_owned()
    }

    /// Bytes of content that the service keeps.
    pub(crate) fn stored(&self) -> u64 {
        fn size(folder: &Path) -> u64 {
            let entries = fs::read_dir(folder).unwrap().flatten();
            entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
        }
        size(&self.data.join("objects"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["service", SITES[0], SITES[1]] {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(40)..];
                eprintln!("--- end of the log of {name}:\n{}", last.join("\n"));
            }
        }
    }
}
