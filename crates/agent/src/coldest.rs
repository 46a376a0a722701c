//! Which files of a volume were unused for longest.
//!
//! The catalogs say which may go; when a file was last used its inode says. **Invariant:** nothing is given up here, and whether a
//! file may really go is asked again of the file itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use isotherm_core::ids::NodeId;
use isotherm_core::tiering::{Coldest, Used};
use isotherm_core::trees::{Handle, Local};
use isotherm_gate::Root;

use crate::catalog::CatalogReader;
use crate::recall::Candidate;
use crate::volume::{gate_handle, print_of};

/// Records that are read from a catalog together.
const PAGE: usize = 1_000;

/// Files of these catalogs, all of the volume of `root`, whose contents take `bytes` together, if there are so many: the ones that
/// were unused for longest, but none of `without`. It looks at every file: some seconds for a million.
pub(crate) fn coldest(catalogs: &[PathBuf], root: &Root, bytes: u64, without: &BTreeSet<Handle>) -> Vec<Candidate> {
    let readers: Vec<CatalogReader> = catalogs.iter().filter_map(|path| CatalogReader::open(path).ok()).collect();
    let mut coldest = Coldest::freeing(bytes);
    for (number, reader) in readers.iter().enumerate() {
        let mut after = NodeId::ROOT;
        loop {
            let page = reader.settled_files(after, PAGE);
            let Some(last) = page.last() else { break };
            after = last.node;
            for record in &page {
                // It was used when it was written, or later.
                let local = record.here().filter(|local| coldest.would_take(local.print.modified.0));
                if let Some(local) = local.filter(|local| Candidate::is_suited(local) && !without.contains(&local.handle))
                    && record.stands_for().is_some()
                    && let Some(at_ns) = last_used(root, local)
                {
                    coldest.offer(Used { at_ns, bytes: local.print.size, file: (number, record.node) });
                }
            }
        }
    }
    let records = coldest.into_files().into_iter().filter_map(|(number, node)| readers[number].record(node));
    records.filter_map(|record| Candidate::of(&record)).collect()
}

/// The latest of access, change and creation; none for a stub, and for a file that is not what the catalog knows.
fn last_used(root: &Root, local: &Local) -> Option<i64> {
    let inode = gate_handle(&local.handle).and_then(|handle| root.inode(&handle)).ok()?;
    let stat = inode.stat().ok()?;
    let is_whole = inode.stub_record().is_ok_and(|record| record.is_none());
    let is_known = is_whole && print_of(&stat) == local.print;
    is_known.then(|| stat.atime_ns.max(stat.mtime_ns).max(stat.btime_ns.unwrap_or(i64::MIN)))
}
