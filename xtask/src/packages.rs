//! The Debian packages that building and testing need.
//!
//! It deliberately asks for the commands, not for the packages: whoever has them from elsewhere is served. Nothing is
//! downloaded when nothing is missing.
//!
//! Invariant: packages are installed only by root, and only after saying so.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::watched;

/// A Debian package and the commands that show it is there, or files by their whole path.
pub(crate) struct Package {
    name: &'static str,
    commands: &'static [&'static str],
}

const fn package(name: &'static str, commands: &'static [&'static str]) -> Package {
    Package { name, commands }
}

/// To build the program: some crates compile C.
pub(crate) const FOR_BUILD: &[Package] = &[package("build-essential", &["cc", "make"])];

/// To run all tests: real file systems on loop devices, their access lists and attributes, network namespaces, and programs
/// that people use.
pub(crate) const FOR_TESTS: &[Package] = &[
    package("build-essential", &["cc", "make"]),
    package("e2fsprogs", &["mkfs.ext4", "chattr"]),
    package("xfsprogs", &["mkfs.xfs", "xfs_io"]),
    package("btrfs-progs", &["mkfs.btrfs"]),
    package("acl", &["setfacl", "getfacl"]),
    package("attr", &["setfattr", "getfattr"]),
    package("mount", &["mount", "losetup"]),
    package("util-linux", &["unshare", "fallocate", "nsenter"]),
    package("iproute2", &["ip", "tc"]),
    // Programs that have to get on with stubs.
    package("libarchive-tools", &["bsdtar"]),
    package("cpio", &["cpio"]),
    package("rsync", &["rsync"]),
    package("busybox", &["busybox"]),
    package("git", &["git"]),
    package("zip", &["zip"]),
    package("unzip", &["unzip"]),
    package("sqlite3", &["sqlite3"]),
    package("python3", &["python3"]),
    package("perl", &["perl"]),
    package("qemu-utils", &["qemu-img"]),
    package("samba", &["smbd"]),
    package("smbclient", &["smbclient"]),
    // They read everything.
    package("clamav", &["clamscan"]),
    package("plocate", &["updatedb.plocate", "plocate"]),
    package("restic", &["restic"]),
    // Holds up system calls of the exerciser.
    package("strace", &["strace"]),
    // Moves the clock of a program.
    package("faketime", &["faketime"]),
];

/// To make a guest and run it.
pub(crate) const FOR_GUESTS: &[Package] = &[
    package("qemu-system-x86", &["qemu-system-x86_64"]),
    package("debootstrap", &["debootstrap"]),
    package("e2fsprogs", &["mke2fs"]),
];

/// Other products that the benchmark can measure beside ours.
pub(crate) const SYNCTHING: &[Package] = &[package("syncthing", &["syncthing"])];
pub(crate) const RCLONE: &[Package] = &[package("rclone", &["rclone"])];
/// The example of a FUSE file system that passes everything on, and what builds it.
pub(crate) const PASSTHROUGH: &[Package] = &[
    package("build-essential", &["cc", "make"]),
    package("fuse3", &["fusermount3"]),
    package("libfuse3-dev", &["/usr/include/fuse3/fuse_lowlevel.h", PASSTHROUGH_SOURCE]),
];
/// Where Debian has its source.
pub(crate) const PASSTHROUGH_SOURCE: &str = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c";
/// To mount with FUSE, and to get products from the registry of Python packages.
pub(crate) const FUSE: &[Package] = &[package("fuse3", &["fusermount3"])];
pub(crate) const PIP: &[Package] = &[package("python3-pip", &["pip3"])];

/// Makes sure that the packages are there and says what was done; the error names what is missing and the remedy.
pub(crate) fn ensure(packages: &[Package]) -> Result<String> {
    let missing = missing(packages, is_there);
    if missing.is_empty() {
        return Ok("all packages are there".to_owned());
    }
    let names = missing.join(" ");
    if !is_there("apt-get") {
        bail!("Missing here: {names} (names of Debian packages); install what this system calls them");
    }
    if !is_root() {
        bail!("Missing here: {names}; install with: sudo apt-get update && sudo apt-get install -y {names}");
    }
    println!("Installing Debian packages: {names}");
    watched::run_plain(apt().args(["update", "-qq"]))?;
    watched::run_plain(apt().args(["install", "-y", "--no-install-recommends"]).args(&missing))?;
    let left = self::missing(packages, is_there);
    if !left.is_empty() {
        bail!("Installed {names}, but commands of these are still not found: {}", left.join(" "));
    }
    Ok(format!("installed {names}"))
}

fn is_there(command: &str) -> bool {
    folders().iter().any(|folder| folder.join(command).is_file())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn missing(packages: &[Package], has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    packages.iter().filter(|package| !package.commands.iter().all(|command| has(command))).map(|package| package.name).collect()
}

/// Where commands may be. Debian leaves the sbin folders out of an ordinary user's PATH.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    std::env::split_paths(&path).chain(system.map(PathBuf::from)).collect()
}

/// Whether this process may install packages, read from the kernel's own account of it.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_user(&status) == Some("0")
}

fn effective_user(status: &str) -> Option<&str> {
    // The fields are real, effective, saved and file-system user.
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_missing_when_one_of_its_commands_is() {
        let found = missing(FOR_TESTS, |command| command != "losetup" && command != "ip");
        assert_eq!(found, ["mount", "iproute2"]);
        assert!(missing(FOR_BUILD, |_| true).is_empty());
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some("0"));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }
}
