//! What stops an endpoint or holds something back, and how it goes on: markers, mass deletes, quotas, full disks, absence.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use isotherm_gate::testing::{Fs, LoopVolume};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use crate::fleet::{Fleet, SITES};
use crate::program::{isotherm, until};
use crate::tree::{assert_equal, walk};

const KINDS: [Fs; 2] = [Fs::Ext4, Fs::Xfs];

fn state_says(fleet: &Fleet, site: &str, word: &str) -> bool {
    fleet.endpoint(site)["report"]["state"].to_string().contains(word)
}

/// Waits until an administrator can see a problem that says this.
fn until_told(fleet: &Fleet, word: &str) {
    until(word, || fleet.run(&["problems"]).out.contains(word));
}

// semantics.md#missing-disk
#[test]
fn a_folder_whose_disk_is_not_mounted_stops_and_goes_on_when_it_is_back() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    for number in 0..50 {
        fs::write(detroit.join(format!("{number}.txt")), "text").unwrap();
    }
    fleet.settle_clean();
    // While it runs, and then over a start of the agent.
    let away = fleet.volume(SITES[1]).path().join("away");
    for restart in [false, true] {
        if restart {
            fleet.stop_agent(SITES[1]);
        }
        fs::rename(&munich, &away).unwrap();
        fs::create_dir(&munich).unwrap();
        if restart {
            fleet.start_agent(SITES[1]);
        }
        until("the endpoint stops", || state_says(&fleet, SITES[1], "Mount"));
        fs::write(detroit.join(format!("new {restart}")), "new").unwrap();
        until("the other goes on", || fleet.run(&["group", "list", "--json"]).code == Some(0));
        assert!(walk(&munich).is_empty(), "nothing is put where the disk is not: {:?}", walk(&munich));
        assert!(!munich.join(".isotherm").exists());
        fs::remove_dir(&munich).unwrap();
        fs::rename(&away, &munich).unwrap();
        fleet.settle_clean();
        assert_equal(&detroit, &munich);
    }
    assert_eq!(walk(&detroit).len(), 52);
}

// semantics.md#mass-delete
#[test]
fn many_deletes_wait_for_a_confirmation_while_other_work_goes_on() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &["--delete-limit", "20%"]) else { return };
    let [detroit, munich] = fleet.folders();
    for folder in ["keep", "drop"] {
        fs::create_dir(detroit.join(folder)).unwrap();
        for number in 0..200 {
            fs::write(detroit.join(format!("{folder}/{number}.txt")), "text").unwrap();
        }
    }
    fleet.settle_clean();
    fs::remove_dir_all(munich.join("drop")).unwrap();
    until("the deletes wait", || state_says(&fleet, SITES[1], "delete"));
    fs::write(munich.join("keep/0.txt"), "goes on").unwrap();
    fs::write(detroit.join("keep/1.txt"), "goes on").unwrap();
    for (folder, name) in [(&detroit, "keep/0.txt"), (&munich, "keep/1.txt")] {
        until("other work goes on", || fs::read(folder.join(name)).is_ok_and(|text| text == b"goes on"));
    }
    let left = walk(&detroit.join("drop")).len();
    assert!(left > 100, "{left} of 200 files were left");
    // It still waits after a start.
    fleet.kill_agent(SITES[1]);
    fleet.start_agent(SITES[1]);
    until("the deletes wait again", || state_says(&fleet, SITES[1], "delete"));
    assert_eq!(walk(&detroit.join("drop")).len(), left);
    fleet.run(&["endpoint", "confirm-deletes", &fleet.endpoint_id(SITES[1])]).expect(0);
    // The other site's files are asked for apart.
    until("the deletes wait at the other", || state_says(&fleet, SITES[0], "delete"));
    assert_eq!(walk(&detroit.join("drop")).len(), left);
    fleet.run(&["endpoint", "confirm-deletes", &fleet.endpoint_id(SITES[0])]).expect(0);
    fleet.settle_clean();
    assert!(!detroit.join("drop").exists());
    assert_equal(&detroit, &munich);
}

// semantics.md#quota
#[test]
fn what_exceeds_the_quota_waits_is_shown_and_goes_on() {
    let Some(fleet) = Fleet::sharing(KINDS, &["--quota", "1MiB"]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("a"), vec![b'a'; 700_000]).unwrap();
    fleet.settle_clean();
    fs::write(detroit.join("b"), vec![b'b'; 700_000]).unwrap();
    until_told(&fleet, "quota");
    let problems = fleet.run(&["problems"]).expect(3);
    assert!(problems.out.contains("detroit"), "{problems:?}");
    assert!(!fleet.endpoint(SITES[0])["report"]["unsafe_since_ms"].is_null(), "{}", fleet.endpoint(SITES[0]));
    assert_eq!(fleet.endpoint(SITES[0])["report"]["counts"]["down_items"], 0, "{}", fleet.endpoint(SITES[0]));
    fs::write(detroit.join("small"), "still fits").unwrap();
    until("what fits goes on", || munich.join("small").exists());
    assert!(!munich.join("b").exists() && fs::metadata(detroit.join("b")).unwrap().len() == 700_000);
    fleet.run(&["group", "set", "plans", "--quota", "10MiB"]).expect(0);
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read(munich.join("b")).unwrap(), vec![b'b'; 700_000]);
    assert!(fleet.endpoint(SITES[0])["report"]["unsafe_since_ms"].is_null());
}

/// Takes all space of a volume.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    let _ = file.sync_all();
}

#[test]
fn a_full_disk_under_the_service_holds_uploads_back_and_harms_nothing() {
    let Some(mut fleet) = Fleet::on(KINDS, 512) else { return };
    let Some(small) = LoopVolume::new(Fs::Ext4, 48) else { return };
    fleet.stop_service();
    fleet.keep_data_at(small.path().join("data"));
    fleet.start_service();
    fleet.create_group(&[]);
    for site in SITES {
        fleet.start_agent(site);
        fleet.join(site);
    }
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("before"), "before").unwrap();
    fleet.settle_clean();
    fill(&small.path().join("ballast"));
    for number in 0..5_u8 {
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761 + u32::from(number)) >> 13) as u8).collect();
        fs::write(detroit.join(format!("large {number}")), noise).unwrap();
    }
    until("it is shown as not yet safe", || !fleet.endpoint(SITES[0])["report"]["unsafe_since_ms"].is_null());
    let waited = fleet.run(&["wait", "--synced", "--timeout", "3"]);
    assert!(waited.code == Some(3) || waited.err.contains("Free space where the service keeps its data"), "{waited:?}");
    assert_eq!(fs::read(munich.join("before")).unwrap(), b"before");
    assert!(!munich.join("large 4").exists());
    // A crash of everything on top.
    fleet.kill_service();
    fleet.kill_agent(SITES[0]);
    fs::remove_file(small.path().join("ballast")).unwrap();
    fleet.start_service();
    fleet.start_agent(SITES[0]);
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 6);
    drop(fleet);
}

// semantics.md#offline-work
#[test]
fn work_goes_on_while_the_service_is_away_and_is_reconciled_later() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    for name in ["a", "b", "c", "folder"] {
        if name == "folder" { fs::create_dir(detroit.join(name)).unwrap() } else { fs::write(detroit.join(name), name).unwrap() }
    }
    fleet.settle_clean();
    fleet.kill_service();
    fs::write(detroit.join("a"), "edited in detroit").unwrap();
    fs::rename(munich.join("b"), munich.join("folder/b moved")).unwrap();
    fs::write(detroit.join("folder/new"), "new").unwrap();
    fs::rename(munich.join("folder"), munich.join("renamed")).unwrap();
    fs::remove_file(detroit.join("c")).unwrap();
    // One of them is started again without anybody to ask.
    fleet.kill_agent(SITES[1]);
    fleet.spawn_agent(SITES[1]);
    fs::write(munich.join("d"), "made in munich").unwrap();
    fleet.start_service();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    let names: Vec<String> = walk(&detroit).iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["a", "d", "renamed", "renamed/b moved", "renamed/new"]);
    assert_eq!(fs::read_to_string(munich.join("a")).unwrap(), "edited in detroit");
}

#[test]
fn overlapping_folders_and_a_second_agent_are_refused() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir(detroit.join("inside")).unwrap();
    fs::write(detroit.join("inside/file"), "text").unwrap();
    fleet.run(&["group", "create", "other"]).expect(0);
    for path in [detroit.clone(), detroit.join("inside"), fleet.volume(SITES[0]).path().to_owned()] {
        let path = path.to_str().unwrap();
        let refused = fleet.run(&["endpoint", "create", "--group", "other", "--server", SITES[0], "--path", path]).expect(4);
        assert!(refused.err.contains("overlap") && refused.err.contains("inside each other"), "{refused:?}");
    }
    let state = fleet.state(SITES[1]);
    let second = ["agent", "run", "--state", state.to_str().unwrap(), "--service", &fleet.url, "--name", SITES[1]];
    let refused = isotherm(&second).expect(4);
    assert!(refused.err.contains(state.to_str().unwrap()), "{refused:?}");
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
}

// semantics.md#exclusions
#[test]
fn excluding_a_name_that_is_synced_deletes_it_nowhere() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir(detroit.join("old")).unwrap();
    for path in ["kept.bak", "old/kept.bak", "old/plan"] {
        fs::write(detroit.join(path), path).unwrap();
    }
    fleet.settle_clean();
    fleet.run(&["group", "set", "plans", "--exclude", "*.bak"]).expect(0);
    // Scans and starts look at everything; a server that was away meanwhile comes back last.
    fleet.kill_agent(SITES[1]);
    for round in 0..3 {
        fleet.stop_agent(SITES[0]);
        fs::write(detroit.join("old/plan"), format!("round {round}")).unwrap();
        fleet.start_agent(SITES[0]);
        until("the change is in the share", || fleet.endpoint(SITES[0])["report"]["agreed"] == true);
    }
    fleet.start_agent(SITES[1]);
    fleet.settle_clean();
    for folder in [&detroit, &munich] {
        for path in ["kept.bak", "old/kept.bak"] {
            assert_eq!(fs::read_to_string(folder.join(path)).unwrap(), path);
        }
    }
    assert_eq!(assert_equal(&detroit, &munich), 4);
}

// semantics.md#metadata-that-does-not-fit
#[test]
fn content_arrives_though_an_attribute_does_not_fit() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fleet.settle_clean();
    // XFS has room for 64 KiB in an attribute, ext4 for a part of a block in all of them.
    fs::write(munich.join("plan"), "with a note").unwrap();
    lsetxattr(munich.join("plan"), "user.large", &[b'x'; 20_000], XattrFlags::empty()).unwrap();
    lsetxattr(munich.join("plan"), "user.small", b"small", XattrFlags::empty()).unwrap();
    fleet.settle();
    assert_eq!(fs::read_to_string(detroit.join("plan")).unwrap(), "with a note");
    until_told(&fleet, "user.large");
    let problems = fleet.run(&["problems", "--json"]).json().to_string();
    assert!(problems.contains("metadata_partial"), "{problems}");
    let mut value = [0; 16];
    let length = lgetxattr(detroit.join("plan"), "user.small", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"small");
    // What is missing here is not taken for a removal, also when something else changes.
    fs::write(detroit.join("plan"), "changed").unwrap();
    fs::set_permissions(detroit.join("plan"), fs::Permissions::from_mode(0o640)).unwrap();
    fleet.settle();
    assert_eq!(fs::read_to_string(munich.join("plan")).unwrap(), "changed");
    assert_eq!(fs::metadata(munich.join("plan")).unwrap().permissions().mode() & 0o777, 0o640);
    let mut value = vec![0; 32_768];
    assert_eq!(lgetxattr(munich.join("plan"), "user.large", &mut value[..]).unwrap(), 20_000);
}

// semantics.md#mass-delete
#[test]
fn a_small_share_is_not_emptied_and_neither_new_files_nor_starts_free_the_deletes() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &["--delete-limit", "25%"]) else { return };
    let [detroit, munich] = fleet.folders();
    for number in 0..60 {
        fs::write(detroit.join(format!("{number}.txt")), "text").unwrap();
    }
    fleet.settle_clean();
    for number in 0..60 {
        fs::remove_file(detroit.join(format!("{number}.txt"))).unwrap();
    }
    until("the deletes wait", || state_says(&fleet, SITES[0], "delete"));
    // On a busy machine some are seen before the others; twenty are always free.
    assert!(walk(&munich).len() >= 40, "judged together, not one by one: {}", walk(&munich).len());
    for number in 0..300 {
        fs::write(detroit.join(format!("new {number}")), "new").unwrap();
    }
    until("new files go on", || munich.join("new 299").exists());
    fleet.kill_agent(SITES[0]);
    fleet.start_agent(SITES[0]);
    until("the deletes wait again", || state_says(&fleet, SITES[0], "delete"));
    let left = walk(&munich).iter().filter(|path| path.to_string_lossy().ends_with(".txt")).count();
    assert!(left >= 40, "{left}");
    let waited = fleet.run(&["wait", "--synced", "--timeout", "1"]);
    assert!(waited.code == Some(3) && waited.out.contains("confirm-deletes"), "{waited:?}");
}

// semantics.md#unseen-files, semantics.md#exclusions
#[test]
fn a_directory_that_is_deleted_elsewhere_stays_for_an_excluded_file_in_it() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir(detroit.join("plans")).unwrap();
    fs::write(detroit.join("plans/doc"), "doc").unwrap();
    fleet.settle_clean();
    fs::write(munich.join("plans/local.tmp"), "mine").unwrap();
    fs::remove_dir_all(detroit.join("plans")).unwrap();
    fleet.settle_clean();
    assert_eq!(fs::read_to_string(munich.join("plans/local.tmp")).unwrap(), "mine");
    assert!(detroit.join("plans").exists() && !munich.join("plans/doc").exists());
    fs::write(detroit.join("plans/again"), "again").unwrap();
    fleet.settle_clean();
    assert_eq!(fs::read_to_string(munich.join("plans/again")).unwrap(), "again");
}
