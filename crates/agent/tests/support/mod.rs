//! A real service and real agents in this process, over loopback.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isotherm_agent::{Agent, Options};
use isotherm_api::Client;
use isotherm_api::management::{Endpoint, NewEndpoint, NewGroup, PolicyChange};
use isotherm_api::sync::InitialUpload;
use isotherm_core::name::Case;
use isotherm_service::Ages;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How long anything may take before a test gives up; no test asserts a speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A service that runs until it is dropped.
pub struct Service {
    pub url: String,
    pub client: Client,
    pub runtime: Runtime,
    data: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Service {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, Ages::default())
    }

    pub fn start_with(data: &Path, ages: Ages) -> Self {
        Self::start_at(data, "127.0.0.1:0", ages)
    }

    fn start_at(data: &Path, address: &str, ages: Ages) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = isotherm_service::Options { ages, ..isotherm_service::Options::at(data) };
        let (service, listener) = runtime.block_on(async {
            let service = isotherm_service::Service::open(options).await.unwrap();
            (service, tokio::net::TcpListener::bind(address).await.unwrap())
        });
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = runtime.spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
            };
            service.serve(listener, shutdown).await.unwrap();
        });
        let client = Client::new(&url).unwrap();
        Self { url, client, runtime, data: data.to_owned(), stop: Some(stop), serving: Some(serving) }
    }

    /// Stops it and starts it again at the same address.
    pub fn restart(mut self, while_away: impl FnOnce()) -> Self {
        self.end();
        while_away();
        let address = self.url.trim_start_matches("http://").to_owned();
        let data = self.data.clone();
        drop(self);
        Self::start_at(&data, &address, Ages::default())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            self.runtime.block_on(serving).unwrap();
        }
    }

    pub fn wait<T>(&self, request: impl Future<Output = T>) -> T {
        self.runtime.block_on(request)
    }

    pub fn group(&self, name: &str) {
        let group = NewGroup {
            name: name.to_owned(),
            case: Case::Sensitive,
            quota: None,
            exclusions: vec!["*.bak".to_owned()],
            max_delete_fraction: None,
            keep: isotherm_api::management::KeepChange::default(),
        };
        self.wait(self.client.create_group(&group)).unwrap();
    }

    /// Adds an endpoint once the server is registered.
    pub fn endpoint(&self, group: &str, server: &str, path: &Path) -> Endpoint {
        self.endpoint_with(group, server, path, InitialUpload::Merge)
    }

    pub fn endpoint_with(&self, group: &str, server: &str, path: &Path, initial_upload: InitialUpload) -> Endpoint {
        eventually("the server is registered", || {
            self.wait(self.client.servers()).unwrap().iter().any(|known| known.name == server)
        });
        let endpoint = NewEndpoint {
            group: group.to_owned(),
            server: server.to_owned(),
            path: path.to_str().unwrap().to_owned(),
            initial_upload,
            tiering: false,
            policy: PolicyChange::default(),
        };
        self.wait(self.client.create_endpoint(&endpoint)).unwrap()
    }

    /// Waits until all endpoints of a group agree on everything that happened before this call.
    pub fn settle(&self, group: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let barrier = self.wait(self.client.set_barrier(group)).unwrap();
            let status = self.wait(self.client.barrier(group, barrier, 5_000)).unwrap();
            if status.reached {
                return;
            }
            assert!(Instant::now() < until, "{:#?} {:#?}", status.missing, self.wait(self.client.status()));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

/// What tells a copy of the test program to be an agent.
const AGENT: &str = "ISOTHERM_TEST_AGENT";

/// An agent in a process of its own, as users' programs are in theirs: its own work is told by its process number. It
/// stops when it is dropped.
pub struct Running {
    child: Child,
    /// How it ends is what a test is about.
    judged: bool,
}

impl Running {
    /// Starts this very test program once more, as an agent. The program needs a test `agent` that calls
    /// [`be_an_agent`].
    pub fn start(service: &str, name: &str, state: &Path) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), (service, name, state))
    }

    /// Starts an agent that may not ask the kernel for changes.
    pub fn start_unwatched(service: &str, name: &str, state: &Path) -> Self {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-sys_admin").arg(std::env::current_exe().unwrap());
        Self::start_by(command, (service, name, state))
    }

    fn start_by(mut command: Command, arguments: (&str, &str, &Path)) -> Self {
        let arguments = serde_json::to_string(&arguments).unwrap();
        command.args(["agent", "--exact", "--nocapture"]).env(AGENT, arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), judged: false }
    }

    /// Ends it without giving it the time for anything.
    pub fn kill(mut self) {
        self.judged = true;
        self.child.kill().unwrap();
    }

    /// Waits for an agent that ends by itself; whether it was content.
    pub fn ended(mut self) -> bool {
        self.judged = true;
        // The end of its input would tell it to stop.
        let _input = self.child.stdin.take();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait();
        if !self.judged && !std::thread::panicking() {
            let status = ended.unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

/// The body of the test `agent`: nothing, unless this process was started to be one.
pub fn be_an_agent() {
    let Ok(arguments) = std::env::var(AGENT) else { return };
    let (service, name, state): (String, String, PathBuf) = serde_json::from_str(&arguments).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(stop);
    });
    let shutdown = async move {
        let _ = stopped.await;
    };
    Agent::run(Options { run: state.join("run"), service, name, state }, shutdown).unwrap();
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20)); // tidy: wait between two questions
    }
}

/// Everything below a folder but the product's own: what it is, its mode, its bytes or target, a file's time.
pub fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<Vec<u8>, String>) {
    use std::os::unix::fs::MetadataExt as _;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        if name == b".isotherm" || name == b"lost+found" {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        let mode = meta.mode() & 0o7777;
        let shown = if meta.is_dir() {
            walk(root, &path, found);
            format!("directory {mode:o}")
        } else if meta.is_symlink() {
            format!("symlink {}", fs::read_link(&path).unwrap().display())
        } else {
            let id = isotherm_core::content::ChunkId::of(&fs::read(&path).unwrap());
            format!("file {mode:o} {} {}.{} {id}", meta.len(), meta.mtime(), meta.mtime_nsec())
        };
        found.insert(name, shown);
    }
}

/// Bytes that do not compress and differ by seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
