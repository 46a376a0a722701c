//! Putting what is wanted of packs into new ones: of packs that are mostly dead, small or damaged.
//!
//! Records move as they are, compressed, so that a run takes memory for what is stored and not for what that stands for.
//!
//! **Invariants:** a chunk moves to a pack that is stored, and only out of the pack that it was read from; a pack of which
//! something wanted cannot be read stays as it is.

use bytes::Bytes;
use isotherm_core::content::{PackBuilder, PackEntry, PackId};
use isotherm_store::Location;

use crate::State;
use crate::clock::now_ms;
use crate::fault::Fault;
use crate::records::{self, PackRow};

/// A chunk's entry in its pack, and its record.
type Record = (PackEntry, Bytes);

/// Rewrites packs, by their numbers; gives how many were. Their records are in memory together.
pub(crate) async fn rewrite(state: &State, packs: Vec<i64>) -> Result<u64, Fault> {
    let (mut old, mut chunks) = (Vec::new(), Vec::new());
    for num in packs {
        if let Some(wanted) = read_wanted(state, num).await? {
            chunks.extend(wanted);
            old.push(num);
        }
    }
    for (id, bytes, entries) in seal(chunks).await? {
        let row = PackRow { id, len: bytes.len() as u64 };
        let old = old.clone();
        let _stores = state.content.storing().await;
        state.content.put_object(id, bytes.into()).await?;
        state.database.write(move |connection| records::repack(connection, &old, row, &entries, now_ms()), |()| {}).await?;
    }
    Ok(old.len() as u64)
}

/// The chunks of a pack that are not condemned; none at all if one of them cannot be read. A damaged pack stays for a check,
/// which finds out what of it can still be read.
async fn read_wanted(state: &State, num: i64) -> Result<Option<Vec<Record>>, Fault> {
    let locations: Vec<Location> = state.database.read(move |connection| records::live_chunks(connection, num)).await?;
    match state.content.packs().read_records(&locations).await {
        Ok(records) => Ok(Some(locations.iter().map(|location| location.entry).zip(records).collect())),
        Err(error) => {
            tracing::error!(%error, pack = num, "Pack is not rewritten");
            Ok(None)
        }
    }
}

async fn seal(chunks: Vec<Record>) -> Result<Vec<(PackId, Vec<u8>, Vec<PackEntry>)>, Fault> {
    let sealing = tokio::task::spawn_blocking(move || {
        let mut builder = PackBuilder::new();
        let mut sealed = Vec::new();
        for (entry, record) in chunks {
            builder.push_record(&entry, &record)?;
            if builder.is_ripe() {
                sealed.push(std::mem::take(&mut builder).finish());
            }
        }
        if !builder.is_empty() {
            sealed.push(builder.finish());
        }
        Ok(sealed)
    });
    let failed = |error: isotherm_core::content::PackError| Fault::corrupt(format!("Pack that is rewritten: {error}"));
    sealing.await?.map_err(failed)
}
