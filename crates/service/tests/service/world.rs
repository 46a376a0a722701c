//! A running service, a client, and short ways to put files into a share.

use std::path::Path;

use isotherm_api::Client;
use isotherm_api::management::NewGroup;
use isotherm_api::sync::Attach;
use isotherm_core::content::{ChunkId, Manifest, ManifestBuilder, ManifestError, PackBuilder};
use isotherm_core::ids::{Cursor, Epoch, GroupId, Incarnation, NodeId, OperationId, ServerId, Timestamp, Version};
use isotherm_core::name::{Case, Name};
use isotherm_core::namespace::{Answer, Batch, Change, Operation};
use isotherm_core::node::{Content, FileContent, Metadata, Node, Place};
use isotherm_service::{Options, Service};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Ends what would hang.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A process that was forked and has not yet begun its program holds copies of all locks. Who starts a process writes
/// this, who opens a data folder again that was just closed reads it.
pub(crate) static FORKS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// A service that serves.
pub(crate) struct Running {
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(data: &Path) -> Self {
        let service = Service::open(Options::at(data)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            service.serve(listener, shutdown).await.unwrap();
        });
        Self { client, stop, serving }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the service stops").unwrap();
    }
}

/// A service with one group and one attached server.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) running: Running,
    pub(crate) writer: Writer,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_case(Case::Sensitive).await
    }

    pub(crate) async fn with_case(case: Case) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(folder.path()).await;
        running.client.create_group(&group("plans", case)).await.unwrap();
        let writer = Writer::attach(&running.client, "munich").await;
        Self { folder, running, writer }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.running.client
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.running.stop().await;
        self.folder
    }
}

pub(crate) fn group(name: &str, case: Case) -> NewGroup {
    NewGroup {
        name: name.into(),
        case,
        quota: None,
        exclusions: Vec::new(),
        max_delete_fraction: None,
        keep: isotherm_api::management::KeepChange::default(),
    }
}

/// A server that writes to the group `plans`.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) server: ServerId,
    pub(crate) epoch: Epoch,
    next: u64,
}

impl Writer {
    pub(crate) async fn attach(client: &Client, name: &str) -> Self {
        let attached = client.attach(&Attach { name: name.into(), server: None }).await.unwrap();
        let group = client.group("plans").await.unwrap();
        let mut writer = Self {
            client: client.clone(),
            group: group.id,
            incarnation: group.incarnation,
            server: attached.server,
            epoch: attached.epoch,
            next: 0,
        };
        // The first batch that a run of the service gets begins its life.
        client.commit(group.id, &writer.batch(Vec::new())).await.unwrap();
        writer.incarnation = client.group("plans").await.unwrap().incarnation;
        writer
    }

    pub(crate) fn start(&self) -> Cursor {
        Cursor { incarnation: self.incarnation, version: Version(0) }
    }

    fn id(&mut self) -> [u8; 16] {
        self.next += 1;
        let mut id = self.server.0;
        id[8..].copy_from_slice(&self.next.to_be_bytes());
        id
    }

    pub(crate) fn node(&mut self) -> NodeId {
        NodeId(self.id())
    }

    pub(crate) fn operation(&mut self, change: Change) -> Operation {
        Operation { id: OperationId(self.id()), group: None, change }
    }

    pub(crate) fn batch(&self, operations: Vec<Operation>) -> Batch {
        Batch { server: self.server, epoch: self.epoch, incarnation: self.incarnation, operations }
    }

    pub(crate) async fn commit(&mut self, change: Change) -> Answer {
        let operation = self.operation(change);
        self.client.commit(self.group, &self.batch(vec![operation])).await.unwrap().remove(0)
    }

    /// Uploads content with all it needs.
    pub(crate) async fn upload(&self, parts: &[Data<'_>]) -> FileContent {
        let (manifest, packs) = pack(parts);
        for pack in packs {
            self.client.put_pack(self.group, pack).await.unwrap();
        }
        self.client.put_manifests(self.group, vec![manifest.encode().bytes]).await.unwrap();
        FileContent { manifest: manifest.id(), size: manifest.len(), modified: Timestamp(1), link: None }
    }

    /// Makes files of one chunk each at the top of the share; all their chunks lie in one pack, in this order.
    pub(crate) async fn create_in_one_pack(&mut self, files: &[(&[u8], &[u8])]) {
        let mut open = PackBuilder::new();
        for (_, bytes) in files {
            open.push(ChunkId::of(bytes), bytes).unwrap();
        }
        self.client.put_pack(self.group, open.finish().1).await.unwrap();
        for (name, bytes) in files {
            let manifest = pack(&[Data::Bytes(bytes)]).0;
            self.client.put_manifests(self.group, vec![manifest.encode().bytes]).await.unwrap();
            let content = FileContent { manifest: manifest.id(), size: manifest.len(), modified: Timestamp(1), link: None };
            let change = create(self.node(), NodeId::ROOT, name, Content::File(content));
            assert!(matches!(self.commit(change).await, Answer::Applied(_)));
        }
    }

    /// Makes a file at the top of the share.
    pub(crate) async fn create(&mut self, name: &[u8], bytes: &[u8]) -> (NodeId, Version) {
        let content = self.upload(&[Data::Bytes(bytes)]).await;
        let node = self.node();
        match self.commit(create(node, NodeId::ROOT, name, Content::File(content))).await {
            Answer::Applied(version) => (node, version),
            other => panic!("{other:?}"),
        }
    }

    /// A batch that makes a directory at the top of the share.
    pub(crate) fn directory(&mut self, name: &[u8]) -> Batch {
        let change = create(self.node(), NodeId::ROOT, name, Content::Directory);
        let operation = self.operation(change);
        self.batch(vec![operation])
    }

    /// Where the feed ends now.
    pub(crate) async fn head(&self) -> Cursor {
        self.follow(self.start()).await.1
    }

    /// Reads the feed to its head.
    pub(crate) async fn follow(&self, mut cursor: Cursor) -> (Vec<Node>, Cursor) {
        let mut nodes = Vec::new();
        loop {
            let page = self.client.feed(self.group, cursor, 3, 0).await.unwrap();
            assert!(!page.start_over);
            nodes.extend(page.nodes);
            cursor = page.cursor;
            if page.at_head {
                return (nodes, cursor);
            }
        }
    }
}

pub(crate) fn create(node: NodeId, parent: NodeId, name: &[u8], content: Content) -> Change {
    let place = Place { parent, name: Name::new(name).unwrap() };
    Change::Create { node, place, metadata: Metadata::default(), content, revives: None, conflict_of: None }
}

/// A piece of a file.
pub(crate) enum Data<'a> {
    Bytes(&'a [u8]),
    Hole(u64),
}

/// Manifest and packs of a file.
pub(crate) fn pack(parts: &[Data<'_>]) -> (Manifest, Vec<Vec<u8>>) {
    let mut packs = Vec::new();
    let mut open = PackBuilder::new();
    let mut keep = |chunk: ChunkId, bytes: &[u8]| {
        open.push(chunk, bytes).unwrap();
        if open.is_ripe() {
            packs.push(std::mem::take(&mut open).finish().1);
        }
        Ok::<(), ManifestError>(())
    };
    let mut builder = ManifestBuilder::new();
    for part in parts {
        match part {
            Data::Bytes(bytes) => builder.data(bytes, &mut keep).unwrap(),
            Data::Hole(len) => builder.hole(*len),
        }
    }
    let manifest = builder.finish(&mut keep).unwrap();
    if !open.is_empty() {
        packs.push(open.finish().1);
    }
    (manifest, packs)
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A file of the group as it is downloaded.
pub(crate) async fn read(running: &Running, path: &[u8]) -> Vec<u8> {
    let mut download = running.client.download("plans", path, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = download.next_piece().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}
