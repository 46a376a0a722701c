//! The real program as a child process: run to its end, or kept running while a test lasts.
//!
//! Nothing of it outlives the test: what still runs is killed when it is dropped, also on failure.
//!
//! **Invariant:** every wait has a limit and says what it waited for; the limit is far above what is needed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything. A busy machine may be slow; a hang is found.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest time for a command that has much to do.
const COMMAND_PATIENCE: Duration = Duration::from_secs(360);

fn program(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isotherm"));
    command.args(arguments).env_remove("ISOTHERM_SERVICE").stdin(Stdio::null());
    command
}

/// What a command that came to its end left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// Runs a command to its end.
pub(crate) fn isotherm(arguments: &[impl AsRef<OsStr>]) -> Ended {
    let child = program(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, (send, ended)) = (Pid::from_child(&child), channel());
    let waiting = std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(COMMAND_PATIENCE) else {
        // It is not reaped before the thread has ended.
        let _ = kill_process(id, Signal::KILL);
        let _ = waiting.join();
        let words: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        panic!("Not in {COMMAND_PATIENCE:?}: the end of {words:?}");
    };
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A command that keeps running.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    log: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(program(arguments))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // The test may be over.
                let _ = send.send(line);
            }
        });
        // A full pipe would stop the program.
        let mut err = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = err.read_to_string(&mut log);
            log
        });
        Self { child, lines, log: Some(log) }
    }

    /// The next line of standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("No line in {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("The program has ended"),
        }
    }

    /// Reads events until one fits.
    #[track_caller]
    pub(crate) fn event(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let event: Value = serde_json::from_str(&self.line()).unwrap();
            if fits(&event) {
                return event;
            }
            assert!(Instant::now() < until, "no such event, the last one was {event}");
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; gives the exit code and the lines that nobody has read.
    pub(crate) fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let mut code = None;
        until("the program ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        let lines = std::mem::replace(&mut self.lines, channel().1);
        (code.and_then(|status| status.code()), lines.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(Ok(log)) = self.log.take().map(JoinHandle::join)
        {
            eprintln!("--- standard error of process {}:\n{log}", self.child.id());
        }
    }
}

/// Waits for something that another process does.
#[track_caller]
pub(crate) fn until(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < PATIENCE, "Not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20)); // tidy: wait other processes have no event for this
    }
}
