//! Reading files and bringing them to a real service, over HTTP.
#![allow(clippy::unwrap_used)]

#[path = "support/volumes.rs"]
mod volumes;

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isotherm_agent::engine::{Away, ReadRequest, ReadResult, StepResult};
use isotherm_agent::remote::{Attachment, Sender, Share, Uploader};
use isotherm_agent::volume::{Performer, Volume};
use isotherm_api::collect::CollectRequest;
use isotherm_core::content::{ChunkId, Manifest, Part};
use isotherm_core::ids::{Epoch, NodeId, ServerId};
use isotherm_core::name::Name;
use isotherm_core::node::{Content, FileContent};
use isotherm_core::plan::{Action, Parent, Spot, Step};
use isotherm_core::trees::Handle;
use isotherm_gate::testing::{Fs, LoopVolume, on_each_fs};
use support::{Service, noise};
use volumes::{is_done, plain};

/// A volume, a service, and both ways between them.
struct Bench {
    volume: Arc<Volume>,
    share: Arc<Share>,
    uploader: Uploader,
    performer: Performer,
    service: Service,
}

impl Bench {
    fn new(volume: &LoopVolume) -> Self {
        let service = Service::start(&volume.outside().join("service"));
        service.group("plans");
        let group = service.wait(service.client.group("plans")).unwrap().id;
        let attachment = Attachment::new(service.client.clone(), ServerId([1; 16]), Epoch(1));
        let share = Arc::new(Share::new(Arc::new(attachment), group, service.runtime.handle().clone()));
        let opened = Arc::new(Volume::open(volume.path()).unwrap());
        let uploader = Uploader::new(Arc::clone(&opened), Arc::clone(&share), None);
        let performer = Performer::new(Arc::clone(&opened), Arc::clone(&share) as Arc<_>, Arc::default());
        Self { volume: opened, share, uploader, performer, service }
    }

    fn request(&self, number: u32, path: &Path, tries: u32) -> ReadRequest {
        let stat = self.volume.root().dir().stat(path.file_name().unwrap()).unwrap().unwrap();
        ReadRequest { node: id(number), handle: Handle(stat.handle.to_bytes().into()), size: stat.size, tries }
    }

    fn read_one(&self, path: &Path, tries: u32) -> ReadResult {
        self.uploader.read(vec![self.request(0, path, tries)]).pop().unwrap().1
    }

    fn content(&self, path: &Path) -> FileContent {
        match self.read_one(path, 0) {
            ReadResult::Content { content, .. } => content,
            other => panic!("{other:?}"),
        }
    }

    /// Makes files of contents in the share, under the names of their numbers.
    fn download(&self, contents: impl IntoIterator<Item = (u32, FileContent)>) -> Vec<StepResult> {
        let step = |(number, content): (u32, FileContent)| {
            let name = Name::new(format!("back-{number}").as_bytes()).unwrap();
            let at = Spot { node: NodeId::ROOT, parent: Parent::Inode(self.volume.root_handle()), name };
            let action = Action::Create { at, content: Content::File(content), metadata: plain(0o644), link_to: None };
            Step { node: id(number), action }
        };
        let results = self.performer.perform(contents.into_iter().map(step).collect());
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn sent(&self) -> u64 {
        self.share.traffic().totals().0
    }
}

fn id(number: u32) -> NodeId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

/// An upload that takes longer than the service keeps what nothing names: some seconds here, a day in life.
#[test]
fn an_upload_may_take_longer_than_unnamed_content_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let ages = isotherm_service::Ages { pin_ms: 4_000, grace_ms: 0, ..isotherm_service::Ages::default() };
    let service = Service::start_with(data.path(), ages);
    service.group("plans");
    let group = service.wait(service.client.group("plans")).unwrap().id;
    let attachment = Attachment::new(service.client.clone(), ServerId([1; 16]), Epoch(1));
    let share = Share::new(Arc::new(attachment), group, service.runtime.handle().clone());
    // Each a pack and a bit.
    let windows: Vec<Vec<Vec<u8>>> =
        (0..3).map(|window| (0..9).map(|part| noise(9 * window + part, 4 << 20)).collect()).collect();
    let upload = |renew_after| {
        let mut sender = Sender::renewing_after(&share, renew_after);
        let mut parts = Vec::new();
        for window in &windows {
            let chunks: Vec<_> = window.iter().map(|bytes| (ChunkId::of(bytes), bytes.clone())).collect();
            parts.extend(chunks.iter().map(|(chunk, bytes)| Part::Data { chunk: *chunk, len: bytes.len() as u32 }));
            sender.send(chunks)?;
            std::thread::sleep(Duration::from_millis(1_700)); // tidy: wait so that the upload takes its time
            service.wait(service.client.start_collection(CollectRequest::default())).unwrap();
            while !service.wait(service.client.collection()).unwrap().unwrap().ended {
                std::thread::sleep(Duration::from_millis(5)); // tidy: wait for the next question
            }
        }
        let manifest = Manifest::new(parts).unwrap();
        sender.name(&manifest);
        sender.finish()?;
        let chunks: Vec<ChunkId> = manifest.chunks().map(|(chunk, _)| chunk).collect();
        Ok::<_, Away>(service.wait(service.client.have(group, &chunks)).unwrap())
    };
    // What was sent first is gone when the last part comes, and nobody knows.
    assert!(upload(Duration::MAX).unwrap().contains(&false));
    assert_eq!(upload(Duration::from_millis(1_000)).unwrap(), [true; 27]);
}

#[test]
fn many_small_files_go_and_come_back() {
    let Some(volume) = LoopVolume::new(Fs::Ext4, 200) else { return };
    let bench = Bench::new(&volume);
    let path = |number: u32| volume.path().join(format!("file-{number}"));
    let bytes = |number: u32| noise(u64::from(number % 700), (number as usize * 37) % 9_000);
    (0..1_000).for_each(|number| fs::write(path(number), bytes(number)).unwrap());
    let results = bench.uploader.read((0..1_000).map(|number| bench.request(number, &path(number), 0)).collect());
    assert_eq!(results.len(), 1_000);
    let contents: Vec<(u32, FileContent)> = results
        .into_iter()
        .map(|(node, result)| match result {
            ReadResult::Content { content, .. } => (u32::from_be_bytes(*node.0.first_chunk().unwrap()), content),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(bench.download(contents).iter().all(is_done));
    for number in 0..1_000 {
        assert_eq!(fs::read(volume.path().join(format!("back-{number}"))).unwrap(), bytes(number), "{number}");
    }
    // What the share has is not sent again.
    let sent = bench.sent();
    fs::write(path(0), bytes(500)).unwrap();
    bench.content(&path(0));
    assert_eq!(bench.sent(), sent);
}

#[test]
fn large_and_sparse_files_are_streamed() {
    on_each_fs(400, |volume| {
        let bench = Bench::new(volume);
        let large = volume.path().join("large");
        fs::write(&large, noise(1, 50 << 20)).unwrap();
        let sparse = volume.path().join("sparse");
        let file = File::create(&sparse).unwrap();
        file.set_len(3 << 30).unwrap();
        file.write_all_at(&noise(2, 1 << 20), 1 << 30).unwrap();
        drop(file);
        let (large_content, sparse_content) = (bench.content(&large), bench.content(&sparse));
        let sent = bench.sent();
        assert!(sent < 54 << 20, "{sent}");
        assert!(bench.download([(1, large_content.clone()), (2, sparse_content)]).iter().all(is_done));
        let back = |number: u32| volume.path().join(format!("back-{number}"));
        assert!(fs::read(back(1)).unwrap() == noise(1, 50 << 20));
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(back(2)).unwrap();
        assert_eq!((meta.len(), meta.blocks() * 512 < 4 << 20), (3 << 30, true));
        // One changed byte sends little.
        File::options().write(true).open(&large).unwrap().write_all_at(b"!", 20 << 20).unwrap();
        assert!(bench.content(&large).manifest != large_content.manifest);
        assert!(bench.sent() - sent < 9 << 20, "{}", bench.sent() - sent);
    });
}

#[test]
fn a_file_that_changes_is_never_a_mixture() {
    on_each_fs(400, |volume| {
        let bench = Bench::new(volume);
        let path = volume.path().join("restless");
        // All bytes of a version are equal, so that a mixture shows.
        fs::write(&path, vec![1; 6 << 20]).unwrap();
        let stop = AtomicBool::new(false);
        let (calm, restless) = std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().write(true).open(&path).unwrap();
                let mut version = 1_u8;
                while !stop.load(Ordering::Relaxed) {
                    version = version.wrapping_add(1);
                    file.write_all_at(&vec![version; 6 << 20], 0).unwrap();
                }
            });
            let results = (bench.read_one(&path, 0), bench.read_one(&path, 3));
            stop.store(true, Ordering::Relaxed);
            results
        });
        assert_eq!(calm, ReadResult::Changed);
        let snapshots = bench.volume.root().supports_reflink();
        match restless {
            ReadResult::Content { content, .. } if snapshots => {
                assert!(bench.download([(1, content)]).iter().all(is_done));
                // A write call is atomic against a clone on these file systems only page by page or not at all; what
                // counts is that the content is what some moment held: at most two neighbouring versions.
                let back = fs::read(volume.path().join("back-1")).unwrap();
                let versions: std::collections::BTreeSet<u8> = back.iter().copied().collect();
                assert!(versions.len() <= 2, "{versions:?}");
            }
            ReadResult::Changed if !snapshots => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_file_that_only_grows_is_read_up_to_where_it_was() {
    let Some(volume) = LoopVolume::new(Fs::Ext4, 400) else { return };
    let bench = Bench::new(&volume);
    let path = volume.path().join("log");
    fs::write(&path, noise(1, 5 << 20)).unwrap();
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::options().append(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                log.write_all(b"one more line\n").unwrap();
                std::thread::yield_now();
            }
        });
        let result = bench.read_one(&path, 3);
        stop.store(true, Ordering::Relaxed);
        result
    });
    let ReadResult::Content { content, print } = result else { panic!("{result:?}") };
    assert_eq!(print.size, content.size);
    assert!(fs::metadata(&path).unwrap().len() > content.size);
    assert!(bench.download([(1, content.clone())]).iter().all(is_done));
    let back = fs::read(volume.path().join("back-1")).unwrap();
    assert!(fs::read(&path).unwrap()[..content.size as usize] == back[..]);
}

#[test]
fn what_cannot_be_read_or_sent_says_so() {
    let Some(volume) = LoopVolume::new(Fs::Ext4, 64) else { return };
    let bench = Bench::new(&volume);
    let (gone, plain) = (volume.path().join("gone"), volume.path().join("plain"));
    fs::write(&gone, "x").unwrap();
    fs::write(&plain, "y").unwrap();
    let requests = [bench.request(1, &gone, 0), bench.request(2, &plain, 0)];
    fs::remove_file(&gone).unwrap();
    let result = |number: usize| bench.uploader.read(vec![requests[number].clone()]).pop().unwrap().1;
    assert_eq!(result(0), ReadResult::Gone);
    assert!(matches!(result(1), ReadResult::Content { .. }));
    fs::write(&plain, "something new").unwrap();
    let Bench { uploader, service, .. } = bench;
    let _service = service.restart(|| {
        let result = uploader.read(vec![requests[1].clone()]).pop().unwrap().1;
        assert!(matches!(&result, ReadResult::Away(away) if away.retry), "{result:?}");
    });
}
