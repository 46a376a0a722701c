//! A server burns down under load: what its agent had called safe before is read back on a new and empty server.
//!
//! Safe is what `isotherm file show` calls synced, and everything that `isotherm status` covers when it says that nothing
//! is missing in the share.
//!
//! **Invariant:** only what was called safe is asked for; what was newer may be lost with the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use isotherm_gate::testing::Fs;
use serde_json::Value;

use crate::fleet::{Fleet, SITES};
use crate::journal::{Journal, Owed};
use crate::program::isotherm;
use crate::tree::{assert_equal, walk};
use crate::work::Workers;
use crate::{Dice, rounds, seed, sized};

/// What a status covers is what had been written so long before it was reported: the kernel tells the agent of a write
/// after it has happened.
const NOTICED: Duration = Duration::from_secs(2);

/// What was called safe, and how often something was.
#[derive(Debug, Default)]
struct Promised {
    owed: Owed,
    by_file: usize,
    by_status: usize,
}

impl Promised {
    fn add(&mut self, name: String, number: u64) {
        let owed = self.owed.entry(name).or_default();
        *owed = number.max(*owed);
    }

    /// Asks the agent for one of the site's files.
    fn ask_of_file(&mut self, fleet: &Fleet, site: &str, path: &Path, journal: &Journal) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(before) = journal.at_rest(name) else { return };
        let (state, path) = (fleet.state(site), fleet.folder(site).join(path));
        let shown = isotherm(&["file", "show", path.to_str().unwrap(), "--state", state.to_str().unwrap(), "--json"]);
        // It may have been moved or deleted meanwhile.
        if shown.code == Some(0) && shown.json()["state"] == "synced" && journal.at_rest(name) == Some(before) {
            self.by_file += 1;
            self.add(name.to_owned(), before);
        }
    }

    /// Takes the word of a status that says that everything is in the share.
    fn ask_of_all(&mut self, fleet: &Fleet, site: &str, journal: &Journal) {
        let status = fleet.run(&["status", "--json"]).json();
        let ends = status["groups"][0]["endpoints"].as_array().unwrap();
        let one = ends.iter().find(|one| one["endpoint"]["server"] == fleet.server(site)).unwrap();
        let report = &one["report"];
        let is_safe = report["unsafe_since_ms"].is_null() && report["counts"]["unsynced_items"] == 0;
        // While it compares after a start, it does not know yet.
        let knows = matches!(&report["state"], Value::String(state) if state == "synced" || state == "syncing");
        if is_safe && knows {
            self.by_status += 1;
            let reported = UNIX_EPOCH + Duration::from_millis(one["reported_ms"].as_u64().unwrap());
            let own = |name: &String| name.starts_with(&site[..1]);
            for (name, number) in journal.done_before(reported - NOTICED).into_iter().filter(|(name, _)| own(name)) {
                self.add(name, number);
            }
        }
    }
}

/// Looks at files and status again and again while all are at work.
fn ask(fleet: &Fleet, site: &str, dice: &mut Dice, journal: &Journal, promised: &mut Promised) {
    let own = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&site[..1]);
    for _ in 0..sized(100, 150) {
        let paths: Vec<PathBuf> = walk(&fleet.folder(site)).into_iter().filter(own).collect();
        if !paths.is_empty() {
            promised.ask_of_file(fleet, site, &paths[dice.roll(paths.len())], journal);
        }
        promised.ask_of_all(fleet, site, journal);
        std::thread::sleep(Duration::from_millis(dice.roll(100) as u64)); // tidy: wait an administrator looks now and then
    }
}

/// Works and asks for a while; then the server is lost, and a new one has to have everything.
fn lose_one(fleet: &mut Fleet, dice: &mut Dice, journal: &Arc<Journal>, round: u64) {
    let site = SITES[dice.roll(SITES.len())];
    let mut promised = Promised::default();
    // With pauses in which all can become safe, and then without a moment of rest until the end.
    let calm = Workers::start(fleet, round * 2, 1_500, Arc::clone(journal));
    ask(fleet, site, dice, journal, &mut promised);
    calm.stop();
    let busy = Workers::start(fleet, round * 2 + 1, 60, Arc::clone(journal));
    ask(fleet, site, dice, journal, &mut promised);
    let id = fleet.endpoint_id(site);
    busy.stop_for_good(|| fleet.lose(site));
    fleet.run(&["endpoint", "delete", &id, "--forget"]).expect(0);
    fleet.start_agent(site);
    fleet.join(site);
    fleet.settle();
    assert_equal(&fleet.folder(SITES[0]), &fleet.folder(SITES[1]));
    let mut owed = promised.owed;
    journal.without_deleted(&mut owed);
    let wrong = journal.look(&fleet.folder(site), &owed);
    assert!(wrong.is_empty(), "{site}, round {round}:\n{}", wrong.join("\n"));
    journal.keep_what_is_in(&fleet.folder(site), &site[..1]);
    assert!(owed.len() > 3, "hardly anything was called safe: {owed:?}");
    let (by_file, by_status) = (promised.by_file, promised.by_status);
    println!("CAMPAIGN rounds=1 files_called_safe={} asked_by_file={by_file} asked_by_status={by_status}", owed.len());
}

// semantics.md#acknowledged-is-durable
#[test]
fn what_was_called_safe_is_read_back_after_its_server_is_lost() {
    let Some(mut fleet) = Fleet::sharing([Fs::Ext4, Fs::Xfs], &["--delete-limit", "100%"]) else { return };
    Workers::prepare(&fleet);
    let (mut dice, journal) = (Dice(seed(0x1057)), Arc::new(Journal::default()));
    for round in 0..rounds(1, 10) {
        lose_one(&mut fleet, &mut dice, &journal, round as u64);
    }
    println!("CAMPAIGN versions_written={}", journal.versions());
}
