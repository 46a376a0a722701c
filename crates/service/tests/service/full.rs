//! A data folder on a file system without space: refused with its own code, read all the same, and well again.

use std::path::{Path, PathBuf};
use std::process::Command;

use isotherm_api::{ApiError, Code};
use isotherm_core::ids::NodeId;
use isotherm_core::name::Case;
use isotherm_core::node::Content;

use crate::world::{FORKS, Running, Writer, create, group, noise, pack};

/// A small file system that goes with the test.
struct Tmpfs {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(size: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("small");
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        let output = command.output().map_err(|error| format!("mount cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self { path, _folder: folder })
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Takes all space that is left but about `spare` bytes.
fn fill(file: &Path, spare: usize) {
    use std::io::Write as _;
    let mut out = std::fs::File::create(file).unwrap();
    while out.write_all(&[1; 4096]).is_ok() {}
    let len = out.metadata().unwrap().len();
    out.set_len(len.saturating_sub(spare as u64)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_serves_reads() {
    let forking = FORKS.write().await;
    let mounted = Tmpfs::mount("24m");
    drop(forking);
    let small = match mounted {
        Ok(small) => small,
        Err(reason) => return println!("SKIPPED a_full_disk_refuses_writes_and_serves_reads: {reason}"),
    };
    let running = Running::start(&small.path.join("data")).await;
    let client = running.client.clone();
    client.create_group(&group("plans", Case::Sensitive)).await.unwrap();
    let mut writer = Writer::attach(&client, "munich").await;
    writer.create(b"before", b"kept").await;
    let ballast = small.path.join("ballast");
    fill(&ballast, 600 * 1024);
    let big = noise(1, 2 << 20);
    let upload = pack(&[crate::world::Data::Bytes(&big)]).1.remove(0);
    let error = client.put_pack(writer.group, upload.clone()).await.unwrap_err();
    assert_full(&error);
    // The records run full too: names go in until the log of the database has no more room.
    let mut number = 0;
    let error = loop {
        number += 1;
        let node = writer.node();
        let change = create(node, NodeId::ROOT, format!("{number}-{}", "x".repeat(200)).as_bytes(), Content::Directory);
        let operation = writer.operation(change);
        if let Err(error) = client.commit(writer.group, &writer.batch(vec![operation])).await {
            break error;
        }
        assert!(number < 100_000, "the disk must be full some time");
    };
    assert_full(&error);
    assert_full(&client.create_group(&group("more", Case::Sensitive)).await.unwrap_err());
    // Reading goes on, and knows nothing of what was refused.
    let page = client.feed(writer.group, writer.start(), 4096, 0).await.unwrap();
    assert_eq!(page.cursor.version.0, number);
    let mut download = client.download("plans", b"before", None).await.unwrap();
    assert_eq!(download.next_piece().await.unwrap().unwrap(), &b"kept"[..]);
    std::fs::remove_file(&ballast).unwrap();
    client.put_pack(writer.group, upload).await.unwrap();
    writer.create(b"after", &big).await;
    let no_forks = FORKS.read().await;
    running.stop().await;
    let again = Running::start(&small.path.join("data")).await;
    assert_eq!(again.client.group("plans").await.unwrap().head.0, number + 1);
    again.stop().await;
    drop(no_forks);
}

fn assert_full(error: &ApiError) {
    assert_eq!((error.code, error.code.status(), error.retryable), (Code::Full, 507, true), "{error}");
}
