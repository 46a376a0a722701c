//! What refuses to open stubs while nobody guards their volume.
//!
//! When the last holder of the kernel's event group is gone, the kernel lets everybody through, to holes. So a program that the
//! kernel itself keeps (BPF, at its security hook for opens) answers EIO for files of guarded volumes that have a record, as long as
//! no group asks about them. It needs no process. **Invariants:** what it refuses, nobody guards; a new one is in place before an
//! older one goes.

pub(crate) mod btf;
mod pins;
mod probe;
mod program;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::link::VolumeId;
use crate::sys::bpf;
use crate::volume::STUB_RECORD_XATTR;
use btf::Btf;
use pins::Pins;
use program::{Maps, Places, SCRATCH_BYTES, program};

pub use probe::{NetFailure, probe};

/// The running kernel's types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// The security modules that the kernel asks, by name.
const MODULES: &str = "/sys/kernel/security/lsm";
/// As the kernel's tools list the program.
const NAME: &std::ffi::CStr = c"isotherm_net";

/// Why there is no safety net.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetUnavailable {
    /// The kernel does not describe itself.
    #[error("the kernel does not say what its types are (CONFIG_DEBUG_INFO_BTF)")]
    NoTypes,
    /// It is too old, or too new.
    #[error("the kernel has no '{0}' as it is needed (Linux 6.15 has)")]
    Lacks(&'static str),
    /// BPF programs are not asked.
    #[error("'bpf' is not among the kernel's security modules in {MODULES} ('lsm=' on its command line)")]
    NotAsked,
    /// The kernel refuses.
    #[error("the kernel refuses {what}: {errno}")]
    Refused {
        /// In a user's words.
        what: &'static str,
        /// Its reason.
        errno: Errno,
    },
    /// Nothing would keep it.
    #[error("no BPF file system is mounted at {}", pins::FILE_SYSTEM)]
    NoPins,
    /// There are too many.
    #[error("too many volumes")]
    TooMany,
}

/// The net of one gate.
#[derive(Debug)]
pub struct SafetyNet {
    pins: Pins,
}

impl SafetyNet {
    /// That of the gate which has this run folder.
    #[must_use]
    pub fn of(run: &Path) -> Self {
        Self { pins: Pins::of(run) }
    }

    /// Whether it is there for this volume, be it of this or of an earlier gate.
    #[must_use]
    pub fn is_under(&self, volume: VolumeId) -> bool {
        self.pins.is_there(volume)
    }

    /// Spreads it under these volumes and no others, and takes it away where there are none. What it is has no end but this: it
    /// stays when the process ends.
    ///
    /// # Errors
    /// [`NetUnavailable`]; what was there before stays.
    pub fn spread(&self, volumes: &[VolumeId]) -> Result<(), NetUnavailable> {
        if volumes.is_empty() {
            self.pins.keep_only(&[]);
            return Ok(());
        }
        let kernel = Kernel::look()?;
        let text = program(&kernel.places, volumes, Maps::default()).ok_or(NetUnavailable::TooMany)?;
        let wanted: Vec<_> = volumes.iter().map(|volume| self.pins.name(*volume, &text)).collect();
        if !self.pins.are_all_there(&wanted) {
            let link = kernel.attach(volumes)?;
            self.pins.put(&link, &wanted)?;
        }
        self.pins.keep_only(&wanted);
        Ok(())
    }
}

/// A kernel that takes the program, as far as it can be told before it is tried.
#[derive(Debug)]
struct Kernel {
    places: Places,
}

impl Kernel {
    fn look() -> Result<Self, NetUnavailable> {
        let modules = std::fs::read_to_string(MODULES).unwrap_or_default();
        if !modules.trim().split(',').any(|module| module == "bpf") {
            return Err(NetUnavailable::NotAsked);
        }
        let types = std::fs::read(TYPES).map_err(|_| NetUnavailable::NoTypes)?;
        let btf = Btf::read(&types).ok_or(NetUnavailable::Lacks("BTF 1"))?;
        Ok(Self { places: Places::of(&btf).map_err(NetUnavailable::Lacks)? })
    }

    /// From now on, until what is answered here is closed and has no pin, the kernel asks the program.
    fn attach(&self, volumes: &[VolumeId]) -> Result<OwnedFd, NetUnavailable> {
        let refused = |what| move |errno| NetUnavailable::Refused { what, errno };
        // The kernel wants the name to end with a zero.
        let name = bpf::constant_map(&[STUB_RECORD_XATTR.as_bytes(), b"\0"].concat()).map_err(refused("a map"))?;
        let scratch = bpf::scratch_map(SCRATCH_BYTES).map_err(refused("a map"))?;
        let maps = Maps { name: name.as_raw_fd(), scratch: scratch.as_raw_fd() };
        let text = program(&self.places, volumes, maps).ok_or(NetUnavailable::TooMany)?;
        let loaded = bpf::load_hook(NAME, &text, self.places.hook).map_err(|(errno, said)| {
            tracing::debug!(said, "The kernel does not take the program of the safety net");
            NetUnavailable::Refused { what: "a program for its security hooks", errno }
        })?;
        bpf::attach(&loaded).map_err(refused("to ask a program at opens"))
    }
}
