//! One record as a row: a blob that says its format, and the columns that the indexes need.
//!
//! **Invariant:** the columns follow from the record alone.

use isotherm_core::name::Case;
use isotherm_core::node::Kind;
use isotherm_core::stored;
use isotherm_core::trees::{Handle, Print, Record, State};

/// First byte of every blob.
const BLOB_FORMAT: u8 = 1;

/// The columns beside the blob.
pub(super) struct Columns<'a> {
    pub(super) local_parent: Option<&'a [u8]>,
    pub(super) local_name: Option<&'a [u8]>,
    pub(super) local_lost: bool,
    pub(super) handle: Option<Vec<u8>>,
    /// The state, if a look may find it unchanged.
    pub(super) print: Option<Vec<u8>>,
    pub(super) remote_parent: Option<&'a [u8]>,
    pub(super) remote_key: Option<Vec<u8>>,
    pub(super) link: Option<&'a [u8]>,
    pub(super) state: i64,
    /// Of what is here: sort and bytes.
    pub(super) here: Option<(i64, i64)>,
    /// The share may lack something of it.
    pub(super) owed: bool,
    /// Bytes that have to travel: up and down.
    pub(super) to_move: (i64, i64),
}

impl<'a> Columns<'a> {
    pub(super) fn of(record: &'a Record, case: Case) -> Self {
        // The root and the parked have no name of their own.
        let named = record.local.as_ref().filter(|_| !record.node.is_anchor());
        let live = record.live();
        Self {
            local_parent: named.map(|local| &local.place.parent.0[..]),
            local_name: named.map(|local| local.place.name.as_bytes()),
            local_lost: record.is_lost(),
            handle: record.local.as_ref().map(|local| handle_key(&local.handle)),
            print: named.filter(|local| !local.lost && local.passing().is_none()).map(|local| encode_print(&local.print)),
            remote_parent: live.map(|node| &node.place.parent.0[..]),
            remote_key: live.map(|node| node.place.name.key(case)),
            link: live.and_then(|node| node.content.file()?.link.as_ref()).map(|link| &link.0[..]),
            here: named.map(|local| (kind_number(local.kind()), signed(local.print.size))),
            owed: !record.node.is_anchor() && record.owes(),
            to_move: (signed(record.bytes_to_move().0), signed(record.bytes_to_move().1)),
            state: if record.node.is_anchor() { SETTLED } else { number(record.state()) },
        }
    }
}

/// A handle as a column, and back. File systems put the inode's number first, its lowest byte in front: neighbours would stand far
/// from each other, and a directory of new files would write as many pages as it has files. Turning each four bytes round
/// brings them together, whatever they mean.
pub(super) fn handle_key(handle: &Handle) -> Vec<u8> {
    turned(&handle.0)
}

pub(super) fn handle_of(column: &[u8]) -> Handle {
    Handle(turned(column).into())
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(4).flat_map(|word| word.iter().rev().copied()).collect()
}

/// A state as a column; it follows from the blob, so that it needs no format of its own.
fn encode_print(print: &Print) -> Vec<u8> {
    postcard::to_allocvec(print).expect("a state is only numbers")
}

pub(super) fn decode_print(column: &[u8]) -> Option<Print> {
    postcard::from_bytes(column).ok()
}

/// SQLite counts in signed numbers.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// [`State::Settled`] as a number; the partial index leaves it out.
pub(super) const SETTLED: i64 = 0;
pub(super) const DELETED_HERE: i64 = 2;
pub(super) const DELETED_THERE: i64 = 3;

/// [`Kind::Directory`] as a number.
pub(super) const DIRECTORY: i64 = 0;
pub(super) const FILE: i64 = 1;

fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Directory => DIRECTORY,
        Kind::File => FILE,
        Kind::Symlink => 2,
    }
}

fn number(state: State) -> i64 {
    match state {
        State::Settled => SETTLED,
        State::Open => 1,
        State::DeletedHere => DELETED_HERE,
        State::DeletedThere => DELETED_THERE,
        // Such a record is not kept.
        State::Gone => 4,
    }
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    stored::seal(BLOB_FORMAT, &postcard::to_allocvec(value).expect("records hold nothing that postcard refuses"))
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(blob: &[u8]) -> Result<T, String> {
    let body = stored::open(BLOB_FORMAT, blob).map_err(|error| error.to_string())?;
    postcard::from_bytes(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_neighbours_stand_side_by_side_and_come_back_whole() {
        let of = |inode: u32| Handle([&1_u32.to_le_bytes()[..], &inode.to_le_bytes(), &[9, 9, 9, 9, 7]].concat().into());
        let keys: Vec<Vec<u8>> = (250..1_030).map(|inode| handle_key(&of(inode))).collect();
        assert!(keys.is_sorted());
        assert!((250..1_030).map(of).all(|handle| handle_of(&handle_key(&handle)) == handle));
    }
}
