//! Programs that are treated otherwise than those who use files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isotherm_gate::testing::Fs;

use crate::office::{Office, blocks};
use crate::policies::old;
use crate::program::until;
use crate::texts::{number_of, text};

const MIB: usize = 1 << 20;

/// `cat` by another name.
fn program(office: &Office, name: &str) -> PathBuf {
    let path = office.beside().join(name);
    fs::copy("/bin/cat", &path).unwrap();
    path
}

fn reads(program: &Path, file: &Path) -> (bool, String) {
    let ended = Command::new(program).arg(file).stdout(Stdio::null()).output().unwrap();
    (ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

// semantics.md#programs
/// A denied program gets nothing and changes nothing; what the others have does not change by that.
#[test]
fn a_program_that_is_denied_gets_no_content() {
    for fs in Fs::ALL {
        let Some(office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        office.set(&["--program", "peeker=deny", "--program", "*@65534=deny", "--download", "on-demand"]);
        for (number, name) in (0..).zip(["a", "b"]) {
            fs::write(plain.join(name), text(number, MIB)).unwrap();
        }
        office.settle();
        let peeker = program(&office, "peeker");
        for _ in 0..3 {
            let (is_read, why) = reads(&peeker, &guarded.join("a"));
            assert!(!is_read && why.contains("not permitted"), "{why} on {}", fs.name());
        }
        // By its user.
        let nobody =
            Command::new("setpriv").args(["--reuid", "65534", "--clear-groups", "cat"]).arg(guarded.join("b")).output().unwrap();
        assert!(!nobody.status.success(), "on {}", fs.name());
        assert_eq!((blocks(&guarded.join("a")), blocks(&guarded.join("b"))), (0, 0), "on {}", fs.name());
        assert_eq!(number_of(&fs::read(guarded.join("a")).unwrap()), Ok(0));
        // What is here is denied to nobody.
        assert!(reads(&peeker, &guarded.join("a")).0);
        office.set(&["--no-programs"]);
        until("the rules are gone", || reads(&peeker, &guarded.join("b")).0);
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}

// semantics.md#programs
/// A scanner reads a tree that is larger than the room for contents: it gets everything, the volume does not run full, what people use
/// stays here, what it has read is as cold as before, and whoever opens a file meanwhile has it at once.
#[test]
fn a_scanner_neither_fills_the_disk_nor_pushes_out_what_people_use() {
    for fs in [Fs::Ext4, Fs::Xfs] {
        let Some(office) = Office::open(fs) else { return };
        let (plain, guarded) = (office.plain(), office.guarded());
        office.set(&["--free-space", "50%"]);
        let names: Vec<String> = (0..48).map(|at| format!("plan-{at}")).collect();
        for (number, name) in (0..).zip(&names) {
            old(&plain, name, number, 12, 300);
        }
        office.settle();
        let used = &names[..6];
        for name in used {
            assert!(fs::read(guarded.join(name)).is_ok());
        }
        let last_use = |name: &str| office.shown(&guarded.join(name))["accessed_ms"].as_u64().unwrap();
        let before: Vec<u64> = names.iter().map(|name| last_use(name)).collect();
        let scanner = program(&office, "clamscan");
        std::thread::scope(|scope| {
            let scan = scope.spawn(|| {
                for name in names.iter().rev() {
                    let (is_read, why) = reads(&scanner, &guarded.join(name));
                    assert!(is_read, "{name}: {why} on {}", fs.name());
                }
            });
            // Somebody works meanwhile.
            while !scan.is_finished() {
                for (number, name) in (0..).zip(used) {
                    assert_eq!(number_of(&fs::read(guarded.join(name)).unwrap()), Ok(number), "on {}", fs.name());
                }
                std::thread::sleep(std::time::Duration::from_millis(50)); // tidy: wait between two looks at files
            }
        });
        let here: Vec<&String> = used.iter().filter(|name| blocks(&guarded.join(name)) > 8).collect();
        assert_eq!(here.len(), used.len(), "on {}", fs.name());
        for (name, before) in names.iter().zip(&before).skip(used.len()) {
            assert_eq!(last_use(name), *before, "{name} on {}", fs.name());
        }
        assert_eq!(office.problems(), [] as [serde_json::Value; 0]);
    }
}
