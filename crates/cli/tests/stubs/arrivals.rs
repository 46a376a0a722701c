//! Contents that come by themselves, and such as are to stay.

use std::fs;
use std::path::Path;

use isotherm_gate::testing::Fs;

use crate::office::{Office, Part, blocks};
use crate::policies::{old, space};
use crate::program::until;
use crate::texts::{number_of, text};

const MIB: usize = 1 << 20;

fn is_here(path: &Path) -> bool {
    blocks(path) > 8
}

fn write(folder: &Path, name: &str, number: u64) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::write(folder.join(name), text(number, MIB)).unwrap();
}

fn holds(folder: &Path, name: &str, number: u64) -> bool {
    fs::read(folder.join(name)).is_ok_and(|bytes| number_of(&bytes) == Ok(number))
}

// semantics.md#contents-that-come
/// Of what others bring: by default what is here is kept current and nothing else comes; on demand nothing comes at all; and the eager
/// have everything, after its name. What is read is right in each.
#[test]
fn what_comes_by_itself_is_said_by_the_endpoint() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        let change_both = |office: &Office, round: u64| {
            // One that is here, one that is not, and a new one.
            assert!(fs::read(guarded.join("here")).is_ok());
            office.settle();
            write(&plain, "here", round);
            write(&plain, "away", round + 1);
            write(&plain, &format!("new-{round}"), round + 2);
            office.settle();
        };
        write(&plain, "here", 1);
        write(&plain, "away", 2);
        office.settle();
        assert!(!is_here(&guarded.join("here")) && !is_here(&guarded.join("away")));

        change_both(&office, 10);
        assert!(is_here(&guarded.join("here")), "kept current on {}", fs.name());
        assert!(!is_here(&guarded.join("away")) && !is_here(&guarded.join("new-10")), "on {}", fs.name());

        office.set(&["--download", "on-demand"]);
        change_both(&office, 20);
        for name in ["here", "away", "new-20"] {
            assert!(!is_here(&guarded.join(name)), "{name} on {}", fs.name());
        }
        assert!(holds(&guarded, "here", 20) && is_here(&guarded.join("here")));

        office.set(&["--download", "proactive"]);
        change_both(&office, 30);
        for name in ["here", "away", "new-30"] {
            until("its content comes", || is_here(&guarded.join(name)));
        }
        assert!(!is_here(&guarded.join("new-10")) && !is_here(&guarded.join("new-20")), "what was not changed stays where it is");
        // What an agent that was killed had yet to fetch its next run fetches.
        office.kill(Part::Munich);
        (40..60).for_each(|number| write(&plain, &format!("later-{number}"), number));
        office.start(Part::Munich);
        until("names come", || guarded.join("later-59").exists());
        office.kill(Part::Munich);
        office.start(Part::Munich);
        office.settle();
        let is_whole = |number: u64| office.shown(&guarded.join(format!("later-{number}")))["tiered"] == false;
        until("their contents come", || (40..60).all(is_whole));
        // Tiered by hand it stays so: it is neither new nor changed.
        office.settle();
        until("one goes", || office.residency("tier", &guarded.join("later-40")).code == Some(0));
        office.settle();
        assert!(!is_here(&guarded.join("later-40")));

        for (name, number) in [("here", 30), ("away", 31), ("new-10", 12), ("new-20", 22), ("new-30", 32), ("later-40", 40)] {
            assert!(holds(&guarded, name, number), "{name} on {}", fs.name());
        }
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
        let shown = office.run(&["endpoint", "list", "--json"]).expect(0).json().to_string();
        assert!(shown.contains("\"download\":\"proactive\""), "{shown}");
    }
}

// semantics.md#contents-that-come
/// A new server gets names alone, or names and then content, or whole files.
#[test]
fn a_new_endpoint_gets_what_it_is_told_to_get() {
    for (initial, comes) in [("namespace", false), ("content", true), ("whole", true)] {
        let Some(office) = Office::closed(Fs::Xfs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        office.join("detroit", &plain, "off");
        let names = ["a", "b/c", "b/d/e"];
        (0..).zip(names).for_each(|(number, name)| write(&plain, name, number));
        office.settle();
        office.join_with("munich", &guarded, &["--tiering", "on", "--initial", initial]);
        until("everything has a name", || names.iter().all(|name| guarded.join(name).exists()));
        office.settle();
        if initial != "content" {
            assert_eq!(names.map(|name| is_here(&guarded.join(name))), [comes; 3], "{initial}");
        }
        until("what is to come comes", || names.iter().all(|name| is_here(&guarded.join(name)) == comes));
        // Later ones are new files as any.
        write(&plain, "later", 9);
        office.settle();
        assert!(!is_here(&guarded.join("later")), "{initial}");
        for (number, name) in (0..).zip(names) {
            assert!(holds(&guarded, name, number), "{name}, {initial}");
        }
    }
}

// semantics.md#contents-that-come
/// Contents that a new server gets after their names are the warmest, and no more of them than leave free what is asked for: nothing
/// comes only to go again.
#[test]
fn first_contents_come_as_far_as_there_is_room() {
    for fs in Fs::ALL {
        let Some(office) = Office::closed(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        office.join("detroit", &plain, "off");
        let names: Vec<String> = (0..10).map(|at| format!("plan-{at}")).collect();
        // The last ones are the warmest, and their names come last.
        (0..7).for_each(|at| old(&plain, &names[at as usize], at, 40, 100 - at));
        fs::create_dir(plain.join("many")).unwrap();
        (0..3_000).for_each(|at| old(&plain, &format!("many/{at}"), at, 0, 200));
        office.settle();
        (7..10).for_each(|at| old(&plain, &names[at as usize], at, 40, 100 - at));
        office.settle();
        let (free, total) = space(guarded.parent().unwrap());
        // Room for three or four.
        let percent = (free - 150 * MIB as u64) * 100 / total;
        office.join_with("munich", &guarded, &["--tiering", "on", "--initial", "content", "--free-space", &percent.to_string()]);
        until("everything has a name", || names.iter().all(|name| guarded.join(name).exists()));
        let here = || names.iter().filter(|name| is_here(&guarded.join(name))).count();
        until("the warmest come", || here() >= 3);
        office.settle();
        std::thread::sleep(std::time::Duration::from_secs(3)); // tidy: wait for more to come, which does not
        let came = here();
        assert!(
            (3..=4).contains(&came),
            "{came} on {}, {percent} % of {total}, {free} were free, {:?}",
            fs.name(),
            space(&guarded)
        );
        assert!(names[10 - came..].iter().all(|name| is_here(&guarded.join(name))), "the coldest on {}", fs.name());
        assert!(space(&guarded).0 >= total * percent / 100, "on {}", fs.name());
        let happened = |name: &String| office.ask_munich(&["why", guarded.join(name).to_str().unwrap(), "--json"]).expect(0).out;
        let went = names.iter().map(happened).filter(|why| why.contains("\"tiered_for")).count();
        assert_eq!(went, 0, "what came stayed, on {}", fs.name());
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#pins
/// What is pinned is here and stays, wherever it is moved, also what comes later, whatever asks for room; until it is unpinned.
#[test]
fn what_is_pinned_stays() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        let names = ["site/now/a", "site/now/deep/b", "site/old", "top"];
        (0..).zip(names).for_each(|(number, name)| write(&plain, name, number));
        office.settle();
        assert!(names.iter().all(|name| !is_here(&guarded.join(name))));
        let pinned = office.ask_munich(&["pin", guarded.join("site/now").to_str().unwrap(), "--json"]).expect(0).json();
        assert_eq!((&pinned["changed"], &pinned["files"]), (&true.into(), &2.into()), "{pinned}");
        office.ask_munich(&["pin", guarded.join("top").to_str().unwrap()]).expect(0);
        let listed = office.ask_munich(&["pin"]).expect(0).out;
        assert!(listed.contains("site/now") && listed.contains("top") && listed.lines().count() == 2, "{listed}");
        // Nothing makes it go: no policy, nobody's word, and no move.
        office.settle();
        fs::rename(guarded.join("site/now"), guarded.join("moved")).unwrap();
        office.settle();
        office.set(&["--grace", "0s", "--older-than", "1s", "--free-space", "90%"]);
        let refused = office.residency("tier", &guarded).expect(3).json();
        assert_eq!(refused["left"], 3, "{refused}");
        assert!(refused["why"].to_string().contains("pinned"), "{refused}");
        write(&plain, "moved/later", 7);
        office.settle();
        until("what comes later comes whole", || is_here(&guarded.join("moved/later")));
        office.kill(Part::Munich);
        office.start(Part::Munich);
        office.settle();
        let here = ["moved/a", "moved/deep/b", "moved/later", "top"];
        std::thread::sleep(std::time::Duration::from_secs(3)); // tidy: wait for the policies to have looked again
        for name in here {
            assert!(is_here(&guarded.join(name)), "{name} on {}", fs.name());
        }
        assert!(office.shown(&guarded.join("moved/a"))["outlook"].as_str().unwrap().contains("pinned"));
        assert!(!is_here(&guarded.join("site/old")));

        // Not even by another content from elsewhere, where nothing comes that nobody opens.
        office.set(&["--download", "on-demand"]);
        office.settle();
        write(&plain, "moved/a", 10);
        write(&plain, "top", 13);
        office.settle();
        for (name, number) in [("moved/a", 10), ("top", 13)] {
            assert!(is_here(&guarded.join(name)) && holds(&guarded, name, number), "{name} on {}", fs.name());
        }
        let unpin = |name: &str| office.ask_munich(&["unpin", guarded.join(name).to_str().unwrap()]).expect(0).out;
        assert!(unpin("moved").contains("not pinned any more") && unpin("site/old").contains("was not pinned"));
        until("it goes like any other", || {
            ["moved/a", "moved/deep/b", "moved/later"].iter().all(|name| !is_here(&guarded.join(name)))
        });
        assert!(is_here(&guarded.join("top")));
        for (name, number) in [("moved/a", 10), ("moved/deep/b", 1), ("site/old", 2), ("top", 13), ("moved/later", 7)] {
            assert!(holds(&guarded, name, number), "{name} on {}", fs.name());
        }
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#contents-that-come
/// Contents come back by name and by warmth, and no more than fits without others having to go.
#[test]
fn a_tree_comes_back_as_it_is_asked_for() {
    for fs in [Fs::Ext4, Fs::Btrfs] {
        let Some(office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        let names: Vec<String> = (0..8).map(|at| format!("plan-{at}.{}", if at < 2 { "dwg" } else { "bin" })).collect();
        for (number, name) in (0..).zip(&names) {
            fs::write(plain.join(name), text(number, 40 * MIB)).unwrap();
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs((100 - number) * 86_400);
            let times = fs::FileTimes::new().set_modified(then);
            fs::File::options().write(true).open(plain.join(name)).unwrap().set_times(times).unwrap();
        }
        office.settle();
        let here = || names.iter().filter(|name| is_here(&guarded.join(name))).cloned().collect::<Vec<_>>();
        let path = guarded.to_str().unwrap();
        assert_eq!(here(), [""; 0]);
        let asked = office.ask_munich(&["recall", path, "--pattern", "*.DWG", "--threads", "1", "--json"]).expect(0).json();
        assert_eq!((&asked["files"], &asked["seen"]), (&2.into(), &2.into()), "{asked}");
        assert_eq!(here(), names[..2]);
        // Room for two or three more, and the last ones are the warmest.
        let space = rustix::fs::statvfs(&guarded).unwrap();
        let (free, total) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
        let percent = ((free - 130 * MIB as u64) * 100 / total).to_string();
        office.set(&["--free-space", &percent]);
        office.settle();
        let asked = office.ask_munich(&["recall", path, "--order", "policy", "--json"]).expect(3).json();
        let came = asked["files"].as_u64().unwrap() as usize;
        assert!((2..=3).contains(&came), "{asked}");
        assert!(asked["why"].to_string().contains("without others having to go"), "{asked}");
        let mut expected = names[..2].to_vec();
        expected.extend_from_slice(&names[8 - came..]);
        assert_eq!(here(), expected);
    }
}
