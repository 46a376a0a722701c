//! Contents that go by themselves.

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::{number_of, text};

const MIB: u64 = 1 << 20;

/// Bytes free and in all, for users.
pub(crate) fn space(path: &Path) -> (u64, u64) {
    let space = rustix::fs::statvfs(path).unwrap();
    (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)
}

fn tiered<'a>(folder: &Path, names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| blocks(&folder.join(name)) < 8 * 16).collect()
}

/// A file that was changed and made so many days ago at the plain server: how old it is everybody knows from there.
pub(crate) fn old(folder: &Path, name: &str, number: u64, mib: u64, days: u64) {
    let path = folder.join(name);
    fs::write(&path, text(number, (mib * MIB) as usize)).unwrap();
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3_600);
    File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
}

// semantics.md#free-space
/// As much of the volume stays free as is asked for; the coldest go, what somebody opens is warm, and less asked for brings
/// nothing back.
#[test]
fn a_volume_keeps_as_much_free_as_it_is_told() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let guarded = office.guarded();
        office.set(&["--free-space", "0%", "--grace", "0s", "--keep", "*.keep", "--keep", "site/now"]);
        fs::create_dir_all(guarded.join("site/now")).unwrap();
        let names = ["a", "b", "c", "d", "e", "f", "old.keep", "site/now/g"];
        for (at, name) in names.into_iter().enumerate() {
            fs::write(guarded.join(name), text(at as u64, 40 * MIB as usize)).unwrap();
            // Times are what makes them differ; none was read yet.
            let then = SystemTime::now() - Duration::from_secs(600 - at as u64);
            File::options().write(true).open(guarded.join(name)).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
        }
        office.settle();
        assert_eq!(tiered(&guarded, &names), [""; 0], "on {}", fs.name());
        let (free, total) = space(&guarded);
        // Some 70 MiB more than are free: two files.
        let percent = ((free + 70 * MIB) * 100 / total).to_string();
        office.set(&["--free-space", &percent]);
        until("as much is free as is asked for", || space(&guarded).0 >= total * percent.parse::<u64>().unwrap() / 100);
        office.settle();
        let gone = tiered(&guarded, &names);
        // One more where what was given up counts as free only later.
        assert!((2..=3).contains(&gone.len()), "{gone:?} on {}", fs.name());
        assert!(!gone.contains(&"old.keep") && !gone.contains(&"site/now/g"), "{gone:?} on {}", fs.name());
        let outlook = |name: &str| office.shown(&guarded.join(name))["outlook"].as_str().unwrap().to_owned();
        assert!(outlook("site/now/g").contains("a pattern of the endpoint keeps it"), "{}", outlook("site/now/g"));
        assert_eq!((&outlook(gone[0])[..], &outlook("f")[..15]), ("comes when somebody opens it", "stays while the"));

        let heat = office.heat(&guarded, true).json();
        let of = |name: &str| heat.as_array().unwrap().iter().find(|row| row["path"] == name).unwrap().clone();
        assert_eq!(
            (&of("site")["files"], &of("")["files"], &of("")["tiered_files"]),
            (&1.into(), &7.into(), &gone.len().into()),
            "{heat}"
        );
        assert_eq!(of("site")["bands"], serde_json::json!([40 * MIB, 0, 0, 0, 0]), "{heat}");
        assert!(office.heat(&guarded, false).out.contains("site/"));

        // Whoever opens one has it; another goes for it.
        let opened = gone[0];
        let number = names.iter().position(|name| *name == opened).unwrap() as u64;
        assert_eq!(number_of(&fs::read(guarded.join(opened)).unwrap()), Ok(number));
        until("another one has gone", || {
            // btrfs tells only then what is free.
            rustix::fs::syncfs(File::open(&guarded).unwrap()).unwrap();
            let (free, total) = space(&guarded);
            tiered(&guarded, &names).len() >= 2 && free >= total * percent.parse::<u64>().unwrap() / 100
        });
        assert!(!tiered(&guarded, &names).contains(&opened), "on {}", fs.name());

        // Less asked for brings nothing back, and without tiering what is tiered works on.
        office.set(&["--free-space", "0%"]);
        office.set(&["--tiering", "off"]);
        office.settle();
        let left = tiered(&guarded, &names);
        assert!(left.len() >= 2, "{left:?} on {}", fs.name());
        assert!(number_of(&fs::read(guarded.join(left[0])).unwrap()).is_ok());
        assert_eq!(tiered(&guarded, &names), left[1..], "on {}", fs.name());
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#old-contents
/// What nobody has used for long enough goes although there is room, and what was used stays.
#[test]
fn what_is_not_used_goes_after_a_while() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let guarded = office.guarded();
    office.set(&["--free-space", "0%", "--grace", "0s"]);
    let names = ["a", "b", "c"];
    for (at, name) in names.into_iter().enumerate() {
        fs::write(guarded.join(name), text(at as u64, MIB as usize)).unwrap();
    }
    office.settle();
    office.set(&["--older-than", "3s"]);
    office.counts_tiered(3);
    office.set(&["--older-than", "1h"]);
    assert_eq!(number_of(&fs::read(guarded.join("b")).unwrap()), Ok(1));
    office.counts_tiered(2);
    office.settle();
    assert_eq!(tiered(&guarded, &names), ["a", "c"]);
}

// semantics.md#old-contents
/// The clock goes on by a month: what was not used since goes. It is set back: what was used in what is now the future stays, and nothing
/// goes or stops for it.
#[test]
fn a_clock_that_is_moved_moves_what_is_old_and_no_more() {
    let Some(mut office) = Office::open(Fs::Xfs) else { return };
    let guarded = office.guarded();
    office.move_clock(0);
    office.kill(Part::Munich);
    office.start(Part::Munich);
    office.set(&["--free-space", "0%", "--grace", "0s", "--keep", "*.keep"]);
    let write = |folder: &Path, name: &str, number: u64| fs::write(folder.join(name), text(number, MIB as usize)).unwrap();
    let names = ["a", "b", "c", "d.keep"];
    (0..).zip(names).for_each(|(number, name)| write(&guarded, name, number));
    office.settle();
    let mut hours = 720;
    let mut moved = |days| {
        office.move_clock(days);
        std::thread::sleep(Duration::from_secs(2)); // tidy: wait for the agent to look at its clock
        // An endpoint that is set anew is looked at now, not in some minutes.
        hours += 1;
        office.set(&["--older-than", &format!("{hours}h")]);
        std::thread::sleep(Duration::from_secs(2)); // tidy: wait for the policies to have looked
    };
    moved(0);
    assert_eq!(tiered(&guarded, &names), [""; 0]);

    moved(29);
    assert_eq!(tiered(&guarded, &names), [""; 0]);
    let used = |name: &str| office.shown(&guarded.join(name))["accessed_ms"].as_u64().unwrap();
    until("the use is noted", || number_of(&fs::read(guarded.join("b")).unwrap()) == Ok(1) && used("b") > used("a"));
    moved(32);
    office.counts_tiered(2);
    assert_eq!(tiered(&guarded, &names), ["a", "c"]);

    // Years back, before any of the files was made.
    moved(-2_000);
    assert_eq!(number_of(&fs::read(guarded.join("a")).unwrap()), Ok(0));
    write(&guarded, "e", 4);
    write(&office.plain(), "f", 5);
    office.settle();
    moved(-2_000);
    let names = ["a", "b", "c", "d.keep", "e", "f"];
    assert_eq!(tiered(&guarded, &names), ["c", "f"]);
    moved(100);
    office.counts_tiered(5);
    moved(0);
    office.settle();
    for (number, name) in (0..).zip(names) {
        assert_eq!(number_of(&fs::read(guarded.join(name)).unwrap()), Ok(number), "{name}");
        assert_eq!(number_of(&fs::read(office.plain().join(name)).unwrap()), Ok(number), "{name}");
    }
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}

// semantics.md#free-space
/// Reading a file that is here is a use; what a virus scanner reads is none.
#[test]
fn files_that_are_read_are_warm() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let guarded = office.guarded();
        for name in ["read", "scanned", "cold"] {
            fs::write(guarded.join(name), text(1, MIB as usize)).unwrap();
        }
        office.settle();
        let last_use = |name: &str| office.shown(&guarded.join(name))["accessed_ms"].as_u64().unwrap();
        // When they were made.
        let before = ["read", "scanned", "cold"].map(last_use);
        let scanner = office.beside().join("clamscan");
        fs::copy("/bin/cat", &scanner).unwrap();
        // It goes on with its input: who it is can be told while it runs.
        let mut scan = Command::new(&scanner);
        let scan = scan.arg(guarded.join("scanned")).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut scan = scan.unwrap();
        let mut scanned = vec![0; MIB as usize];
        std::io::Read::read_exact(scan.stdout.as_mut().unwrap(), &mut scanned).unwrap();
        until("the use is noted", || {
            assert!(fs::read(guarded.join("read")).is_ok());
            last_use("read") > before[0]
        });
        assert_eq!([last_use("scanned"), last_use("cold")], before[1..], "on {}", fs.name());
        drop(scan.stdin.take());
        assert!(scan.wait().unwrap().success());
    }
}

// semantics.md#free-space
/// Four writers at full speed on a volume of cold files: room is made while they write, as much as is asked for in the end, and nothing
/// goes that is not safe. Who writes faster than a small volume can be looked at is told so now and then, and tries again.
#[test]
fn a_volume_that_is_filled_at_full_speed_gets_room() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        office.set(&["--free-space", "30%", "--grace", "0s"]);
        for at in 0..24 {
            old(&plain, &format!("cold-{at}"), at, 12, 300);
        }
        office.settle();
        office.residency("recall", &guarded).expect(0);
        office.counts_tiered(0);
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let guarded = guarded.clone();
                std::thread::spawn(move || {
                    for at in 0..12_u64 {
                        let number = 1_000 + writer * 100 + at;
                        let (path, bytes) = (guarded.join(format!("new-{number}")), text(number, 6 * MIB as usize));
                        until("there is room", || match fs::write(&path, &bytes) {
                            Err(error) if error.kind() == ErrorKind::StorageFull => {
                                println!("full for a moment on {}", fs.name());
                                false
                            }
                            written => written.map(|()| true).unwrap(),
                        });
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        office.settle();
        until("as much is free as is asked for", || {
            let (free, total) = space(&guarded);
            free >= total * 30 / 100
        });
        for number in (0..4).flat_map(|writer| (0..12).map(move |at| 1_000 + writer * 100 + at)) {
            assert_eq!(number_of(&fs::read(plain.join(format!("new-{number}"))).unwrap()), Ok(number), "on {}", fs.name());
        }
        for at in [3, 20] {
            assert_eq!(number_of(&fs::read(guarded.join(format!("cold-{at}"))).unwrap()), Ok(at), "on {}", fs.name());
        }
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#offline-attribute
/// Whether Windows clients see what is tiered is said for each endpoint: of what comes, and of what goes.
#[test]
fn whether_tiered_files_look_offline_is_said_by_the_endpoint() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, guarded) = (office.plain(), office.guarded());
    let attribute = |path: &Path| {
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(path, "user.DOSATTRIB", &mut value[..]).unwrap();
        String::from_utf8_lossy(&value[..len]).into_owned()
    };
    for (name, setting, expected) in [("shown", "on", "0x401020"), ("hidden", "off", "0x20")] {
        office.set(&["--offline-attribute", setting]);
        office.settle();
        fs::write(plain.join(name), text(1, MIB as usize)).unwrap();
        rustix::fs::setxattr(plain.join(name), "user.DOSATTRIB", b"0x20", rustix::fs::XattrFlags::empty()).unwrap();
        office.settle();
        assert_eq!((blocks(&guarded.join(name)), attribute(&guarded.join(name))), (0, expected.to_owned()), "came, {setting}");
        assert_eq!(number_of(&fs::read(guarded.join(name)).unwrap()), Ok(1));
        office.settle();
        assert_eq!(attribute(&guarded.join(name)), "0x20", "here, {setting}");
        until("it goes", || office.residency("tier", &guarded.join(name)).code == Some(0) && blocks(&guarded.join(name)) == 0);
        assert_eq!(attribute(&guarded.join(name)), expected, "went, {setting}");
        assert_eq!(attribute(&plain.join(name)), "0x20", "it does not travel");
    }
}
