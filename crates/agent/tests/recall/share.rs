//! Contents that come from a share, piece by piece, over a connection that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use isotherm_agent::recall::{Ahead, FetchFailure, Find, FromShare, Source};
use isotherm_agent::volume::Errand;
use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::stub::{Bound, ContentPrefix, Sought, StubRecord, Units};
use isotherm_core::trees::Handle;

use crate::bench::noise;
use crate::volumes::Memory;

fn record(manifest: &ManifestId, size: u64) -> StubRecord {
    let bound = Bound::to(&Handle(Box::from([1])));
    StubRecord { node: NodeId([7; 16]), version: Version(1), content: ContentPrefix::of(manifest), size, bound }
}

/// A share in which every node had these contents.
fn had(manifests: Vec<ManifestId>) -> Box<Find> {
    Box::new(move |_, record| Sought::new(record, []).find(|_| None, |_| Ok(manifests.clone())))
}

/// What a fetch gives, zeros where it gives nothing.
fn fetched(source: &FromShare, record: &StubRecord, go_on: &dyn Fn() -> bool) -> Result<Vec<u8>, FetchFailure> {
    let mut content = vec![0; record.size as usize];
    let mut take = |offset: u64, piece: &[u8]| {
        content[offset as usize..offset as usize + piece.len()].copy_from_slice(piece);
        Ok(())
    };
    let errand = Errand { go_on, ..Errand::OWN };
    source.fetch((&Handle(Box::from([1])), record), &Units::all(record.size), &Ahead::NOTHING, &mut take, &errand)?;
    Ok(content)
}

#[test]
fn a_content_comes_whole_over_a_connection_that_breaks_and_holes_are_not_asked_for() {
    let share = Arc::new(Memory::default());
    let (first, last) = (noise(20_000_000, 1), noise(3_000_000, 2));
    let content = share.put(&[Ok(&first), Err(50_000_000), Ok(&last)]);
    let manifest = content.manifest;
    let expected = [&first[..], &vec![0; 50_000_000], &last].concat();
    share.break_after(7);
    let breaks = Arc::clone(&share);
    let asked = AtomicUsize::new(0);
    let go_on = || {
        // The line is mended while it waits.
        if asked.fetch_add(1, Ordering::Relaxed) == 3 {
            breaks.break_after(usize::MAX);
        }
        true
    };
    let source = FromShare::new(share, had(vec![ManifestId::from_bytes([9; 32]), manifest]));
    let record = record(&manifest, expected.len() as u64);
    assert!(fetched(&source, &record, &go_on).unwrap() == expected);
}

#[test]
fn what_the_share_does_not_have_is_said_and_who_waits_no_more_ends_it() {
    let share = Arc::new(Memory::default());
    let content = share.put(&[Ok(&noise(300_000, 3))]);
    let known = content.manifest;
    let source = FromShare::new(Arc::clone(&share) as _, had(vec![known]));
    let other = record(&ManifestId::from_bytes([9; 32]), 5);
    let failure = fetched(&source, &other, &|| true).unwrap_err();
    assert_eq!(failure.to_string(), "The share does not know the content of this file");
    let failure = fetched(&source, &record(&known, 5), &|| true).unwrap_err();
    assert_eq!(failure.to_string(), "The content has 300000 bytes, and the file was made for 5");
    let failure = fetched(&source, &record(&known, 300_000), &|| false).unwrap_err();
    assert!(matches!(failure, FetchFailure::NotWanted));
}
