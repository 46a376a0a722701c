//! What can be known of a file at the moment in which it read wrong: its inode, its record, whether it is on the list, and who
//! has it marked.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All of it, as text for a failing test.
pub(crate) fn about(path: &Path) -> String {
    let Ok(stat) = fs::metadata(path) else { return format!("{} is gone", path.display()) };
    let mut record = [0; 256];
    let has_record = rustix::fs::getxattr(path, "security.bpf.isotherm", &mut record[..]);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!(
        "at {at}: inode {}, {} bytes, {} blocks, record {has_record:?}, on the list {:?}\n{}",
        stat.ino(),
        stat.size(),
        stat.blocks(),
        is_listed(path, stat.ino()),
        marks(stat.ino()).join("\n")
    )
}

/// Whether the list of the volume, which is the nearest above, holds a file of this number.
fn is_listed(path: &Path, inode: u64) -> Option<bool> {
    let list = path.ancestors().find_map(|folder| fs::read(folder.join(".isotherm/stubs")).ok())?;
    let number = u32::try_from(inode).ok()?.to_le_bytes();
    Some(list.windows(number.len()).any(|part| part == number))
}

/// The groups of this product that have a mark on the file or on a whole file system.
fn marks(inode: u64) -> Vec<String> {
    let is_number = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| is_number(&entry.file_name()));
    let ours =
        processes.filter(|entry| fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "isotherm"));
    ours.flat_map(|process| marks_of(&process.path(), inode)).collect()
}

fn marks_of(process: &Path, inode: u64) -> Vec<String> {
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    let role = String::from_utf8_lossy(&command).split('\0').skip(1).take(2).collect::<Vec<_>>().join(" ");
    let mark = format!("fanotify ino:{inode:x} ");
    let mut found = Vec::new();
    for group in fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(group.path()).unwrap_or_default();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with(&mark) || line.starts_with("fanotify sdev:")).collect();
        if !lines.is_empty() {
            found.push(format!("{role} {:?}: {lines:?}", group.file_name()));
        }
    }
    found
}
