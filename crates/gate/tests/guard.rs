//! Guarding content on real file systems.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isotherm_gate::guard::{AgentProcess, Group, Post, Purpose, Question, Refusal, Told, Touch, purpose};
use isotherm_gate::testing::on_each_fs;
use isotherm_gate::{Root, StubFile, Watch};

const LEN: u64 = 300_000;

fn content() -> Vec<u8> {
    (0..LEN).map(|at| (at / 7 % 251) as u8 + 1).collect()
}

/// A file of which nothing is there but its length.
fn hollow(path: &Path) -> File {
    let file = File::create(path).unwrap();
    file.set_len(LEN).unwrap();
    file
}

/// Answers questions in a thread of its own until `work` has ended.
fn while_answering<T>(group: &Group, mut answer: impl FnMut(Question) + Send, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let questions = group.read().unwrap();
                if questions.is_empty() {
                    // tidy: wait a moment of a loop that ends with the work
                    std::thread::sleep(Duration::from_micros(200));
                }
                questions.into_iter().for_each(&mut answer);
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn copy_with(program: &str, from: &Path, to: &Path) -> Vec<u8> {
    let _ = fs::remove_file(to);
    assert!(Command::new("sh").arg("-c").arg(program).arg("sh").arg(from).arg(to).status().unwrap().success(), "{program}");
    fs::read(to).unwrap()
}

#[test]
fn whoever_opens_a_guarded_file_waits_until_its_content_is_there() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let at = |name: &str| volume.path().join(name);
        // Work of the product goes through a descriptor from before the mark, which is never asked about.
        for program in ["cat $1 > $2", "cp $1 $2", "cp --sparse=always $1 $2", "dd if=$1 of=$2 status=none", "install $1 $2"] {
            let inside = hollow(&at("stub"));
            group.guard_file(File::open(at("stub")).unwrap()).unwrap();
            let mut asked = Vec::new();
            let answer = |question: Question| {
                asked.push((question.touch, purpose(question.thread, question.touch, || false)));
                if question.touch == Touch::Open {
                    inside.write_all_at(&content(), 0).unwrap();
                }
                question.allow();
            };
            let copied = while_answering(&group, answer, || copy_with(program, &at("stub"), &volume.outside().join("copy")));
            assert!(copied == content(), "{program} on {:?}", volume.fs());
            assert_eq!(asked[0], (Touch::Open, Purpose::Read), "{program}");
            fs::remove_file(at("stub")).unwrap();
        }
    });
}

#[test]
fn a_refusal_is_the_errno_that_the_program_sees_and_a_dropped_question_is_one() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let path = volume.path().join("stub");
        hollow(&path);
        group.guard_file(File::open(&path).unwrap()).unwrap();
        let refusals = [
            (Some(Refusal::Io), 5),
            (Some(Refusal::Again), 11),
            (Some(Refusal::Busy), 16),
            (Some(Refusal::NoSpace), 28),
            (Some(Refusal::Quota), 122),
            (Some(Refusal::NotAllowed), 1),
            (None, 5),
        ];
        for (refusal, errno) in refusals {
            let answer = |question: Question| match refusal {
                Some(refusal) => question.refuse(refusal),
                None => drop(question),
            };
            let error = while_answering(&group, answer, || File::open(&path).unwrap_err());
            assert_eq!(error.raw_os_error(), Some(errno), "{refusal:?}");
        }
    });
}

#[test]
fn purposes_of_waiting_callers_are_told_apart() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let path = volume.path().join("stub");
        hollow(&path);
        group.guard_file(File::open(&path).unwrap()).unwrap();
        let asked = |work: &dyn Fn()| {
            let mut asked = Vec::new();
            let answer = |question: Question| {
                asked.push((question.touch == Touch::Open, purpose(question.thread, question.touch, || false)));
                question.allow();
            };
            while_answering(&group, answer, work);
            asked
        };
        assert_eq!(asked(&|| drop(File::open(&path).unwrap())), [(true, Purpose::Read)]);
        assert_eq!(asked(&|| drop(File::options().append(true).open(&path).unwrap())), [(true, Purpose::Write)]);
        let truncated = asked(&|| assert!(Command::new("truncate").arg("-s5").arg(&path).status().unwrap().success()));
        assert_eq!(truncated[0], (true, Purpose::Write));
        let read = asked(&|| assert_eq!(fs::read(&path).unwrap().len(), 5));
        assert_eq!(read[0], (true, Purpose::Read));
        assert!(matches!(read[1], (false, Purpose::ReadRange(0, 1..))), "{:?}", read[1]);
        assert_eq!(asked(&|| drop(File::create(&path).unwrap())), [(true, Purpose::Empty)]);
    });
}

#[test]
fn case_08_spared_files_and_mounts_are_not_asked_about() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let path = volume.path().join("hot");
        fs::write(&path, content()).unwrap();
        group.guard_file_system(File::open(volume.path()).unwrap()).unwrap();
        let questions = |work: &dyn Fn()| {
            let mut count = 0;
            let answer = |question: Question| {
                count += 1;
                question.allow();
            };
            while_answering(&group, answer, work);
            count
        };
        let read = || assert!(fs::read(&path).unwrap() == content());
        assert!(questions(&read) > 1);
        let file = while_answering(&group, Question::allow, || File::open(&path).unwrap());
        group.spare_file(&file).unwrap();
        assert_eq!(questions(&read), 0);
        group.unspare_file(&file).unwrap();
        group.unspare_file(&file).unwrap();
        assert!(questions(&read) > 1);
        let inside = Root::open(volume.path()).unwrap();
        group.spare_mount(inside.dir()).unwrap();
        let handle = inside.dir().stat(std::ffi::OsStr::new("hot")).unwrap().unwrap().handle;
        let through_the_clone = || {
            inside.inode(&handle).unwrap().read_xattrs().unwrap();
            assert_eq!(inside.is_alive(&handle).unwrap(), isotherm_gate::Liveness::Linked);
        };
        assert_eq!(questions(&through_the_clone), 0);
        group.release_file_system(File::open(volume.path()).unwrap()).unwrap();
        assert_eq!(questions(&read), 0);
    });
}

#[test]
fn a_second_holder_keeps_callers_waiting_and_sweeps_what_the_first_one_left() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let path = volume.path().join("stub");
        hollow(&path);
        group.guard_file(File::open(&path).unwrap()).unwrap();
        let second = Group::from_fd(rustix::io::dup(&group).unwrap());
        let mut caller = Command::new("cat").arg(&path).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let asked = wait_for(|| group.read().unwrap().pop());
        // As if the first holder had been killed: its question is neither answered nor dropped.
        std::mem::forget(asked);
        drop(group);
        // tidy: wait long enough to see that the caller is not let through
        std::thread::sleep(Duration::from_millis(100));
        assert!(caller.try_wait().unwrap().is_none());
        assert_eq!(second.sweep(0..4_096), 1);
        assert_eq!(second.sweep(0..4_096), 0);
        let mut seen = Vec::new();
        caller.stdout.take().unwrap().read_to_end(&mut seen).unwrap();
        assert!(!caller.wait().unwrap().success() && seen.is_empty(), "EAGAIN, and not one wrong byte");
        let error = while_answering(&second, |question| question.refuse(Refusal::Busy), || File::open(&path).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    });
}

#[test]
fn who_asks_again_has_returned_from_the_call_before_that_looked_the_same() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let path = volume.path().join("stub");
        hollow(&path);
        let root = Root::open(volume.path()).unwrap();
        group.spare_mount(root.dir()).unwrap();
        let inode = root.dir().inode(std::ffi::OsStr::new("stub")).unwrap();
        StubFile::open(&inode).unwrap().set_record(b"a record").unwrap();
        group.guard_file(File::open(&path).unwrap()).unwrap();
        let post = Post::new(group);
        let again = path.clone();
        let caller = std::thread::spawn(move || (0..2).for_each(|_| drop(File::create(&again).unwrap())));
        let told = || wait_for(|| Some(post.read().unwrap()).filter(|told| !told.is_empty()));
        let asked = |told: &Told| if let Told::Asked(waiting) = told { waiting.clone() } else { panic!("{told:?}") };
        let first = asked(&told()[0]);
        assert_eq!(first.purpose, Purpose::Empty);
        post.answer(first.id, None);
        let next = told();
        assert_eq!(next[0], Told::Returned(first.id));
        let second = asked(&next[1]);
        assert_eq!(post.begin_with(BTreeSet::new()), [Told::Asked(second.clone())], "a new run of the agent is told the same");
        post.answer(second.id, None);
        caller.join().unwrap();
        wait_for(|| post.look_after().contains(&Told::Returned(second.id)).then_some(()));
    });
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "it did not happen within 20 seconds");
        // tidy: wait between two looks of a loop with a deadline
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_watch_ends_while_somebody_waits() {
    on_each_fs(64, |volume| {
        let group = Group::new().unwrap();
        let path = volume.path().join("stub");
        hollow(&path);
        let top = File::open(volume.path()).unwrap();
        group.guard_file_system(&top).unwrap();
        let file = while_answering(&group, Question::allow, || File::open(&path).unwrap());
        group.guard_file(&file).unwrap();
        group.release_file_system(&top).unwrap();
        drop(file);
        let root = Root::open(volume.path()).unwrap();
        let watch = Watch::new(&root).unwrap();
        let mut caller = Command::new("cat").arg(&path).stdout(std::process::Stdio::null()).spawn().unwrap();
        let asked = wait_for(|| group.read().unwrap().pop());
        let (ends, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(watch);
            ends.send(()).unwrap();
        });
        let has_ended = ended.recv_timeout(Duration::from_secs(10)).is_ok();
        assert!(caller.try_wait().unwrap().is_none());
        asked.allow();
        while_answering(&group, Question::allow, || caller.wait().unwrap());
        assert!(has_ended, "it waited for somebody who waits at another group");
    });
}

#[test]
fn the_agent_is_not_asked_about_its_own_work() {
    on_each_fs(64, |volume| {
        let post = Post::of_file_system(Group::new().unwrap());
        let path = volume.path().join("stub");
        hollow(&path);
        post.group().guard_file_system(File::open(volume.path()).unwrap()).unwrap();
        // Not even while nobody knows what it has in hand.
        post.expect_agent();
        post.is_attended_by(AgentProcess::of(i32::try_from(std::process::id()).unwrap()));
        let opened = std::thread::spawn(move || File::open(path).map(|_| ()));
        wait_for(|| {
            assert!(post.read().unwrap().is_empty());
            opened.is_finished().then_some(())
        });
        opened.join().unwrap().unwrap();
        assert_eq!(post.waiting(), 0);
        let mut other = Command::new("cat").arg(volume.path().join("stub")).stdout(std::process::Stdio::null()).spawn().unwrap();
        wait_for(|| {
            assert!(post.read().unwrap().is_empty(), "nobody is told of him before the agent begins");
            (post.waiting() > 0).then_some(())
        });
        assert!(matches!(post.begin_with(BTreeSet::new())[..], []), "he is let through: the file is whole");
        wait_for(|| {
            let _ = post.read().unwrap();
            other.try_wait().unwrap()
        });
    });
}
