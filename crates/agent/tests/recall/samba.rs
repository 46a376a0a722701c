//! A real Samba before a volume with stubs, and its own client.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isotherm_gate::testing::{Fs, LoopVolume};

use crate::bench::{Bench, noise, wait_until};

/// A running server of one share; ended when dropped.
struct Samba {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Samba {
    /// `None`, with the reason on standard output, where there is no Samba.
    fn start(share: &Path) -> Option<Self> {
        let found = ["smbd", "smbclient"].map(|program| Command::new(program).arg("-V").stdout(Stdio::null()).status().is_ok());
        if found != [true; 2] {
            println!("skipped: Samba is not on this machine");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let own = folder.path().display();
        let text = format!(
            "[global]\nserver role = standalone server\nmap to guest = bad user\nguest account = root\nsmb ports = {port}\n\
             interfaces = 127.0.0.1\nbind interfaces only = yes\ndisable spoolss = yes\nload printers = no\n\
             lock directory = {own}/lock\nstate directory = {own}/state\ncache directory = {own}/cache\n\
             private dir = {own}/private\npid directory = {own}/pid\nncalrpc dir = {own}/rpc\nlog file = {own}/log\n\
             [plans]\npath = {}\nguest ok = yes\nread only = no\nforce user = root\n",
            share.display()
        );
        for name in ["lock", "state", "cache", "private", "pid", "rpc"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let configuration = folder.path().join("smb.conf");
        fs::write(&configuration, text).unwrap();
        let process = Command::new("smbd")
            .args(["--foreground", "--configfile"])
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let samba = Self { process, port, _folder: folder };
        wait_until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(samba)
    }

    fn run(&self, commands: &str) -> String {
        let port = self.port.to_string();
        let done = Command::new("smbclient").args(["//127.0.0.1/plans", "-N", "-p", &port, "-c", commands]).output().unwrap();
        let text = [done.stdout, done.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
        assert!(done.status.success(), "{commands}: {text}");
        text
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        // It is the leader of a group of its own, and its children end with it.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

#[test]
fn windows_clients_read_write_copy_rename_and_delete_stubs() {
    for fs_kind in Fs::ALL {
        let Some(volume) = LoopVolume::new(fs_kind, 96) else { return };
        let bench = Bench::new(&volume);
        let Some(samba) = Samba::start(volume.path()) else { return };
        let content = noise(700_000, 8);
        let here = |name: &str| volume.outside().join(name);
        let read = bench.stub("read.dwg", &content, 0o644);
        samba.run("ls");
        assert!(!read.has_data().unwrap(), "a listing recalls nothing");
        samba.run(&format!("get read.dwg {}", here("got").display()));
        assert!(fs::read(here("got")).unwrap() == content, "{fs_kind:?}");
        assert_eq!(read.record().unwrap(), None);
        bench.stub("copied.dwg", &content, 0o644);
        samba.run("scopy copied.dwg copy.dwg");
        assert!(fs::read(bench.path("copy.dwg")).unwrap() == content, "{fs_kind:?}");
        bench.stub("written.dwg", &content, 0o644);
        fs::write(here("new"), "new content").unwrap();
        samba.run(&format!("put {} written.dwg", here("new").display()));
        assert_eq!(fs::read(bench.path("written.dwg")).unwrap(), b"new content");
        bench.stub("old name.dwg", &content, 0o644);
        samba.run("rename \"old name.dwg\" \"new name.dwg\"");
        assert!(fs::read(bench.path("new name.dwg")).unwrap() == content, "{fs_kind:?}");
        bench.stub("deleted.dwg", &content, 0o644);
        samba.run("del deleted.dwg");
        assert!(!bench.path("deleted.dwg").exists());
        assert_eq!(bench.recall.as_ref().unwrap().problems(), []);
    }
}

/// What a client sees of a file: its attributes as letters, `o` where its content is elsewhere.
fn letters(samba: &Samba, name: &str) -> String {
    let listed = samba.run("ls");
    let line = listed.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{name}: {listed}"));
    line.trim_start()[name.len()..].split_whitespace().next().unwrap().to_owned()
}

// semantics.md#offline-attribute
/// Files of Windows clients are offline to them while they are tiered, and keep what else they were.
#[test]
fn windows_clients_see_which_files_are_tiered() {
    for fs_kind in Fs::ALL {
        let Some(volume) = LoopVolume::new(fs_kind, 96) else { return };
        let bench = Bench::new(&volume);
        let Some(samba) = Samba::start(volume.path()) else { return };
        let content = noise(700_000, 8);
        fs::write(volume.outside().join("new"), &content).unwrap();
        samba.run(&format!("put {} plan.dwg; setmode plan.dwg +h", volume.outside().join("new").display()));
        let before = letters(&samba, "plan.dwg");
        assert!(before.contains('H') && !before.contains('o'), "{fs_kind:?}: {before}");
        // A client that has gone may still hold it for a moment.
        wait_until(|| {
            let candidate = bench.candidate("plan.dwg", &content).unwrap();
            bench.recall.as_ref().unwrap().tier(&[candidate])[0].is_ok()
        });
        let tiered = letters(&samba, "plan.dwg");
        assert!(tiered.contains('H') && tiered.contains('o'), "{fs_kind:?}: {tiered}");
        samba.run(&format!("get plan.dwg {}", volume.outside().join("got").display()));
        assert!(fs::read(volume.outside().join("got")).unwrap() == content, "{fs_kind:?}");
        assert_eq!(letters(&samba, "plan.dwg"), before, "{fs_kind:?}");
    }
}
