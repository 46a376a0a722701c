//! What a server has on a file beside what is synced, when a step puts another inode in the file's place.
#![allow(clippy::unwrap_used)]

#[path = "support/volumes.rs"]
mod volumes;

use std::fs;
use std::path::Path;

use isotherm_core::node::Content;
use isotherm_core::plan::{Action, Parent, Spot, Step};
use isotherm_gate::testing::{Fs, LoopVolume, on_each_fs};
use volumes::{Bench, is_done, node, plain, run};

#[test]
fn a_new_content_takes_over_what_belongs_to_the_machine() {
    on_each_fs(64, |volume| {
        let bench = Bench::new(volume.path());
        let path = volume.path().join("plan");
        fs::write(&path, "old").unwrap();
        run("setfattr", &["-n", "trusted.archive", "-v", "tape 7"], &path);
        run("setfattr", &["-n", "security.selinux", "-v", "system_u:object_r:samba_share_t:s0"], &path);
        run("setfattr", &["-n", "user.note", "-v", "of the old content"], &path);
        assert!(is_done(&bench.one(bench.replace(bench.expected(b"plan"), b"new"))));
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let shown = run("getfattr", &["--absolute-names", "-d", "-m", "-"], &path);
        assert!(shown.contains("trusted.archive=\"tape 7\""), "{shown}");
        assert!(shown.contains("security.selinux=\"system_u:object_r:samba_share_t:s0\""), "{shown}");
        assert!(!shown.contains("user.note"), "{shown}");
        assert_eq!(bench.staged(), Vec::<String>::new());
    });
}

/// Quotas of directories: nothing of another project may be moved into one, and the staging folder is of none.
#[test]
fn a_directory_with_a_project_takes_part_like_any_other() {
    let Some(volume) = LoopVolume::new(Fs::Xfs, 300) else { return };
    let department = volume.path().join("department");
    fs::create_dir(&department).unwrap();
    run("chattr", &["-p", "42", "+P"], &department);
    fs::write(department.join("old"), "old").unwrap();
    fs::write(volume.path().join("outside"), "outside").unwrap();
    let bench = Bench::new(volume.path());
    let parent = Parent::Inode(bench.seen(b"department").handle);
    let spot = |name: &[u8]| Spot { parent: parent.clone(), ..bench.spot(name) };
    let file = Content::File(bench.share.put(&[Ok(b"new")]));
    let create = |number: u8, name: &[u8], content: Content| Step {
        node: node(number),
        action: Action::Create { at: spot(name), content, metadata: plain(0o755), link_to: None },
    };
    let inside = bench.look(match &parent {
        Parent::Inode(handle) => handle,
        Parent::Planned(_) => unreachable!(),
    });
    let old = inside.listing.unwrap().seen.remove(0);
    let expected = isotherm_core::plan::Expected { spot: spot(b"old"), handle: old.handle, print: old.print };
    let results = bench.perform(vec![
        create(1, b"file", file),
        create(2, b"folder", Content::Directory),
        create(3, b"way", Content::Symlink { target: b"old".to_vec() }),
        bench.replace(expected, b"newer"),
        Step {
            node: node(4),
            action: Action::Move { expected: bench.expected(b"outside"), to: spot(b"inside"), conflict_of: None },
        },
    ]);
    assert!(results.iter().all(is_done), "{results:?}");
    let read = |name: &str| fs::read_to_string(department.join(name)).unwrap();
    assert_eq!([read("file"), read("old"), read("inside")], ["new", "newer", "outside"]);
    for name in ["file", "folder", "old", "inside"] {
        let shown = run("lsattr", &["-d", "-p"], &department.join(name));
        assert_eq!(shown.split_whitespace().next(), Some("42"), "{name}: {shown}");
    }
    assert_eq!(fs::read_link(department.join("way")).unwrap(), Path::new("old"));
    assert_eq!(bench.staged(), Vec::<String>::new());
}
