//! Two instances of Syncthing that know each other only, on loopback.
//!
//! Everything by which it would look for others or tell of itself is off: discovery, relays, port mapping, upgrades,
//! reports. What makes it slower without need is off too: it gives way to other programs by default.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::compare::Product;
use super::world::{PATIENCE_S, Running, free_port, text};
use crate::packages;

const SIDES: [&str; 2] = ["first", "second"];

struct Syncthing {
    folder: PathBuf,
    instances: Vec<Instance>,
}

/// One side.
struct Instance {
    home: PathBuf,
    device: String,
    key: String,
    /// Of its REST interface, and of what the other side connects to.
    ports: [u16; 2],
    running: Option<Running>,
}

pub(super) fn start(folder: &Path) -> Result<Box<dyn Product>> {
    packages::ensure(packages::SYNCTHING)?;
    let instances = SIDES.iter().map(|side| Instance::new(folder, side)).collect::<Result<Vec<_>>>()?;
    let mut both = Syncthing { folder: folder.to_owned(), instances };
    for (number, side) in SIDES.iter().enumerate() {
        fs::create_dir_all(folder.join(side))?;
        let text = both.configuration(number)?;
        both.instances[number].run(folder, side, &text)?;
    }
    both.until("both sides are connected", Duration::from_secs(120), |both| {
        both.instances.iter().all(|one| one.get("system/connections").is_ok_and(|text| text.contains("\"connected\": true")))
    })?;
    Ok(Box::new(both))
}

impl Instance {
    /// Has it make its keys, which also name it.
    fn new(folder: &Path, side: &str) -> Result<Self> {
        let home = folder.join(format!("home-{side}"));
        let flags = ["--no-default-folder", "--skip-port-probing"];
        let made = Command::new("syncthing").arg("generate").arg("--home").arg(&home).args(flags).output()?;
        if !made.status.success() {
            bail!("syncthing generate: {}", String::from_utf8_lossy(&made.stdout));
        }
        let made = fs::read_to_string(home.join("config.xml"))?;
        let device = between(&made, "<device id=\"", "\"").context("Syncthing made no device")?;
        let key = between(&made, "<apikey>", "</apikey>").context("Syncthing made no key")?;
        Ok(Self { home, device, key, ports: [free_port()?, free_port()?], running: None })
    }

    fn run(&mut self, folder: &Path, side: &str, configuration: &str) -> Result<()> {
        fs::write(self.home.join("config.xml"), configuration)?;
        let mut command = Command::new("syncthing");
        command.arg("serve").arg("--home").arg(&self.home).args(["--no-browser", "--no-restart", "--no-upgrade"]);
        // One process instead of one that watches another: it can be ended by its number.
        command.envs([("STMONITORED", "yes"), ("STNOUPGRADE", "1")]);
        self.running = Some(Running::start(&mut command, &folder.join(format!("{side}.log")))?);
        Ok(())
    }

    /// What the REST interface answers.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[0]))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let (key, port) = (&self.key, self.ports[0]);
        write!(stream, "GET /rest/{path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {key}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.lines().next().is_some_and(|first| first.contains(" 200 ")) {
            bail!("Syncthing answers to {path}: {}", answer.lines().next().unwrap_or_default());
        }
        Ok(answer)
    }

    fn is_idle(&self) -> Result<bool> {
        let status = self.get("db/status?folder=plans")?;
        Ok(status.contains("\"state\": \"idle\"") && value(&status, "needTotalItems") == Some(0))
    }
}

impl Syncthing {
    fn configuration(&self, number: usize) -> Result<String> {
        let side = &self.instances[number];
        let path = self.folder.join(SIDES[number]);
        let mut devices = String::new();
        let mut members = String::new();
        for Instance { device, ports, .. } in &self.instances {
            members += &format!("<device id=\"{device}\"/>");
            devices += &format!("<device id=\"{device}\"><address>tcp://127.0.0.1:{}</address></device>\n", ports[1]);
        }
        Ok(format!(
            "<configuration version=\"36\">\n\
             <folder id=\"plans\" path=\"{}\" type=\"sendreceive\" fsWatcherEnabled=\"true\" fsWatcherDelayS=\"1\">{members}</folder>\n\
             {devices}\
             <gui enabled=\"true\" tls=\"false\"><address>127.0.0.1:{}</address><apikey>{}</apikey></gui>\n\
             <options>\n<listenAddress>tcp://127.0.0.1:{}</listenAddress>\n{OPTIONS}</options>\n</configuration>\n",
            text(&path)?,
            side.ports[0],
            side.key,
            side.ports[1]
        ))
    }

    fn until(&self, what: &str, patience: Duration, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let started = Instant::now();
        while !is_so(self) {
            if started.elapsed() > patience {
                bail!("Not within {} s with Syncthing: {what}", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50)); // tidy: wait for another program's answer
        }
        Ok(())
    }
}

const OPTIONS: &str = "\
<globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled>
<relaysEnabled>false</relaysEnabled>
<natEnabled>false</natEnabled>
<startBrowser>false</startBrowser>
<urAccepted>-1</urAccepted>
<autoUpgradeIntervalH>0</autoUpgradeIntervalH>
<crashReportingEnabled>false</crashReportingEnabled>
<reconnectionIntervalS>1</reconnectionIntervalS>
<setLowPriority>false</setLowPriority>
";

impl Product for Syncthing {
    fn version(&self) -> Result<String> {
        let output = Command::new("syncthing").arg("--version").output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = said.split_whitespace().nth(1).unwrap_or_default();
        Ok(format!("{version}; fsWatcherDelayS 1, its minimum; setLowPriority off; otherwise its defaults; encrypted"))
    }

    fn folders(&self) -> [PathBuf; 2] {
        SIDES.map(|side| self.folder.join(side))
    }

    fn changes(&self) -> usize {
        20
    }

    fn settle(&mut self) -> Result<()> {
        let patience = Duration::from_secs(PATIENCE_S);
        self.until("both sides are idle", patience, |both| both.instances.iter().all(|one| one.is_idle().unwrap_or(false)))
    }

    /// What the first side sent of its protocol, by its own count.
    fn sent(&self) -> Result<u64> {
        let connections = self.instances[0].get("system/connections")?;
        let (_, total) = connections.split_once("\"total\"").context("Syncthing tells no total")?;
        value(total, "outBytesTotal").context("Syncthing tells no bytes")
    }

    fn memory_kib(&self) -> Result<Option<u64>> {
        let mut sum = 0;
        for running in self.instances.iter().filter_map(|one| one.running.as_ref()) {
            sum += running.memory_kib()?.1;
        }
        Ok(Some(sum))
    }
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0.to_owned())
}

/// A number of a JSON answer, which Syncthing lays out one a line.
fn value(json: &str, name: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{name}\": "))?;
    rest.split([',', '\n', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_found() {
        assert_eq!(value("{\n  \"a\": 12,\n  \"needTotalItems\": 7\n}", "needTotalItems"), Some(7));
        assert_eq!(value("{\n  \"a\": 12\n}", "b"), None);
        assert_eq!(between("<device id=\"AB-C\" name=\"x\">", "<device id=\"", "\"").as_deref(), Some("AB-C"));
    }
}
