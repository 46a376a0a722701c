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

/// What is found in a folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Torn files, files that nobody wrote, and owed versions that are not there.
    pub(crate) wrong: Vec<String>,
    /// Whole versions under another name: conflict copies.
    pub(crate) copies: Vec<String>,
}

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
        self.forget_between(moment, SystemTime::now(), prefix);
    }

    /// A site's disk may have lost what was written between two moments.
    pub(crate) fn forget_between(&self, from: SystemTime, to: SystemTime, prefix: &str) {
        let mut stories = self.0.lock().unwrap();
        for (_, story) in stories.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            story.done.retain(|(_, at)| *at < from || *at > to);
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

    /// Looks at everything in a folder, and for what is owed.
    pub(crate) fn look(&self, folder: &Path, owed: &Owed) -> Found {
        let stories = self.0.lock().unwrap();
        let (mut here, mut found) = (BTreeMap::new(), Found::default());
        for path in walk(folder).into_iter().filter(|path| folder.join(path).is_file()) {
            let bytes = fs::read(folder.join(&path)).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let known = |(says, number): &(String, u64)| stories.get(says).is_some_and(|story| *number <= story.begun);
            match whole(&bytes) {
                None => found.wrong.push(format!("{path:?} is torn: {} bytes, {:?}", bytes.len(), head(&bytes))),
                Some(text) if !known(&text) => found.wrong.push(format!("{path:?} holds what nobody wrote: {text:?}")),
                Some((says, number)) if says == name => {
                    if here.insert(says, number).is_some() {
                        found.wrong.push(format!("{path:?} is there twice"));
                    }
                }
                Some((says, number)) => found.copies.push(format!("{path:?} holds version {number} of {says}")),
            }
        }
        for (name, number) in owed.iter().filter(|(name, _)| !stories[*name].deleted) {
            match here.get(name) {
                None => found.wrong.push(format!("{name} is lost, which was there in version {number}: {:?}", stories[name])),
                Some(has) if has < number => found.wrong.push(format!("{name} is version {has} again after {number}")),
                Some(_) => {}
            }
        }
        found
    }

    /// Waits for rest. What everybody wrote has to be everywhere, once; nobody has to deal with anything, and the service
    /// has all that it names. Gives the number of names.
    #[track_caller]
    pub(crate) fn check(&self, fleet: &Fleet) -> usize {
        let (names, copies) = self.check_but_copies(fleet);
        let conflicts = fleet.run(&["conflicts"]);
        assert!(copies.is_empty() && conflicts.code == Some(0), "{conflicts:?}\n{}", copies.join("\n"));
        names
    }

    /// As [`Journal::check`], where conflict copies are no fault; gives them, too.
    #[track_caller]
    pub(crate) fn check_but_copies(&self, fleet: &Fleet) -> (usize, Vec<String>) {
        fleet.settle();
        let folders = fleet.folders();
        let names = assert_equal(&folders[0], &folders[1]);
        let Found { mut wrong, copies } = self.look(&folders[1], &self.done());
        for command in [&["problems"][..], &["service", "check", "--deep"]] {
            let shown = fleet.run(command);
            if shown.code != Some(0) {
                wrong.push(format!("{command:?}: {shown:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        (names, copies)
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

fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
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
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..line]).ok()?;
    let mut words = line.split(' ');
    let (name, number) = (words.next()?, words.next()?.parse().ok()?);
    (text(name, number) == bytes).then(|| (name.to_owned(), number))
}
