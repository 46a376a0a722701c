//! bpf(2): maps of one value, programs that are asked by the kernel's security hooks, and pins of their links.
//!
//! Instructions are the caller's; the kernel proves them before it takes them. Invariant: the kernel is never told of more bytes
//! than the buffer behind a pointer holds.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::last_errno;

/// Commands, types and flags of `linux/bpf.h`, which libc lacks.
const MAP_CREATE: u32 = 0;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const MAP_FREEZE: u32 = 22;
const LINK_CREATE: u32 = 28;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_LSM: u32 = 29;
const ATTACH_LSM_MAC: u32 = 27;
const RDONLY_PROG: u32 = 1 << 7;
const SLEEPABLE: u32 = 1 << 4;
/// Told to the kernel of the program's text, because some of what it calls is for such programs only.
const LICENSE: &CStr = c"Dual MIT/GPL";
/// Room for what the kernel says of a program that it does not take, in bytes.
const LOG_BYTES: usize = 256 << 10;

/// Same layout as `struct bpf_insn` of the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// Where it goes to and where it comes from, four bits each.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// The parts of `union bpf_attr` that each command reads. What the kernel's has behind them counts as zeros.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    padding: u32,
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// A map of one value that programs can write.
pub(crate) fn scratch_map(bytes: u32) -> Result<OwnedFd, Errno> {
    array_of_one(bytes, 0)
}

/// A map of one value that nobody can write any more.
pub(crate) fn constant_map(value: &[u8]) -> Result<OwnedFd, Errno> {
    let map = array_of_one(u32::try_from(value.len()).map_err(|_| Errno::INVAL)?, RDONLY_PROG)?;
    let key = 0_u32;
    let map_fd = map.as_raw_fd() as u32;
    let update = MapUpdate { map_fd, padding: 0, key: address(&raw const key), value: address(value.as_ptr()), flags: 0 };
    // SAFETY: the map was made for keys of four bytes and values as long as `value`; both outlive the call, and are only read.
    unsafe { call(MAP_UPDATE_ELEM, &update) }?;
    // SAFETY: no pointers.
    unsafe { call(MAP_FREEZE, &map_fd) }?;
    Ok(map)
}

fn array_of_one(value_size: u32, map_flags: u32) -> Result<OwnedFd, Errno> {
    let create = MapCreate { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size, max_entries: 1, map_flags };
    // SAFETY: no pointers.
    let fd = unsafe { call(MAP_CREATE, &create) }?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A program that may sleep, for the security hook whose function has this id among the kernel's types. The error comes with what
/// the kernel says of the program, if it says anything.
pub(crate) fn load_hook(name: &CStr, instructions: &[Instruction], hook: u32) -> Result<OwnedFd, (Errno, String)> {
    let mut load = ProgLoad {
        prog_type: PROG_TYPE_LSM,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| (Errno::TOOBIG, String::new()))?,
        insns: address(instructions.as_ptr()),
        license: address(LICENSE.as_ptr()),
        prog_flags: SLEEPABLE,
        expected_attach_type: ATTACH_LSM_MAC,
        attach_btf_id: hook,
        ..ProgLoad::default()
    };
    let short = name.to_bytes().iter().take(load.prog_name.len() - 1);
    load.prog_name.iter_mut().zip(short).for_each(|(to, from)| *to = *from);
    // SAFETY: as many instructions are there as `insn_cnt` says, the license ends with a zero, and no log is wanted.
    match unsafe { call(PROG_LOAD, &load) } {
        // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
        Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(errno @ Errno::PERM) => return Err((errno, String::new())),
        Err(_) => {}
    }
    // Once more, to be told why.
    let mut log = vec![0_u8; LOG_BYTES];
    (load.log_level, load.log_size, load.log_buf) = (1, LOG_BYTES as u32, log.as_mut_ptr().expose_provenance() as u64);
    // SAFETY: as above; the kernel writes no more than `log_size` bytes, which are there and borrowed by nobody.
    match unsafe { call(PROG_LOAD, &load) } {
        // SAFETY: as above.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(errno) => {
            let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
            Err((errno, String::from_utf8_lossy(said).into_owned()))
        }
    }
}

/// Has the kernel ask a program of [`load_hook`] from now on, until the link's last descriptor and pin are gone.
pub(crate) fn attach(program: impl AsFd) -> Result<OwnedFd, Errno> {
    let prog_fd = program.as_fd().as_raw_fd() as u32;
    let create = LinkCreate { prog_fd, target_fd: 0, attach_type: ATTACH_LSM_MAC, flags: 0 };
    // SAFETY: no pointers.
    let fd = unsafe { call(LINK_CREATE, &create) }?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a link a name in a BPF file system, which keeps it.
pub(crate) fn pin(link: impl AsFd, path: &CStr) -> Result<(), Errno> {
    let pin = ObjPin { pathname: address(path.as_ptr()), bpf_fd: link.as_fd().as_raw_fd() as u32, file_flags: 0 };
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { call(OBJ_PIN, &pin) }.map(drop)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// # Safety
/// `attr` is laid out as the command wants it, and what its pointers point to is as long as it says, and lives.
unsafe fn call<A>(command: u32, attr: &A) -> Result<i32, Errno> {
    // SAFETY: the size is that of `attr`, which outlives the call; the rest is the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) };
    if answer < 0 { Err(last_errno()) } else { i32::try_from(answer).map_err(|_| Errno::IO) }
}
