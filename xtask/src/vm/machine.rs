//! The guest itself: an emulated machine with its disk, one with the program and the checks, and one for a guarded volume.
//!
//! What the checks say comes over its second serial line. The first one, its console, is kept in a file.
//!
//! **Invariant:** nothing of a run stays but the console's file: the guest's disk is written to beside, in memory of the run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::image::{self, Image};
use super::report::Report;
use crate::watched;

const MEMORY_MIB: &str = "2560";
const PROCESSORS: &str = "2";
/// Size of the disk that becomes the guarded volume.
const VOLUME: u64 = 3 << 30;

/// A guest that can be started.
pub(super) struct Machine<'a> {
    pub(super) image: &'a Image,
    /// Where its disks and its console are.
    pub(super) folder: &'a Path,
    /// The checks that are wanted, all if there is none.
    pub(super) only: &'a [String],
}

impl Machine<'_> {
    /// Puts the program and what is in `xtask/vm` onto a disk.
    pub(super) fn load(&self, root: &Path, program: &Path) -> Result<()> {
        let tree = self.folder.join("payload");
        image::remove(&tree)?;
        fs::create_dir_all(tree.join("units"))?;
        for part in ["", "units"] {
            for entry in fs::read_dir(root.join("xtask/vm").join(part))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    fs::copy(entry.path(), tree.join(part).join(entry.file_name()))?;
                }
            }
        }
        fs::copy(program, tree.join("isotherm"))?;
        let mib = (fs::metadata(program)?.len() >> 20) + 64;
        image::disk_of(&tree, &self.payload(), "payload", &format!("{mib}M"))
    }

    /// Runs all checks. The processor's own help is tried first; where there is none everything is emulated, which is slower.
    pub(super) fn run(&self) -> Result<Report> {
        let mut report = Report::new("kvm");
        let outcome = if Path::new("/dev/kvm").exists() { self.start(&mut report) } else { Ok(()) };
        if !report.has_begun() {
            println!("This machine gives no help with virtual machines: everything is emulated");
            report = Report::new("tcg");
            self.start(&mut report)?;
        } else {
            outcome?;
        }
        if !report.has_ended() {
            bail!("The guest ended before all was said; its console is in {}", self.console().display());
        }
        Ok(report)
    }

    fn start(&self, report: &mut Report) -> Result<()> {
        let disk = self.folder.join("volume.raw");
        image::remove(&disk)?;
        File::create(&disk)?.set_len(VOLUME)?;
        let outcome = watched::run(&mut self.command(&report.emulator, &disk), |line| report.take(line));
        image::remove(&disk)?;
        outcome
    }

    fn command(&self, accelerator: &str, volume: &Path) -> Command {
        let drive = |path: &Path, more: &str| format!("file={},format=raw,if=none,{more}", path.display());
        let mut command = Command::new("nice");
        command.args(["-n", "10", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-accel", accelerator, "-cpu", "max", "-m", MEMORY_MIB, "-smp", PROCESSORS]);
        command.args(["-device", "virtio-rng-pci"]);
        for (name, drive) in [
            ("root", drive(&self.image.disk, "id=root,snapshot=on")),
            ("payload", drive(&self.payload(), "id=payload,readonly=on")),
            ("cad", drive(volume, "id=cad,cache=unsafe")),
        ] {
            command.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={name},serial={name}")]);
        }
        command.arg("-serial").arg(format!("file:{}", self.console().display())).args(["-serial", "stdio"]);
        command.arg("-kernel").arg(&self.image.kernel).arg("-initrd").arg(&self.image.first);
        // Where everything is emulated on a busy machine, the kernel takes a late tick for a broken timer and ends.
        let mut words = "root=LABEL=root rw console=ttyS0 systemd.show_status=no no_timer_check".to_owned();
        if !self.only.is_empty() {
            words += &format!(" isotherm.only={}", self.only.join(","));
        }
        // Where the guest's own disk is written to, beside the image.
        command.args(["-append", &words]).env("TMPDIR", self.folder);
        command
    }

    fn payload(&self) -> PathBuf {
        self.folder.join("payload.ext4")
    }

    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }
}
