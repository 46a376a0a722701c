//! A guarded volume that is full.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use isotherm_gate::testing::Fs;
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::Value;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::{number_of, text};

const FILES: u64 = 24;
const LEN: usize = 8 << 20;
/// What is free for contents, in files.
const FIT: u64 = 6;

/// Takes all room of a volume but so much, with a file that no endpoint knows.
fn fill_up(volume: &Path, left: u64) {
    let ballast = File::create(volume.join("ballast")).unwrap();
    let (mut end, mut step) = (0, 64_u64 << 20);
    // To the last block, and then back: what bookkeeping takes is not known before.
    while step >= 1 << 20 {
        if fallocate(&ballast, FallocateFlags::empty(), end, step).is_ok() {
            end += step;
        } else {
            step /= 2;
        }
    }
    ballast.set_len(end.checked_sub(left).unwrap()).unwrap();
    ballast.sync_all().unwrap();
}

fn read(path: &Path, number: u64) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(number_of(&bytes), Ok(number));
}

// semantics.md#full-volumes
/// More content than there is room for is opened, one file after the other: each is whole, and what was opened longest ago gave way.
#[test]
fn cold_files_make_room_for_what_is_opened() {
    for kind in [Fs::Ext4, Fs::Xfs, Fs::Btrfs] {
        let Some(office) = Office::open(kind) else { return };
        for number in 0..FILES {
            fs::write(office.plain().join(format!("{number}")), text(number, LEN)).unwrap();
        }
        office.settle();
        // Whoever waits is all that makes room here.
        office.set(&["--free-space", "0%"]);
        office.tier_all();
        let of = |number: u64| office.guarded().join(format!("{number}"));
        fill_up(office.guarded().parent().unwrap(), FIT * LEN as u64);
        for number in 0..FILES {
            read(&of(number), number);
            // It may go again as soon as the share is known to have it.
            office.settle();
        }
        let whole: Vec<u64> = (0..FILES).filter(|number| blocks(&of(*number)) > 0).collect();
        assert!(whole.contains(&(FILES - 1)), "{kind:?}: what was opened last is here: {whole:?}");
        assert!(!whole.contains(&0) && whole.len() <= 2 * FIT as usize, "{kind:?}: what was opened first has gone: {whole:?}");
        // Twice, in the other direction: what is oldest by its dates was opened last.
        (0..FILES).rev().for_each(|number| read(&of(number), number));
        office.settle();
        let here = || (0..FILES).filter(|number| blocks(&of(*number)) > 0).collect::<Vec<u64>>();
        let whole = here();
        assert!(whole.contains(&0) && !whole.contains(&(FILES - 1)), "{kind:?}: {whole:?}");
        // What does not fit pushes nothing out, nor does whoever wants all.
        fs::write(office.plain().join("film"), text(FILES, 16 * LEN)).unwrap();
        office.settle();
        let error = fs::read(office.guarded().join("film")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{kind:?}: {error}");
        assert_eq!(here(), whole, "{kind:?}");
        let recalled = office.residency("recall", &office.guarded());
        assert_ne!(recalled.code, Some(0), "{kind:?}: {recalled:?}");
        assert!(whole.iter().all(|number| here().contains(number)), "{kind:?}: {whole:?}, then {:?}", here());
    }
}

/// Where an endpoint does not tier nothing makes room, and whoever opens what has none is told; nothing else changes.
#[test]
fn without_tiering_who_has_no_room_is_told() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    for number in 0..3 {
        fs::write(office.plain().join(format!("{number}")), text(number, LEN)).unwrap();
    }
    office.settle();
    office.tier_all();
    let of = |number: u64| office.guarded().join(format!("{number}"));
    let endpoints = office.run(&["endpoint", "list", "--json"]).json();
    let of_munich = |one: &&Value| one["endpoint"]["server"] == "munich";
    let munich = endpoints.as_array().unwrap().iter().find(of_munich).unwrap()["endpoint"]["id"].clone();
    office.run(&["endpoint", "set", munich.as_str().unwrap(), "--tiering", "off"]).expect(0);
    office.settle();
    fill_up(office.guarded().parent().unwrap(), LEN as u64 + (2 << 20));
    until("the first one fits", || fs::read(of(0)).is_ok_and(|bytes| number_of(&bytes) == Ok(0)));
    let error = fs::read(of(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(blocks(&of(1)), 0, "nothing of it stays");
    read(&of(0), 0);
    fs::remove_file(office.guarded().parent().unwrap().join("ballast")).unwrap();
    read(&of(1), 1);
}

// semantics.md#what-is-tiered
/// A service that is away may come back without what it had: until it answers nothing is given up.
#[test]
fn nothing_is_given_up_while_the_share_is_not_known() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    let file = office.guarded().join("plan");
    let empty = office.guarded().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(&file, text(1, 100_000)).unwrap();
    office.settle();
    office.kill(Part::Service);
    let is_refused = |path: &Path| {
        let tiered = office.residency("tier", path);
        tiered.code != Some(0) && tiered.err.contains("not known now")
    };
    until("the agent has noticed", || is_refused(&empty));
    assert!(is_refused(&file));
    assert!(blocks(&file) > 0);
    office.start(Part::Service);
    until("it is tiered", || office.residency("tier", &file).code == Some(0));
    assert_eq!(blocks(&file), 0);
    read(&file, 1);
}
