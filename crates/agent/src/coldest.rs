//! Which files of a volume have been here for longest.
//!
//! The catalogs say which may go; since when a file is here its inode says. **Invariant:** nothing is given up here, and whether a
//! file may really go is asked again of the file itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use isotherm_core::ids::NodeId;
use isotherm_core::tiering::{Coldest, Used};
use isotherm_core::trees::{Handle, Local};
use isotherm_gate::Root;

use crate::catalog::CatalogReader;
use crate::recall::{Candidate, Cold};
use crate::volume::{gate_handle, print_of};

/// Records that are read from a catalog together.
const PAGE: usize = 1_000;

/// Files of these catalogs, all of the volume of `root`, whose contents take `bytes` on the disk together, if there are so many: the
/// ones that have been here unchanged for longest, but none of `without`. It looks at every file, some seconds for a million, and asks now
/// and then whether to go on.
pub(crate) fn coldest(
    catalogs: &[PathBuf],
    root: &Root,
    bytes: u64,
    without: &BTreeSet<Handle>,
    go_on: &dyn Fn() -> bool,
) -> Vec<Cold> {
    let readers: Vec<CatalogReader> = catalogs.iter().filter_map(|path| CatalogReader::open(path).ok()).collect();
    let mut coldest = Coldest::freeing(bytes);
    for (number, reader) in readers.iter().enumerate() {
        let mut after = NodeId::ROOT;
        loop {
            let page = reader.settled_files(after, PAGE);
            let Some(last) = page.last() else { break };
            after = last.node;
            if !go_on() {
                return Vec::new();
            }
            for record in &page {
                let local = record.here().filter(|local| coldest.would_take(local.print.changed.0));
                if let Some(local) = local.filter(|local| Candidate::is_suited(local) && !without.contains(&local.handle))
                    && record.stands_for().is_some()
                    && let Some(used) = used(root, local, (number, record.node))
                {
                    coldest.offer(used);
                }
            }
        }
    }
    let chosen = coldest.into_files().into_iter();
    let of = |used: Used<(usize, NodeId)>| {
        let (number, node) = used.file;
        Some(Cold { candidate: Candidate::of(&readers[number].record(node)?)?, bytes: used.bytes })
    };
    chosen.filter_map(of).collect()
}

/// Since when a file has been here as it is, or when it was read last, where the volume notes that. None for a stub, and for a file that is
/// not what the catalog knows.
fn used(root: &Root, local: &Local, file: (usize, NodeId)) -> Option<Used<(usize, NodeId)>> {
    let inode = gate_handle(&local.handle).and_then(|handle| root.inode(&handle)).ok()?;
    let stat = inode.stat().ok()?;
    let is_whole = inode.stub_record().is_ok_and(|record| record.is_none());
    let is_known = is_whole && print_of(&stat) == local.print;
    // A recall changes an inode too, so what came back lately counts as used lately.
    is_known.then(|| Used { at_ns: stat.atime_ns.max(stat.ctime_ns), bytes: stat.blocks.saturating_mul(512), file })
}
