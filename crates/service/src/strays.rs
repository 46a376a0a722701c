//! Packs that no record names: what an interrupted upload, or records that were set back, leave in the store.
//!
//! A pack is stored before it is known, so one that nothing names may be on its way. Each check remembers which it saw. Only
//! those that an earlier check saw long enough ago are deleted, if that is asked for.
//!
//! **Invariants:** nothing is deleted while a pack is being stored, and nothing that is known by then; an object goes before
//! what is remembered of it, so a deletion that is cut off is found again.

use std::sync::Arc;

use isotherm_core::content::PackId;
use rusqlite::Connection;

use crate::State;
use crate::fault::Fault;
use crate::records;

/// Packs that one step deletes: uploads wait no longer than for these.
const PIECE: usize = 64;

/// Packs and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) packs: u64,
    pub(crate) bytes: u64,
}

/// Remembers that a check saw these packs with their lengths, and forgets those that it did not see.
pub(crate) async fn remember(state: &State, strays: Vec<(PackId, u64)>, now_ms: u64) -> Result<(), Fault> {
    // Most checks see none, and then only what was remembered is to be looked at.
    if strays.is_empty() && !state.database.read(records::any_strays).await? {
        return Ok(());
    }
    state.database.write(move |connection| records::remember_strays(connection, &strays, now_ms), |()| {}).await
}

/// Deletes what checks before `until_ms` have seen and still nothing names.
pub(crate) async fn delete(state: &Arc<State>, until_ms: u64) -> Result<Deleted, Fault> {
    let mut deleted = Deleted::default();
    loop {
        // On its own, so that it ends also where the check is cut off: what it has begun to delete must not be stored meanwhile.
        let strays = tokio::spawn(delete_piece(Arc::clone(state), until_ms)).await??;
        if strays.is_empty() {
            return Ok(deleted);
        }
        deleted.packs += strays.len() as u64;
        deleted.bytes += strays.iter().map(|(_, len)| len).sum::<u64>();
    }
}

async fn delete_piece(state: Arc<State>, until_ms: u64) -> Result<Vec<(PackId, u64)>, Fault> {
    let _nobody_stores = state.content.no_stores().await;
    // Through the writer, behind all that was stored before: an upload whose client went away is still made known there.
    let look = move |connection: &Connection| records::old_strays(connection, until_ms, PIECE);
    let strays = state.database.write(look, |_| {}).await?;
    let ids: Vec<PackId> = strays.iter().map(|(pack, _)| *pack).collect();
    if !ids.is_empty() {
        state.content.packs().delete_packs(&ids).await?;
        tracing::info!(packs = ids.len(), "Packs that no record names were deleted");
        state.database.write(move |connection| records::forget_strays(connection, &ids), |()| {}).await?;
    }
    Ok(strays)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use isotherm_core::content::{ChunkId, PackBuilder};

    use super::*;
    use crate::clock::now_ms;
    use crate::records::PackRow;
    use crate::{Options, Service};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stray_that_is_being_made_known_is_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::open(Options::at(folder.path())).await.unwrap();
        let state = std::sync::Arc::clone(&service.state);
        let mut builder = PackBuilder::new();
        builder.push(ChunkId::of(b"bytes"), b"bytes").unwrap();
        let (pack, bytes, entries) = builder.finish();
        let row = PackRow { id: pack, len: bytes.len() as u64 };
        remember(&state, vec![(pack, row.len)], 1).await.unwrap();
        let stores = state.content.storing().await;
        state.content.put_object(pack, bytes.into()).await.unwrap();
        let mut deleting = tokio::spawn({
            let state = std::sync::Arc::clone(&state);
            async move { delete(&state, u64::MAX >> 1).await }
        });
        let moment = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(moment, &mut deleting).await.is_err(), "it waits for as long as a pack is being stored");
        state.database.write(move |connection| records::index_pack(connection, row, &entries, now_ms()), |()| {}).await.unwrap();
        drop(stores);
        assert_eq!(deleting.await.unwrap().unwrap(), Deleted::default());
        assert_eq!(state.content.packs().len(pack).await.unwrap(), Some(row.len));
    }
}
