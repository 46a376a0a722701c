//! A service and agents as processes, in a folder of their own.
//!
//! **Invariant:** agents end before the service, the service before the folder goes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use isotherm_gate::Root;
use rustix::process::Signal;

use crate::program::{Ended, Running, isotherm, until};

/// A service, its agents, and a folder for everything.
#[derive(Debug)]
pub(crate) struct World {
    // Fields are dropped in this order.
    agents: Vec<(String, Running)>,
    service: Running,
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("service");
        let service = Running::start(&["service", "run", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let line = service.line();
        let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { agents: Vec::new(), service, url, folder }
    }

    /// Runs a command of an administrator.
    pub(crate) fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Ended {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.extend([OsStr::new("--service"), OsStr::new(&self.url)]);
        isotherm(&all)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("service")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn state(&self, server: &str) -> PathBuf {
        self.path(&format!("state-{server}"))
    }

    /// Starts the agent of a server and waits until the service knows it.
    pub(crate) fn start_agent(&mut self, server: &str) {
        let state = self.state(server);
        let agent = Running::start(&agent_arguments(&state, &self.url, server));
        self.agents.push((server.to_owned(), agent));
        until("the service knows the server", || {
            let servers = self.run(&["server", "list", "--json"]).expect(0).json();
            servers.as_array().unwrap().iter().any(|found| found["name"] == server && found["online"] == true)
        });
    }

    /// Makes a group with a folder on each of these servers, and waits until they agree.
    pub(crate) fn share(&self, group: &str, servers: &[&str]) -> Vec<PathBuf> {
        self.run(&["group", "create", group]).expect(0);
        let folders: Vec<PathBuf> = servers.iter().map(|server| self.path(&format!("{group}-{server}"))).collect();
        for (server, folder) in servers.iter().zip(&folders) {
            std::fs::create_dir_all(folder).unwrap();
            let path = folder.to_str().unwrap();
            self.run(&["endpoint", "create", "--group", group, "--server", server, "--path", path]).expect(0);
        }
        self.wait();
        folders
    }

    pub(crate) fn wait(&self) {
        self.run(&["wait", "--synced", "--timeout", "100"]).expect(0);
    }

    /// Stops an agent with a signal; gives its exit code.
    pub(crate) fn stop_agent(&mut self, server: &str, signal: Signal) -> Option<i32> {
        let at = self.agents.iter().position(|(name, _)| name == server).unwrap();
        let (_, agent) = self.agents.remove(at);
        agent.signal(signal);
        agent.ended().0
    }

    /// Waits until an agent ends by itself; gives its exit code.
    pub(crate) fn agent_ended(&mut self, server: &str) -> Option<i32> {
        let at = self.agents.iter().position(|(name, _)| name == server).unwrap();
        self.agents.remove(at).1.ended().0
    }

    /// Ends the service and starts it on another data folder, under the same address.
    pub(crate) fn serve_again(&mut self, data: &Path, more: &[&str]) {
        let address = self.url.strip_prefix("http://").unwrap();
        let own = ["service", "run", "--data", data.to_str().unwrap(), "--listen", address];
        let arguments = [&own[..], more].concat();
        self.service.signal(Signal::KILL);
        until("the service has ended", || std::net::TcpStream::connect(address).is_err());
        self.service = Running::start(&arguments);
        assert!(self.service.line().starts_with("listening on "));
    }

    /// Stops the service with a signal; gives its exit code.
    pub(crate) fn stop_service(self, signal: Signal) -> Option<i32> {
        drop(self.agents);
        self.service.signal(signal);
        self.service.ended().0
    }
}

/// The command line of an agent.
pub(crate) fn agent_arguments<'a>(state: &'a Path, url: &'a str, server: &'a str) -> [&'a str; 8] {
    ["agent", "run", "--state", state.to_str().unwrap(), "--service", url, "--name", server]
}

/// Whether agents can work here: they find files by their handles, which the kernel allows root only. Says so if not.
pub(crate) fn can_sync(test: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let opened = Root::open(&path).and_then(|root| root.inode(root.handle()).map(drop));
    if let Err(error) = &opened {
        println!("SKIPPED {test}: {error}");
    }
    opened.is_ok()
}
