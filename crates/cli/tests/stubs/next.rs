//! What goes and comes next, and folders in folders.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use isotherm_gate::testing::Fs;
use serde_json::Value;

use crate::office::{Office, blocks};
use crate::program::until;
use crate::texts::text;

const MIB: u64 = 1 << 20;

fn paths<'a>(rows: &'a Value, folder: &Path) -> Vec<&'a str> {
    let below = |row: &'a Value| row["path"].as_str().unwrap().strip_prefix(folder.to_str().unwrap()).unwrap();
    rows.as_array().unwrap().iter().map(|row| below(row).trim_start_matches('/')).collect()
}

// semantics.md#free-space
/// What is said to go next is what goes when room is needed, in that order; what stays is no part of it; and what waits to come for want
/// of room is named.
#[test]
fn what_is_said_to_go_next_goes_next() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        let folder = guarded.to_str().unwrap().to_owned();
        office.set(&["--free-space", "0%", "--grace", "0s", "--keep", "*.keep"]);
        fs::create_dir_all(guarded.join("site/now")).unwrap();
        let names = ["old.keep", "site/now/a", "b", "site/c", "d"];
        for (at, name) in names.into_iter().enumerate() {
            fs::write(guarded.join(name), text(at as u64, 40 * MIB as usize)).unwrap();
            let then = SystemTime::now() - Duration::from_secs((40 - at as u64) * 24 * 3_600);
            File::options().write(true).open(guarded.join(name)).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
        }
        office.settle();
        let next = || office.ask_munich(&["heat", &folder, "--next", "--json"]).expect(0).json();
        // The agent may have yet to hear of the settings.
        until("all but one may go", || paths(&next()["goes"], &guarded).len() == names.len() - 1);
        let before = next();
        assert_eq!(paths(&before["goes"], &guarded), names[1..], "on {}", fs.name());
        let reasons: Vec<&Value> = before["goes"].as_array().unwrap().iter().map(|row| &row["reason"]).collect();
        assert!(before["needed"] == 0 && reasons.iter().all(|reason| *reason == "later"), "{before}");
        let two = office.ask_munich(&["heat", &folder, "--next", "--count", "2", "--json"]).expect(0).json();
        assert_eq!(paths(&two["goes"], &guarded), names[1..3], "{two}");
        let shown = office.ask_munich(&["heat", &folder, "--next"]).expect(0).out;
        assert!(shown.contains("nothing needs to go now") && shown.contains("nothing is to come"), "{shown}");

        let (free, total) = (before["free"].as_u64().unwrap(), before["total"].as_u64().unwrap());
        // Two files, or one more where what was given up counts as free only later.
        let percent = ((free + 70 * MIB) * 100 / total).to_string();
        office.set(&["--free-space", &percent, "--download", "proactive"]);
        until("as much is free as is asked for", || {
            let now = next();
            now["goal"].as_u64() > Some(0) && now["needed"] == 0
        });
        office.settle();
        let gone: Vec<&str> = names.into_iter().filter(|name| blocks(&guarded.join(name)) == 0).collect();
        assert!((2..=3).contains(&gone.len()) && gone == names[1..=gone.len()], "{gone:?} on {}", fs.name());

        fs::write(plain.join("large"), text(9, 60 * MIB as usize)).unwrap();
        office.settle();
        until("it waits to come", || paths(&next()["comes"], &guarded) == ["large"]);
        let after = next();
        let large = &after["comes"][0];
        assert_eq!((&large["reason"], &large["fits"]), (&"recalled_by_itself".into(), &false.into()), "{after}");
        assert_eq!(paths(&after["goes"], &guarded), names[gone.len() + 1..], "{after}");
        assert_eq!(blocks(&guarded.join("large")), 0, "nothing goes for it");
        tree(&office, &folder);
        assert_eq!(office.problems(), [] as [Value; 0]);
    }
}

/// Folders in folders, as a tree, as a table and as JSON.
fn tree(office: &Office, folder: &str) {
    let rows = office.ask_munich(&["heat", folder, "--tree", "--json"]).expect(0).json();
    let of =
        |path: &str| rows.as_array().unwrap().iter().find(|row| row["path"] == path).unwrap_or(&Value::Null)["bytes"].clone();
    assert_eq!((of("site"), of("site/now"), of("")), ((80 * MIB).into(), (40 * MIB).into(), (180 * MIB).into()), "{rows}");
    let flat = office.ask_munich(&["heat", folder, "--tree", "--depth", "1", "--json"]).expect(0).json();
    assert_eq!(flat.as_array().unwrap().len(), 2, "{flat}");
    let shown = office.ask_munich(&["heat", folder, "--tree"]).expect(0).out;
    assert!(shown.contains("├─ site/") && shown.contains("│  └─ now/") && shown.contains("└─ (files here)"), "{shown}");
    let table = office.ask_munich(&["heat", folder, "--tree", "--csv"]).expect(0).out;
    assert!(table.contains("\"site/now/\",1,"), "{table}");
    office.ask_munich(&["heat", folder, "--depth", "2"]).expect(2);
}
