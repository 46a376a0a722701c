//! Runs one command, passes its output on line by line, and ends it when it has been silent for too long.
//!
//! It deliberately sets no limit on how long a command may take while it still says something: a slow machine is
//! not a failure, a deadlock is.
//!
//! Invariant: no call outlives its command by more than [`POLL`], even if a grandchild keeps the pipes open.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::family;

/// A command that prints nothing for so long hangs. The longest honest silence is the compilation of one crate.
const SILENCE_MAX: Duration = Duration::from_secs(12 * 60);
const POLL: Duration = Duration::from_secs(1);

/// Runs `command`; `show` sees each line and says whether it is printed. A non-zero exit is an error.
pub(crate) fn run(command: &mut Command, show: impl FnMut(&str) -> bool) -> Result<()> {
    run_with(command, SILENCE_MAX, show)
}

/// Runs `command` and prints all it says.
pub(crate) fn run_plain(command: &mut Command) -> Result<()> {
    run(command, |_| true)
}

fn run_with(command: &mut Command, silence_max: Duration, mut show: impl FnMut(&str) -> bool) -> Result<()> {
    let name = describe(command);
    println!("$ {name}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("Cannot start {name}"))?;
    let (sender, lines) = channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);
    let mut last_line = String::new();
    let mut heard = Instant::now();
    let status = loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => {
                heard = Instant::now();
                if show(&line) {
                    println!("{line}");
                }
                last_line = line;
            }
            Err(RecvTimeoutError::Disconnected) => break child.wait()?,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if heard.elapsed() >= silence_max {
                    println!("{name} said nothing for {silence_max:?}. What runs:\n{}", end(&mut child));
                    bail!("{name} said nothing for {silence_max:?} and was ended; its last line: {last_line}");
                }
            }
        }
    };
    judge(&name, status)
}

fn judge(name: &str, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    match status.code() {
        Some(code) => bail!("{name} ended with exit code {code}"),
        None => bail!("{name} was ended by a signal"),
    }
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn forward(pipe: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        // A read error means the pipe is gone, which ends the thread like its end does.
        while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// Ends the child and everything it started, for cargo does not end the test that hangs, and tells what they were doing.
fn end(child: &mut Child) -> String {
    let doomed = family::members(child.id());
    let doing = family::described(&doomed);
    family::end(&doomed);
    let _ = child.wait();
    doing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_of_both_pipes_arrive_and_the_exit_code_is_named() {
        let mut seen = Vec::new();
        let error = run(&mut shell("echo out; echo err >&2; exit 3"), |line| {
            seen.push(line.to_owned());
            false
        })
        .expect_err("exit code 3 is an error");
        seen.sort();
        assert_eq!(seen, ["err", "out"]);
        assert!(error.to_string().ends_with("exit code 3"), "{error}");
    }

    #[test]
    fn a_silent_command_is_ended_with_its_children() {
        let error =
            run_with(&mut shell("echo begun; sleep 600; true"), Duration::ZERO, |_| false).expect_err("silence is an error");
        assert!(error.to_string().ends_with("its last line: begun"), "{error}");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_open_is_not_waited_for() {
        run(&mut shell("sleep 30 & exit 0"), |_| false).expect("the command itself succeeded");
    }
}
