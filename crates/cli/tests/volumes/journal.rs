//! A journal of what people have written, and a look at what is found later.
//!
//! Each content says of itself which version of which file it is, so whatever is found is either exactly one of them or
//! torn. A file's name is unique and never changes; the folder it is in may.
//!
//! **Invariant:** the journal calls a version done only when its bytes and its name are durable on its site's disk.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::Dice;
use crate::fleet::Fleet;
use crate::tree::{assert_equal, walk};

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

    /// A site's disk was lost: from now on only what is in this folder counts.
    pub(crate) fn keep_what_is_in(&self, folder: &Path, prefix: &str) {
        let found = walk(folder).into_iter().filter_map(|path| whole(&fs::read(folder.join(path)).ok()?));
        let here: BTreeMap<String, u64> = found.collect();
        let mut stories = self.0.lock().unwrap();
        for (name, story) in stories.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            story.done.retain(|(number, _)| here.get(name).is_some_and(|has| number <= has));
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

    /// What is wrong in a folder: torn files, files that nobody wrote, conflict copies, and what is owed and not there.
    pub(crate) fn look(&self, folder: &Path, owed: &Owed) -> Vec<String> {
        let stories = self.0.lock().unwrap();
        let (mut here, mut wrong) = (BTreeMap::new(), Vec::new());
        for path in walk(folder).into_iter().filter(|path| folder.join(path).is_file()) {
            let bytes = fs::read(folder.join(&path)).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            match whole(&bytes) {
                None => wrong.push(format!("{path:?} is torn: {}", torn(&bytes))),
                Some((says, number)) if says != name || stories.get(name).is_none_or(|story| story.begun < number) => {
                    wrong.push(format!("{path:?} holds version {number} of {says}"));
                }
                Some((says, number)) => {
                    if here.insert(says, number).is_some() {
                        wrong.push(format!("{path:?} is there twice"));
                    }
                }
            }
        }
        for (name, number) in owed.iter().filter(|(name, _)| !stories[*name].deleted) {
            match here.get(name) {
                None => wrong.push(format!("{name} is lost, which was there in version {number}: {:?}", stories[name])),
                Some(has) if has < number => wrong.push(format!("{name} is version {has} again after {number}")),
                Some(_) => {}
            }
        }
        wrong
    }

    /// Waits for rest. What everybody wrote has to be everywhere, once; nobody has to deal with anything, and the service
    /// has all that it names. Gives the number of names.
    #[track_caller]
    pub(crate) fn check(&self, fleet: &Fleet) -> usize {
        fleet.settle();
        let folders = fleet.folders();
        let names = assert_equal(&folders[0], &folders[1]);
        let mut wrong = self.look(&folders[1], &self.done());
        for command in [&["conflicts"][..], &["problems"], &["service", "check", "--deep"]] {
            let shown = fleet.run(command);
            if shown.code != Some(0) {
                wrong.push(format!("{command:?}: {shown:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        names
    }

    /// Somebody begins to write the next version; gives its number.
    pub(crate) fn begin(&self, name: &str) -> u64 {
        let mut stories = self.0.lock().unwrap();
        let story = stories.entry(name.to_owned()).or_default();
        story.begun += 1;
        story.begun
    }

    /// Somebody begins to delete a file.
    pub(crate) fn delete(&self, name: &str) {
        self.0.lock().unwrap().get_mut(name).unwrap().deleted = true;
    }

    /// A version is durable.
    pub(crate) fn finish(&self, name: &str, number: u64) {
        self.0.lock().unwrap().get_mut(name).unwrap().done.push((number, SystemTime::now()));
    }
}

/// What a file holds that is no version: the version that it says it is, and where it is something else.
fn torn(bytes: &[u8]) -> String {
    let Some((name, number)) = says(bytes) else {
        return format!("{} bytes, which begin with {:?}", bytes.len(), &bytes[..bytes.len().min(20)]);
    };
    let meant = text(&name, number);
    let differs = |at: &usize| bytes.get(*at) != meant.get(*at);
    let (first, last) = ((0..meant.len()).find(differs), (0..meant.len()).rfind(differs));
    let range = &bytes[first.unwrap_or(0).min(bytes.len())..last.map_or(0, |last| last + 1).min(bytes.len())];
    let zeros = range.iter().filter(|byte| **byte == 0).count();
    let (is, of) = (bytes.len(), meant.len());
    format!(
        "version {number} of {name}, {is} bytes of {of}, other from {first:?} to {last:?}, {zeros} zeros among {}",
        range.len()
    )
}

/// The content of a version: a line that names it, and bytes that only it has.
pub(crate) fn text(name: &str, number: u64) -> Vec<u8> {
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
    says(bytes).filter(|(name, number)| text(name, *number) == bytes)
}

/// Name and number of the version that these bytes say they are.
fn says(bytes: &[u8]) -> Option<(String, u64)> {
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&bytes[..line]).ok()?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}
