//! Recall on the real kernel: programs that know nothing of stubs get the content, on ext4, XFS and btrfs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isotherm_agent::recall::{FetchFailure, Recall, Source, Take};
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::stub::{Bound, ContentPrefix, StubRecord};
use isotherm_core::trees::Handle;
use isotherm_gate::guard::{Group, Post};
use isotherm_gate::testing::{LoopVolume, on_each_fs};
use isotherm_gate::{Inode, Root, StubFile};

/// Contents by the ids that records name; each is given in pieces.
#[derive(Debug, Default)]
struct Contents {
    known: Mutex<BTreeMap<ContentPrefix, Vec<u8>>>,
    fetched: AtomicUsize,
    given_up: AtomicUsize,
    /// The service is away.
    away: AtomicBool,
    pause: Mutex<Duration>,
}

impl Source for Contents {
    fn fetch(&self, record: &StubRecord, take: &mut Take<'_>, go_on: &dyn Fn() -> bool) -> Result<(), FetchFailure> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let content = self.known.lock().unwrap().get(&record.content).cloned();
        let content = content.ok_or_else(|| FetchFailure::Content("The share has no such content".to_owned()))?;
        for (at, piece) in content.chunks(100_000).enumerate() {
            while self.away.load(Ordering::Relaxed) && go_on() {
                std::thread::sleep(Duration::from_millis(2)); // tidy: wait as for a service that is away
            }
            std::thread::sleep(*self.pause.lock().unwrap()); // tidy: wait as a slow network does
            if !go_on() {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                return Err(FetchFailure::NotWanted);
            }
            take(at as u64 * 100_000, piece)?;
        }
        Ok(())
    }
}

struct Bench<'a> {
    volume: &'a LoopVolume,
    root: Arc<Root>,
    post: Arc<Post>,
    contents: Arc<Contents>,
    recall: Option<Recall>,
}

impl<'a> Bench<'a> {
    fn new(volume: &'a LoopVolume) -> Self {
        let root = Arc::new(Root::open(volume.path()).unwrap());
        let group = Group::new().unwrap();
        group.spare_mount(root.dir()).unwrap();
        let (post, contents) = (Arc::new(Post::new(group)), Arc::new(Contents::default()));
        let mut bench = Self { volume, root, post, contents, recall: None };
        bench.start();
        bench
    }

    fn start(&mut self) {
        let source: Arc<dyn Source> = Arc::<Contents>::clone(&self.contents);
        self.recall = Some(Recall::start(Arc::clone(&self.root), Arc::clone(&self.post), source).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.volume.path().join(name)
    }

    fn inode(&self, name: &str) -> Inode {
        self.root.dir().inode(OsStr::new(name)).unwrap()
    }

    /// Makes a file with this content, and then a stub of it.
    fn stub(&self, name: &str, content: &[u8], mode: u32) -> StubFile {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let inode = self.inode(name);
        let before = inode.stat().unwrap();
        let file = StubFile::open(&inode).unwrap();
        self.post.group().guard_file(self.root.open_for_mark(&before.handle).unwrap()).unwrap();
        assert!(file.is_idle().unwrap());
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

    fn fetched(&self) -> usize {
        self.contents.fetched.load(Ordering::Relaxed)
    }
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect()
}

/// Programs that copy `$1` to `$2`; the first word has to be there.
const COPIES: &[&str] = &[
    "cat $1 > $2",
    "dd if=$1 of=$2 bs=64k status=none",
    "dd if=$1 of=$2 bs=4k iflag=direct status=none",
    "cp $1 $2",
    "cp --sparse=auto $1 $2",
    "cp --sparse=always $1 $2",
    "cp --sparse=never $1 $2",
    "cp --reflink=auto $1 $2",
    "cp --reflink=never $1 $2",
    "cp -a $1 $2",
    "cp $1 $1.near && mv $1.near $2",
    "mv $1 $2",
    "install $1 $2",
    "tar -C $(dirname $1) -cf - $(basename $1) | tar -xOf - > $2",
    "tar -S -C $(dirname $1) -cf - $(basename $1) | tar -xOf - > $2",
    "bsdtar -C $(dirname $1) -cf - $(basename $1) | tar -xOf - > $2",
    "cpio --version >/dev/null && cd $(dirname $1) && echo $(basename $1) | cpio -o --quiet | (mkdir $2.d && cd $2.d && cpio -i --quiet) && mv $2.d/* $2 && rmdir $2.d",
    "rsync $1 $2",
    "rsync -S $1 $2",
    // As root rsync lists the record, and the recall takes it away under its hands.
    "rsync -aX --filter='-x security.bpf.isotherm' $1 $2",
    "busybox cp $1 $2",
    "gzip -c $1 | gunzip -c > $2",
    "git -c core.hooksPath=/ init -q $2.g && git --git-dir=$2.g/.git --work-tree=/ cat-file blob $(git --git-dir=$2.g/.git hash-object -w $1) > $2 && rm -r $2.g",
    "zip -q -j $2.zip $1 && unzip -p $2.zip > $2",
    "python3 -c 'import sys; open(sys.argv[2],\"wb\").write(open(sys.argv[1],\"rb\").read())' $1 $2",
    "python3 -c 'import sys, mmap; f=open(sys.argv[1],\"rb\"); open(sys.argv[2],\"wb\").write(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)[:])' $1 $2",
    "python3 -c 'import sys, shutil; shutil.copyfile(sys.argv[1], sys.argv[2])' $1 $2",
    "node -e 'require(\"fs\").copyFileSync(process.argv[1], process.argv[2])' $1 $2",
    "perl -MFile::Copy -e 'copy($ARGV[0], $ARGV[1])' $1 $2",
    "qemu-img convert -f raw -O raw $1 $2",
    "losetup --version >/dev/null && d=$(losetup --show -f -r $1) && dd if=$d of=$2 bs=4k status=none; losetup -d $d",
    "unshare -m cat $1 > $2",
    "mkdir $2.b && mount --bind $(dirname $1) $2.b && cp $2.b/$(basename $1) $2; umount $2.b && rmdir $2.b",
];

fn is_here(program: &str) -> bool {
    Command::new("sh").args(["-c", "command -v \"$1\" > /dev/null", "sh", program]).status().unwrap().success()
}

fn copy(program: &str, from: &Path, to: &Path) -> Vec<u8> {
    let done = Command::new("sh").arg("-ec").arg(program).arg("sh").args([from, to]).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    fs::read(to).unwrap()
}

#[test]
fn programs_that_know_nothing_of_stubs_get_the_content() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        // A whole number of sectors, for the loop device.
        let content = noise(299_008, 1);
        for program in COPIES {
            let word = program.split_whitespace().next().unwrap();
            if !is_here(word) {
                println!("skipped on {}: {word} is not on this machine", volume.fs().name());
                continue;
            }
            let file = bench.stub("plan.dwg", &content, 0o644);
            let to = volume.outside().join("copy");
            let seen = copy(program, &bench.path("plan.dwg"), &to);
            assert!(seen == content, "{program} on {:?}: {} bytes, other content", volume.fs(), seen.len());
            assert_eq!(file.record().unwrap(), None, "{program}");
            let _ = fs::remove_file(&to);
            let _ = fs::remove_file(bench.path("plan.dwg"));
        }
        assert_eq!(bench.recall.as_ref().unwrap().problems(), []);
    });
}

#[test]
fn what_is_executed_is_recalled() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        bench.stub("script", b"#!/bin/sh\necho it runs\n", 0o755);
        bench.stub("echo", &fs::read("/bin/echo").unwrap(), 0o755);
        for (name, arguments) in [("script", &[][..]), ("echo", &["it", "runs"][..])] {
            let done = Command::new(bench.path(name)).args(arguments).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&done.stdout), "it runs\n", "{name} on {:?}", volume.fs());
        }
    });
}

#[test]
fn writers_get_the_content_first_and_who_empties_a_file_fetches_nothing() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(250_000, 2);
        let file = bench.stub("log", &content, 0o644);
        File::options().append(true).open(bench.path("log")).unwrap().write_all(b"one more line").unwrap();
        assert!(fs::read(bench.path("log")).unwrap() == [&content[..], b"one more line"].concat());
        assert_eq!((file.record().unwrap(), bench.fetched()), (None, 1));
        let file = bench.stub("cut", &content, 0o644);
        assert!(Command::new("truncate").arg("-s7").arg(bench.path("cut")).status().unwrap().success());
        assert!(fs::read(bench.path("cut")).unwrap() == content[..7]);
        assert_eq!((file.record().unwrap(), bench.fetched()), (None, 2));
        let file = bench.stub("anew", &content, 0o644);
        fs::write(bench.path("anew"), "anew").unwrap();
        assert_eq!(fs::read(bench.path("anew")).unwrap(), b"anew");
        assert_eq!((file.record().unwrap(), bench.fetched()), (None, 2), "{:?}", volume.fs());
    });
}

#[test]
fn many_readers_wait_for_one_fetch_and_time_and_blocks_are_as_before() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(2_000_000, 3);
        fs::write(bench.path("before"), &content).unwrap();
        bench.stub("large", &content, 0o644);
        let stub = fs::metadata(bench.path("large")).unwrap();
        assert!(stub.blocks() <= 8 && stub.len() == content.len() as u64);
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| assert!(fs::read(bench.path("large")).unwrap() == content));
            }
        });
        let whole = fs::metadata(bench.path("large")).unwrap();
        assert_eq!((whole.mtime(), whole.mtime_nsec()), (stub.mtime(), stub.mtime_nsec()));
        assert_eq!(bench.fetched(), 1);
    });
}

#[test]
fn content_that_cannot_be_had_is_an_errno_and_the_stub_stays() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(500_000, 4);
        let file = bench.stub("gone", &content, 0o644);
        bench.contents.known.lock().unwrap().clear();
        let error = fs::read(bench.path("gone")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
        assert!(!file.has_data().unwrap() && file.record().unwrap().is_some());
        assert_eq!(bench.recall.as_ref().unwrap().problems()[0].text, "The share has no such content");
        let damaged = bench.stub("damaged", &content, 0o644);
        damaged.set_record(b"\x01nonsense").unwrap();
        assert_eq!(fs::read(bench.path("damaged")).unwrap_err().raw_os_error(), Some(5));
        let later = bench.stub("later", &content, 0o644);
        later.set_record(b"\x02of a release to come").unwrap();
        assert_eq!(fs::read(bench.path("later")).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(later.record().unwrap().unwrap(), b"\x02of a release to come");
        // The rest goes on.
        bench.stub("fine", &content, 0o644);
        assert!(fs::read(bench.path("fine")).unwrap() == content);
    });
}

#[test]
fn a_full_volume_is_enospc_and_nothing_of_the_content_stays() {
    on_each_fs(16, |volume| {
        let bench = Bench::new(volume);
        let content = noise(6_000_000, 5);
        let file = bench.stub("large", &content, 0o644);
        let mut filler = File::create(bench.path("filler")).unwrap();
        let block = vec![1_u8; 1 << 16];
        while filler.write_all(&block).is_ok() {}
        let _ = filler.sync_all();
        let error = fs::read(bench.path("large")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28), "{:?}", volume.fs());
        assert!(!file.has_data().unwrap() && file.record().unwrap().is_some());
        drop(filler);
        fs::remove_file(bench.path("filler")).unwrap();
        bench.root.sync().unwrap();
        assert!(fs::read(bench.path("large")).unwrap() == content, "{:?}", volume.fs());
    });
}

#[test]
fn a_killed_reader_ends_the_fetch_and_who_comes_later_begins_anew() {
    on_each_fs(96, |volume| {
        let bench = Bench::new(volume);
        let content = noise(500_000, 6);
        let file = bench.stub("slow", &content, 0o644);
        bench.contents.away.store(true, Ordering::Relaxed);
        let mut reader = Command::new("cat").arg(bench.path("slow")).stdout(std::process::Stdio::null()).spawn().unwrap();
        wait_until(|| bench.fetched() == 1);
        reader.kill().unwrap();
        reader.wait().unwrap();
        wait_until(|| bench.contents.given_up.load(Ordering::Relaxed) == 1);
        bench.contents.away.store(false, Ordering::Relaxed);
        assert!(fs::read(bench.path("slow")).unwrap() == content);
        assert_eq!((bench.fetched(), file.record().unwrap()), (2, None));
    });
}

#[test]
fn a_new_run_of_the_agent_answers_who_waited_for_the_old_one() {
    on_each_fs(96, |volume| {
        let mut bench = Bench::new(volume);
        let content = noise(500_000, 7);
        bench.stub("slow", &content, 0o644);
        bench.contents.away.store(true, Ordering::Relaxed);
        let path = bench.path("slow");
        let reader = std::thread::spawn(move || fs::read(path).unwrap());
        wait_until(|| bench.fetched() == 1);
        bench.recall = None;
        bench.contents.away.store(false, Ordering::Relaxed);
        assert!(!reader.is_finished());
        bench.start();
        assert!(reader.join().unwrap() == content, "{:?}", volume.fs());
    });
}

fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it did not happen within 20 seconds");
        std::thread::sleep(Duration::from_millis(1)); // tidy: wait between looks, with a deadline above
    }
}
