//! The rules of a share: what a commit may change, and what the change feed says.
//!
//! The service runs these rules over its database, the simulation over [`MemoryRecords`]; nothing else may
//! change a namespace. A batch is judged in order, each operation (or numbered group) alone; what is applied gets
//! the share's next sequence number.
//!
//! **Invariants**, checked by [`check()`]: no two live nodes of one directory share a name (on the folded name
//! where the share says so); every live node hangs below the root through live directories; no version is used twice.

mod apply;
mod check;
mod feed;
mod lives;
mod memory;
mod operation;
mod overlay;
mod records;
mod restore;
#[cfg(test)]
mod tests;

pub use apply::apply;
pub use check::check;
pub use feed::{Page, Reader, page};
pub use lives::{History, LIVES_MAX, Life};
pub use memory::MemoryRecords;
pub use operation::{Answer, Based, Batch, Change, Digest, Operation, Refusal};
pub use records::{Records, Share};
pub use restore::{Draw, Restoration, Restored, Revisions, has_namesake, restore, standing_place};
