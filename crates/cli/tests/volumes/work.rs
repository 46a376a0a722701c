//! People who work on both sites without a pause, and a journal of what they have written.
//!
//! Each content says of itself which version of which file it is, so whatever is found later is either exactly one of
//! them or torn. Each file has one owner, whose site alone changes it; its name is unique and never changes, the folder
//! it is in may.
//!
//! **Invariant:** the journal calls a version done only when its bytes and its name are durable on its site's disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::fleet::{Fleet, SITES};
use crate::tree::walk;
use crate::{Dice, noted};

/// Folders of each endpoint in which files are.
const FOLDERS: usize = 3;

/// What is known of one file.
#[derive(Debug, Clone, Default)]
struct Story {
    /// The newest version that was begun.
    begun: u64,
    /// Versions that are durable where they were written, and when they were.
    done: Vec<(u64, SystemTime)>,
    /// Somebody has begun to delete it.
    deleted: bool,
}

/// Versions that must be found: name and the oldest version that will do.
pub(crate) type Owed = BTreeMap<String, u64>;

/// What was written, by name.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<BTreeMap<String, Story>>);

impl Journal {
    /// The newest durable version of each file that nobody has begun to delete.
    pub(crate) fn done(&self) -> Owed {
        self.done_before(SystemTime::now())
    }

    /// As [`Journal::done`], of that moment.
    pub(crate) fn done_before(&self, moment: SystemTime) -> Owed {
        let stories = self.0.lock().unwrap();
        let newest = |story: &Story| story.done.iter().rev().find(|(_, at)| *at < moment).map(|(number, _)| *number);
        let lives = stories.iter().filter(|(_, story)| !story.deleted);
        lives.filter_map(|(name, story)| Some((name.clone(), newest(story)?))).collect()
    }

    /// The version of a file, if it is durable and nobody is at work on it.
    pub(crate) fn at_rest(&self, name: &str) -> Option<u64> {
        let stories = self.0.lock().unwrap();
        let story = stories.get(name).filter(|story| !story.deleted)?;
        story.done.last().map(|(number, _)| *number).filter(|number| *number == story.begun)
    }

    /// A site's disk has lost what was written after a moment.
    pub(crate) fn forget_since(&self, moment: SystemTime, prefix: &str) {
        let mut stories = self.0.lock().unwrap();
        for (_, story) in stories.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            story.done.retain(|(_, at)| *at < moment);
        }
    }

    /// How many versions were written whole.
    pub(crate) fn versions(&self) -> usize {
        self.0.lock().unwrap().values().map(|story| story.done.len()).sum()
    }

    /// Files deleted since do not count any more.
    pub(crate) fn without_deleted(&self, owed: &mut Owed) {
        let stories = self.0.lock().unwrap();
        owed.retain(|name, _| !stories[name].deleted);
    }

    /// What is wrong in a folder: torn files, files that nobody wrote, and owed versions that are not there.
    pub(crate) fn complaints(&self, folder: &Path, owed: &Owed) -> Vec<String> {
        let stories = self.0.lock().unwrap();
        let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
        for path in walk(folder).into_iter().filter(|path| folder.join(path).is_file()) {
            let bytes = fs::read(folder.join(&path)).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match whole(&bytes) {
                None => wrong.push(format!("{path:?} is torn: {} bytes, {:?}", bytes.len(), head(&bytes))),
                Some((says, number)) if says != name || stories.get(&name).is_none_or(|story| story.begun < number) => {
                    wrong.push(format!("{path:?} holds version {number} of {says:?}"));
                }
                Some((_, number)) => {
                    if found.insert(name, number).is_some() {
                        wrong.push(format!("{path:?} is there twice"));
                    }
                }
            }
        }
        for (name, number) in owed.iter().filter(|(name, _)| !stories[*name].deleted) {
            match found.get(name) {
                None => wrong.push(format!("{name} is lost, which was there in version {number}: {:?}", stories[name])),
                Some(has) if has < number => wrong.push(format!("{name} is version {has} again after {number}")),
                Some(_) => {}
            }
        }
        wrong
    }

    fn begin(&self, name: &str) -> u64 {
        let mut stories = self.0.lock().unwrap();
        let story = stories.entry(name.to_owned()).or_default();
        story.begun += 1;
        story.begun
    }

    fn finish(&self, name: &str, number: u64) {
        self.0.lock().unwrap().get_mut(name).unwrap().done.push((number, SystemTime::now()));
    }
}

fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
}

/// The content of a version: a line that names it, and bytes that only it has.
fn text(name: &str, number: u64) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (name, number).hash(&mut hasher);
    let mut dice = Dice(hasher.finish() | 1);
    let most = [100, 3_000, 30_000, 300_000][dice.roll(4)];
    let size = dice.roll(most);
    let mut bytes = format!("{name} {number} {size}\n").into_bytes();
    let line = bytes.len();
    while bytes.len() < line + size {
        bytes.extend((dice.roll(usize::MAX) as u64).to_le_bytes());
    }
    bytes.truncate(line + size);
    bytes
}

/// Name and number of a version, if these bytes are exactly it.
fn whole(bytes: &[u8]) -> Option<(String, u64)> {
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..line]).ok()?;
    let mut words = line.split(' ');
    let (name, number) = (words.next()?, words.next()?.parse().ok()?);
    (text(name, number) == bytes).then(|| (name.to_owned(), number))
}

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
                        let _working = pause.read().unwrap();
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
                self.journal.0.lock().unwrap().get_mut(&name).unwrap().deleted = true;
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
