//! The volumes of the demo's sites, where files can be tiered: an image for each, a loop device, and a gate that guards them.
//!
//! The gate is a process of its own, as it always is, with a keeper. Where this machine cannot guard volumes the demo goes on without.
//!
//! **Invariants:** when the demo has ended nothing of it is mounted and no loop device is held, unless a program still uses a volume: then it
//! stays guarded, and that is said. What a killed demo left behind goes at the next start, before anything is mounted again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isotherm_gate::effective_root;
use isotherm_gate::guard::probe;
use isotherm_gate::link::{GateClient, Guarding, VolumeSettings};

use super::SITES;
use crate::failure::{Exit, Failure, show_path};

/// Size of an image in bytes. It takes room only for what is in it.
const IMAGE: u64 = 512 << 20;
/// What the folder of the demo has to have room for beside both images and the drawings, in bytes.
const SPARE: u64 = 512 << 20;
/// How long the gate may take to answer, and a program to leave a volume.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(100);

/// Where things of the volumes are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The demo's folder.
    base: PathBuf,
}

/// Guarded volumes that are attached at the sites' folders.
#[derive(Debug)]
pub(super) struct Volumes {
    place: Place,
    gate: Child,
    devices: Vec<String>,
    is_stopped: bool,
}

impl Place {
    pub(super) fn new(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    /// Folder of the sockets of gate and keeper.
    pub(super) fn run(&self) -> PathBuf {
        self.base.join("data/gate/run")
    }

    fn state(&self) -> PathBuf {
        self.base.join("data/gate/state")
    }

    fn image(&self, site: &str) -> PathBuf {
        self.base.join("data").join(site).join("volume.image")
    }

    /// Whether the sites of this folder have volumes.
    pub(super) fn has_volumes(&self) -> bool {
        SITES.iter().any(|site| self.image(site).exists())
    }

    /// Whether volumes can be guarded here; and made, for drawings of so many bytes, where it is said how many.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub(super) fn can_guard(&self, drawings: Option<u64>) -> Result<(), String> {
        if !effective_root() {
            return Err("it needs root to mount volumes".to_owned());
        }
        for program in ["mkfs.xfs", "losetup", "umount"] {
            let found = Command::new(program).arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if found.is_err() {
                return Err(format!("`{program}` is not installed"));
            }
        }
        let file = unnamed(&self.base).map_err(|error| format!("a file for a trial cannot be made: {error}"))?;
        probe(&file).map_err(|failure| format!("readers cannot be made to wait for content ({failure})"))?;
        let Some(drawings) = drawings else { return Ok(()) };
        let space = rustix::fs::statvfs(&self.base).map_err(|error| format!("the free space is not known: {error}"))?;
        let (free, needed) = (space.f_bavail * space.f_frsize, drawings + SITES.len() as u64 * IMAGE + SPARE);
        if free < needed {
            return Err(format!("{} are free and {} needed", crate::size::bytes(free), crate::size::bytes(needed)));
        }
        Ok(())
    }

    /// Takes away what a demo that was killed left behind: its gate, mounts and loop devices.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        if self.state().exists() {
            // A gate is what ends a keeper, and detaches what it finds.
            let client = GateClient::new(&self.run());
            let mut gate = if client.volumes().is_ok() { None } else { Some(self.start_gate()?) };
            let stopped = self.stop_gate(&client);
            if let Some(gate) = &mut gate {
                if stopped.is_err() {
                    let _ = gate.kill();
                }
                let _ = gate.wait();
            }
            stopped?;
            // One that is about to end still answers, and would be taken for the next.
            let begun = Instant::now();
            while client.volumes().is_ok() && begun.elapsed() < PATIENCE {
                std::thread::sleep(AGAIN);
            }
        }
        for site in SITES {
            let folder = self.base.join(site);
            // Where that cannot be told nothing is known of a mount.
            while isotherm_gate::is_mount_point(&folder).unwrap_or(false) {
                run(Command::new("umount").arg(&folder))?;
            }
            self.detach(site)?;
        }
        match std::fs::remove_dir_all(self.state()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove", &self.state(), &error)),
            _ => Ok(()),
        }
    }

    /// Frees all loop devices of an image.
    fn detach(&self, site: &str) -> Result<(), Failure> {
        let image = self.image(site);
        if !image.exists() {
            return Ok(());
        }
        let devices = run(Command::new("losetup").args(["--noheadings", "--output", "NAME", "--associated"]).arg(&image))?;
        for device in devices.lines().map(str::trim).filter(|device| !device.is_empty()) {
            run(Command::new("losetup").args(["--detach", device]))?;
        }
        Ok(())
    }

    fn start_gate(&self) -> Result<Child, Failure> {
        use std::os::unix::process::CommandExt as _;
        let program = std::env::current_exe().map_err(|error| Failure::failed(format!("Cannot find this program: {error}")))?;
        let (state, log) = (self.state(), self.base.join("data/gate/log"));
        std::fs::create_dir_all(&state).map_err(|error| Failure::io("make", &state, &error))?;
        let log = File::create(&log).map_err(|error| Failure::io("write", &log, &error))?;
        let mut command = Command::new(program);
        command.args(["gate", "run", "--state"]).arg(&state).arg("--run").arg(self.run());
        // Ctrl-C is for the demo, which ends the gate last.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let mut start = || command.spawn().map_err(|error| Failure::failed(format!("Gate does not start: {error}")));
        let mut gate = start()?;
        let (client, begun) = (GateClient::new(&self.run()), Instant::now());
        while client.volumes().is_err() {
            let has_ended = gate.try_wait().is_ok_and(|ended| ended.is_some());
            if begun.elapsed() > PATIENCE {
                let _ = gate.kill();
                let _ = gate.wait();
                let log = show_path(&self.base.join("data/gate/log"));
                return Err(Failure::failed("Gate of the demo does not answer").with_remedy(format!("Its log says why: {log}")));
            }
            std::thread::sleep(AGAIN);
            if has_ended {
                // The one before it may have been about to end.
                gate = start()?;
            }
        }
        Ok(gate)
    }

    /// Has the gate detach everything, as soon as no program uses it.
    fn stop_gate(&self, client: &GateClient) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            // Off its list too: the safety net that the kernel keeps goes with the last volume.
            let removed = client.volumes().and_then(|all| all.iter().try_for_each(|one| client.remove(&one.settings.path)));
            match removed.and_then(|()| client.stop()) {
                Ok(()) => return Ok(()),
                Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
                Err(error) => {
                    let run = show_path(&self.run());
                    let why = format!("The demo's volumes stay attached and guarded: {error}");
                    return Err(Failure::new(Exit::Refused, why).with_remedy(format!(
                        "End what uses the sites' folders, such as a shell in one; then `isotherm gate stop --run {run}`, or start the demo again"
                    )));
                }
            }
        }
    }
}

impl Volumes {
    /// Makes what is missing, and attaches a guarded volume at the folder of each site.
    pub(super) fn attach(place: &Place) -> Result<Self, Failure> {
        let gate = place.start_gate()?;
        let mut volumes = Self { place: place.clone(), gate, devices: Vec::new(), is_stopped: false };
        let client = GateClient::new(&place.run());
        for site in SITES {
            let image = place.image(site);
            if !image.exists() {
                // Complete before it has its name.
                let new = image.with_extension("new");
                let made = File::create(&new).and_then(|file| file.set_len(IMAGE));
                made.map_err(|error| Failure::io("make", &new, &error))?;
                run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&new))?;
                std::fs::rename(&new, &image).map_err(|error| Failure::io("rename", &new, &error))?;
            }
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?.trim().to_owned();
            volumes.devices.push(device.clone());
            let path = place.base.join(site);
            let options = "noatime".to_owned();
            client.add(VolumeSettings { device: device.into(), path, options, guard: Guarding::Auto })?;
        }
        Ok(volumes)
    }

    /// Detaches all of it, and ends the gate.
    ///
    /// # Errors
    /// A program uses a volume: it stays guarded.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.is_stopped, true) {
            return Ok(());
        }
        let client = GateClient::new(&self.place.run());
        self.place.stop_gate(&client)?;
        let _ = self.gate.wait();
        self.place.clear_list();
        SITES.iter().try_for_each(|site| self.place.detach(site))
    }
}

impl Place {
    /// Nothing was left behind.
    fn clear_list(&self) {
        // The next start would only look once more.
        let _ = std::fs::remove_dir_all(self.state());
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            tracing::warn!(%failure, "Volumes of the demo are left behind");
        }
    }
}

/// A file without a name, for a trial.
fn unnamed(folder: &Path) -> Result<File, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// What a program says on standard output.
fn run(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| Failure::failed(format!("Cannot run `{name}`: {error}")))?;
    if !output.status.success() {
        let said = crate::output::text(String::from_utf8_lossy(&output.stderr).trim());
        return Err(Failure::failed(format!("`{name}` failed: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
