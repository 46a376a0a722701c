//! People who use files in every way, each knowing what he must find, while everything is tiered again and again and the agent
//! ends and starts.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isotherm_gate::testing::{SharedMapping, on_each_fs};

use crate::bench::{Bench, noise};

/// Files, each with somebody who uses it.
const PEOPLE: u32 = 6;
/// Longest content before it is cut, in bytes.
const LONG: usize = 300_000;

/// Somebody with a file, and what must be in it.
struct Person {
    path: PathBuf,
    content: Vec<u8>,
    dice: u32,
    done: usize,
}

impl Person {
    fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.dice >> 8) as usize % sides
    }

    fn act(&mut self) {
        self.done += 1;
        let (at, len) = (self.roll(self.content.len() + 1), 1 + self.roll(20_000));
        let piece = noise(len, self.dice);
        match self.roll(11) {
            0..=2 => assert!(fs::read(&self.path).unwrap() == self.content, "{:?}, whole", self.path),
            3 => self.check_from(at),
            4 => self.check_mapped(),
            5 if self.content.len() < LONG => {
                self.open().append(true).open(&self.path).unwrap().write_all(&piece).unwrap();
                self.content.extend(piece);
            }
            5 | 6 => {
                self.open().write(true).open(&self.path).unwrap().set_len(at as u64).unwrap();
                self.content.truncate(at);
            }
            7 => {
                let mut file = self.open().write(true).open(&self.path).unwrap();
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&piece).unwrap();
                self.put(at, &piece);
            }
            8 => {
                fs::write(&self.path, &piece).unwrap();
                self.content = piece;
            }
            9 => {
                let to = self.path.with_extension(format!("{}", self.done));
                fs::rename(&self.path, &to).unwrap();
                self.path = to;
                fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600 + (self.dice & 0o77))).unwrap();
            }
            _ => self.write_mapped(at),
        }
    }

    fn open(&self) -> fs::OpenOptions {
        File::options()
    }

    fn put(&mut self, at: usize, piece: &[u8]) {
        self.content.resize(self.content.len().max(at + piece.len()), 0);
        self.content[at..at + piece.len()].copy_from_slice(piece);
    }

    fn check_from(&self, at: usize) {
        let mut file = File::open(&self.path).unwrap();
        std::thread::sleep(Duration::from_millis(4)); // tidy: wait a reader takes its time
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        let mut seen = Vec::new();
        file.read_to_end(&mut seen).unwrap();
        assert!(seen == self.content[at..], "{:?} from {at}", self.path);
    }

    fn check_mapped(&self) {
        if let Some(mapping) = self.mapping() {
            std::thread::sleep(Duration::from_millis(4)); // tidy: wait a reader takes its time
            assert!(mapping.bytes() == self.content, "{:?}, mapped", self.path);
        }
    }

    fn write_mapped(&mut self, at: usize) {
        let at = at.min(self.content.len().saturating_sub(1));
        if let Some(mapping) = self.mapping() {
            mapping.store(at, 0x5A);
            self.put(at, &[0x5A]);
        }
    }

    /// The descriptor is closed before the mapping is used.
    fn mapping(&self) -> Option<SharedMapping> {
        let file = self.open().read(true).write(true).open(&self.path).unwrap();
        (!self.content.is_empty()).then(|| SharedMapping::new(&file, self.content.len()).unwrap())
    }
}

/// Ends everybody's work when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn campaign(bench: &mut Bench<'_>, length: Duration) -> (usize, usize) {
    let people: Vec<Mutex<Person>> = (0..PEOPLE)
        .map(|number| {
            let path = bench.path(&format!("plan-{number}"));
            let content = noise(100_000, number);
            fs::write(&path, &content).unwrap();
            Mutex::new(Person { path, content, dice: number * 77 + 1, done: 0 })
        })
        .collect();
    let ends = AtomicBool::new(false);
    let mut tiered = 0;
    std::thread::scope(|scope| {
        for person in &people {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    person.lock().unwrap().act();
                    let pause = person.lock().unwrap().roll(8) as u64;
                    std::thread::sleep(Duration::from_millis(pause)); // tidy: wait people think
                }
            });
        }
        // Also where somebody has read a wrong byte.
        let _ends = Ends(&ends);
        let until = Instant::now() + length;
        let mut round = 0;
        while Instant::now() < until {
            let known = people.iter().filter_map(|person| {
                let person = person.lock().unwrap();
                bench.candidate(person.path.file_name().unwrap().to_str().unwrap(), &person.content)
            });
            let candidates: Vec<_> = known.collect();
            tiered += bench.recall.as_ref().unwrap().tier(&candidates).iter().filter(|result| result.is_ok()).count();
            round += 1;
            if round % 50 == 0 {
                // Callers wait for the next run of the agent.
                bench.recall = None;
                bench.start();
            }
        }
    });
    for person in &people {
        let person = person.lock().unwrap();
        assert!(fs::read(&person.path).unwrap() == person.content, "{:?}, in the end", person.path);
    }
    (tiered, people.iter().map(|person| person.lock().unwrap().done).sum())
}

#[test]
fn nobody_ever_reads_a_wrong_byte_while_everything_is_tiered_and_recalled() {
    on_each_fs(128, |volume| {
        let mut bench = Bench::new(volume);
        let (tiered, actions) = campaign(&mut bench, Duration::from_secs(3));
        println!("{:?}: tiered {tiered} times during {actions} actions, {} recalls", volume.fs(), bench.fetched());
        assert!(tiered > 0 && actions > 0, "{tiered} times tiered, {actions} actions");
        assert_eq!(bench.recall.as_ref().unwrap().problems(), []);
    });
}
