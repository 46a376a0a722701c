//! People at work on a guarded volume, who know what each file has to hold.
//!
//! One at a time works on a file, so what he reads is what the last one wrote, to the byte; or he gets an errno, and then
//! nothing has changed. A second kind of file is written on the other server only, and read here.
//!
//! **Invariant:** a wrong byte ends everything at once, with the file and what was in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use isotherm_gate::testing::SharedMapping;
use rustix::io::Errno;

use crate::Dice;
use crate::texts::{number_of, text};
use crate::witness;

/// Between two deeds of one person.
const PACE: std::time::Duration = std::time::Duration::from_millis(4);
/// Largest text, in bytes.
const TEXT_MAX: usize = 200_000;

/// What a caller may be told while parts of the product die: the content cannot be had, did not come in time, or ask again; and what
/// the kernel says by itself whose question dies with the gate.
pub(crate) const EXCUSES: [Errno; 4] = [Errno::IO, Errno::BUSY, Errno::AGAIN, Errno::PERM];

/// A file and what it has to hold.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    bytes: Vec<u8>,
    renames: u32,
}

/// Everybody, and what they know.
#[derive(Debug)]
pub(crate) struct Users {
    known: Arc<Vec<Mutex<Known>>>,
    ends: Arc<AtomicBool>,
    pub(crate) done: Arc<AtomicU64>,
    pub(crate) excused: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// Whether it is what the death of somebody may come to.
pub(crate) fn is_excused(error: &Error) -> bool {
    EXCUSES.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Users {
    /// `people` work on `files` files in `folder`, which they make first.
    pub(crate) fn begin(folder: &Path, files: usize, people: usize, mut dice: Dice) -> Self {
        let make = |at: usize| {
            let (path, bytes) = (folder.join(format!("own-{at}")), text(at as u64, 10_000 + dice.roll(TEXT_MAX)));
            fs::write(&path, &bytes).unwrap();
            Mutex::new(Known { path, bytes, renames: 0 })
        };
        let known: Arc<Vec<Mutex<Known>>> = Arc::new((0..files).map(make).collect());
        let mut users = Self { known, ends: Arc::default(), done: Arc::default(), excused: Arc::default(), threads: Vec::new() };
        for person in 0..people {
            let (known, ends, dice) = (Arc::clone(&users.known), Arc::clone(&users.ends), Dice(dice.roll(1 << 40) as u64 | 1));
            let (done, excused) = (Arc::clone(&users.done), Arc::clone(&users.excused));
            users.threads.push(std::thread::spawn(move || work(person, &known, &ends, (&done, &excused), dice)));
        }
        users
    }

    /// Everybody goes home; gives what each file has to hold, by its name.
    pub(crate) fn end(self) -> Vec<(String, Vec<u8>)> {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let known = self.known.iter().map(|known| {
            let known = known.lock().unwrap();
            (known.path.file_name().unwrap().to_str().unwrap().to_owned(), known.bytes.clone())
        });
        known.collect()
    }
}

fn work(person: usize, known: &[Mutex<Known>], ends: &AtomicBool, (done, excused): (&AtomicU64, &AtomicU64), mut dice: Dice) {
    let mut next = (person as u64 + 1) << 32;
    while !ends.load(Ordering::Relaxed) {
        let at = dice.roll(known.len());
        let Ok(mut file) = known[at].try_lock() else { continue };
        next += 1;
        std::thread::sleep(PACE); // tidy: wait nobody works faster than sync can follow
        match deed(&mut file, next, &mut dice) {
            Ok(()) => {
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if is_excused(&error) => {
                excused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A removal takes what has the name away, looks at it, and puts it back if it is another file: what somebody saved
                // there in that moment is away for as long. What the file holds is compared by whoever comes next.
                let neighbours = neighbours(&file.path);
                assert!(file.path.exists(), "person {person}: {}: {error}; {neighbours}", file.path.display());
                println!("AWAY for a moment: person {person}: {}: {error}; {neighbours}", file.path.display());
                excused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("person {person}: {}: {error}", file.path.display()),
        }
    }
}

/// What stands where a file should be that is not there, at once and half a second later.
fn neighbours(path: &Path) -> String {
    let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let look = || {
        let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.split('.').next() == Some(&stem)).collect::<Vec<_>>()
    };
    let at_once = look();
    std::thread::sleep(std::time::Duration::from_millis(500)); // tidy: wait whether it comes back by itself
    format!("beside it {at_once:?}, then {:?}", look())
}

/// Something that somebody does to a file. If it fails nothing has changed, but that a file may have been emptied.
fn deed(known: &mut Known, number: u64, dice: &mut Dice) -> Result<(), Error> {
    let choice = if known.bytes.is_empty() { 7 } else { dice.roll(15) };
    match choice {
        0..=4 => read(known),
        5 => read_mapped(known),
        6 => read_a_part(known, dice),
        7 => {
            let bytes = text(number, 10_000 + dice.roll(TEXT_MAX));
            let mut file = File::create(&known.path)?;
            // What is written next may be refused.
            known.bytes.clear();
            file.write_all(&bytes)?;
            known.bytes = bytes;
            Ok(())
        }
        8 => {
            let mut file = OpenOptions::new().append(true).open(&known.path)?;
            file.write_all(&number.to_le_bytes())?;
            known.bytes.extend(number.to_le_bytes());
            Ok(())
        }
        9 => {
            let file = OpenOptions::new().write(true).open(&known.path)?;
            let at = dice.roll(known.bytes.len() - 8);
            file.write_all_at(&number.to_le_bytes(), at as u64)?;
            known.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            Ok(())
        }
        10 => {
            let (file, len) = (OpenOptions::new().write(true).open(&known.path)?, 9_000 + dice.roll(known.bytes.len()));
            file.set_len(len as u64)?;
            known.bytes.resize(len, 0);
            Ok(())
        }
        11 => {
            known.renames += 1;
            let stem = known.path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
            let to = known.path.with_file_name(format!("{stem}.{}", known.renames));
            fs::rename(&known.path, &to)?;
            known.path = to;
            Ok(())
        }
        12 => move_by_link(known),
        13 => fs::set_permissions(&known.path, fs::Permissions::from_mode(0o600 + dice.roll(8) as u32)),
        _ => save_by_rename(known, number, dice),
    }
}

/// A second name, and the first one goes: a file with two names is never tiered, and was one before.
fn move_by_link(known: &mut Known) -> Result<(), Error> {
    known.renames += 1;
    let stem = known.path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    let to = known.path.with_file_name(format!("{stem}.{}", known.renames));
    fs::hard_link(&known.path, &to)?;
    let first = std::mem::replace(&mut known.path, to);
    read(known)?;
    fs::remove_file(first)
}

fn save_by_rename(known: &mut Known, number: u64, dice: &mut Dice) -> Result<(), Error> {
    let bytes = text(number, 10_000 + dice.roll(TEXT_MAX));
    let beside = known.path.with_extension("saving~");
    fs::write(&beside, &bytes)?;
    let renamed = fs::rename(&beside, &known.path);
    renamed.map_err(|error| Error::new(error.kind(), format!("{} cannot be renamed: {error}", beside.display())))?;
    known.bytes = bytes;
    Ok(())
}

fn read(known: &Known) -> Result<(), Error> {
    let found = fs::read(&known.path)?;
    compare(known, 0, &found, known.bytes.len());
    Ok(())
}

fn read_mapped(known: &Known) -> Result<(), Error> {
    let file = OpenOptions::new().read(true).write(true).open(&known.path)?;
    let len = file.metadata()?.len() as usize;
    let mapping = SharedMapping::new(&file, len)?;
    compare(known, 0, &mapping.bytes(), known.bytes.len());
    Ok(())
}

/// Around where a tool that skips holes would look.
fn read_a_part(known: &Known, dice: &mut Dice) -> Result<(), Error> {
    let mut file = File::open(&known.path)?;
    let (at, len) = (dice.roll(known.bytes.len()), 1 + dice.roll(20_000));
    file.seek(SeekFrom::Start(at as u64))?;
    let mut found = Vec::new();
    file.take(len as u64).read_to_end(&mut found)?;
    compare(known, at, &found, len.min(known.bytes.len() - at));
    Ok(())
}

fn compare(known: &Known, at: usize, found: &[u8], len: usize) {
    let wanted = &known.bytes[at..at + len];
    if found != wanted {
        let first = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
        let zeros = found.iter().filter(|byte| **byte == 0).count();
        panic!(
            "{}: {} bytes from {at} instead of {len}, {zeros} zeros, first wrong one {first:?}\n{}",
            known.path.display(),
            found.len(),
            witness::about(&known.path)
        );
    }
}

/// Somebody on the other server who saves files again and again.
#[derive(Debug)]
pub(crate) struct Author {
    ends: Arc<AtomicBool>,
    newest: Arc<Vec<AtomicU64>>,
    thread: JoinHandle<()>,
}

impl Author {
    /// Saves files in `folder`.
    pub(crate) fn begin(folder: &Path, files: usize, mut dice: Dice) -> Self {
        let ends: Arc<AtomicBool> = Arc::default();
        let newest: Arc<Vec<AtomicU64>> = Arc::new((0..files).map(|_| AtomicU64::new(0)).collect());
        let (folder, until, numbers) = (folder.to_owned(), Arc::clone(&ends), Arc::clone(&newest));
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !until.load(Ordering::Relaxed) {
                let at = dice.roll(numbers.len());
                number += 1;
                let beside = folder.join(format!("sent-{at}.new~"));
                fs::write(&beside, text(number << 16 | at as u64, 10_000 + dice.roll(TEXT_MAX))).unwrap();
                fs::rename(&beside, folder.join(format!("sent-{at}"))).unwrap();
                numbers[at].store(number, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(20 + dice.roll(200) as u64)); // tidy: wait a person's pace
            }
        });
        Self { ends, newest, thread }
    }

    /// Reads what has come to the other server: each file is one of the author's versions of it.
    pub(crate) fn check(folder: &Path, files: usize) {
        for at in 0..files {
            match fs::read(folder.join(format!("sent-{at}"))) {
                Ok(bytes) => match number_of(&bytes) {
                    Ok(number) => assert_eq!(number & 0xffff, at as u64, "sent-{at} holds another file"),
                    Err(wrong) => panic!("sent-{at}: {wrong}\n{}", witness::about(&folder.join(format!("sent-{at}")))),
                },
                Err(error) => {
                    assert!(is_excused(&error) || error.kind() == ErrorKind::NotFound, "sent-{at}: {error}");
                }
            }
        }
    }

    /// Ends; gives the number of the last version of each file, 0 for none.
    pub(crate) fn end(self) -> Vec<u64> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| panic!("the author failed"));
        self.newest.iter().map(|number| number.load(Ordering::Relaxed)).collect()
    }
}
