//! A volume with a post before it, and contents that come from memory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isotherm_agent::recall::{Ahead, Candidate, FetchFailure, Recall, Source, Take};
use isotherm_agent::volume::Errand;
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Timestamp, Version};
use isotherm_core::stub::{Bound, ContentPrefix, StubRecord, Units};
use isotherm_core::trees::{Handle, Print};
use isotherm_gate::guard::{Group, Post};
use isotherm_gate::testing::LoopVolume;
use isotherm_gate::{Inode, Root, StubFile};

/// Contents by the ids that records name; each is given in pieces.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) known: Mutex<BTreeMap<ContentPrefix, Vec<u8>>>,
    pub(crate) fetched: AtomicUsize,
    pub(crate) given_up: AtomicUsize,
    /// The service is away.
    pub(crate) away: AtomicBool,
    /// Contents of a mebibyte and more do not come.
    pub(crate) stuck: AtomicBool,
    pub(crate) pause: Mutex<Duration>,
    /// From this offset on nothing comes; nothing is held where it is zero.
    pub(crate) hold_at: AtomicUsize,
    /// Somebody waits there.
    pub(crate) held: AtomicBool,
    /// From the next piece on the share has nothing of it any more.
    pub(crate) breaks: AtomicBool,
    /// When the contents were written, where that is known.
    pub(crate) modified: Mutex<Option<i64>>,
}

impl Source for Contents {
    fn fetch(
        &self,
        (_, record): (&Handle, &StubRecord),
        units: &Units,
        _ahead: &Ahead,
        take: &mut Take<'_>,
        errand: &Errand<'_>,
    ) -> Result<(), FetchFailure> {
        let go_on = errand.go_on;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let content = self.known.lock().unwrap().get(&record.content).cloned();
        let content = content.ok_or_else(|| FetchFailure::Content("The share has no such content".to_owned()))?;
        let is_wanted = |(at, piece): &(usize, &[u8])| {
            let (from, size) = (*at as u64 * 100_000, content.len() as u64);
            units.bytes(size).any(|bytes| from < bytes.end && bytes.start < from + piece.len() as u64)
        };
        for (at, piece) in content.chunks(100_000).enumerate().filter(is_wanted) {
            let is_large = content.len() >= 1 << 20;
            let waits = || self.away.load(Ordering::Relaxed) || is_large && self.stuck.load(Ordering::Relaxed);
            let is_held = || (1..=at * 100_000).contains(&self.hold_at.load(Ordering::Relaxed));
            while (waits() || is_held()) && go_on() {
                self.held.store(is_held(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2)); // tidy: wait as for a service that is away
            }
            std::thread::sleep(*self.pause.lock().unwrap()); // tidy: wait as a slow network does
            self.held.store(false, Ordering::Relaxed);
            if !go_on() {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                return Err(FetchFailure::NotWanted);
            }
            (errand.heard)();
            if self.breaks.load(Ordering::Relaxed) {
                return Err(FetchFailure::Content("The share has no such content".to_owned()));
            }
            take(at as u64 * 100_000, piece)?;
        }
        Ok(())
    }

    fn is_dense(&self, _file: &Handle, _record: &StubRecord) -> Result<bool, FetchFailure> {
        Ok(true)
    }

    fn shows_offline(&self, _file: &Handle) -> bool {
        true
    }

    fn modified(&self, _file: &Handle, _record: &StubRecord) -> Option<i64> {
        *self.modified.lock().unwrap()
    }
}

pub(crate) struct Bench<'a> {
    pub(crate) volume: &'a LoopVolume,
    pub(crate) root: Arc<Root>,
    pub(crate) post: Arc<Post>,
    pub(crate) contents: Arc<Contents>,
    pub(crate) recall: Option<Recall>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(volume: &'a LoopVolume) -> Self {
        let root = Arc::new(Root::open(volume.path()).unwrap());
        let group = Group::new().unwrap();
        group.spare_mount(root.dir()).unwrap();
        let (post, contents) = (Arc::new(Post::new(group)), Arc::new(Contents::default()));
        let mut bench = Self { volume, root, post, contents, recall: None };
        bench.start();
        bench
    }

    pub(crate) fn start(&mut self) {
        let source: Arc<dyn Source> = Arc::<Contents>::clone(&self.contents);
        self.recall = Some(Recall::start(Arc::clone(&self.root), self.post.clone(), source, None, Box::new(|_| ())).unwrap());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.volume.path().join(name)
    }

    fn inode(&self, name: &str) -> Inode {
        self.root.dir().inode(OsStr::new(name)).unwrap()
    }

    /// Makes a file with this content, and then a stub of it.
    pub(crate) fn stub(&self, name: &str, content: &[u8], mode: u32) -> StubFile {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let inode = self.inode(name);
        let before = inode.stat().unwrap();
        let file = StubFile::open(&inode).unwrap();
        self.post.group().guard_file(self.root.open_for_mark(&before.handle).unwrap()).unwrap();
        // A program that another test starts has it open for a moment between fork and exec.
        wait_until(|| {
            let is_alone = file.take_alone().unwrap();
            file.let_others_in().unwrap();
            is_alone
        });
        let prefix = ContentPrefix::of(&ManifestId::of(content));
        self.contents.known.lock().unwrap().insert(prefix, content.to_vec());
        let bound = Bound::to(&Handle(before.handle.to_bytes().into()));
        let record =
            StubRecord { node: NodeId([7; 16]), version: Version(1), content: prefix, size: content.len() as u64, bound };
        file.set_record(&record.encode()).unwrap();
        file.flush().unwrap();
        file.give_up().unwrap();
        inode.set_mtime(before.mtime_ns).unwrap();
        assert!(!file.has_data().unwrap());
        file
    }

    /// A file that has this content now, as one that may become a stub; the share has it from now on.
    pub(crate) fn candidate(&self, name: &str, content: &[u8]) -> Option<Candidate> {
        let stat = self.root.dir().stat(OsStr::new(name)).unwrap()?;
        let prefix = ContentPrefix::of(&ManifestId::of(content));
        self.contents.known.lock().unwrap().insert(prefix, content.to_vec());
        let file = Handle(stat.handle.to_bytes().into());
        let print =
            Print { size: stat.size, modified: Timestamp(stat.mtime_ns), changed: Timestamp(stat.ctime_ns), links: stat.nlink };
        let (size, bound) = (content.len() as u64, Bound::to(&file));
        let record = StubRecord { node: NodeId([7; 16]), version: Version(1), content: prefix, size, bound };
        Some(Candidate { file, print, record })
    }

    pub(crate) fn fetched(&self) -> usize {
        self.contents.fetched.load(Ordering::Relaxed)
    }
}

pub(crate) fn noise(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect()
}

pub(crate) fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it did not happen within 20 seconds");
        std::thread::sleep(Duration::from_millis(1)); // tidy: wait between looks, with a deadline above
    }
}
