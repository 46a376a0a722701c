//! What becomes of a content by itself, in a user's words.

use isotherm_core::tiering::{File, Policy, STUB_MIN, Stays, Volume};
use isotherm_core::trees::{Local, Record};

use super::kept::Kept;
use crate::catalog::CatalogReader;

/// Of a file whose content is in the share only.
pub(crate) fn outlook_of_stub(catalog: &CatalogReader, record: &Record, local: &Local) -> String {
    let is_pinned = Kept::new(catalog, Policy::default())
        .is_some_and(|mut kept| kept.stays(catalog, record.node, &local.place) == Some(Stays::Pinned));
    if is_pinned {
        "comes by itself, for it is pinned, or when somebody opens it"
    } else if catalog.is_coming(record.node) {
        "comes by itself while there is room, for its endpoint has that come, or when somebody opens it"
    } else {
        "comes when somebody opens it"
    }
    .to_owned()
}

/// Of a file whose content is here, with its uses, at an endpoint whose contents go by this policy, if they go.
pub(crate) fn outlook(
    (policy, volume): (Option<&Policy>, &Volume),
    catalog: &CatalogReader,
    (record, local, file): (&Record, &Local, &File),
    now_ms: u64,
) -> String {
    let stays = |why: &dyn std::fmt::Display| format!("stays: {why}");
    let Some(policy) = policy else { return stays(&"its endpoint lets nothing go now") };
    if local.print.links > 1 {
        return stays(&"it has several names");
    }
    if local.print.size < STUB_MIN {
        return stays(&"it is smaller than what is tiered");
    }
    if record.stands_for().is_none() {
        return stays(&"the share does not have it as it is here yet");
    }
    if let Some(why) = Kept::new(catalog, policy.clone()).and_then(|mut kept| kept.stays(catalog, record.node, &local.place)) {
        return stays(&why);
    }
    if let Err(why) = policy.may_go(file, now_ms, volume) {
        return stays(&why);
    }
    if policy.is_old(file.heat, now_ms) {
        return "goes soon: nobody has used it for longer than its endpoint allows".to_owned();
    }
    match volume.needed() {
        0 => "stays while there is as much room as is asked for".to_owned(),
        _ => "goes when all that are colder have gone and there is still too little room".to_owned(),
    }
}
