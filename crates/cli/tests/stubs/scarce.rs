//! Volumes on which there is little room, and several endpoints that share one.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::policies::{old, space};
use crate::program::until;
use crate::texts::{number_of, text};

const MIB: u64 = 1 << 20;

fn tiered(folder: &Path, names: &[String]) -> usize {
    names.iter().filter(|name| blocks(&folder.join(name)) < 8 * 16).count()
}

/// What somebody else has on the volume, in one piece: a file that grows takes more for a while on XFS. It leaves so many bytes free.
fn ballast(office: &Office, name: &str, left: u64) -> PathBuf {
    let path = office.guarded().with_file_name(name);
    let file = File::create(&path).unwrap();
    let len = space(&path).0.saturating_sub(left);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).unwrap();
    path
}

/// The same, until nothing is free.
fn fill(office: &Office) -> PathBuf {
    let path = ballast(office, "ballast", MIB);
    let mut file = File::options().append(true).open(&path).unwrap();
    let piece = text(9_999, 4_096);
    loop {
        match file.write_all(&piece) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return path,
            written => written.unwrap(),
        }
    }
}

// semantics.md#free-space
/// Of several endpoints on a volume the one that asks for most counts, for the contents of all of them.
#[test]
fn the_endpoint_that_asks_for_most_counts_for_the_whole_volume() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, films) = (office.beside().join("plain-films"), office.guarded().with_file_name("films"));
    fs::create_dir(&plain).unwrap();
    fs::create_dir(&films).unwrap();
    office.run(&["group", "create", "films"]).expect(0);
    for (server, folder, tiering) in [("detroit", &plain, "off"), ("munich", &films, "on")] {
        let path = folder.to_str().unwrap();
        let all = ["endpoint", "create", "--group", "films", "--server", server, "--path", path, "--tiering", tiering];
        office.run(&all).expect(0);
    }
    let list = office.run(&["endpoint", "list", "--json"]).expect(0).json();
    let endpoints: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["endpoint"]["server"] == "munich")
        .map(|one| one["endpoint"]["id"].as_str().unwrap().to_owned())
        .collect();
    let set = |free: [&str; 2]| {
        for (endpoint, free) in endpoints.iter().zip(free) {
            office.run(&["endpoint", "set", endpoint, "--free-space", free, "--grace", "0s"]).expect(0);
        }
    };
    set(["1%", "2%"]);
    let names: Vec<String> = (0..4).map(|at| format!("file-{at}")).collect();
    for (at, name) in (0..).zip(&names) {
        old(&office.plain(), name, at, 30, 100 + 2 * at);
        old(&plain, name, 10 + at, 30, 101 + 2 * at);
    }
    office.settle();
    // Whoever brings one back uses it: in turn those of one and of the other are the colder ones.
    for name in &names {
        for folder in [office.guarded(), films.clone()] {
            office.residency("recall", &folder.join(name)).expect(0);
        }
    }
    assert_eq!((tiered(&office.guarded(), &names), tiered(&films, &names)), (0, 0));
    let (free, total) = space(&films);
    // Some three files go, of both.
    let percent = format!("{}%", (free + 80 * MIB) * 100 / total);
    set(["1%", &percent]);
    let asked = (free + 80 * MIB) * 100 / total * total / 100;
    until("as much is free as one of them asks for", || space(&films).0 >= asked);
    let gone = (tiered(&office.guarded(), &names), tiered(&films, &names));
    assert!(gone.0 >= 1 && gone.1 >= 1 && gone.0 + gone.1 <= 5, "{gone:?}");
    for (at, name) in (0..).zip(&names) {
        assert_eq!(number_of(&fs::read(films.join(name)).unwrap()), Ok(10 + at));
    }
}

// semantics.md#free-space
/// Nothing is free when the agent starts: contents that the share has go all the same, and are whole when they come back.
#[test]
fn an_agent_that_starts_on_a_full_volume_makes_room() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        let guarded = office.guarded();
        office.set(&["--free-space", "5%", "--grace", "0s"]);
        let names: Vec<String> = (0..8).map(|at| format!("file-{at}")).collect();
        for (at, name) in (0..).zip(&names) {
            old(&guarded, name, at, 30, 100);
        }
        office.settle();
        office.stop(Part::Munich);
        let ballast = fill(&office);
        let (free, total) = space(&guarded);
        println!("{}: {} KiB of {} MiB are free", fs.name(), free >> 10, total >> 20);
        office.start(Part::Munich);
        until("there is room", || {
            // btrfs tells only then what is free.
            rustix::fs::syncfs(File::open(&guarded).unwrap()).unwrap();
            space(&guarded).0 >= total * 5 / 100
        });
        assert!(tiered(&guarded, &names) >= 1, "on {}", fs.name());
        fs::remove_file(ballast).unwrap();
        for (at, name) in (0..).zip(&names) {
            assert_eq!(number_of(&fs::read(guarded.join(name)).unwrap()), Ok(at), "{name} on {}", fs.name());
        }
    }
}

// semantics.md#free-space
/// What came a moment ago stays although more is to be free, until the volume runs low; when it does not any more, it stays again.
#[test]
fn a_volume_runs_low_and_recovers() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let guarded = office.guarded();
    let total = space(&guarded).1;
    office.set(&["--free-space", "40%", "--grace", "1h"]);
    let names: Vec<String> = (0..8).map(|at| format!("young-{at}")).collect();
    for (at, name) in (0..).zip(&names) {
        fs::write(guarded.join(name), text(at, 30 * MIB as usize)).unwrap();
    }
    let first = ballast(&office, "first", total / 4);
    office.settle();
    let outlook = || office.shown(&guarded.join("young-0"))["outlook"].as_str().unwrap().to_owned();
    until("it is young", || outlook().contains("came"));
    assert_eq!(tiered(&guarded, &names), 0, "{}", outlook());
    let second = ballast(&office, "second", total / 20);
    until("young contents go too", || tiered(&guarded, &names) >= 1);
    until("the volume has room", || space(&guarded).0 >= total / 10);
    fs::remove_file(first).unwrap();
    fs::remove_file(second).unwrap();
    fs::write(guarded.join("younger"), text(99, 30 * MIB as usize)).unwrap();
    let third = ballast(&office, "third", total / 4);
    office.settle();
    assert!(blocks(&guarded.join("younger")) > 8 * 16, "it runs low no more");
    fs::remove_file(third).unwrap();
    for (at, name) in (0..).zip(&names) {
        assert_eq!(number_of(&fs::read(guarded.join(name)).unwrap()), Ok(at));
    }
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}

// semantics.md#free-space
/// Four writers on a volume where little is free, and a line that carries less than they write: what can go goes for them, nothing goes
/// that the share does not have, and who is told that nothing is free gets it when more has been sent.
#[test]
fn writers_faster_than_the_line_lose_nothing() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    office.set(&["--free-space", "5%", "--grace", "0s"]);
    (0..12).for_each(|at| old(&plain, &format!("cold-{at}"), at, 8, 300));
    office.settle();
    office.residency("recall", &guarded).expect(0);
    let _ballast = ballast(&office, "ballast", 60 * MIB);
    office.run(&["server", "set", "munich", "--limit", "up=12MiB/s"]).expect(0);
    let (writers, each) = (4_u64, 7_u64);
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (guarded, refused) = (&guarded, &refused);
            scope.spawn(move || {
                for number in (0..each).map(|at| 1_000 + writer * 100 + at) {
                    let (path, bytes) = (guarded.join(format!("new-{number}")), text(number, 8 * MIB as usize));
                    until("there is room", || match fs::write(&path, &bytes) {
                        Err(error) if error.kind() == ErrorKind::StorageFull => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            false
                        }
                        written => written.map(|()| true).unwrap(),
                    });
                }
            });
        }
    });
    assert!(refused.into_inner() > 0, "the line was as fast as they");
    office.run(&["server", "set", "munich", "--no-limits"]).expect(0);
    office.settle();
    let new = (0..writers).flat_map(|writer| (0..each).map(move |at| 1_000 + writer * 100 + at));
    let all = new.map(|number| (format!("new-{number}"), number)).chain((0..12).map(|at| (format!("cold-{at}"), at)));
    for (name, number) in all {
        for folder in [&plain, &guarded] {
            assert_eq!(number_of(&fs::read(folder.join(&name)).unwrap()), Ok(number), "{name}");
        }
    }
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}
