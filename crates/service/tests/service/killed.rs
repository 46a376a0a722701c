//! A service that is killed in the middle of its work: what it answered as done is there.
//!
//! The service runs in a process of its own, which is this test program again.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isotherm_api::Client;
use isotherm_core::ids::NodeId;
use isotherm_core::namespace::Answer;
use isotherm_core::node::Content;
use isotherm_service::{Options, Service};

use crate::world::{Data, FORKS, Running, Writer, create, group, noise};

/// Tells the other process its data folder.
const DATA: &str = "ISOTHERM_TEST_SERVICE_DATA";
/// Begins the line with the address.
const LISTENS: &str = "listens on ";

/// The other process. Without the folder there is nothing for it to do.
#[tokio::test(flavor = "multi_thread")]
async fn service_process() {
    let Some(data) = std::env::var_os(DATA) else { return };
    let service = Service::open(Options::at(data)).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\n{LISTENS}{}", listener.local_addr().unwrap());
    service.serve(listener, std::future::pending()).await.unwrap();
}

/// Kills the process also when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be dead already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn spawn(data: &Path) -> (Killed, Client) {
    let forking = FORKS.write().await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed::service_process", "--nocapture"]).env(DATA, data);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    drop(forking);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let address = lines.map(|line| line.unwrap()).find_map(|line| line.strip_prefix(LISTENS).map(str::to_owned)).unwrap();
    (child, Client::new(&format!("http://{address}")).unwrap())
}

/// Writes files until the service is gone; gives the names and contents that were answered as done.
async fn write_until_dead(mut writer: Writer, seed: u64, done: tokio::sync::mpsc::Sender<()>) -> Vec<(String, Vec<u8>)> {
    let mut written = Vec::new();
    for number in 0.. {
        let bytes = noise(seed * 10_000 + number, 3000);
        let (manifest, packs) = crate::world::pack(&[Data::Bytes(&bytes)]);
        let (client, group) = (writer.client.clone(), writer.group);
        for pack in packs {
            if client.put_pack(group, pack).await.is_err() {
                return written;
            }
        }
        if client.put_manifests(group, vec![manifest.encode().bytes]).await.is_err() {
            return written;
        }
        let file = isotherm_core::node::FileContent {
            manifest: manifest.id(),
            size: manifest.len(),
            modified: isotherm_core::ids::Timestamp(0),
            link: None,
        };
        let name = format!("{seed}-{number}");
        let node = writer.node();
        let operation = writer.operation(create(node, NodeId::ROOT, name.as_bytes(), Content::File(file)));
        match client.commit(group, &writer.batch(vec![operation])).await {
            Ok(answers) => assert!(matches!(answers[0], Answer::Applied(_)), "{answers:?}"),
            Err(_) => return written,
        }
        written.push((name, bytes));
        let _ = done.send(()).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in 0..3_u64 {
        let (mut process, client) = spawn(folder.path()).await;
        if round == 0 {
            client.create_group(&group("plans", isotherm_core::name::Case::Sensitive)).await.unwrap();
        }
        let (done, mut ready) = tokio::sync::mpsc::channel(1000);
        let mut writers = Vec::new();
        for number in 0..4 {
            let writer = Writer::attach(&client, &format!("server-{round}-{number}")).await;
            writers.push(tokio::spawn(write_until_dead(writer, round * 10 + number, done.clone())));
        }
        for _ in 0..40 {
            ready.recv().await.unwrap();
        }
        process.0.kill().unwrap();
        drop(ready);
        for writer in writers {
            all.extend(writer.await.unwrap());
        }
    }
    let again = Running::start(folder.path()).await;
    assert!(all.len() >= 120);
    for (name, bytes) in &all {
        let mut download = again.client.download("plans", name.as_bytes(), None).await.unwrap();
        assert_eq!(download.next_piece().await.unwrap().unwrap(), &bytes[..], "{name}");
    }
    again.stop().await;
}
