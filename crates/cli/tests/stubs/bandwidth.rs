//! Limits of what the guarded server gets, and those who wait for the content of a file.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use isotherm_core::content::Chunker;
use isotherm_gate::testing::Fs;

use crate::office::{Office, blocks};
use crate::program::until;
use crate::rescue::Over;
use crate::texts::{number_of, text};

const MIB: usize = 1 << 20;

fn is_here(path: &Path) -> bool {
    blocks(path) > 8
}

/// An office whose guarded server has these files, each of so many bytes, in the share only.
fn office(files: &[(&str, usize)]) -> Option<Office> {
    let office = Office::open(Fs::Xfs)?;
    for (number, (name, len)) in (0..).zip(files) {
        let path = office.plain().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text(number, *len)).unwrap();
    }
    office.settle();
    assert!(files.iter().all(|(name, _)| !is_here(&office.guarded().join(name))));
    Some(office)
}

/// Limits the guarded server, and waits until its agent says what is in force.
fn limit(office: &Office, limits: &[&str]) {
    let mut arguments = vec!["server", "set", "munich"];
    limits.iter().for_each(|limit| arguments.extend(["--limit", limit]));
    arguments.extend(limits.is_empty().then_some("--no-limits"));
    office.run(&arguments).expect(0);
    until("the agent has heard of it", || {
        let servers = office.run(&["server", "list", "--json"]).expect(0).json();
        let munich = servers.as_array().unwrap().iter().find(|one| one["name"] == "munich").unwrap().clone();
        munich["limits"] == serde_json::json!(limits) && (munich["in_force"] == serde_json::json!({})) == limits.is_empty()
    });
}

/// Somebody who reads a file, in a process of his own.
fn reader(path: &Path) -> Child {
    Command::new("cat").arg(path).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

// semantics.md#bandwidth-limits
/// Whoever opens a file waits for no limit, however many contents wait that nobody waits for. One of these that somebody opens comes at
/// once too, and the others go on when the limit is gone.
#[test]
fn who_opens_a_file_waits_for_no_limit() {
    let background: Vec<String> = (0..12).map(|at| format!("back/{at}")).collect();
    let demand: Vec<String> = (0..8).map(|at| format!("front/{at}")).collect();
    let files: Vec<(&str, usize)> =
        background.iter().map(|name| (&name[..], 16 * MIB)).chain(demand.iter().map(|name| (&name[..], 2 * MIB))).collect();
    let Some(office) = office(&files) else { return };
    let guarded = office.guarded();
    // Hours for all of the background.
    limit(&office, &["both=16KiB/s"]);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over::of(&ends, &office);
        let recalling = scope.spawn(|| office.residency("recall", &guarded.join("back")));
        std::thread::sleep(Duration::from_secs(2)); // tidy: wait for the background to have taken all hands that it gets
        let readers: Vec<Child> = demand.iter().map(|name| reader(&guarded.join(name))).collect();
        for mut one in readers {
            until("he has read it", || one.try_wait().unwrap().is_some());
            assert!(one.wait().unwrap().success());
        }
        assert!(!recalling.is_finished() && !is_whole(&office, &background[3]), "what nobody waits for waits");
        // Whichever of them are being fetched or wait in a queue.
        for at in [0, 5, 11] {
            assert_eq!(number_of(&fs::read(guarded.join(&background[at])).unwrap()), Ok(at as u64));
        }
        assert!(!recalling.is_finished() && !is_whole(&office, &background[3]), "the others still wait");
        limit(&office, &[]);
        assert_eq!(recalling.join().unwrap().code, Some(0));
    });
    for (number, (name, _)) in (0..).zip(&files) {
        assert_eq!(number_of(&fs::read(guarded.join(name)).unwrap()), Ok(number), "{name}");
    }
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}

fn is_whole(office: &Office, name: &str) -> bool {
    office.shown(&office.guarded().join(name))["tiered"] == false
}

/// The number of a text of this length with a chunk of this length and more.
fn number_with_chunk(len: usize, chunk: usize) -> u64 {
    let has_one = |number: &u64| {
        let (mut chunker, mut longest) = (Chunker::default(), 0);
        let mut note = |bytes: &[u8]| {
            longest = longest.max(bytes.len());
            Ok::<(), ()>(())
        };
        chunker.push(&text(*number, len), &mut note).and_then(|()| chunker.finish(&mut note)).unwrap();
        longest >= chunk
    };
    (100..).find(has_one).unwrap()
}

// semantics.md#bandwidth-limits
/// A limit that says so is for those who wait too: nobody is told that nothing gets on, although for more than a minute nothing comes.
/// When it goes, whoever waits for it has his content.
#[test]
fn a_limit_that_says_so_makes_everybody_wait() {
    let Some(office) = office(&[]) else { return };
    let (len, chunk) = (MIB + MIB / 4, MIB + MIB / 16);
    let number = number_with_chunk(len, chunk);
    fs::write(office.plain().join("slow"), text(number, len)).unwrap();
    fs::write(office.plain().join("slower"), text(1, 32 * MIB)).unwrap();
    office.settle();
    limit(&office, &["down=16KiB/s,demand"]);
    let begun = Instant::now();
    assert_eq!(number_of(&fs::read(office.guarded().join("slow")).unwrap()), Ok(number));
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(len as u64 / (16 << 10) - 1), "{took:?}");
    let mut one = reader(&office.guarded().join("slower"));
    std::thread::sleep(Duration::from_secs(1)); // tidy: wait for him to wait
    assert!(one.try_wait().unwrap().is_none(), "half an hour has not passed");
    limit(&office, &[]);
    until("he has read it", || one.try_wait().unwrap().is_some());
    assert!(one.wait().unwrap().success());
    assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
}
