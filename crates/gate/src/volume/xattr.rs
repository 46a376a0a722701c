//! Extended attributes as raw bytes: which are synced, and the calls, through `/proc` because `O_PATH` descriptors
//! take none of the direct ones.
//!
//! It does not interpret values. Invariant: attributes of the machine (`security.selinux`, `trusted.*`) go from an inode to
//! the one that takes its place and nowhere else; those of a content (`security.bpf.*`, `security.capability`) go nowhere.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{STUB_RECORD_XATTR, proc_path};

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const NT_ACL: &[u8] = b"security.NTACL";

/// How often a value that grows while it is read is tried again.
const READ_TRIES: usize = 8;

/// Whether an attribute belongs to what is synced.
pub(super) fn is_carried(name: &[u8]) -> bool {
    is_acl(name) || name == NT_ACL || (name.starts_with(b"user.") && name.len() > b"user.".len())
}

/// Whether an attribute is a POSIX ACL.
pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT
}

/// Whether an attribute belongs to a file on this machine, whoever wrote its content.
fn is_local(name: &[u8]) -> bool {
    // Checks of the content, capabilities (which writing takes away), and our own record are of one content.
    let of_content = [&b"security.capability"[..], b"security.ima", b"security.evm", STUB_RECORD_XATTR.as_bytes()];
    let machine = name.starts_with(b"security.") || name.starts_with(b"trusted.");
    machine && !is_carried(name) && !of_content.contains(&name)
}

/// All synced attributes of an open inode.
pub(super) fn read_carried(fd: impl AsFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    read_some(fd, is_carried)
}

/// What another inode has to take over that takes the place of this one.
pub(super) fn read_local(fd: impl AsFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    read_some(fd, is_local)
}

fn read_some(fd: impl AsFd, is_wanted: fn(&[u8]) -> bool) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let path = proc_path(fd);
    let list = match grown(|buffer| rustix::fs::listxattr(&path, buffer), || rustix::fs::listxattr_query(&path)) {
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        answer => answer?,
    };
    let mut found = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| is_wanted(name)) {
        match read(&path, name) {
            Ok(value) => {
                found.insert(name.to_vec(), value);
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// Whether an open inode has an attribute of this name, whoever it belongs to.
pub(super) fn is_present(fd: impl AsFd, name: &str) -> Result<bool, Errno> {
    match rustix::fs::fgetxattr_query(fd, name) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

pub(super) fn set(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(proc_path(fd), c_name(name)?, value, XattrFlags::empty())
}

/// Removes an attribute; an absent one is no error, nor is one that the file system could never have.
pub(super) fn remove(fd: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::removexattr(proc_path(fd), c_name(name)?) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        answer => answer,
    }
}

/// The value of one attribute, whoever it belongs to.
pub(super) fn value(fd: impl AsFd, name: &[u8]) -> Result<Vec<u8>, Errno> {
    read(&proc_path(fd), name)
}

/// The record of a stub; none where there is none, or the file system could never have one.
pub(super) fn stub_record(fd: impl AsFd) -> Result<Option<Vec<u8>>, Errno> {
    value_if_any(fd, STUB_RECORD_XATTR)
}

/// An attribute; none where there is none, or the file system could never have one.
pub(super) fn value_if_any(fd: impl AsFd, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    match value(fd, name.as_bytes()) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn read(path: &str, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let name = c_name(name)?;
    grown(|buffer| rustix::fs::getxattr(path, &name, buffer), || rustix::fs::getxattr_query(path, &name))
}

/// Asks for the size, then for the bytes, again if they grew in between.
fn grown(
    fetch: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
    query: impl Fn() -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    for _ in 0..READ_TRIES {
        let size = query()?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; size];
        match fetch(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::BUSY)
}

fn c_name(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_machine_stays_with_the_name() {
        for name in ["security.selinux", "security.SMACK64", "trusted.overlay.opaque"] {
            assert!(is_local(name.as_bytes()), "{name}");
        }
        for name in ["security.bpf.isotherm", "security.capability", "security.NTACL", "user.a", "system.posix_acl_access"] {
            assert!(!is_local(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn only_attributes_of_users_are_carried() {
        for name in ["user.a", "user.DOSATTRIB", "system.posix_acl_access", "system.posix_acl_default", "security.NTACL"] {
            assert!(is_carried(name.as_bytes()), "{name}");
        }
        for name in [
            "user.",
            "user",
            "security.bpf.isotherm",
            "security.selinux",
            "security.capability",
            "trusted.a",
            "system.nfs4_acl",
            "",
        ] {
            assert!(!is_carried(name.as_bytes()), "{name}");
        }
    }
}
