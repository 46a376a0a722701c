//! Service and agents are killed again and again while people work on both sites: nothing is lost, and no conflict copy
//! appears that no user caused.
//!
//! Each file has one owner, whose site alone changes it, so that what each must be in the end is known.
//!
//! **Invariant:** a name is unique and never changes; the folder it is in may.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::tree::{assert_equal, walk};
use crate::{Dice, rounds, seed};

/// What each file must be in the end.
struct Users {
    dice: Dice,
    next: usize,
    /// Owner and content of each file that lives.
    files: BTreeMap<String, (usize, Vec<u8>)>,
}

impl Users {
    fn act(&mut self, fleet: &Fleet) {
        let site = self.dice.roll(SITES.len());
        let folder = fleet.folder(SITES[site]);
        let paths = walk(&folder);
        let own = |path: &&PathBuf| self.files.get(name(path)).is_some_and(|(owner, _)| *owner == site);
        let own: Vec<&PathBuf> = paths.iter().filter(own).collect();
        let folders: Vec<&PathBuf> = paths.iter().filter(|path| folder.join(path).is_dir()).collect();
        let action = self.dice.roll(12);
        if own.is_empty() || action < 4 {
            let inside = if folders.is_empty() { Path::new("") } else { folders[self.dice.roll(folders.len())] };
            self.create(site, &folder.join(inside));
            return;
        }
        let path = folder.join(own[self.dice.roll(own.len())]);
        match action {
            4 | 5 => self.change(&path, |path, text| fs::write(path, text)),
            6 | 7 => self.change(&path, save_as_editors_do),
            8 => self.append(&path),
            9 => {
                let to = folders.get(self.dice.roll(folders.len().max(1))).map_or(folder.clone(), |inside| folder.join(inside));
                // What goes away meanwhile was renamed by the other site.
                let _ = fs::rename(&path, to.join(name(&path)));
            }
            10 => {
                if fs::remove_file(&path).is_ok() {
                    self.files.remove(name(&path));
                }
            }
            _ => self.rename_folder(site, &folder, &folders),
        }
    }

    fn create(&mut self, site: usize, inside: &Path) {
        self.next += 1;
        let name = format!("{}-{}.txt", self.next, &SITES[site][..1]);
        let text = self.text(site);
        if fs::write(inside.join(&name), &text).is_ok() {
            self.files.insert(name, (site, text));
        }
    }

    fn text(&mut self, site: usize) -> Vec<u8> {
        let size = [10, 3_000, 200_000][self.dice.roll(3)];
        (0..size).map(|_| b'a' + u8::try_from(self.dice.roll(26)).unwrap()).chain(SITES[site].bytes()).collect()
    }

    fn change(&mut self, path: &Path, write: impl FnOnce(&Path, &[u8]) -> std::io::Result<()>) {
        let site = self.files[name(path)].0;
        let text = self.text(site);
        // A folder that is renamed meanwhile takes the file along; then nothing was written.
        if path.exists() && write(path, &text).is_ok() {
            self.files.insert(name(path).to_owned(), (site, text));
        }
    }

    fn append(&mut self, path: &Path) {
        let Ok(mut file) = fs::File::options().append(true).open(path) else { return };
        file.write_all(b"one more line\n").unwrap();
        self.files.get_mut(name(path)).unwrap().1.extend(b"one more line\n");
    }

    /// Each site renames folders of its own.
    fn rename_folder(&mut self, site: usize, folder: &Path, folders: &[&PathBuf]) {
        let own: Vec<_> = folders.iter().filter(|path| name(path).starts_with(SITES[site])).collect();
        let from = folder.join(own[self.dice.roll(own.len())]);
        self.next += 1;
        let _ = fs::rename(&from, from.with_file_name(format!("{} {}", SITES[site], self.next)));
    }

    /// Checks that each file is there once, with its content, and that nothing else is.
    fn check(&self, folder: &Path) {
        let mut missing = self.files.clone();
        // An editor whose folder was renamed in the middle of a save leaves its second file there.
        let is_left = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "swx~");
        for path in walk(folder).into_iter().filter(|path| folder.join(path).is_file() && !is_left(path)) {
            let (_, text) = missing.remove(name(&path)).unwrap_or_else(|| {
                let same: Vec<_> = walk(folder).into_iter().filter(|other| name(other) == name(&path)).collect();
                panic!("{path:?} should not be there; files of this name: {same:?}")
            });
            let found = fs::read(folder.join(&path)).unwrap();
            assert!(found == text, "{path:?}: {} bytes instead of {}", found.len(), text.len());
        }
        assert!(missing.is_empty(), "lost: {:?}", missing.keys());
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn save_as_editors_do(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("swx~");
    fs::write(&aside, text)?;
    fs::rename(&aside, path).inspect_err(|_| {
        let _ = fs::remove_file(&aside);
    })
}

/// Kills one part of the product or several; gives which to start again.
fn kill_some(fleet: &mut Fleet, dice: &mut Dice) -> [bool; 3] {
    let which = 1 + dice.roll(7);
    let killed = [which & 1 != 0, which & 2 != 0, which & 4 != 0];
    for (site, killed) in SITES.iter().zip(killed) {
        if killed {
            fleet.kill_agent(site);
        }
    }
    if killed[2] {
        fleet.kill_service();
    }
    killed
}

fn campaign(kinds: [Fs; 2], start: u64) {
    let Some(mut fleet) = Fleet::sharing(kinds, &["--delete-limit", "100%"]) else { return };
    let mut users = Users { dice: Dice(seed(start)), next: 0, files: BTreeMap::new() };
    for site in SITES {
        for number in 0..3 {
            fs::create_dir(fleet.folder(site).join(format!("{site} {number}"))).unwrap();
        }
    }
    fleet.settle_clean();
    let rounds = rounds(5, 20);
    for _ in 0..rounds {
        for _ in 0..30 {
            users.act(&fleet);
            std::thread::sleep(Duration::from_millis(users.dice.roll(60) as u64)); // tidy: wait people take time
        }
        let killed = kill_some(&mut fleet, &mut users.dice);
        for _ in 0..10 {
            users.act(&fleet);
        }
        if killed[2] {
            fleet.start_service();
        }
        for (site, killed) in SITES.iter().zip(killed) {
            if killed {
                fleet.spawn_agent(site);
            }
        }
    }
    fleet.settle_clean();
    let names = assert_equal(&fleet.folder(SITES[0]), &fleet.folder(SITES[1]));
    users.check(&fleet.folder(SITES[1]));
    println!("{kinds:?}: {names} names after {} files were made", users.next);
    println!("CAMPAIGN rounds={rounds} files_made={}", users.next);
}

// semantics.md#acknowledged-is-durable, #offline-work; rows 21 and 25
#[test]
fn case_21_kills_lose_nothing_and_make_no_conflicts_from_ext4_to_xfs() {
    campaign([Fs::Ext4, Fs::Xfs], 0x9E37_79B9);
}

#[test]
fn case_21_kills_lose_nothing_and_make_no_conflicts_from_xfs_to_ext4() {
    campaign([Fs::Xfs, Fs::Ext4], 0x51_7CC1);
}

// semantics.md#whole-files: what an interrupted fetch leaves in the staging folder is nobody's file
#[test]
fn a_large_file_whose_fetch_was_killed_is_one_file() {
    let Some(mut fleet) = Fleet::on([Fs::Ext4, Fs::Xfs], 700) else { return };
    fleet.share(&[]);
    fleet.settle_clean();
    fleet.stop_agent(SITES[1]);
    let mut dice = Dice(seed(0xD1));
    let noise: Vec<u8> = (0..20_000_000).flat_map(|_| (dice.roll(1 << 30) as u64).to_le_bytes()).collect();
    fs::write(fleet.folder(SITES[0]).join("large.bin"), &noise).unwrap();
    wait_until(|| fleet.stored() >= noise.len() as u64 / 2 && fleet.run(&["status"]).code == Some(0));
    let staging = fleet.folder(SITES[1]).join(".isotherm/staging");
    let parts = || fs::read_dir(&staging).unwrap().flatten().filter(|one| one.file_name().to_string_lossy().starts_with("part-"));
    let mut met = 0;
    for _ in 0..4 {
        fleet.spawn_agent(SITES[1]);
        wait_until(|| parts().next().is_some() || fleet.folder(SITES[1]).join("large.bin").exists());
        fleet.kill_agent(SITES[1]);
        met += parts().count();
    }
    assert!(met > 0, "no fetch was met");
    fleet.spawn_agent(SITES[1]);
    fleet.settle_clean();
    assert_eq!(assert_equal(&fleet.folder(SITES[0]), &fleet.folder(SITES[1])), 1);
    assert_eq!(parts().count(), 0);
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(std::time::Instant::now() < until, "it did not happen within two minutes");
        std::thread::sleep(Duration::from_millis(20)); // tidy: wait between looks, with a deadline above
    }
}
