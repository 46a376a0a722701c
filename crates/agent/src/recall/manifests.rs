//! Lists of chunks that were used a moment ago: whoever reads a file while it comes asks for part after part of the same content.
//!
//! **Invariant:** what is kept is what its id says, since an id is the digest of its list.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use isotherm_core::content::{Manifest, ManifestId};

/// Contents from this size on are asked for in more than one request, in bytes; lists of others are not kept.
const LEAST: u64 = 8 << 20;
/// Parts of all lists that are kept together, at most: some 12 MiB of memory, and enough for contents of 256 GiB.
const PARTS: usize = 1 << 18;

/// The lists of an endpoint's contents, those that were used last.
#[derive(Debug, Default)]
pub(super) struct Manifests(Mutex<VecDeque<(ManifestId, Arc<Manifest>)>>);

impl Manifests {
    /// The list of this name, if it is kept.
    pub(super) fn get(&self, id: &ManifestId) -> Option<Arc<Manifest>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(other, _)| other == id)?;
        let found = kept.remove(at)?;
        let manifest = Arc::clone(&found.1);
        kept.push_back(found);
        Some(manifest)
    }

    /// Keeps a list for a while, if it is one of a large content.
    pub(super) fn keep(&self, id: ManifestId, manifest: &Arc<Manifest>) {
        if manifest.len() < LEAST || manifest.parts().len() > PARTS {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != id);
        kept.push_back((id, Arc::clone(manifest)));
        let mut parts: usize = kept.iter().map(|(_, manifest)| manifest.parts().len()).sum();
        while parts > PARTS
            && let Some((_, oldest)) = kept.pop_front()
        {
            parts -= oldest.parts().len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use isotherm_core::content::ChunkId;
    use isotherm_core::content::manifest::Part;

    use super::*;

    fn manifest(number: u8, parts: usize, len: u32) -> (ManifestId, Arc<Manifest>) {
        let part = Part::Data { chunk: ChunkId::from_bytes([number; 32]), len };
        (ManifestId::from_bytes([number; 32]), Arc::new(Manifest::new(vec![part; parts]).unwrap()))
    }

    #[test]
    fn those_used_last_are_kept_and_together_they_stay_small() {
        let kept = Manifests::default();
        let [first, second, third] = [1, 2, 3].map(|number| manifest(number, PARTS / 2, 1 << 10));
        kept.keep(first.0, &first.1);
        kept.keep(second.0, &second.1);
        assert!(kept.get(&first.0).is_some());
        kept.keep(third.0, &third.1);
        let is_kept = [&first, &second, &third].map(|(id, _)| kept.get(id).is_some());
        assert_eq!(is_kept, [true, false, true]);
        let (small, large) = (manifest(4, 1, 1 << 20), manifest(5, PARTS + 1, 1 << 10));
        kept.keep(small.0, &small.1);
        kept.keep(large.0, &large.1);
        assert!(kept.get(&small.0).is_none() && kept.get(&large.0).is_none());
    }
}
