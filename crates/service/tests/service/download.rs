//! Files by path and by range, and listings.

use isotherm_api::{ApiError, Client, Code};
use isotherm_core::ids::NodeId;
use isotherm_core::namespace::Answer;
use isotherm_core::node::{Content, Kind};

use crate::world::{Data, World, create, noise};

async fn read(client: &Client, path: &[u8], range: Option<(u64, u64)>) -> Result<Vec<u8>, ApiError> {
    let mut download = client.download("plans", path, range).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = download.next_piece().await? {
        bytes.extend_from_slice(&piece);
    }
    assert!(download.is_empty());
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_file_of_several_chunks_with_holes() {
    let mut world = World::new().await;
    let (front, back) = (noise(1, 5_000_000), noise(2, 1_500_000));
    let hole = 700_000;
    let parts = [Data::Hole(70_000), Data::Bytes(&front), Data::Hole(hole), Data::Bytes(&back), Data::Hole(80_000)];
    let content = world.writer.upload(&parts).await;
    let whole = [&vec![0; 70_000][..], &front, &vec![0; hole as usize], &back, &vec![0; 80_000]].concat();
    assert_eq!(content.size, whole.len() as u64);
    let (manifest, node) = (content.manifest, world.writer.node());
    let made = world.writer.commit(create(node, NodeId::ROOT, b"model.rvt", Content::File(content))).await;
    assert!(matches!(made, Answer::Applied(_)));
    let client = world.client();
    let len = whole.len() as u64;
    assert!(read(client, b"model.rvt", None).await.unwrap() == whole);
    let edges = [0, 1, 69_999, 70_000, 70_001, 1_400_000, 5_069_999, 5_070_000, 5_770_000, 5_770_001, 7_270_000, len - 1, len];
    for (at, start) in edges.iter().enumerate() {
        for end in &edges[at + 1..] {
            let found = read(client, b"model.rvt", Some((*start, *end))).await.unwrap();
            assert!(found == whole[*start as usize..*end as usize], "{start}..{end}");
        }
    }
    let part = client.download("plans", b"model.rvt", Some((5, 10))).await.unwrap();
    assert_eq!(part.header("etag"), Some(&format!("\"{manifest}\"")[..]));
    assert_eq!(part.header("content-range"), Some(&format!("bytes 5-9/{len}")[..]));
    assert_eq!(part.len(), Some(5));
    assert_eq!(read(client, b"model.rvt", Some((len, len + 1))).await.unwrap_err().code, Code::Range);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_any_bytes_are_found_and_listed() {
    let mut world = World::new().await;
    let directory = world.writer.node();
    let name = b"\xff plans%20 & more?#";
    world.writer.commit(create(directory, NodeId::ROOT, name, Content::Directory)).await;
    let link = world.writer.node();
    world.writer.commit(create(link, directory, b"link", Content::Symlink { target: b"/x".to_vec() })).await;
    let content = world.writer.upload(&[Data::Bytes(b"hello")]).await;
    let file = world.writer.node();
    world.writer.commit(create(file, directory, "ä".as_bytes(), Content::File(content))).await;
    world.writer.create(b"empty", b"").await;
    let client = world.client();
    let path = [&name[..], b"/", "ä".as_bytes()].concat();
    assert_eq!(read(client, &path, None).await.unwrap(), b"hello");
    assert_eq!(read(client, b"empty", None).await.unwrap(), b"");
    assert_eq!(read(client, name, None).await.unwrap_err().code, Code::IsDirectory);
    assert_eq!(read(client, &[&name[..], b"/link"].concat(), None).await.unwrap_err().code, Code::NotAFile);
    for absent in [&b"nothing"[..], b"empty/x", &[&name[..], b"/y"].concat()] {
        assert_eq!(read(client, absent, None).await.unwrap_err().code, Code::NotFound);
    }
    let top = client.tree("plans", b"").await.unwrap();
    let names: Vec<Vec<u8>> = top.entries.iter().map(|entry| entry.name.bytes().unwrap()).collect();
    assert_eq!(names, [b"empty".to_vec(), name.to_vec()]);
    let inner = client.tree("plans", name).await.unwrap();
    assert_eq!(inner.entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [Kind::Symlink, Kind::File]);
    assert_eq!(inner.entries[0].target.as_ref().unwrap().path, "/x");
    assert_eq!(inner.entries[1].size, 5);
    assert_eq!(client.tree("plans", &path).await.unwrap().entries.len(), 1);
    assert_eq!(client.tree("plans", b"no").await.unwrap_err().code, Code::NotFound);
    world.stop().await;
}
