//! Contents from the service, for staging.
//!
//! **Invariant:** whatever is handed out was verified against its id on arrival.

use bytes::Bytes;
use isotherm_api::limits::IDS_MAX;
use isotherm_core::content::manifest::Decoded;
use isotherm_core::content::{ChunkId, Manifest, ManifestId, ManifestIndex};

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::{Share, Turn, away};
use crate::engine::Away;
use crate::volume::{ContentSource, Errand};

/// Manifests of one request: they are held in memory together.
const MANIFESTS: usize = 2_048;

impl ContentSource for Share {
    fn manifests(&self, ids: &[ManifestId]) -> Result<Vec<Option<Manifest>>, Away> {
        let mut found = Vec::with_capacity(ids.len());
        for part in ids.chunks(MANIFESTS) {
            let encoded = self.runtime.block_on(self.client().get_manifests(self.group, part)).map_err(away)?;
            for (id, bytes) in part.iter().zip(encoded) {
                found.push(match bytes {
                    Some(bytes) => Some(self.decode(*id, &bytes)?),
                    None => None,
                });
            }
        }
        Ok(found)
    }

    fn chunks(
        &self,
        (ids, bytes): (&[ChunkId], u64),
        sink: &mut dyn FnMut(ChunkId, Option<Bytes>),
        errand: &Errand<'_>,
    ) -> Result<(), Away> {
        // Before anything is asked for: the service has better things to do than to wait with it.
        let turn = self.limiter().get(bytes, &|| self.go_on().is_ok(), errand);
        let mut turn = turn.ok_or_else(|| Away { text: "It is not wanted any more".to_owned(), retry: true })?;
        self.receive(ids, sink, errand.heard, &mut turn)
    }

    fn portion(&self, is_awaited: bool) -> Option<u64> {
        self.limiter().portion_down(is_awaited)
    }
}

impl Share {
    fn receive(
        &self,
        ids: &[ChunkId],
        sink: &mut dyn FnMut(ChunkId, Option<Bytes>),
        heard: &(dyn Fn() + Sync),
        turn: &mut Turn<'_>,
    ) -> Result<(), Away> {
        for part in ids.chunks(IDS_MAX) {
            let mut stream = self.runtime.block_on(self.client().get_chunks(self.group, part)).map_err(away)?;
            while let Some((id, bytes)) = self.runtime.block_on(stream.next_chunk_hearing(&mut || heard())).map_err(away)? {
                self.go_on()?;
                let len = bytes.as_ref().map_or(0, Bytes::len);
                self.traffic.down.fetch_add(len as u64, Ordering::Relaxed);
                turn.came(len as u64);
                sink(id, bytes);
            }
        }
        Ok(())
    }

    fn decode(&self, id: ManifestId, bytes: &[u8]) -> Result<Manifest, Away> {
        let damaged = |why: &dyn std::fmt::Display| Away { text: format!("Manifest {id} cannot be read: {why}"), retry: false };
        match Manifest::decode(id, bytes).map_err(|error| damaged(&error))? {
            Decoded::Whole(manifest) => Ok(manifest),
            Decoded::Index(index) => self.assemble(&index)?.map_err(|error| damaged(&error)),
        }
    }

    fn assemble(&self, index: &ManifestIndex) -> Result<Result<Manifest, isotherm_core::content::ManifestError>, Away> {
        let ids: Vec<ChunkId> = index.chunks().iter().map(|(chunk, _)| *chunk).collect();
        let mut found = BTreeMap::new();
        // It says what there is and where: that waits for no content.
        let mut take = |id, bytes: Option<Bytes>| found.extend(bytes.map(|bytes| (id, bytes)));
        self.receive(&ids, &mut take, &|| {}, &mut self.limiter().uncounted())?;
        // A missing one makes the pieces fewer than the index says, which `assemble` refuses.
        Ok(index.assemble(ids.iter().filter_map(|id| found.get(id)).map(|bytes| &bytes[..])))
    }
}
