//! Fetches contents as agents do, and does nothing with them: the manifest, then its chunks, over a connection that is open.
//!
//! `get URL GROUP` reads lines of two lengths and a path below the group's root; each is answered by the bytes that came, of the chunks in
//! which the first and the last so many bytes of the file are, and by the nanoseconds that they took. `cargo xtask bench tiering` measures
//! with it.
//!
//! **Invariant:** which content a path has is looked up before the time begins.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use isotherm_api::client::Client;
use isotherm_core::content::manifest::Decoded;
use isotherm_core::content::{ChunkId, Manifest, ManifestId};
use isotherm_core::ids::GroupId;

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(group)) = (arguments.next(), arguments.next()) else { return Err("get URL GROUP".into()) };
    let client = Client::new(&url)?;
    let id = client.group(&group).await?.id;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut fields = line.splitn(3, ' ');
        let (Some(first), Some(last), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            return Err("A line is two lengths and a path".into());
        };
        let ends = (first.parse()?, last.parse()?);
        let versions = client.versions(&group, path.as_bytes()).await?;
        let manifest = versions.first().and_then(|version| version.manifest).ok_or("No file has this path")?;
        let began = Instant::now();
        let bytes = get(&client, id, manifest, ends).await?;
        writeln!(std::io::stdout(), "{bytes} {}", began.elapsed().as_nanos())?;
    }
    Ok(())
}

async fn get(client: &Client, group: GroupId, id: ManifestId, (first, last): (u64, u64)) -> Result<u64, Failure> {
    let encoded = client.get_manifests(group, &[id]).await?.pop().flatten().ok_or("The share has no such manifest")?;
    let manifest = match Manifest::decode(id, &encoded)? {
        Decoded::Whole(manifest) => manifest,
        Decoded::Index(index) => {
            let ids: Vec<ChunkId> = index.chunks().iter().map(|(chunk, _)| *chunk).collect();
            let mut pieces = Vec::new();
            receive(client, group, &ids, |bytes| pieces.push(bytes.to_vec())).await?;
            index.assemble(pieces.iter().map(|piece| &piece[..]))?
        }
    };
    let len = manifest.len();
    let ends = manifest.parts_in(0..first).chain(manifest.parts_in(len.saturating_sub(last)..len));
    let mut chunks: Vec<ChunkId> = ends.filter_map(|placed| placed.part.chunk()).collect();
    let mut known = BTreeSet::new();
    chunks.retain(|chunk| known.insert(*chunk));
    let mut sum = 0;
    receive(client, group, &chunks, |bytes| sum += bytes.len() as u64).await?;
    Ok(sum)
}

async fn receive(client: &Client, group: GroupId, ids: &[ChunkId], mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
    let mut stream = client.get_chunks(group, ids).await?;
    while let Some((_, bytes)) = stream.next_chunk().await? {
        take(&bytes.ok_or("The share has no such chunk")?);
    }
    Ok(())
}
