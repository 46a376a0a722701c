//! The chunk and pack store: durable objects under keys, and packs of chunks on top of them.
//!
//! It knows keys, bytes, chunks and packs. It does not know files, names, servers or which chunk is still needed; the
//! records of the service tell where a chunk lies and the callers delete what nobody needs.
//!
//! Invariant: an object that was written is durable when the call returns and is never changed afterwards; bytes that
//! are handed out as a chunk have been hashed.
//!
//! * [`ChunkStore`]: the seam. [`MemoryStore`] is its readable specification, [`FolderStore`] keeps objects in a local
//!   folder, [`ObjectFolder`] in any store of the crate `object_store`, and [`FaultyStore`] breaks another one on purpose.
//! * [`PackStore`]: packs over any of them.
//! * [`conformance`]: what every implementation must pass.

pub mod conformance;
mod error;
mod faulty;
mod folder;
mod key;
mod memory;
mod object;
mod packs;
mod seam;

pub use error::{StoreError, StoreErrorKind};
pub use faulty::{Fault, FaultyStore};
pub use folder::FolderStore;
pub use key::{Key, KeyError};
pub use memory::MemoryStore;
pub use object::{ConditionalPut, ObjectFolder};
pub use packs::{Location, PackStore};
pub use seam::{ChunkStore, Listed};
