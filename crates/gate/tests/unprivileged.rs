//! What is left without root: this test runs itself again as another user.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use isotherm_gate::testing::on_each_fs;
use isotherm_gate::watch::UnavailableReason;
use isotherm_gate::{ContentReader, ErrorKind, Finish, Isolation, Root, Watch, effective_root};

const NOBODY: u32 = 65_534;
const FOLDER: &str = "ISOTHERM_TEST_UNPRIVILEGED_FOLDER";

#[test]
fn without_root_the_visible_mount_is_used_and_says_so() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return inner(&PathBuf::from(folder));
    }
    on_each_fs(64, |volume| {
        let base = volume.outside();
        fs::set_permissions(base, fs::Permissions::from_mode(0o755)).unwrap();
        let folder = volume.path().join("theirs");
        fs::create_dir_all(folder.join("mounted-on")).unwrap();
        fs::write(folder.join("f"), "hello").unwrap();
        for path in [&folder, &folder.join("f")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // The build folder may be closed to other users.
        let program = base.join("test-program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let inside = folder.join("mounted-on");
        assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&inside).status().unwrap().success());
        let mut again = Command::new(&program);
        again.args(["--exact", "without_root_the_visible_mount_is_used_and_says_so", "--nocapture"]);
        let output = again.env(FOLDER, folder.canonicalize().unwrap()).uid(NOBODY).gid(NOBODY).output();
        assert!(Command::new("umount").arg(&inside).status().unwrap().success());
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

fn inner(folder: &std::path::Path) {
    assert!(!effective_root());
    let root = Root::open(folder).unwrap();
    assert_eq!(root.isolation(), Isolation::Attached(ErrorKind::Denied));
    assert_eq!(Watch::new(&root).unwrap_err().reason, UnavailableReason::NotPrivileged);

    let f = OsStr::new("f");
    let stat = root.dir().stat(f).unwrap().unwrap();
    assert_eq!(root.inode(&stat.handle).unwrap_err().kind(), ErrorKind::Denied);
    let reader = ContentReader::open_named(root.dir(), f).unwrap();
    assert!(reader.lease_probe().unwrap());
    assert!(matches!(reader.finish().unwrap(), Finish::Unchanged(_)));
    assert_eq!(
        root.dir().inode(f).unwrap().write_metadata(&isotherm_gate::Metadata::default()).unwrap_err().kind(),
        ErrorKind::Denied
    );

    let staging = root.staging().unwrap();
    staging.create("n").unwrap().write_at(b"new", 0).unwrap();
    staging.dir().rename_exchange(OsStr::new("n"), root.dir(), f).unwrap();
    assert_eq!(fs::read(folder.join("f")).unwrap(), b"new");

    // Here a mount below the root is visible, and refused.
    let below = OsStr::new("mounted-on");
    assert_eq!(root.dir().open_dir(below).unwrap_err().kind(), ErrorKind::CrossDevice);
    assert_eq!(root.dir().stat(below).unwrap_err().kind(), ErrorKind::CrossDevice);
}
