//! What gets free when contents go: blocks that several files share stay until the last of them goes.
//!
//! **Invariant:** it is an estimate for choosing; what is free is asked of the volume before each part of a plan.

use std::collections::BTreeMap;
use std::ops::Range;

use isotherm_core::tiering::Reason;
use isotherm_core::trees::Handle;
use isotherm_gate::{Root, StubFile};

use crate::dedup::Dedup;
use crate::recall::{Candidate, Cold};
use crate::volume::gate_handle;

/// Of contents that go one after the other.
#[derive(Debug, Default)]
pub(crate) struct Frees {
    bytes: u64,
    families: BTreeMap<i64, Family>,
}

/// Files that share blocks, of which some go.
#[derive(Debug)]
struct Family {
    /// How many stay.
    stay: usize,
    /// There are several.
    is_known: bool,
    /// Where on the volume the blocks are that those which go share.
    blocks: Vec<Range<u64>>,
}

/// What one content frees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Freed {
    /// Bytes that get free when it goes after all before it.
    bytes: u64,
    /// The family with which it shares most of its blocks.
    family: Option<i64>,
}

impl Family {
    fn new(members: usize) -> Self {
        Self { stay: members, is_known: members > 1, blocks: Vec::new() }
    }
}

impl Frees {
    /// Bytes of all so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// One more content goes.
    pub(crate) fn note(&mut self, of: (&Root, &Dedup), going: &Candidate) {
        self.add(of, going);
    }

    fn add(&mut self, (root, dedup): (&Root, &Dedup), going: &Candidate) -> Freed {
        let (all, shared) = blocks_of(root, &going.file).unwrap_or((going.record.size, Vec::new()));
        let of_others = len(&shared).min(all);
        let mut freed = Freed { bytes: all - of_others, family: None };
        let family = if shared.is_empty() { None } else { dedup.store.family(&going.file, going.print.changed.0) };
        if let Some(number) = family {
            let family = self.families.entry(number).or_insert_with(|| Family::new(dedup.here(root, number)));
            family.stay = family.stay.saturating_sub(1);
            family.blocks.extend(shared);
            // One that is alone shares with somebody who is not known, such as a snapshot.
            if family.stay == 0 && family.is_known {
                freed.bytes += len(&merged(std::mem::take(&mut family.blocks)));
            }
            freed.family = (of_others > all / 2).then_some(number);
        }
        self.bytes += freed.bytes;
        freed
    }
}

/// Bytes of a file's blocks, and where those are that others have too.
fn blocks_of(root: &Root, file: &Handle) -> Option<(u64, Vec<Range<u64>>)> {
    let inode = gate_handle(file).and_then(|handle| root.inode(&handle)).ok()?;
    let all = inode.stat().ok()?.blocks.saturating_mul(512);
    if !root.supports_reflink() {
        return Some((all, Vec::new()));
    }
    Some((all, StubFile::open_to_look(&inode).ok()?.shared_blocks().ok()?))
}

fn len(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The same without what is named twice.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// How often more is planned because what was planned shares its blocks with files that stay. Each time twice as much.
const PLANS: usize = 12;

/// What goes, so that so many bytes get really free: `plan` gives the coldest files with so many bytes more than are needed. Files that share
/// their blocks go only together, so more are planned until they are. Each with how much it frees; and those that would go for space in vain.
pub(crate) fn planned(
    (root, dedup): (&Root, &Dedup),
    needed: u64,
    mut plan: impl FnMut(u64) -> Vec<Cold>,
) -> (Vec<Cold>, Vec<Cold>) {
    let mut cold = plan(0);
    if !root.supports_reflink() {
        return (cold, Vec::new());
    }
    let mut more = needed;
    for _ in 0..PLANS {
        let (count, nominal) = (cold.len(), cold.iter().map(|cold| cold.bytes).sum::<u64>());
        let (going, in_vain) = what_frees((root, dedup), cold);
        let frees = going.iter().map(|cold| cold.bytes).sum::<u64>();
        // Where less was found than was asked for, there is no more.
        if frees >= needed || nominal < needed {
            return (going, in_vain);
        }
        more = more.saturating_mul(2).max(1);
        cold = plan(more);
        if cold.len() <= count {
            break;
        }
    }
    what_frees((root, dedup), cold)
}

/// Those of a plan with which something gets free, each with how much that is; and those that would go for space in vain, because files
/// with the same blocks stay.
fn what_frees((root, dedup): (&Root, &Dedup), mut plan: Vec<Cold>) -> (Vec<Cold>, Vec<Cold>) {
    let mut frees = Frees::default();
    let freed: Vec<Freed> = plan.iter().map(|cold| frees.add((root, dedup), &cold.candidate)).collect();
    plan.iter_mut().zip(&freed).for_each(|(cold, freed)| cold.bytes = freed.bytes);
    let stays = |family: i64| frees.families.get(&family).is_some_and(|family| family.stay > 0);
    let (mut kept, mut in_vain) = (Vec::new(), Vec::new());
    for (cold, freed) in plan.into_iter().zip(freed) {
        let is_in_vain = cold.reason == Reason::Space && freed.family.is_some_and(stays);
        if is_in_vain { in_vain.push(cold) } else { kept.push(cold) }
    }
    (kept, in_vain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_files_share_counts_once() {
        let all = merged(vec![40..50, 0..10, 5..15, 0..10, 15..20]);
        assert_eq!((all.as_slice(), len(&all)), ([0..20, 40..50].as_slice(), 30));
    }
}
