//! What lets a test that goes wrong come to its end, so that what went wrong is told: whoever waits for a content that nobody will
//! bring would wait for ever, and the failure that he is waited for with him.
//!
//! **Invariant:** an office that lives for [`LONGEST`] is ended, and whoever waits for it goes on without an answer.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm_gate::safety_net::SafetyNet;
use rustix::process::{Pid, Signal, kill_process};

use crate::office::Office;

/// Several times as long as any office has to work on a slow machine, and shorter than a silence that ends all tests.
const LONGEST: Duration = Duration::from_secs(7 * 60);

/// Longer than anybody waits at a gate.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// Says that it is over, also if something failed; then the office is ended too. For a scope waits for its threads, and these may wait
/// for the office.
#[derive(Debug)]
pub(crate) struct Over<'a> {
    ends: &'a AtomicBool,
    home: PathBuf,
}

impl<'a> Over<'a> {
    pub(crate) fn of(ends: &'a AtomicBool, office: &Office) -> Self {
        Self { ends, home: office.beside().to_owned() }
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            abandon(&self.home);
        }
    }
}

/// Ends an office that does not end by itself.
#[derive(Debug)]
pub(crate) struct Watchdog {
    office: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Watchdog {
    /// Watches the office of this folder from now on.
    pub(crate) fn of(home: &Path) -> Self {
        Self::after(home, LONGEST)
    }

    fn after(home: &Path, longest: Duration) -> Self {
        let (home, (send, receive)) = (home.to_owned(), channel());
        let watching = std::thread::spawn(move || {
            if receive.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
                let runs: String = of_office(&home).into_iter().map(told).collect();
                let said =
                    format!("The office at {} has not ended in {longest:?}, and is ended. What runs:\n{runs}", home.display());
                // Past what keeps the output of tests until they end.
                let _ = std::io::stderr().write_all(said.as_bytes());
                abandon(&home);
            }
        });
        Self { office: Some((send, watching)) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((end, watching)) = self.office.take() {
            drop(end);
            let _ = watching.join();
        }
    }
}

/// Ends all processes that an office or a test of it has started and that name something of it, and lets everybody through.
pub(crate) fn abandon(home: &Path) {
    // An agent may not be able to end before somebody is answered who waits at the gate, and who then is refused after a minute.
    end(home, |process| !is_of_gate(process));
    end(home, |_| true);
    // The kernel keeps it without them.
    let _ = SafetyNet::of(&home.join("run")).spread(&[]);
}

/// Ends these, as far as anybody can within some minutes.
fn end(home: &Path, is_meant: impl Fn(Pid) -> bool) {
    let until = Instant::now() + ENDS_WITHIN;
    while Instant::now() < until {
        let doomed: Vec<Pid> = of_office(home).into_iter().filter(|process| is_meant(*process)).collect();
        if doomed.is_empty() {
            return;
        }
        doomed.into_iter().for_each(|process| kill_process(process, Signal::KILL).unwrap_or_default());
        // Who waits for a frozen volume cannot even be killed.
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(home.join("volume")).output();
        std::thread::sleep(Duration::from_millis(5)); // tidy: wait for processes of others to end
    }
}

fn is_of_gate(id: Pid) -> bool {
    let command = fs::read(process(id.as_raw_nonzero().get()).join("cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).nth(1) == Some(b"gate")
}

/// Processes that have something of an office among their arguments.
fn of_office(home: &Path) -> Vec<Pid> {
    let home = home.as_os_str().as_encoded_bytes();
    let names_it = |id: &i32| {
        let command = fs::read(process(*id).join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word.starts_with(home))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(names_it).filter_map(Pid::from_raw).collect()
}

fn process(id: i32) -> PathBuf {
    Path::new("/proc").join(id.to_string())
}

/// What a process is, and where in the kernel its threads wait.
fn told(id: Pid) -> String {
    let process = process(id.as_raw_nonzero().get());
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let waits = threads.map(|thread| {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        format!("\n    {}: {}", read("comm").trim_end(), read("wchan"))
    });
    format!("  {command}{}\n", waits.collect::<String>())
}

#[test]
fn an_office_that_does_not_end_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("office");
    let mut child = Command::new("tail").args(["-f", "/dev/null", "--pid=1"]).arg(home.join("none")).spawn().unwrap();
    let watchdog = Watchdog::after(&home, Duration::from_millis(1));
    assert!(!child.wait().unwrap().success());
    drop(watchdog);
    assert_eq!(of_office(&home), []);
    // And one that ends is not waited for.
    drop(Watchdog::of(&home));
}
