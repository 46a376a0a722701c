//! Stubs that take part in sync.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::{number_of, text};

// semantics.md#who-waits
/// What a newcomer sees, what opening brings, what both sides do to stubs.
#[test]
fn stubs_take_part_in_everything_that_files_do() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        fs::create_dir(plain.join("bridge")).unwrap();
        for (at, name) in ["one", "two", "bridge/three", "bridge/four"].into_iter().enumerate() {
            fs::write(plain.join(name), text(at as u64, 40_000 + at * 100_000)).unwrap();
        }
        fs::write(plain.join("small"), b"small").unwrap();
        office.settle();
        for name in ["one", "two", "bridge/three", "bridge/four"] {
            assert_eq!(blocks(&guarded.join(name)), 0, "{name} on {}", fs.name());
        }
        assert_eq!(fs::read(guarded.join("small")).unwrap(), b"small");
        office.counts_tiered(4);
        let (here, there) = (fs::metadata(guarded.join("two")).unwrap(), fs::metadata(plain.join("two")).unwrap());
        assert_eq!((here.len(), here.mtime(), here.mtime_nsec()), (there.len(), there.mtime(), there.mtime_nsec()));

        // Another content of a stub is a stub, of a file that is here a file.
        assert_eq!(number_of(&fs::read(guarded.join("one")).unwrap()), Ok(0));
        fs::write(plain.join("one"), text(10, 50_000)).unwrap();
        fs::write(plain.join("two"), text(11, 60_000)).unwrap();
        fs::rename(plain.join("bridge/four"), plain.join("moved")).unwrap();
        office.settle();
        assert!(blocks(&guarded.join("one")) > 0 && blocks(&guarded.join("two")) == 0 && blocks(&guarded.join("moved")) == 0);

        // What users of the guarded server do to stubs, without and with their content.
        fs::rename(guarded.join("moved"), guarded.join("bridge/five")).unwrap();
        fs::set_permissions(guarded.join("two"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(guarded.join("two"), guarded.join("second")).unwrap();
        office.settle();
        assert_eq!(fs::metadata(plain.join("two")).unwrap().mode() & 0o777, 0o600);
        assert_eq!((number_of(&fs::read(plain.join("second")).unwrap()), blocks(&guarded.join("second"))), (Ok(11), 0));
        let mut longer = fs::OpenOptions::new().append(true).open(guarded.join("bridge/five")).unwrap();
        std::io::Write::write_all(&mut longer, b"and more").unwrap();
        drop(longer);
        fs::remove_file(guarded.join("bridge/three")).unwrap();
        office.settle();
        let mut expected = text(3, 340_000);
        expected.extend(b"and more");
        assert_eq!(fs::read(plain.join("bridge/five")).unwrap(), expected);
        assert!(!plain.join("bridge/three").exists());
        office.run(&["undelete", "bridge/three"]).expect(0);
        office.settle();
        assert_eq!(blocks(&guarded.join("bridge/three")), 0);
        assert_eq!(number_of(&fs::read(guarded.join("bridge/three")).unwrap()), Ok(2));
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
        office.run(&["conflicts"]).expect(0);
        // One file with two names.
        office.counts_tiered(2);
    }
}

// semantics.md#what-is-tiered
/// Tiering gives up what is safe, recalling brings it back, a look at a file says where it is.
#[test]
fn paths_are_tiered_and_recalled() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let guarded = office.guarded();
    fs::create_dir_all(guarded.join("deep/er")).unwrap();
    for at in 0..300 {
        fs::write(guarded.join(format!("deep/er/{at}")), text(at, 9_000 + at as usize)).unwrap();
    }
    fs::write(guarded.join("deep/small"), b"small").unwrap();
    office.settle();
    let planned = office.tier_plan(&guarded.join("deep"));
    assert_eq!((&planned["files"], &planned["unsuited"]), (&300.into(), &1.into()), "{planned}");
    assert!(planned["coldest_ms"].as_u64() > Some(0) && blocks(&guarded.join("deep/er/7")) > 0, "{planned}");
    let open = fs::File::open(guarded.join("deep/er/7")).unwrap();
    let moved = office.residency("tier", &guarded.join("deep")).expect(3).json();
    assert_eq!((&moved["files"], &moved["unsuited"], &moved["left"]), (&299.into(), &1.into(), &1.into()), "{moved}");
    assert!(moved["why"][0][1].as_str().unwrap().contains("in use"), "{moved}");
    drop(open);
    office.tier_all();
    assert_eq!(blocks(&guarded.join("deep/er/7")), 0);
    // Nothing is left to do, and a scan changes nothing.
    office.settle();
    let again = office.residency("tier", &guarded).expect(0).json();
    assert_eq!((&again["files"], &again["already"]), (&0.into(), &300.into()), "{again}");
    office.counts_tiered(300);
    let moved = office.residency("recall", &guarded.join("deep/er")).expect(0).json();
    assert_eq!((&moved["files"], &moved["left"]), (&300.into(), &0.into()), "{moved}");
    office.counts_tiered(0);
    for at in 0..300 {
        assert_eq!(number_of(&fs::read(guarded.join(format!("deep/er/{at}"))).unwrap()), Ok(at));
    }
    office.run(&["conflicts"]).expect(0);
}

/// An agent that has lost everything it knew finds its stubs again, and none of their content moves for that.
#[test]
fn stubs_are_adopted_by_an_agent_that_knows_nothing() {
    let Some(mut office) = Office::open(Fs::Ext4) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    for at in 0..20 {
        fs::write(plain.join(format!("{at}")), text(at, 50_000)).unwrap();
    }
    office.settle();
    office.kill(Part::Munich);
    // What the share holds of one has changed meanwhile, and one is gone here.
    fs::write(plain.join("3"), text(103, 60_000)).unwrap();
    for folder in fs::read_dir(office.beside().join("state-Munich/endpoints")).unwrap().flatten() {
        for file in fs::read_dir(folder.path()).unwrap().flatten() {
            fs::remove_file(file.path()).unwrap();
        }
    }
    office.start(Part::Munich);
    until("the agent answers for its volume", || office.is_whole());
    office.settle();
    office.counts_tiered(20);
    for at in (0..20).filter(|at| *at != 3) {
        assert_eq!(blocks(&guarded.join(format!("{at}"))), 0, "{at}");
    }
    for at in 0..20 {
        let expected = if at == 3 { 103 } else { at };
        assert_eq!(number_of(&fs::read(guarded.join(format!("{at}"))).unwrap()), Ok(expected));
    }
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 21, "twenty files and the product's own folder");
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}

/// An endpoint with stubs goes only when their content is here, or when somebody says that they stay; another one adopts them.
#[test]
fn an_endpoint_with_stubs_is_not_let_go() {
    let Some(office) = Office::open(Fs::Btrfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    for at in 0..20 {
        fs::write(plain.join(format!("{at}")), text(at, 50_000)).unwrap();
    }
    office.settle();
    let munich = || {
        let endpoints = office.run(&["endpoint", "list", "--json"]).json();
        let of_munich = endpoints.as_array().unwrap().iter().find(|one| one["endpoint"]["server"] == "munich").cloned();
        of_munich.map(|one| one["endpoint"]["id"].as_str().unwrap().to_owned())
    };
    let id = munich().unwrap();
    let refused = office.run(&["endpoint", "delete", &id]).expect(4);
    assert!(refused.err.contains("20 tiered files") && refused.err.contains("--recall"), "{refused:?}");
    assert_eq!(number_of(&fs::read(guarded.join("3")).unwrap()), Ok(3), "somebody still answers for them");

    office.run(&["endpoint", "delete", &id, "--leave-stubs"]).expect(0);
    until("the endpoint is gone", || munich().is_none());
    assert_eq!(blocks(&guarded.join("5")), 0);
    office.join("munich", &guarded, "on");
    office.settle();
    assert_eq!((blocks(&guarded.join("5")), number_of(&fs::read(guarded.join("7")).unwrap())), (0, Ok(7)));

    office.run(&["endpoint", "delete", &munich().unwrap(), "--recall"]).expect(0);
    until("the endpoint is gone", || munich().is_none());
    for at in 0..20 {
        assert!(blocks(&guarded.join(format!("{at}"))) > 0);
        assert_eq!(number_of(&fs::read(guarded.join(format!("{at}"))).unwrap()), Ok(at));
    }
}

// semantics.md#moved-out
/// What leaves the endpoint takes its content along, alone or in a folder, also while the service is away (row 12).
#[test]
fn case_12_a_stub_that_leaves_its_endpoint_is_whole_before_it_counts_as_deleted() {
    let Some(mut office) = Office::open(Fs::Ext4) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    let outside = guarded.parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(plain.join("folder")).unwrap();
    for (at, name) in ["one", "two", "folder/three", "folder/four"].into_iter().enumerate() {
        fs::write(plain.join(name), text(at as u64, 70_000)).unwrap();
    }
    office.settle();
    fs::rename(guarded.join("one"), outside.join("one")).unwrap();
    office.settle();
    assert!(!plain.join("one").exists());
    assert!(blocks(&outside.join("one")) > 0, "nobody has opened it");
    assert_eq!(number_of(&fs::read(outside.join("one")).unwrap()), Ok(0));

    office.kill(Part::Service);
    fs::rename(guarded.join("two"), outside.join("two")).unwrap();
    fs::rename(guarded.join("folder"), outside.join("folder")).unwrap();
    office.kill(Part::Munich);
    office.start(Part::Munich);
    office.start(Part::Service);
    office.settle();
    assert!(!plain.join("two").exists() && !plain.join("folder").exists());
    office.kill(Part::Munich);
    for (at, name) in [(1, "two"), (2, "folder/three"), (3, "folder/four")] {
        assert_eq!(number_of(&fs::read(outside.join(name)).unwrap()), Ok(at), "{name} without anybody who could bring it");
    }
}

/// Who had a content brought back is to be seen at the file: the program that waited first, or that nobody did.
#[test]
fn a_recall_is_attributed_to_the_program_that_asked_for_it() {
    let Some(office) = Office::open(Fs::Ext4) else { return };
    for name in ["asked for", "brought back", "never"] {
        fs::write(office.plain().join(name), text(1, 60_000)).unwrap();
    }
    office.settle();
    let of = |name: &str| office.guarded().join(name);
    let read = Command::new("cat").arg(of("asked for")).stdout(Stdio::null()).spawn().unwrap();
    let process = i64::from(read.id());
    assert!(read.wait_with_output().unwrap().status.success());
    office.residency("recall", &of("brought back")).expect(0);
    let recalled = |name: &str| office.shown(&of(name))["recalled"].clone();
    let asked = recalled("asked for");
    assert_eq!((&asked["program"], &asked["process"], &asked["user"]), (&"cat".into(), &process.into(), &0.into()), "{asked}");
    assert_eq!(asked["bytes"], 60_000);
    let brought = recalled("brought back");
    assert!(brought["program"].is_null() && brought["bytes"] == 60_000, "{brought}");
    assert!(recalled("never").is_null());
}

/// A program that keeps its file open and writes now and then: each write arrives although the file is never closed, also those of which
/// nobody was told because one was told of a moment before.
#[test]
fn writes_to_a_file_that_stays_open_arrive() {
    use std::os::unix::fs::FileExt;
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    let open = fs::File::create(plain.join("log")).unwrap();
    let mut expected = vec![0_u8; 64 << 10];
    open.write_all_at(&expected, 0).unwrap();
    office.settle();
    for round in 1..=10_u8 {
        for (at, pause) in [0, 1, 3, 40, 90, 150, 210].into_iter().enumerate() {
            std::thread::sleep(std::time::Duration::from_millis(pause)); // tidy: wait as a program does between writes
            let offset = at * 4_096 + usize::from(round);
            expected[offset] = round;
            open.write_all_at(&[round], offset as u64).unwrap();
        }
        until("the last write arrives", || fs::read(guarded.join("log")).is_ok_and(|bytes| bytes == expected));
    }
    // A barrier knows of writes of a moment ago.
    for round in 11..=16_u8 {
        expected[usize::from(round)] = round;
        open.write_all_at(&[0, round], u64::from(round) - 1).unwrap();
        expected[usize::from(round) - 1] = 0;
        open.write_all_at(&[round], 5).unwrap();
        expected[5] = round;
        office.settle();
        assert!(fs::read(guarded.join("log")).unwrap() == expected, "round {round}");
    }
}
