//! From what a file system shows to the local tree.
//!
//! The identity of a file is its inode, so a rename is seen as a rename, also one that happened while nobody
//! watched. A name that is found empty or taken makes its node *lost*: nothing is decided about it before the inode was
//! looked for ([`resolve_lost`]).
//!
//! **Invariants:** a node binds to at most one local inode (row 23); absence counts only where a directory was
//! read to its end (row 27: the caller gives no listing otherwise); a file saved by rename keeps its node (row 16).

mod links;
mod lost;

pub use links::{link_of, mirror};
pub use lost::{Liveness, displace, lose, resolve_lost};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::name::Name;
use crate::node::{Content, Kind, Metadata, Place};
use crate::trees::{Handle, Local, LocalContent, Print, Record, Trees, TreesMut, same_metadata};

/// What the name of a parked node begins with; its id follows.
pub const PARKED_PREFIX: &str = "parked-";

/// One name as it was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The name.
    pub name: Name,
    /// The inode.
    pub handle: Handle,
    /// Its sort; what is none of these is not reported as seen.
    pub kind: Kind,
    /// Its state.
    pub print: Print,
    /// Mode, owner, attributes; none where the looker knew that the print has not moved and did not read them.
    pub metadata: Option<Metadata>,
    /// For a symlink.
    pub target: Option<Vec<u8>>,
    /// What is known of writes since the node was last looked at.
    pub evidence: Evidence,
}

/// What an observation knows about writes to a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Evidence {
    /// The kernel reported a write or the closing of a writer: the bytes count as changed whatever the print says.
    Written,
    /// The kernel watched without a gap and reported no write: a print that differs only in its change time is a
    /// change of metadata.
    Watched,
    /// Nobody watched: any difference of the print may be a write.
    Unwatched,
}

/// What a look at a directory found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The directory's node.
    pub directory: NodeId,
    /// Its inode when it was read; a listing of another inode than the recorded one is dropped.
    pub handle: Handle,
    /// Which names were looked at.
    pub scope: Scope,
    /// What was there.
    pub seen: Vec<Seen>,
}

impl Listing {
    /// Whether it says what is at the place, or that nothing is.
    #[must_use]
    pub fn covers(&self, place: &Place) -> bool {
        let named = match &self.scope {
            Scope::All => true,
            Scope::Names(names) => names.contains(&place.name),
        };
        named && place.parent == self.directory
    }
}

/// The names that a listing speaks of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// All: the directory was read to its end.
    All,
    /// These.
    Names(BTreeSet<Name>),
}

/// What follows from listings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Nodes whose record changed.
    pub changed: BTreeSet<NodeId>,
    /// Nodes whose inode has to be looked for; see [`resolve_lost`].
    pub lost: BTreeSet<NodeId>,
    /// Directories that are new here and have to be listed whole.
    pub list: BTreeSet<NodeId>,
    /// Names that have to be looked at again, with their metadata.
    pub again: BTreeSet<(NodeId, Name)>,
    /// Names whose inode is known from a place where work is under way: to be looked at when that has ended.
    pub later: BTreeSet<(NodeId, Name)>,
}

/// Takes listings into the local tree. `fresh` draws node ids.
///
/// Nothing is concluded about the places in `except`, neither from what was seen there nor from what was not: work on
/// them was under way while the listings were made.
pub fn observe(
    trees: &mut impl TreesMut,
    listings: &[Listing],
    except: &BTreeSet<Place>,
    fresh: &mut dyn FnMut() -> NodeId,
) -> Observed {
    let mut found = BTreeMap::new();
    for listing in listings {
        for seen in shared(listing) {
            if !except.contains(&place(listing, seen)) {
                found.entry(seen.handle.clone()).or_insert_with(BTreeSet::new).insert(place(listing, seen));
            }
        }
    }
    let mut out = Observed::default();
    let current: Vec<&Listing> = listings.iter().filter(|listing| is_current(trees, listing)).collect();
    for listing in &current {
        let known = match listing.scope {
            Scope::All => trees.local_states(listing.directory),
            Scope::Names(_) => BTreeMap::new(),
        };
        let changed = shared(listing).filter(|seen| !is_as_it_was(&known, seen));
        for seen in changed.filter(|seen| !except.contains(&place(listing, seen))) {
            bind(trees, listing, seen, &Around { found: &found, except }, fresh, &mut out);
        }
    }
    for listing in &current {
        mark_vanished(trees, listing, except, &mut out);
    }
    out
}

/// What a listing says of nodes. Beside parked ones, contents lie in the staging folder that are being made or taken away:
/// those are nobody's yet, or not any more, and whoever works on them, or the next start, decides what becomes of them.
fn shared(listing: &Listing) -> impl Iterator<Item = &Seen> {
    let is_parked = |seen: &&Seen| seen.name.as_bytes().starts_with(PARKED_PREFIX.as_bytes());
    listing.seen.iter().filter(move |seen| listing.directory != NodeId::PARKED || is_parked(seen))
}

fn place(listing: &Listing, seen: &Seen) -> Place {
    Place { parent: listing.directory, name: seen.name.clone() }
}

/// What [`refresh`] would leave as it is, found without reading its record.
fn is_as_it_was(known: &BTreeMap<Name, (Handle, Print)>, seen: &Seen) -> bool {
    let same = |print: &Print| *print == seen.print || (seen.kind == Kind::Directory && print.changed == seen.print.changed);
    let known = known.get(&seen.name).filter(|_| seen.evidence != Evidence::Written);
    known.is_some_and(|(handle, print)| *handle == seen.handle && same(print))
}

fn is_current(trees: &impl Trees, listing: &Listing) -> bool {
    let record = trees.record(listing.directory);
    record.and_then(|record| record.local).is_some_and(|local| local.handle == listing.handle && !local.lost)
}

/// What else the listings found, and what they may not speak of.
struct Around<'a> {
    found: &'a BTreeMap<Handle, BTreeSet<Place>>,
    except: &'a BTreeSet<Place>,
}

/// Finds the node that a seen name belongs to and takes over what was seen.
fn bind(
    trees: &mut impl TreesMut,
    listing: &Listing,
    seen: &Seen,
    around: &Around<'_>,
    fresh: &mut dyn FnMut() -> NodeId,
    out: &mut Observed,
) {
    let place = place(listing, seen);
    let holder = trees.local_at(&place).and_then(|node| trees.record(node));
    if let Some(record) = &holder
        && record.local.as_ref().is_some_and(|local| local.handle == seen.handle)
    {
        refresh(trees, record.clone(), seen, &place, out);
        return;
    }
    // The name holds another inode than before. Metadata is needed for whichever node it now belongs to.
    let Some(metadata) = &seen.metadata else {
        out.again.insert((place.parent, place.name));
        return;
    };
    let parked = if place.parent == NodeId::PARKED { parked(trees, seen) } else { None };
    if parked.is_none() && is_held(trees, seen, around) {
        out.later.insert((place.parent, place.name));
        return;
    }
    if let Some(record) = holder {
        lose(trees, record.node);
        out.lost.insert(record.node);
        out.changed.insert(record.node);
    }
    if let Some(record) = parked.or_else(|| mover(trees, seen, around.found)) {
        out.lost.remove(&record.node);
        refresh(trees, record, seen, &place, out);
        return;
    }
    let node = fresh();
    let mut record = Record::new(node);
    record.local = Some(new_local(seen, metadata, place));
    if seen.kind == Kind::Directory {
        out.list.insert(node);
    }
    out.changed.insert(node);
    trees.put(record);
    if seen.print.links > 1 {
        links::relink(trees, &seen.handle, out);
        out.changed.extend(mirror(trees, node));
    }
}

/// A parked name says whose it is: the only name whose node is known without knowing where its other names are.
fn parked(trees: &impl Trees, seen: &Seen) -> Option<Record> {
    let text = std::str::from_utf8(seen.name.as_bytes()).ok()?;
    let record = trees.record(text.strip_prefix(PARKED_PREFIX)?.parse().ok()?)?;
    record.local.as_ref().is_some_and(|local| local.handle == seen.handle).then_some(record)
}

/// Whether the inode is known from a place where work is under way. That work may be taking its name there away, so that
/// it is not known whether this is where it went or another name of it.
fn is_held(trees: &impl Trees, seen: &Seen, around: &Around<'_>) -> bool {
    let owners = trees.by_handle(&seen.handle).into_iter().filter_map(|node| trees.record(node));
    owners.filter_map(|record| record.local).any(|local| around.except.contains(&local.place))
}

/// The node whose inode this is and whose old name it has left.
fn mover(trees: &impl Trees, seen: &Seen, found: &BTreeMap<Handle, BTreeSet<Place>>) -> Option<Record> {
    let owners = trees.by_handle(&seen.handle).into_iter().filter_map(|node| trees.record(node));
    let places = found.get(&seen.handle);
    // An inode with one name can only have moved. One of several names has moved only if its old place is known
    // to be empty of it; otherwise this is another name of the inode.
    let mut left = owners.filter(|record| {
        let Some(local) = &record.local else { return false };
        let still_there = places.is_some_and(|places| places.contains(&local.place)) && !local.lost;
        !still_there && (seen.print.links <= 1 || seen.kind == Kind::Directory || local.lost)
    });
    left.next()
}

fn new_local(seen: &Seen, metadata: &Metadata, place: Place) -> Local {
    let content = match seen.kind {
        Kind::Directory => LocalContent::Known(Content::Directory),
        Kind::Symlink => LocalContent::Known(Content::Symlink { target: seen.target.clone().unwrap_or_default() }),
        Kind::File => LocalContent::Unread,
    };
    Local { place, handle: seen.handle.clone(), print: seen.print, metadata: metadata.clone(), raw: None, content, lost: false }
}

/// Takes over what was seen of a node whose inode is known.
fn refresh(trees: &mut impl TreesMut, mut record: Record, seen: &Seen, place: &Place, out: &mut Observed) {
    let Some(local) = &mut record.local else { return };
    let moved = local.place != *place || local.lost;
    let same_print = local.print == seen.print || (seen.kind == Kind::Directory && local.print.changed == seen.print.changed);
    let passing = local.passing().is_some();
    if !moved && same_print && seen.evidence != Evidence::Written && !passing {
        return;
    }
    let Some(metadata) = &seen.metadata else {
        out.again.insert((place.parent, place.name.clone()));
        return;
    };
    let before = local.clone();
    local.place = place.clone();
    local.lost = false;
    take_metadata(local, metadata);
    let metadata_only =
        seen.evidence == Evidence::Watched && local.print.size == seen.print.size && local.print.modified == seen.print.modified;
    match seen.kind {
        Kind::File if passing => local.content = LocalContent::Unread,
        Kind::File if local.print == seen.print && seen.evidence != Evidence::Written => {}
        Kind::File if metadata_only && seen.evidence != Evidence::Written => {}
        Kind::File => local.content = LocalContent::Unread,
        Kind::Symlink => {
            local.content = LocalContent::Known(Content::Symlink { target: seen.target.clone().unwrap_or_default() });
        }
        Kind::Directory => {}
    }
    local.print = seen.print;
    if *local == before {
        return;
    }
    let node = record.node;
    out.changed.insert(node);
    trees.put(record);
    if before.print.links != seen.print.links {
        links::relink(trees, &seen.handle, out);
    }
    if seen.print.links > 1 {
        out.changed.extend(mirror(trees, node));
    }
}

/// Takes over metadata that the file system shows. Where it could not show in full what was applied, only what
/// moved since then is a change.
fn take_metadata(local: &mut Local, shown: &Metadata) {
    match local.raw.take() {
        Some(raw) if raw == *shown => local.raw = Some(raw),
        Some(raw) => {
            local.metadata = crate::trees::merge_metadata(&raw, &local.metadata, shown);
            local.raw = Some(shown.clone());
        }
        None if same_metadata(&local.metadata, shown) => {}
        None => local.metadata = Metadata { born: local.metadata.born, ..shown.clone() },
    }
}

/// Recorded names that a listing speaks of and did not find.
fn mark_vanished(trees: &mut impl TreesMut, listing: &Listing, except: &BTreeSet<Place>, out: &mut Observed) {
    let seen: BTreeSet<&Name> = shared(listing).map(|seen| &seen.name).collect();
    let recorded: Vec<NodeId> = match &listing.scope {
        Scope::All => {
            let names = trees.local_names(listing.directory);
            names.into_iter().filter(|(name, _)| !seen.contains(name)).map(|(_, node)| node).collect()
        }
        Scope::Names(names) => {
            let absent = names.iter().filter(|name| !seen.contains(name));
            let places = absent.map(|name| Place { parent: listing.directory, name: name.clone() });
            places.filter_map(|place| trees.local_at(&place)).collect()
        }
    };
    for node in recorded {
        let Some(record) = trees.record(node) else { continue };
        if record.local.as_ref().is_some_and(|local| except.contains(&local.place)) {
            continue;
        }
        lose(trees, node);
        out.lost.insert(node);
        out.changed.insert(node);
    }
}
