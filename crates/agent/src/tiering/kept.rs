//! What stays by the word of an administrator: patterns of names and paths, and what is pinned.
//!
//! **Invariant:** what lies below a directory that stays, stays.

use std::collections::{BTreeSet, HashMap};

use isotherm_core::ids::NodeId;
use isotherm_core::node::Place;
use isotherm_core::tiering::{Policy, Stays};

use crate::catalog::CatalogReader;

/// Why a directory and what is below it stays; and its path, where paths matter.
type Known = (Option<Stays>, Vec<u8>);

/// Answers for the files of one endpoint; each directory is looked at once.
pub(crate) struct Kept {
    policy: Policy,
    pinned: BTreeSet<NodeId>,
    known: HashMap<NodeId, Known>,
    asks: bool,
}

impl Kept {
    /// By a catalog and a policy. None where it cannot be told what stays: then nothing goes.
    pub(crate) fn new(catalog: &CatalogReader, policy: Policy) -> Option<Self> {
        let pinned = catalog.pinned()?;
        let asks = !policy.keep.is_empty() || !pinned.is_empty();
        Some(Self { policy, pinned, known: HashMap::new(), asks })
    }

    /// Why a node with this place stays, if it does; by the same catalog.
    pub(crate) fn stays(&mut self, catalog: &CatalogReader, node: NodeId, place: &Place) -> Option<Stays> {
        if !self.asks {
            return None;
        }
        let (above, path) = self.directory(catalog, place.parent);
        above.or_else(|| self.by_itself(node, place, &path))
    }

    fn by_itself(&self, node: NodeId, place: &Place, parent: &[u8]) -> Option<Stays> {
        let name = place.name.as_bytes();
        if self.pinned.contains(&node) {
            return Some(Stays::Pinned);
        }
        let fits = self.policy.keeps_name(name) || (self.policy.knows_paths() && self.policy.keeps_path(&joined(parent, name)));
        fits.then_some(Stays::Kept)
    }

    fn directory(&mut self, catalog: &CatalogReader, directory: NodeId) -> Known {
        if directory.is_anchor() {
            return (self.pinned.contains(&directory).then_some(Stays::Pinned), Vec::new());
        }
        if let Some(known) = self.known.get(&directory) {
            return known.clone();
        }
        // A ring, which names of both sides together can make for a while, ends here.
        self.known.insert(directory, (None, Vec::new()));
        let place = catalog.record(directory).and_then(|record| record.local).map(|local| local.place);
        // Of one that is not known it is not known either.
        let known = place.map_or((Some(Stays::Kept), Vec::new()), |place| {
            let (above, path) = self.directory(catalog, place.parent);
            let stays = above.or_else(|| self.by_itself(directory, &place, &path));
            let path = if self.policy.knows_paths() { joined(&path, place.name.as_bytes()) } else { Vec::new() };
            (stays, path)
        });
        self.known.insert(directory, known.clone());
        known
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
