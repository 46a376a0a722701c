//! Who uses files, on real file systems.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use isotherm_gate::testing::on_each_fs;
use isotherm_gate::watch::Uses;
use isotherm_gate::{FileHandle, Root};

const SOON: Duration = Duration::from_millis(300);

fn handle(root: &Root, name: &str) -> FileHandle {
    root.dir().stat(name.as_ref()).unwrap().unwrap().handle
}

fn read(path: &Path) {
    fs::read(path).unwrap();
}

#[test]
fn a_file_that_is_used_all_the_time_is_told_of_once_in_each_span() {
    on_each_fs(64, |volume| {
        let root = Root::open(volume.path()).unwrap();
        for name in ["plan", "film"] {
            fs::write(volume.path().join(name), name).unwrap();
        }
        let (plan, film) = (handle(&root, "plan"), handle(&root, "film"));
        let mut uses = Uses::new(&root).unwrap();
        read(&volume.path().join("plan"));
        let told = uses.read(SOON);
        let own = std::process::id() as i32;
        assert_eq!(told.get(&plan), Some(&own), "{told:?} on {:?}", volume.fs());
        assert!(!told.contains_key(&film));
        uses.rest(&root, &plan);
        for _ in 0..5 {
            read(&volume.path().join("plan"));
        }
        fs::write(volume.path().join("plan"), "changed").unwrap();
        read(&volume.path().join("plan"));
        read(&volume.path().join("film"));
        let told = uses.read(SOON);
        assert!(told.contains_key(&film) && !told.contains_key(&plan), "{told:?} on {:?}", volume.fs());
        uses.tell_all_again(&root);
        read(&volume.path().join("plan"));
        assert!(uses.read(SOON).contains_key(&plan), "on {:?}", volume.fs());
        // What the product does itself is no use.
        let inode = root.dir().inode("plan".as_ref()).unwrap();
        drop(root.open_for_mark(&inode.handle().unwrap()).unwrap());
        assert!(!uses.read(Duration::from_millis(50)).contains_key(&plan), "on {:?}", volume.fs());
    });
}
