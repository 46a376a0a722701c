//! Why a content is where it is, and what happened to it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use isotherm_gate::testing::Fs;
use serde_json::Value;

use crate::office::{Office, Part, blocks};
use crate::program::until;
use crate::texts::text;

const MIB: usize = 1 << 20;

fn why(office: &Office, path: &Path) -> Value {
    office.ask_munich(&["why", path.to_str().unwrap(), "--json"]).expect(0).json()
}

fn happened(why: &Value) -> Vec<&str> {
    why["happened"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect()
}

/// A program that reads a file, and the number of its process.
fn cat(path: &Path) -> u32 {
    let mut cat = Command::new("cat").arg(path).stdout(Stdio::null()).spawn().unwrap();
    assert!(cat.wait().unwrap().success());
    cat.id()
}

// semantics.md#what-happened
/// Whoever asks is told what made a content come and go, who waited for it and for how long, also after the agent was restarted.
#[test]
fn what_happened_to_a_content_is_told() {
    for fs in Fs::ALL {
        let Some(mut office) = Office::open(fs) else { return };
        office.set(&["--free-space", "0%", "--grace", "0s"]);
        let (plain, folder) = (office.plain(), office.guarded());
        let path = folder.join("plans/a.dwg");
        fs::create_dir_all(plain.join("plans")).unwrap();
        fs::write(plain.join("plans/a.dwg"), text(1, MIB)).unwrap();
        office.settle();
        let arrived = why(&office, &path);
        assert_eq!((&arrived["standing"], &arrived["because"]["what"]), (&"tiered".into(), &"arrived".into()), "{arrived}");

        let process = cat(&path);
        let here = why(&office, &path);
        let because = &here["because"];
        assert_eq!((&here["standing"], &because["what"]), (&"here".into(), &"recalled_by_program".into()), "{here}");
        let who = (&because["program"], &because["process"], &because["user"], &because["bytes"]);
        assert_eq!(who, (&"cat".into(), &process.into(), &0.into(), &MIB.into()), "{here}");
        assert!(because["waited_ms"].is_u64(), "{here}");

        office.settle();
        until("it goes", || office.residency("tier", &path).code == Some(0) && blocks(&path) == 0);
        let text_of = |path: &Path| office.ask_munich(&["why", path.to_str().unwrap()]).expect(0).out;
        assert!(text_of(&path).contains("somebody asked for that with `isotherm tier`"), "{}", text_of(&path));
        cat(&path);
        office.settle();
        office.set(&["--older-than", "2s"]);
        until("it goes by the policy", || blocks(&path) == 0);
        office.set(&["--older-than", "off"]);

        office.stop(Part::Munich);
        office.start(Part::Munich);
        until("the agent answers", || office.ask_munich(&["why", path.to_str().unwrap()]).code == Some(0));
        let after = why(&office, &path);
        let expected = ["tiered_for_age", "recalled_by_program", "tiered_by_command", "recalled_by_program", "arrived"];
        assert_eq!(happened(&after), expected, "on {}", fs.name());
        assert_eq!((&after["standing"], &after["outlook"]), (&"tiered".into(), &"comes when somebody opens it".into()));
        assert_eq!(office.shown(&path)["recalled"]["program"], "cat");

        // It went a moment before the agent was stopped.
        until("the catalog knows that it is tiered", || why(&office, &folder)["below"]["tiered_files"] == 1);
        let folder = why(&office, &folder);
        assert_eq!(folder["below"]["files"], 1, "{folder}");
        assert_eq!(folder["happened"][0]["path"], "plans/a.dwg", "{folder}");
        let gone = office.ask_munich(&["why", "/nowhere/a.dwg"]);
        assert!(gone.code == Some(1) && gone.err.contains("/nowhere/a.dwg") && gone.err.contains("endpoint list"), "{gone:?}");
        assert_eq!(office.problems(), [] as [Value; 0]);
    }
}

// semantics.md#what-happened
/// A file that is written anew is not said to be here because of what happened before; one that comes by itself is.
#[test]
fn what_is_told_fits_what_is_there() {
    let Some(office) = Office::open(Fs::Xfs) else { return };
    let (plain, path) = (office.plain(), office.guarded().join("a.dwg"));
    fs::write(plain.join("a.dwg"), text(1, MIB)).unwrap();
    office.settle();
    // Whoever empties it waits for nothing, and so nothing came.
    fs::write(&path, text(2, MIB)).unwrap();
    let anew = why(&office, &path);
    assert_eq!((&anew["standing"], &anew["because"], happened(&anew)), (&"here".into(), &Value::Null, vec!["arrived"]));
    office.settle();
    office.set(&["--download", "proactive"]);
    office.settle();
    fs::write(plain.join("b.dwg"), text(3, MIB)).unwrap();
    let second = office.guarded().join("b.dwg");
    until("it comes by itself", || second.exists() && blocks(&second) > 8);
    assert_eq!(happened(&why(&office, &second)), ["recalled_by_itself", "arrived"]);
    office.set(&["--download", "current"]);
    fs::create_dir(plain.join("standards")).unwrap();
    office.settle();
    office.ask_munich(&["pin", office.guarded().join("standards").to_str().unwrap()]).expect(0);
    fs::write(plain.join("standards/c.dwg"), text(4, MIB)).unwrap();
    let third = office.guarded().join("standards/c.dwg");
    until("it comes for its pin", || third.exists() && blocks(&third) > 8);
    let pinned = why(&office, &third);
    assert_eq!((&pinned["pinned"], happened(&pinned)), (&true.into(), vec!["recalled_for_pin", "arrived"]), "{pinned}");
}
