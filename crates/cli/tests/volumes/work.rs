//! People who work on both sites without a pause, and keep a journal of what they have written.
//!
//! Each file has one owner, whose site alone changes it.
//!
//! **Invariant:** nobody works while the disks are taken away.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fleet::{Fleet, SITES};
use crate::journal::{Journal, text};
use crate::{Dice, noted};

/// Folders of each endpoint in which files are.
const FOLDERS: usize = 3;

/// One thread for each site that creates, saves, moves and deletes files of its own.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Held by whoever takes the disks away; nobody works meanwhile.
    pause: Arc<RwLock<()>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Makes the folders that all work in. The fleet must be able to agree.
    pub(crate) fn prepare(fleet: &Fleet) {
        for folder in 0..FOLDERS {
            fs::create_dir_all(fleet.folder(SITES[0]).join(folder.to_string())).unwrap();
        }
        fleet.settle_clean();
    }

    /// Begins to work; `pause_ms` is the longest pause between two actions of one site.
    pub(crate) fn start(fleet: &Fleet, seed: u64, pause_ms: usize, journal: Arc<Journal>) -> Self {
        let (pause, stop) = (Arc::new(RwLock::new(())), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for (site, home) in SITES.iter().zip(fleet.homes()) {
            let mut worker = Worker {
                site,
                home: home.to_owned(),
                dice: Dice((seed ^ site.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
                own: BTreeMap::new(),
                prefix: format!("{}{seed:x}", &site[..1]),
                journal: Arc::clone(&journal),
            };
            let (pause, stop) = (Arc::clone(&pause), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    {
                        // Whoever failed with the disks in hand has said so.
                        let Ok(_working) = pause.read() else { return };
                        // It may have been told while it waited, and its disk may be gone.
                        if !stop.load(Ordering::Relaxed) {
                            worker.act();
                        }
                    }
                    std::thread::sleep(Duration::from_millis(worker.dice.roll(pause_ms) as u64)); // tidy: wait people take time
                }
            }));
        }
        Self { pause, stop, threads }
    }

    /// Ends the work, so that the fleet can come to rest.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// Does something in a moment in which nobody works.
    pub(crate) fn while_nobody_works(&self, meanwhile: impl FnOnce()) {
        let _nobody_works = self.pause.write().unwrap();
        meanwhile();
    }

    /// Ends the work in the middle of everything: nobody works while something is done, and nobody goes on after it.
    pub(crate) fn stop_for_good(self, meanwhile: impl FnOnce()) {
        let pause = Arc::clone(&self.pause);
        let _nobody_works = pause.write().unwrap();
        self.stop.store(true, Ordering::Relaxed);
        meanwhile();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a worker has failed");
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

/// The people of one site.
struct Worker {
    site: &'static str,
    home: PathBuf,
    dice: Dice,
    /// Its files, and the folder each is in.
    own: BTreeMap<String, usize>,
    prefix: String,
    journal: Arc<Journal>,
}

impl Worker {
    fn act(&mut self) {
        let action = self.dice.roll(10);
        if self.own.len() < 3 || action < 3 {
            let name = format!("{}-{}", self.prefix, noted());
            let folder = self.dice.roll(FOLDERS);
            self.save(&name, folder);
            return;
        }
        let chosen = self.dice.roll(self.own.len());
        let (name, folder) = self.own.iter().nth(chosen).map(|(name, folder)| (name.clone(), *folder)).unwrap();
        match action {
            8 => {
                let to = self.dice.roll(FOLDERS);
                if fs::rename(self.path(&name, folder), self.path(&name, to)).is_ok() {
                    self.own.insert(name, to);
                }
            }
            9 => {
                self.journal.delete(&name);
                // What a power cut took back is not there.
                let _ = fs::remove_file(self.path(&name, folder));
                self.own.remove(&name);
            }
            _ => self.save(&name, folder),
        }
    }

    fn path(&self, name: &str, folder: usize) -> PathBuf {
        self.home.join("plans").join(folder.to_string()).join(name)
    }

    /// As careful editors do: complete and durable aside, then renamed over the old version, then its name made durable.
    fn save(&mut self, name: &str, folder: usize) {
        // A power cut may have taken a move back.
        let is_there = |folder: &usize| self.path(name, *folder).exists();
        let folder = (0..FOLDERS).find(is_there).unwrap_or(folder);
        let number = self.journal.begin(name);
        self.own.insert(name.to_owned(), folder);
        if self.write(name, folder, &text(name, number)).is_ok() {
            self.journal.finish(name, number);
        }
    }

    fn write(&self, name: &str, folder: usize, bytes: &[u8]) -> io::Result<()> {
        let aside = self.home.join("aside");
        fs::create_dir_all(&aside)?;
        let aside = aside.join(self.site);
        let to = self.path(name, folder);
        let done = File::create(&aside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &to)?;
            File::open(to.parent().unwrap())?.sync_all()
        });
        done.inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    }
}
