//! Two agents and a service: folders become equal, whatever happens to either of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use isotherm_gate::testing::on_each_fs;
use support::{Running, Service, noise, tree};

/// A service, two agents, two folders of one volume.
struct World {
    detroit: PathBuf,
    munich: PathBuf,
    _agents: Vec<Running>,
    service: Service,
}

fn world(volume: &Path, outside: &Path, fill: impl FnOnce(&Path, &Path)) -> World {
    let service = Service::start(&outside.join("service"));
    service.group("plans");
    let (detroit, munich) = (volume.join("detroit"), volume.join("munich"));
    fs::create_dir(&detroit).unwrap();
    fs::create_dir(&munich).unwrap();
    fill(&detroit, &munich);
    let agents = [("detroit", &detroit), ("munich", &munich)].map(|(name, path)| {
        let agent = Running::start(&service.url, name, &outside.join(format!("state-{name}")));
        service.endpoint("plans", name, path);
        agent
    });
    World { detroit, munich, _agents: agents.into(), service }
}

impl World {
    fn settle_equal(&self) {
        self.service.settle("plans");
        assert_eq!(tree(&self.detroit), tree(&self.munich));
    }
}

#[test]
fn agent() {
    support::be_an_agent();
}

#[test]
fn two_folders_become_equal() {
    on_each_fs(200, |volume| {
        let world = world(volume.path(), volume.outside(), |detroit, munich| {
            fs::write(detroit.join("plan.dwg"), noise(1, 300_000)).unwrap();
            fs::write(munich.join("notes.txt"), "notes").unwrap();
            fs::create_dir_all(detroit.join("deep/er/still")).unwrap();
            fs::write(detroit.join("deep/er/still/empty"), "").unwrap();
        });
        world.settle_equal();
        assert_eq!(fs::read(world.munich.join("plan.dwg")).unwrap(), noise(1, 300_000));
        assert_eq!(fs::read(world.detroit.join("notes.txt")).unwrap(), b"notes");

        // Edits, renames, deletes and everything that is no plain file.
        fs::write(world.munich.join("plan.dwg"), noise(2, 100_000)).unwrap();
        fs::rename(world.detroit.join("deep/er"), world.detroit.join("moved")).unwrap();
        fs::remove_file(world.munich.join("notes.txt")).unwrap();
        symlink("../anywhere", world.detroit.join("link")).unwrap();
        fs::write(world.detroit.join(OsStr::from_bytes(b"a\nb \xff")), "odd").unwrap();
        fs::write(world.munich.join("tool"), "#!/bin/sh").unwrap();
        fs::set_permissions(world.munich.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::write(world.munich.join("old.bak"), "excluded").unwrap();
        world.settle_equal_but(&[b"old.bak"]);
        assert!(!world.detroit.join("old.bak").exists());
        assert!(world.munich.join("moved/still/empty").exists());
        assert!(!world.detroit.join("notes.txt").exists());
    });
}

impl World {
    fn settle_equal_but(&self, but: &[&[u8]]) {
        self.service.settle("plans");
        let tree = |root: &Path| {
            let mut tree = tree(root);
            tree.retain(|name, _| !but.contains(&&name[..]));
            tree
        };
        assert_eq!(tree(&self.detroit), tree(&self.munich));
    }
}
