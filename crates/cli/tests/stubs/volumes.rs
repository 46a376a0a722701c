//! Guarded volumes as an administrator handles them.

use std::fs;
use std::process::Command;

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part};
use crate::program::until;
use crate::texts::{number_of, text};

#[test]
fn case_14_volumes_are_added_listed_and_removed_and_come_back_by_themselves() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    let guarded = office.guarded();
    let volume = guarded.parent().unwrap().to_owned();
    fs::write(office.plain().join("stub"), text(1, 50_000)).unwrap();
    office.settle();
    let listed = office.ask_gate(&["volume", "list", "--json"]).json();
    assert_eq!((&listed[0]["guarded"], &listed[0]["agent"], &listed[0]["keeper"]), (&true.into(), &true.into(), &true.into()));
    let device = listed[0]["device"].as_str().unwrap().to_owned();
    // Adding it again is nothing new; adding it elsewhere, or something that is no device, is refused with the reason.
    office.ask_gate(&["volume", "add", &device, volume.to_str().unwrap()]).expect(0);
    let elsewhere = office.ask_gate(&["volume", "add", &device, "/elsewhere"]).expect(4);
    assert!(elsewhere.err.contains("guarded already"), "{elsewhere:?}");
    let image = office.image();
    let no_device = office.ask_gate(&["volume", "add", image.to_str().unwrap(), volume.to_str().unwrap()]).expect(4);
    assert!(no_device.err.contains("not a block device"), "{no_device:?}");
    let unknown = office.ask_gate(&["volume", "remove", "/elsewhere"]).expect(4);
    assert!(unknown.err.contains("No guarded volume"), "{unknown:?}");

    // In use: nothing changes.
    let open = fs::File::open(guarded.join("stub")).unwrap();
    let busy = office.ask_gate(&["volume", "remove", volume.to_str().unwrap()]).expect(4);
    assert!(busy.err.contains("in use"), "{busy:?}");
    drop(open);
    assert_eq!(number_of(&fs::read(guarded.join("stub")).unwrap()), Ok(1));

    // To be seen elsewhere too, where nobody would guard it.
    let second = office.beside().join("seen here too");
    fs::create_dir(&second).unwrap();
    assert!(Command::new("mount").arg("--bind").arg(&guarded).arg(&second).status().unwrap().success());
    let elsewhere = office.ask_gate(&["volume", "remove", volume.to_str().unwrap()]).expect(4);
    assert!(elsewhere.err.contains("seen here too"), "{elsewhere:?}");
    assert!(Command::new("umount").arg(&second).status().unwrap().success());

    // The machine goes down and comes up: what was attached is attached again.
    office.kill(Part::Munich);
    until("nobody uses the volume", || office.ask_gate(&["gate", "stop"]).code == Some(0));
    until("gate and keeper have ended", || office.keepers().is_empty());
    assert!(!guarded.exists());
    office.kill(Part::Gate);
    office.start(Part::Gate);
    office.start(Part::Munich);
    until("it is guarded and answered for", || office.is_whole());
    assert_eq!(number_of(&fs::read(guarded.join("stub")).unwrap()), Ok(1));
    office.kill(Part::Munich);
    until("nobody uses the volume", || office.ask_gate(&["volume", "remove", volume.to_str().unwrap()]).code == Some(0));
    assert_eq!(office.ask_gate(&["volume", "list", "--json"]).expect(0).json().as_array().unwrap().len(), 0);
    assert!(!guarded.exists());
}

/// The agent lives while its volume is taken away, looked at by somebody else, and given back.
#[test]
fn a_volume_that_comes_back_is_answered_for_again() {
    let Some(office) = Office::open(Fs::Ext4) else { return };
    let guarded = office.guarded();
    let volume = guarded.parent().unwrap().to_owned();
    fs::write(office.plain().join("stub"), text(1, 50_000)).unwrap();
    office.settle();
    let device = office.ask_gate(&["volume", "list", "--json"]).json()[0]["device"].as_str().unwrap().to_owned();
    until("nobody uses the volume", || office.ask_gate(&["volume", "remove", volume.to_str().unwrap()]).code == Some(0));
    // Without a guard it is a hole, but nobody waits for what does not come.
    let beside = office.beside().join("looked at");
    fs::create_dir(&beside).unwrap();
    assert!(Command::new("mount").arg(&device).arg(&beside).status().unwrap().success());
    assert_eq!(fs::read(beside.join("plans/stub")).unwrap(), vec![0; 50_000]);
    assert!(Command::new("umount").arg(&beside).status().unwrap().success());
    office.ask_gate(&["volume", "add", &device, volume.to_str().unwrap()]).expect(0);
    until("it is guarded and answered for", || office.is_whole());
    assert_eq!(number_of(&fs::read(guarded.join("stub")).unwrap()), Ok(1));
}

/// The keeper holds it all the while, as systemd does when everything but the kernel starts again.
#[test]
fn a_volume_that_somebody_has_unmounted_is_attached_by_the_next_gate() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    let guarded = office.guarded();
    fs::write(office.plain().join("stub"), text(1, 50_000)).unwrap();
    office.settle();
    [Part::Munich, Part::Gate].into_iter().for_each(|part| office.kill(part));
    assert!(Command::new("umount").arg(guarded.parent().unwrap()).status().unwrap().success());
    assert!(!guarded.exists());
    [Part::Gate, Part::Munich].into_iter().for_each(|part| office.start(part));
    until("it is guarded and answered for", || office.is_whole());
    assert_eq!(number_of(&fs::read(guarded.join("stub")).unwrap()), Ok(1));
}

/// With an agent the gate goes over to asking about tiered files alone, also when it finds a thousand of them; where it is told to
/// it goes on asking about all. What programs get is the same.
#[test]
fn case_09_single_files_are_guarded_as_well_as_the_whole_volume() {
    for (guard, fs) in [("auto", Fs::Xfs), ("inode", Fs::Btrfs), ("auto", Fs::Btrfs), ("filesystem", Fs::Ext4)] {
        let Some(mut office) = Office::guarded_by(fs, guard) else { return };
        office.join("detroit", &office.plain(), "off");
        office.join("munich", &office.guarded(), "on");
        let (plain, guarded) = (office.plain(), office.guarded());
        for at in 0..300 {
            fs::write(plain.join(format!("{at}")), text(at, 9_000)).unwrap();
        }
        office.settle();
        // Snapshots of btrfs have inodes of their own, without marks.
        let goes_over = guard != "filesystem" && (guard, fs) != ("auto", Fs::Btrfs);
        until("the gate asks as it was told to", || office.is_by_inode() == goes_over);
        let read = |at: u64| assert_eq!(number_of(&fs::read(guarded.join(format!("{at}"))).unwrap()), Ok(at), "{guard}");
        (0..100).for_each(read);
        office.tier_all();
        (100..150).for_each(read);
        // The next gate takes the list up, and a gate without a keeper begins anew with it.
        for dying in [&[Part::Gate][..], &[Part::Keeper, Part::Gate], &[Part::Munich, Part::Keeper, Part::Gate]] {
            dying.iter().for_each(|part| office.kill(*part));
            dying.iter().rev().for_each(|part| office.start(*part));
            until("it is guarded and answered for", || office.is_whole());
            until("the gate asks as it was told to", || office.is_by_inode() == goes_over);
            (150..200).for_each(read);
            office.tier_all();
        }
        (0..300).for_each(read);
    }
}
