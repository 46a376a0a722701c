//! Names in the kernel's BPF file system, which keep the program when every process has ended.
//!
//! A name is the gate's number, the volume, and the number of the program's text. So what is the same stays, and what another
//! release has put there is replaced.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::NetUnavailable;
use crate::link::VolumeId;
use crate::sys::bpf::{self, Instruction};

/// Where a machine has it.
pub(super) const FILE_SYSTEM: &str = "/sys/fs/bpf";
const FOLDER: &str = "/sys/fs/bpf/isotherm";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const MAGIC: u32 = 0xcafe_4a11;

/// The names of one gate.
#[derive(Debug)]
pub(super) struct Pins {
    /// What its names begin with; several gates on one machine have run folders of their own.
    gate: String,
}

impl Pins {
    pub(super) fn of(run: &Path) -> Self {
        Self { gate: format!("{:016x}-", number_of(run.as_os_str().as_bytes().iter().copied())) }
    }

    pub(super) fn name(&self, volume: VolumeId, text: &[Instruction]) -> String {
        let bytes = text.iter().flat_map(|one| {
            let (offset, immediate) = (one.offset.to_le_bytes(), one.immediate.to_le_bytes());
            [one.code, one.registers].into_iter().chain(offset).chain(immediate)
        });
        format!("{}{volume}-{:016x}", self.gate, number_of(bytes))
    }

    /// Whether the volume has any.
    pub(super) fn is_there(&self, volume: VolumeId) -> bool {
        let wanted = format!("{}{volume}-", self.gate);
        self.names().iter().any(|name| name.starts_with(&wanted))
    }

    pub(super) fn are_all_there(&self, wanted: &[String]) -> bool {
        let names = self.names();
        wanted.iter().all(|name| names.contains(name))
    }

    /// Gives a link these names too.
    pub(super) fn put(&self, link: &OwnedFd, names: &[String]) -> Result<(), NetUnavailable> {
        let is_there = rustix::fs::statfs(FILE_SYSTEM).is_ok_and(|found| found.f_type as u32 == MAGIC);
        if !is_there {
            return Err(NetUnavailable::NoPins);
        }
        let refused = |errno| NetUnavailable::Refused { what: "to keep the program", errno };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(FOLDER);
        made.map_err(|error| refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        for name in names {
            let path = CString::new(path_of(name).as_os_str().as_bytes()).map_err(|_| refused(Errno::INVAL))?;
            match bpf::pin(link, &path) {
                // The same text, from another try.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
        Ok(())
    }

    /// Takes away all names of this gate but these.
    pub(super) fn keep_only(&self, wanted: &[String]) {
        for name in self.names().iter().filter(|name| !wanted.contains(name)) {
            if let Err(error) = std::fs::remove_file(path_of(name)) {
                tracing::warn!(name, %error, "An older safety net stays");
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let Ok(folder) = std::fs::read_dir(FOLDER) else { return Vec::new() };
        let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&self.gate)).collect()
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// FNV-1a: tells texts apart that nobody chose to look alike.
fn number_of(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |number, byte| (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_gate_volume_and_text_and_have_no_dots() {
        let (one, other) = (Pins::of(Path::new("/run/isotherm")), Pins::of(Path::new("/run/other.d")));
        let text = |immediate| [Instruction { code: 0xb7, registers: 0, offset: 0, immediate }];
        let volume = VolumeId([0xab; 16]);
        let name = one.name(volume, &text(0));
        assert_eq!(name, one.name(volume, &text(0)));
        for different in [other.name(volume, &text(0)), one.name(VolumeId([1; 16]), &text(0)), one.name(volume, &text(1))] {
            assert_ne!(name, different);
            assert!(!different.contains('.'), "{different}");
        }
    }
}
