//! Interleavings that whole programs can show, each named by its number.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::program::until;
use crate::tree::{assert_equal, walk};

const KINDS: [Fs; 2] = [Fs::Ext4, Fs::Xfs];

fn names(folder: &Path) -> Vec<String> {
    walk(folder).iter().map(|path| path.to_str().unwrap().to_owned()).collect()
}

fn stop_agents(fleet: &mut Fleet) {
    SITES.iter().for_each(|site| fleet.stop_agent(site));
}

fn start_agents(fleet: &mut Fleet) {
    SITES.iter().for_each(|site| fleet.start_agent(site));
}

fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// A user saves again and again while the other site's version is put in place: each text is somewhere in the end.
// semantics.md#whole-files, #edit-against-edit
#[test]
fn case_01_a_save_while_a_version_is_put_in_place_is_kept() {
    let Some(fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("plan"), "base").unwrap();
    fleet.settle_clean();
    for round in 0..15 {
        fs::write(detroit.join("plan"), format!("detroit {round}")).unwrap();
        // Around the moment when it arrives.
        let mut last = String::new();
        for save in 0..60 {
            last = format!("munich {round}.{save}");
            let aside = munich.join("aside");
            fs::write(&aside, &last).unwrap();
            fs::rename(&aside, munich.join("plan")).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20)); // tidy: wait people take time
        }
        fleet.settle();
        let texts: Vec<String> = walk(&munich).iter().map(|path| fs::read_to_string(munich.join(path)).unwrap()).collect();
        assert!(texts.contains(&last), "{round}: {texts:?}");
        assert!(texts.iter().any(|text| text.starts_with("munich") || text.starts_with("detroit")), "{texts:?}");
        assert_equal(&detroit, &munich);
        for copy in walk(&munich).into_iter().filter(|path| path != Path::new("plan")) {
            fs::remove_file(munich.join(copy)).unwrap();
        }
    }
}

// semantics.md#moved-out
#[test]
fn case_12_a_file_moved_out_of_the_folder_stays_where_it_is() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir_all(detroit.join("folder/deep")).unwrap();
    for name in ["a", "b", "folder/deep/c"] {
        fs::write(detroit.join(name), name).unwrap();
    }
    fleet.settle_clean();
    let outside = fleet.volume(SITES[1]).path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::rename(munich.join("a"), outside.join("a")).unwrap();
    fs::rename(munich.join("folder"), outside.join("folder")).unwrap();
    fleet.settle_clean();
    assert_eq!(names(&detroit), ["b"]);
    // And while nobody looks; it comes back later.
    fleet.stop_agent(SITES[1]);
    fs::rename(munich.join("b"), outside.join("b")).unwrap();
    fleet.start_agent(SITES[1]);
    fleet.settle_clean();
    assert!(names(&detroit).is_empty());
    assert_eq!(names(&outside), ["a", "b", "folder", "folder/deep", "folder/deep/c"]);
    fs::rename(outside.join("folder"), munich.join("folder")).unwrap();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read_to_string(detroit.join("folder/deep/c")).unwrap(), "folder/deep/c");
}

// semantics.md#rolled-back-disk
#[test]
fn case_15_a_disk_set_back_deletes_nothing_and_brings_no_old_text_back() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    for number in 0..20 {
        fs::write(munich.join(format!("{number}.txt")), "old").unwrap();
    }
    fleet.settle_clean();
    fleet.stop_agent(SITES[1]);
    let mounted = fleet.volume(SITES[1]).path().to_str().unwrap().to_owned();
    let image = fleet.volume(SITES[1]).outside().join("image").to_str().unwrap().to_owned();
    let saved = format!("{image}.saved");
    tool("umount", &[&mounted]);
    tool("cp", &["--sparse=always", &image, &saved]);
    tool("mount", &["-o", "loop", &image, &mounted]);
    fleet.start_agent(SITES[1]);
    for number in 0..10 {
        fs::write(munich.join(format!("{number}.txt")), "new").unwrap();
    }
    fs::remove_file(munich.join("19.txt")).unwrap();
    fs::write(munich.join("later.txt"), "later").unwrap();
    fleet.settle_clean();
    fleet.stop_agent(SITES[1]);
    // The volume of before, with the catalog of now.
    tool("umount", &[&mounted]);
    tool("cp", &["--sparse=always", &saved, &image]);
    tool("mount", &["-o", "loop", &image, &mounted]);
    assert_eq!(fs::read_to_string(munich.join("0.txt")).unwrap(), "old");
    fleet.start_agent(SITES[1]);
    fleet.settle();
    assert_equal(&detroit, &munich);
    for number in 0..19 {
        let text = if number < 10 { "new" } else { "old" };
        assert_eq!(fs::read_to_string(detroit.join(format!("{number}.txt"))).unwrap(), text, "{number}.txt");
    }
    assert_eq!(fs::read_to_string(munich.join("later.txt")).unwrap(), "later");
    fleet.run(&["conflicts"]).expect(0);
}

/// Directories change places, and one is deleted whose child has moved out, while the other site is away.
#[test]
fn case_17_moves_and_deletes_are_applied_in_an_order_that_loses_nothing() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir_all(detroit.join("A/B/C")).unwrap();
    fs::create_dir(detroit.join("gone")).unwrap();
    for name in ["A/a", "A/B/b", "A/B/C/c", "gone/stays", "gone/goes", "x", "y"] {
        fs::write(detroit.join(name), name).unwrap();
    }
    fleet.settle_clean();
    fleet.stop_agent(SITES[1]);
    fs::rename(detroit.join("A/B"), detroit.join("B")).unwrap();
    fs::rename(detroit.join("A"), detroit.join("B/A")).unwrap();
    fs::rename(detroit.join("gone/stays"), detroit.join("stays")).unwrap();
    fs::remove_dir_all(detroit.join("gone")).unwrap();
    for (from, to) in [("x", "swap"), ("y", "x"), ("swap", "y")] {
        fs::rename(detroit.join(from), detroit.join(to)).unwrap();
    }
    fleet.run(&["wait", "--synced", "--timeout", "3"]).expect(3);
    // A file that the one who deleted the folder had not seen.
    fs::write(munich.join("gone/unseen"), "unseen").unwrap();
    fleet.start_agent(SITES[1]);
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    let expected = ["B", "B/A", "B/A/a", "B/C", "B/C/c", "B/b", "gone", "gone/unseen", "stays", "x", "y"];
    assert_eq!(names(&munich), expected);
    assert_eq!(
        (fs::read_to_string(munich.join("x")).unwrap(), fs::read_to_string(munich.join("y")).unwrap()),
        ("y".into(), "x".into())
    );
}

// semantics.md#facets
#[test]
fn case_22_a_rename_a_chmod_and_an_edit_all_happen() {
    use std::os::unix::fs::PermissionsExt;
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    for name in ["one", "two", "three"] {
        fs::write(detroit.join(name), "base").unwrap();
    }
    fleet.settle_clean();
    stop_agents(&mut fleet);
    fs::write(detroit.join("one"), "edited").unwrap();
    fs::set_permissions(munich.join("one"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::rename(munich.join("two"), munich.join("two renamed")).unwrap();
    fs::write(detroit.join("two"), "edited").unwrap();
    fs::rename(detroit.join("three"), detroit.join("three renamed")).unwrap();
    fs::set_permissions(munich.join("three"), fs::Permissions::from_mode(0o640)).unwrap();
    start_agents(&mut fleet);
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert_eq!(names(&detroit), ["one", "three renamed", "two renamed"]);
    assert_eq!(fs::read_to_string(munich.join("one")).unwrap(), "edited");
    assert_eq!(fs::metadata(detroit.join("one")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_to_string(munich.join("two renamed")).unwrap(), "edited");
    assert_eq!(fs::metadata(detroit.join("three renamed")).unwrap().mode() & 0o7777, 0o640);
}

// semantics.md#hard-links
#[test]
fn case_24_names_of_one_file_stay_names_of_one_file() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir(detroit.join("folder")).unwrap();
    fs::write(detroit.join("one"), "text").unwrap();
    for name in ["two", "folder/three"] {
        fs::hard_link(detroit.join("one"), detroit.join(name)).unwrap();
    }
    let is_one = |folder: &Path, names: &[&str]| {
        let inodes: std::collections::BTreeSet<u64> =
            names.iter().map(|name| fs::metadata(folder.join(name)).unwrap().ino()).collect();
        inodes.len() == 1
    };
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert!(is_one(&munich, &["one", "two", "folder/three"]));
    // An edit through one name is an edit of all, also by a new inode from elsewhere.
    fs::File::options().append(true).open(munich.join("folder/three")).unwrap().write_all(b" and more").unwrap();
    fleet.settle_clean();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read_to_string(detroit.join("one")).unwrap(), "text and more");
    stop_agents(&mut fleet);
    fs::remove_file(munich.join("one")).unwrap();
    fs::write(detroit.join("aside"), "a file of its own").unwrap();
    fs::rename(detroit.join("aside"), detroit.join("folder/three")).unwrap();
    start_agents(&mut fleet);
    fleet.settle_clean();
    assert_eq!(fs::read_to_string(munich.join("folder/three")).unwrap(), "a file of its own");
    assert!(!detroit.join("one").exists());
}

// semantics.md#edit-against-edit
#[test]
fn case_25_a_conflict_makes_one_copy_however_often_agents_are_killed() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    let files: Vec<String> = (0..40).map(|number| format!("{number}.txt")).collect();
    files.iter().for_each(|name| fs::write(detroit.join(name), "base").unwrap());
    fleet.settle_clean();
    stop_agents(&mut fleet);
    for name in &files {
        fs::write(detroit.join(name), format!("detroit {name}")).unwrap();
        fs::write(munich.join(name), format!("munich {name}")).unwrap();
    }
    for round in 0..12_u64 {
        SITES.iter().for_each(|site| fleet.spawn_agent(site));
        std::thread::sleep(std::time::Duration::from_millis(80 + round * 60)); // tidy: wait the kill hits somewhere
        SITES.iter().for_each(|site| fleet.kill_agent(site));
        if round % 4 == 3 {
            fleet.kill_service();
            fleet.start_service();
        }
    }
    start_agents(&mut fleet);
    fleet.settle();
    assert_equal(&detroit, &munich);
    assert_eq!(walk(&detroit).len(), 80, "{:?}", names(&detroit));
    for name in &files {
        let stem = name.strip_suffix(".txt").unwrap();
        let copy = SITES.map(|site| detroit.join(format!("{stem}-{site}.txt"))).into_iter().find(|path| path.exists()).unwrap();
        let mut texts = [fs::read_to_string(detroit.join(name)).unwrap(), fs::read_to_string(copy).unwrap()];
        texts.sort();
        assert_eq!(texts, [format!("detroit {name}"), format!("munich {name}")]);
    }
}

/// The service's data are set back to an older copy, as new files and over the old ones: what the copy lacks is offered
/// again, nothing is deleted because of it, and what was deleted before stays deleted.
// semantics.md#service-restored
#[test]
fn case_10_and_26_a_restored_service_brings_nothing_back_and_loses_nothing() {
    for in_place in [false, true] {
        let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
        let [detroit, munich] = fleet.folders();
        for name in ["deleted", "kept", "edited"] {
            fs::write(detroit.join(name), name).unwrap();
        }
        fleet.settle_clean();
        fs::remove_file(detroit.join("deleted")).unwrap();
        fleet.settle_clean();
        fleet.stop_service();
        let saved = fleet.data().with_extension("saved");
        tool("cp", &["-a", fleet.data().to_str().unwrap(), saved.to_str().unwrap()]);
        fleet.start_service();
        fs::write(munich.join("after the backup"), "after").unwrap();
        fs::write(munich.join("edited"), "edited after the backup").unwrap();
        fleet.settle_clean();
        fleet.stop_service();
        if !in_place {
            fs::remove_dir_all(fleet.data()).unwrap();
        }
        tool("cp", &["-aT", saved.to_str().unwrap(), fleet.data().to_str().unwrap()]);
        fleet.start_service();
        fleet.settle();
        assert_equal(&detroit, &munich);
        // The share's older text counts as a version of its own; both servers may come to keep it when they start over at
        // once. Where the service knows that it was put back, it is a former state and makes no copy.
        let found = names(&detroit);
        let copies = found.iter().filter(|name| name.starts_with("edited-")).count();
        let most = if in_place { 2 } else { 0 };
        assert!(copies <= most && found.len() == 3 + copies, "{in_place}: {found:?}");
        for (name, text) in [("kept", "kept"), ("after the backup", "after"), ("edited", "edited after the backup")] {
            assert_eq!(fs::read_to_string(detroit.join(name)).unwrap(), text, "{in_place}: {name}");
        }
    }
}

// semantics.md#absence-is-no-delete, #one-file-system
#[test]
fn case_27_what_something_is_mounted_over_is_not_deleted() {
    let Some(mut fleet) = Fleet::sharing(KINDS, &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::create_dir_all(detroit.join("folder/sub")).unwrap();
    fs::write(detroit.join("folder/a"), "a").unwrap();
    fs::write(detroit.join("folder/sub/b"), "b").unwrap();
    fleet.settle_clean();
    let over = munich.join("folder/sub");
    tool("mount", &["-t", "tmpfs", "none", over.to_str().unwrap()]);
    fs::write(over.join("foreign"), "not of this volume").unwrap();
    // Seen while it runs, by a scan at a start, and by a look at the directory.
    fleet.kill_agent(SITES[1]);
    fleet.start_agent(SITES[1]);
    fs::write(munich.join("folder/c"), "c").unwrap();
    until("the rest goes on", || detroit.join("folder/c").exists());
    fleet.settle();
    let there = names(&detroit);
    tool("umount", &[over.to_str().unwrap()]);
    assert_eq!(there, ["folder", "folder/a", "folder/c", "folder/sub", "folder/sub/b"]);
    fs::write(munich.join("folder/sub/b"), "b again").unwrap();
    fleet.kill_agent(SITES[1]);
    fleet.start_agent(SITES[1]);
    fleet.settle();
    assert_equal(&detroit, &munich);
    assert_eq!(fs::read_to_string(detroit.join("folder/sub/b")).unwrap(), "b again");
}
