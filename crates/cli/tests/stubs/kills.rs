//! Parts of the product die at random moments while people work, files are tiered and others arrive: no wrong byte, nobody
//! hangs, and the next start repairs everything by itself.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::rescue::Over;
use crate::texts::{number_of, text};
use crate::users::{Author, Users};
use crate::{Dice, rounds, seed};

/// Files of each sort.
const FILES: usize = 24;

/// What dies together.
const DEATHS: [&[Part]; 6] =
    [&[Part::Munich], &[Part::Gate], &[Part::Keeper], &[Part::Service], &[Part::Munich, Part::Gate], &[Part::Keeper, Part::Gate]];

// semantics.md#whole-or-nothing semantics.md#parts-that-die
#[test]
fn whoever_dies_nobody_reads_a_wrong_byte() {
    let mut dice = Dice(seed(11));
    let kinds = [Fs::Xfs, Fs::Ext4, Fs::Btrfs];
    for round in 0..rounds(3) {
        let Some(mut office) = Office::open(kinds[round % kinds.len()]) else { return };
        let deaths = 6 + dice.roll(6);
        if (round / kinds.len()).is_multiple_of(2) {
            // Everybody reads as players do, and goes on before what he reads is durable.
            office.set(&["--program", "*=stream"]);
        }
        one_office(&mut office, deaths, &mut dice);
    }
}

fn one_office(office: &mut Office, deaths: usize, dice: &mut Dice) {
    let (plain, guarded) = (office.plain(), office.guarded());
    let users = Users::begin(&guarded, FILES, 4, dice.clone());
    let author = Author::begin(&plain, FILES, dice.clone());
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over::of(&ends, office);
        let (folder, state, stop) = (&guarded, office.beside().join("state-Munich"), &ends);
        scope.spawn(move || tier_again_and_again(folder, &state, stop));
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                Author::check(folder, FILES);
            }
        });
        for _ in 0..deaths {
            std::thread::sleep(Duration::from_millis(100 + dice.roll(900) as u64)); // tidy: wait work goes on meanwhile
            let dying = DEATHS[dice.roll(DEATHS.len())];
            if dying.contains(&Part::Keeper) && dying.contains(&Part::Gate) {
                // Whoever died before is back by then: with nobody left everybody is let through, which is another story.
                until("the agent holds the group too", || office.is_whole());
            }
            dying.iter().for_each(|part| office.kill(*part));
            std::thread::sleep(Duration::from_millis(dice.roll(300) as u64)); // tidy: wait work goes on without them
            dying.iter().rev().for_each(|part| office.start(*part));
            if dying.contains(&Part::Keeper) {
                // If agent and gate died now nobody would be left: what happens then is another story.
                until("there is a keeper again", || office.keepers().len() == 1 && office.is_whole());
            }
        }
        std::thread::sleep(Duration::from_millis(500)); // tidy: wait work goes on after the last death
    });
    let (done, excused) = (users.done.load(Ordering::Relaxed), users.excused.load(Ordering::Relaxed));
    let (expected, newest) = (users.end(), author.end());
    println!("CAMPAIGN rounds=1 deaths={deaths} deeds={done} excused={excused}");
    until("everything is guarded and answered for again", || office.is_whole());
    office.settle();
    for (name, bytes) in &expected {
        for folder in [&guarded, &plain] {
            assert!(fs::read(folder.join(name)).unwrap() == *bytes, "{name} in {}\n{}", folder.display(), office.logs());
        }
    }
    for (at, number) in newest.iter().enumerate().filter(|(_, number)| **number > 0) {
        let found = fs::read(guarded.join(format!("sent-{at}"))).unwrap();
        assert_eq!(number_of(&found), Ok(number << 16 | at as u64), "sent-{at}");
    }
    assert_eq!(office.run(&["conflicts"]).code, Some(0), "{}", office.run(&["conflicts"]).out);
}

fn tier_again_and_again(folder: &std::path::Path, state: &std::path::Path, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        // What it says depends on who lives.
        crate::program::isotherm(&["tier", folder.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    }
}

// semantics.md#waiting-has-an-end
/// While nobody is left who could answer, files that are here go on working, and stubs wait; the next start goes on with them.
#[test]
fn a_reader_waits_for_the_next_agent() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    fs::write(plain.join("stub"), text(1, 100_000)).unwrap();
    fs::write(guarded.join("here"), text(2, 100_000)).unwrap();
    office.settle();
    office.kill(Part::Munich);
    let reader = {
        let path = guarded.join("stub");
        std::thread::spawn(move || fs::read(path))
    };
    until("a reader waits", || office.ask_gate(&["volume", "list", "--json"]).json()[0]["waiting"] == 1);
    assert_eq!(number_of(&fs::read(guarded.join("here")).unwrap()), Ok(2));
    office.start(Part::Munich);
    assert_eq!(number_of(&reader.join().unwrap().unwrap()), Ok(1));
}

/// A gate that dies while somebody waits for it: he is told so, and the file stays what it was.
#[test]
fn the_next_gate_goes_on_and_the_keeper_is_started_again() {
    let Some(mut office) = Office::open(Fs::Ext4) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    for at in 0..30 {
        fs::write(plain.join(format!("{at}")), text(at, 50_000)).unwrap();
    }
    office.settle();
    for round in 0..3 {
        office.kill(Part::Gate);
        let path = guarded.join(format!("{round}"));
        let reader = std::thread::spawn(move || fs::read(path));
        office.start(Part::Gate);
        assert_eq!(
            number_of(&reader.join().unwrap().unwrap()),
            Ok(round),
            "who had not been read of yet waits for the next gate"
        );
        until("agent and keeper are back", || office.is_whole());
        office.kill(Part::Keeper);
        until("there is a keeper again", || office.keepers().len() == 1 && office.is_whole());
    }
    for at in 0..30 {
        assert_eq!(number_of(&fs::read(guarded.join(format!("{at}"))).unwrap()), Ok(at));
    }
}

// semantics.md#all-holders-die
/// Whoever opened a tiered file while nobody guarded its volume reads holes, and the content soon after the next start, through
/// the same descriptor: the kernel's NFS server keeps files open as long as its clients read.
#[test]
fn who_opened_a_stub_without_guard_reads_its_content_after_the_next_start() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        fs::write(office.plain().join("kept"), text(1, 100_000)).unwrap();
        fs::write(office.plain().join("other"), text(2, 100_000)).unwrap();
        office.settle();
        for part in [Part::Munich, Part::Gate, Part::Keeper] {
            office.kill(part);
        }
        let kept = fs::File::open(office.guarded().join("kept")).unwrap();
        office.start(Part::Gate);
        office.start(Part::Munich);
        until("its content has come", || {
            let mut seen = vec![0; 100_000];
            kept.read_exact_at(&mut seen, 0).is_ok() && number_of(&seen) == Ok(1)
        });
        office.settle();
        assert_eq!(blocks(&office.guarded().join("other")), 0, "nobody has it open");
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#parts-that-die
/// Whoever waits for a content keeps the kernel's marks of that file, and who made them cannot end before he is answered. An agent that
/// had noted the use of a file before it was tiered is stopped, and another one killed, while somebody waits for it.
#[test]
fn an_agent_ends_while_somebody_waits_for_a_file_that_was_used() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        let (guarded, used) = (office.guarded(), office.guarded().join("used"));
        fs::write(&used, text(1, 4_000_000)).unwrap();
        office.settle();
        let last_use = || office.shown(&used)["accessed_ms"].as_u64().unwrap();
        let before = last_use();
        until("the use is noted", || number_of(&fs::read(&used).unwrap()) == Ok(1) && last_use() > before);
        office.run(&["server", "set", "munich", "--limit", "down=16KiB/s,demand"]).expect(0);
        for ends in [Office::stop, Office::kill] {
            until("it is tiered", || office.residency("tier", &guarded).code == Some(0) && blocks(&used) == 0);
            let path = used.clone();
            let reader = std::thread::spawn(move || fs::read(path));
            until("somebody waits", || office.ask_gate(&["volume", "list", "--json"]).json()[0]["waiting"] == 1);
            // A part of it has been asked for.
            std::thread::sleep(Duration::from_millis(500)); // tidy: wait the limit keeps him waiting much longer
            ends(&mut office, Part::Munich);
            office.run(&["server", "set", "munich", "--no-limits"]).expect(0);
            office.start(Part::Munich);
            assert_eq!(number_of(&reader.join().unwrap().unwrap()), Ok(1), "on {}", fs.name());
            office.run(&["server", "set", "munich", "--limit", "down=16KiB/s,demand"]).expect(0);
        }
    }
}

// semantics.md#parts-that-die
/// Two gates may each have started a keeper. One of them ends, and the next gate finds the one that holds the volume.
#[test]
fn of_two_keepers_one_ends() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    fs::write(office.plain().join("stub"), text(1, 100_000)).unwrap();
    office.settle();
    let first = office.keepers();
    let other = office.ask_gate(&["gate", "keep"]);
    assert!(other.code == Some(4) && other.err.contains("is locked by process"), "{other:?}");
    office.kill(Part::Gate);
    office.kill(Part::Munich);
    office.start(Part::Gate);
    office.start(Part::Munich);
    until("guarding goes on", || office.is_whole());
    assert_eq!(office.keepers(), first);
    assert!(office.logs().contains("Guarding goes on"), "{}", office.logs());
    assert_eq!(number_of(&fs::read(office.guarded().join("stub")).unwrap()), Ok(1));
}

// semantics.md#parts-that-die
/// A gate dies while it starts another keeper, or just after, again and again: there is always one keeper in the end, and the next gate
/// goes on with what it holds.
#[test]
fn a_gate_that_dies_while_it_starts_a_keeper_leaves_one() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    fs::write(office.plain().join("stub"), text(1, 100_000)).unwrap();
    office.settle();
    let mut dice = Dice(seed(61));
    for _ in 0..rounds(12) {
        until("all are there", || office.keepers().len() == 1 && office.is_whole());
        office.kill(Part::Keeper);
        std::thread::sleep(Duration::from_millis(dice.roll(260) as u64)); // tidy: wait for the gate to notice, or not yet
        office.kill(Part::Gate);
        office.start(Part::Gate);
    }
    until("all are there", || office.keepers().len() == 1 && office.is_whole());
    assert_eq!(number_of(&fs::read(office.guarded().join("stub")).unwrap()), Ok(1));
}

// semantics.md#parts-that-die
/// An agent that is stopped and started again, as for an upgrade, leaves whoever waits to the next one: everybody gets his content.
#[test]
fn an_agent_that_is_stopped_refuses_nobody() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        let names: Vec<String> = (0..FILES as u64).map(|at| format!("plan-{at}")).collect();
        (0..).zip(&names).for_each(|(number, name)| fs::write(plain.join(name), text(number, 300_000)).unwrap());
        office.settle();
        for _ in 0..4 {
            office.tier_all();
            let ends = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let _over = Over::of(&ends, &office);
                for reader in 0..4 {
                    let (names, guarded) = (&names, &guarded);
                    scope.spawn(move || {
                        for (number, name) in (0..).zip(names).skip(reader).step_by(4) {
                            let bytes =
                                fs::read(guarded.join(name)).unwrap_or_else(|error| panic!("{name}: {error} on {}", fs.name()));
                            assert_eq!(number_of(&bytes), Ok(number), "{name} on {}", fs.name());
                        }
                    });
                }
                office.stop(Part::Munich);
                office.start(Part::Munich);
            });
            office.settle();
        }
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#parts-that-die
/// It ends soon also while others bring thousands of files, each of which is made known to the gate.
#[test]
fn an_agent_stops_while_stubs_arrive() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    let count = || fs::read_dir(&guarded).unwrap().count();
    for round in 0..3_u64 {
        (0..1_500).for_each(|at| fs::write(plain.join(format!("plan-{round}-{at}")), text(round << 16 | at, 9_000)).unwrap());
        let before = count();
        until("the first have come", || count() > before + 50);
        office.stop(Part::Munich);
        office.start(Part::Munich);
    }
    office.settle();
    for name in ["plan-0-0", "plan-1-700", "plan-2-1499"] {
        assert_eq!(blocks(&guarded.join(name)), 0, "{name}");
        assert!(number_of(&fs::read(guarded.join(name)).unwrap()).is_ok(), "{name}");
    }
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}
