//! Which files may go, and in which order: the catalogs of a volume's endpoints beside what is known of uses.
//!
//! **Invariant:** nothing is given up here, and whether a file may really go is asked again of the file itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use isotherm_core::ids::{EndpointId, NodeId};
use isotherm_core::node::Kind;
use isotherm_core::tiering::{File, Going, Heat, Plan, Policy};
use isotherm_core::trees::{Handle, Local, Record};
use isotherm_gate::Root;

use super::kept::Kept;
use crate::catalog::{CatalogReader, HeatStore};
use crate::recall::{Candidate, Cold};
use crate::volume::{gate_handle, print_of};

/// Records that are read from a catalog together.
const PAGE: usize = 1_000;

/// An endpoint whose contents may go.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Ground {
    pub(crate) endpoint: EndpointId,
    pub(crate) catalog: PathBuf,
    pub(crate) policy: Policy,
    /// All names of the share are here.
    pub(crate) has_names: bool,
}

/// A file in a plan: which endpoint, and which node.
pub(crate) type Planned = (usize, NodeId);

/// Offers a plan all files of these endpoints that are whole and safe in the share, but none of `without`, and gives what goes. It looks
/// at every file, some seconds for a million, and asks now and then whether to go on; nothing goes when that says no.
pub(crate) fn cold_files(
    (root, grounds): (&Root, &[Ground]),
    heat: &HeatStore,
    mut plan: Plan<Planned>,
    without: &BTreeSet<Handle>,
    go_on: &dyn Fn() -> bool,
) -> Vec<Cold> {
    let open = |ground: &Ground| CatalogReader::open(&ground.catalog).ok();
    let readers: Vec<Option<CatalogReader>> = grounds.iter().map(open).collect();
    for (number, (ground, reader)) in grounds.iter().zip(&readers).enumerate() {
        let Some(reader) = reader else { continue };
        let Some(mut kept) = Kept::new(reader, ground.policy.clone()) else { continue };
        let mut after = NodeId::ROOT;
        loop {
            let page = reader.whole_files(after, PAGE);
            let Some(last) = page.last() else { break };
            after = last.node;
            if !go_on() {
                return Vec::new();
            }
            for record in &page {
                let Some(local) = record.here().filter(|local| Candidate::is_suited(local)) else { continue };
                let known = by_times(record, local);
                if !plan.would_take(&ground.policy, &known)
                    || record.stands_for().is_none()
                    || without.contains(&local.handle)
                    || kept.stays(reader, record.node, &local.place).is_some()
                {
                    continue;
                }
                let Some(size) = size_on_disk(root, local) else { continue };
                let used = File { size, ..known }.used(heat.get(&local.handle));
                // Why it stays is for those who ask.
                let _ = plan.offer(&ground.policy, &used, (number, record.node));
            }
        }
    }
    let of = |going: Going<Planned>| {
        let (number, node) = going.file;
        let record = readers[number].as_ref()?.record(node)?;
        let endpoint = grounds[number].endpoint;
        Some(Cold { endpoint, candidate: Candidate::of(&record)?, bytes: going.bytes, reason: going.reason })
    };
    plan.into_going().into_iter().filter_map(of).collect()
}

/// What the content of a file takes on the disk; none for a stub, and for a file that is not what the catalog knows.
fn size_on_disk(root: &Root, local: &Local) -> Option<u64> {
    let inode = gate_handle(&local.handle).and_then(|handle| root.inode(&handle)).ok()?;
    let stat = inode.stat().ok()?;
    let is_whole = inode.stub_record().is_ok_and(|record| record.is_none());
    (is_whole && print_of(&stat) == local.print).then(|| stat.blocks.saturating_mul(512))
}

/// What is known of a file before anybody has asked for its uses.
pub(crate) fn by_times(record: &Record, local: &Local) -> File {
    let created = record.live().and_then(|node| node.metadata.born);
    let came = local.print.changed.max(local.print.modified).0 / 1_000_000;
    debug_assert_eq!(local.kind(), Kind::File);
    File { size: local.print.size, heat: Heat::unseen(local.print.modified, created), came_ms: u64::try_from(came).unwrap_or(0) }
}
