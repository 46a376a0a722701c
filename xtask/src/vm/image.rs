//! The guest's disk, kernel and first file system, made once from Debian packages and kept in `target/vm`.
//!
//! The guest has an apt of its own, which gets the newer kernel; the one of this machine is only read, for its mirror. The
//! disk is never written to again: each run of the guest writes beside it.
//!
//! **Invariant:** an image counts as there only when its recipe lies beside it, which is written last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::mirror;
use crate::{packages, watched};

/// What the guest is. Its kernel comes from the backports of the same release.
const RELEASE: &str = "trixie";
const KERNEL: &str = "linux-image-cloud-amd64";
const PACKAGES: &str = "systemd-sysv,udev,dbus,initramfs-tools,kmod,zstd,procps,iproute2,xfsprogs,nfs-kernel-server,nfs-common,\
    bpftool,libgcc-s1";
const SIZE: &str = "4G";
const MOUNTS: &str = "/dev/disk/by-label/payload /payload ext4 ro 0 0\n";

/// What the guest starts from.
pub(super) struct Image {
    pub(super) disk: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) first: PathBuf,
}

/// The image of this recipe; made if it is not there, or anew if that is wanted.
pub(super) fn ensure(root: &Path, folder: &Path, mirror: Option<&str>, again: bool) -> Result<Image> {
    let image = Image { disk: folder.join("root.ext4"), kernel: folder.join("vmlinuz"), first: folder.join("initrd.img") };
    let unit = fs::read_to_string(root.join("xtask/vm/isotherm-vm.service"))?;
    let recipe = format!("{RELEASE} {KERNEL} {PACKAGES} {SIZE}\n{MOUNTS}{unit}");
    let kept = folder.join("recipe");
    if !again && fs::read_to_string(&kept).is_ok_and(|text| text == recipe) {
        return Ok(image);
    }
    if !packages::is_root() {
        bail!("The guest's disk has to be made once, which needs root: sudo -E cargo xtask vm");
    }
    let mirror = mirror.map_or_else(mirror::of_this_machine, |address| Ok(address.to_owned()))?;
    remove(&kept)?;
    let tree = folder.join("root");
    remove(&tree)?;
    fs::create_dir_all(folder)?;
    fill(&tree, &mirror, &unit)?;
    fs::copy(tree.join("vmlinuz"), &image.kernel).context("The guest's kernel")?;
    fs::copy(tree.join("initrd.img"), &image.first).context("The guest's first file system")?;
    disk_of(&tree, &image.disk, "root", SIZE)?;
    remove(&tree)?;
    fs::write(kept, recipe)?;
    Ok(image)
}

/// The guest's files, in a folder.
fn fill(tree: &Path, mirror: &str, unit: &str) -> Result<()> {
    watched::run_plain(
        Command::new("debootstrap").args(["--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]).arg(tree).arg(mirror),
    )?;
    let backports = format!("{RELEASE}-backports");
    fs::write(tree.join("etc/apt/sources.list"), format!("deb {mirror} {RELEASE} main\ndeb {mirror} {backports} main\n"))?;
    fs::write(tree.join("etc/fstab"), MOUNTS)?;
    fs::write(tree.join("etc/hostname"), "isotherm\n")?;
    fs::write(tree.join("etc/systemd/system/isotherm-vm.service"), unit)?;
    fs::create_dir_all(tree.join("payload"))?;
    // Then systemd keeps its journal over a restart.
    fs::create_dir_all(tree.join("var/log/journal"))?;
    inside(tree, &["apt-get", "update", "-qq"])?;
    inside(tree, &["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-t", &backports, KERNEL])?;
    inside(tree, &["apt-get", "clean"])?;
    inside(tree, &["systemctl", "enable", "--quiet", "isotherm-vm.service"])
}

fn inside(tree: &Path, command: &[&str]) -> Result<()> {
    watched::run_plain(Command::new("chroot").arg(tree).args(command).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C"))
}

/// A disk with ext4 that holds what is in a folder.
pub(super) fn disk_of(folder: &Path, disk: &Path, label: &str, size: &str) -> Result<()> {
    remove(disk)?;
    watched::run_plain(
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", label, "-d"]).arg(folder).arg(disk).arg(size).env("PATH", paths()),
    )
}

/// Debian leaves the sbin folders out of an ordinary user's PATH.
fn paths() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Removes a file or folder, and nothing that is mounted below it.
pub(super) fn remove(path: &Path) -> Result<()> {
    let status = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(path).status()?;
    if status.success() { Ok(()) } else { bail!("Cannot remove {}", path.display()) }
}
