//! What the file system of a folder offers.
//!
//! Everything is tried on files without a name, so that nobody sees them and nothing of them stays.
//!
//! **Invariant:** a folder that cannot be opened gives exactly one finding, which says why.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use isotherm_api::path::ShownPath;
use isotherm_gate::guard::probe;
use isotherm_gate::safety_net;
use isotherm_gate::watch::Watch;
use isotherm_gate::{ErrorKind, FsKind, GateError, Root, Space};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::Finding;
use crate::size;

/// Less room than this, or than one part in twenty, is worth a remark.
const SPACE_MIN: u64 = 1 << 30;

pub(super) fn check(path: &Path) -> Vec<Finding> {
    let mut findings = match Root::open(path) {
        Ok(root) => look(&root, path),
        Err(error) => vec![cannot_open(path, &error)],
    };
    for finding in &mut findings {
        finding.folder = Some(ShownPath::new(path.as_os_str().as_bytes()));
    }
    findings
}

fn cannot_open(path: &Path, error: &GateError) -> Finding {
    let remedy = match error.kind() {
        ErrorKind::NotFound => "Make the folder, or mount its disk".to_owned(),
        ErrorKind::Symlink => match path.canonicalize() {
            Ok(real) => format!("Use the folder itself: {}", crate::failure::show_path(&real)),
            Err(_) => "Use the folder itself, not a symlink to it".to_owned(),
        },
        ErrorKind::Unsupported => "Use ext4, XFS or btrfs".to_owned(),
        ErrorKind::Denied => "Run it as root".to_owned(),
        _ => "Give an existing folder on a local disk".to_owned(),
    };
    Finding::bad("folder", error.to_string(), remedy)
}

fn look(root: &Root, path: &Path) -> Vec<Finding> {
    let mut findings = vec![file_system(root.fs()), watch(root), handles(root)];
    findings.push(if root.supports_reflink() {
        Finding::good("reflink", "Files can share blocks: a file that never rests is uploaded from a snapshot of itself")
    } else {
        Finding::note("reflink", "Files cannot share blocks: a file that never rests waits until it does")
    });
    match unnamed(path) {
        Ok(file) => {
            findings.extend([attributes(&file), access_lists(&file), nt_access_lists(&file), guard(&file), safety_net(&file)])
        }
        Err(errno) => findings.push(cannot_write(errno)),
    }
    if let Ok(space) = root.space() {
        findings.push(room(space));
    }
    findings
}

fn file_system(fs: FsKind) -> Finding {
    match fs {
        FsKind::Ext4 | FsKind::Xfs | FsKind::Btrfs => Finding::good("file system", format!("{fs}")),
        FsKind::Tmpfs => Finding::note("file system", "tmpfs: files are in memory and gone after a restart"),
        FsKind::Other(_) => Finding::note("file system", format!("{fs}: not one that Isotherm is tested on (ext4, XFS, btrfs)")),
    }
}

fn watch(root: &Root) -> Finding {
    match Watch::new(root) {
        Ok(_) => Finding::good("watch", "The kernel tells of every change"),
        Err(unavailable) => Finding::bad(
            "watch",
            format!("{unavailable}; the folder is scanned every few seconds"),
            "Run the agent as root, on ext4, XFS or btrfs, with Linux 5.17 or newer",
        ),
    }
}

fn handles(root: &Root) -> Finding {
    match root.inode(root.handle()) {
        Ok(_) => Finding::good("handles", "Files can be found by their handle, wherever they are moved to"),
        Err(error) => Finding::bad("handles", error.to_string(), "Run the agent as root (CAP_DAC_READ_SEARCH)"),
    }
}

fn unnamed(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn cannot_write(errno: Errno) -> Finding {
    let text = format!("No file can be made here: {errno}");
    match errno {
        Errno::ROFS => Finding::bad("write", text, "Mount the file system for writing; look for disk errors in the kernel's log"),
        Errno::NOSPC | Errno::DQUOT => Finding::bad("write", text, "Free space"),
        Errno::OPNOTSUPP => Finding::note("write", "Files without a name are not supported: attributes were not tried"),
        _ => Finding::bad("write", text, "Run it as root"),
    }
}

fn attributes(file: &File) -> Finding {
    match rustix::fs::fsetxattr(file, "user.isotherm-probe", b"1", XattrFlags::CREATE) {
        Ok(()) => Finding::good("attributes", "Extended attributes can be kept"),
        Err(errno) => Finding::bad(
            "attributes",
            format!("Extended attributes cannot be kept ({errno}): those of other servers are listed as problems"),
            "Use ext4, XFS or btrfs, mounted without nouser_xattr",
        ),
    }
}

fn access_lists(file: &File) -> Finding {
    match rustix::fs::fsetxattr(file, "system.posix_acl_access", &access_list(), XattrFlags::empty()) {
        Ok(()) => Finding::good("acl", "Access lists can be kept"),
        Err(errno) => Finding::bad(
            "acl",
            format!("Access lists cannot be kept ({errno}): those of other servers are listed as problems"),
            "Mount the file system with the option acl",
        ),
    }
}

/// An access list with an entry for one more user, as the kernel takes it: version 2, then tag, permissions and id.
fn access_list() -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    const NOBODY: u32 = 65_534;
    // Owner, a user, group, mask, others.
    let entries: [(u16, u16, u32); 5] = [(1, 6, NO_ID), (2, 4, NOBODY), (4, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn nt_access_lists(file: &File) -> Finding {
    match rustix::fs::fsetxattr(file, "security.NTACL", b"\0", XattrFlags::CREATE) {
        Ok(()) => Finding::good("nt acl", "Samba's access lists can be kept"),
        Err(errno) => Finding::note("nt acl", format!("Samba's access lists cannot be kept ({errno})")),
    }
}

fn guard(file: &File) -> Finding {
    match probe(file) {
        Ok(()) => Finding::good("guard", "A reader waits until the content of a file is there: tiering will be possible"),
        Err(failure) => Finding::note(
            "guard",
            format!("Readers cannot be made to wait for content ({failure}): sync works, tiering will not"),
        ),
    }
}

fn safety_net(file: &File) -> Finding {
    match safety_net::probe(file) {
        Ok(()) => Finding::good("safety net", "While nobody guards a volume, the kernel refuses to open its tiered files"),
        Err(failure) => Finding::note(
            "safety net",
            format!("While nobody guards a volume, its tiered files read as zeros ({failure}); the gate has to live"),
        ),
    }
}

fn room(space: Space) -> Finding {
    let text = format!("{} of {} are free", size::bytes(space.free), size::bytes(space.total));
    if space.free < SPACE_MIN.min(space.total / 20) {
        return Finding::bad("space", text, "Free space: downloads wait when there is none");
    }
    Finding::good("space", text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_real_folder_is_looked_at_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let findings = check(&path);
        let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
        assert!(checks.starts_with(&["file system", "watch", "handles", "reflink"]), "{findings:?}");
        assert!(checks.contains(&"space"), "{findings:?}");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_folder_and_a_symlink_are_one_finding_each() {
        let folder = tempfile::tempdir().unwrap();
        let missing = check(&folder.path().join("gone"));
        assert_eq!((missing.len(), missing[0].verdict), (1, Verdict::Bad), "{missing:?}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let linked = check(&link);
        assert_eq!(linked.len(), 1, "{linked:?}");
        assert!(linked[0].remedy.as_ref().unwrap().contains("Use the folder itself"), "{linked:?}");
    }

    #[test]
    fn little_room_is_said() {
        let verdict = |free, total| room(Space { free, free_for_root: free, is_estimate: false, total }).verdict;
        assert_eq!(verdict(100 << 30, 1000 << 30), Verdict::Good);
        assert_eq!(verdict(100 << 20, 1000 << 30), Verdict::Bad);
        assert_eq!(verdict(100 << 20, 200 << 20), Verdict::Good);
    }
}
