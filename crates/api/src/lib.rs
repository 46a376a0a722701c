//! What clients and the service say to each other: wire types, error codes, limits, and the HTTP client.
//!
//! Nothing here serves, and nothing here decides; the rules are in `core`. The sync protocol (agents) sends binary
//! bodies, the management API (command line and portal) JSON.
//!
//! **Invariant:** whoever links this crate can talk to a service, and gets none of a service's dependencies.

pub mod check;
pub mod client;
pub mod collect;
pub mod error;
pub mod folder;
pub mod limits;
pub mod management;
pub mod path;
mod policy;
pub mod revisions;
pub mod share;
pub mod sync;
pub mod wire;

pub use client::Client;
pub use error::{ApiError, Code, ErrorBody};

/// Version of the sync protocol. The service refuses every other one.
pub const PROTOCOL: u32 = 2;

/// Header that carries [`PROTOCOL`] on every request of the sync protocol.
pub const PROTOCOL_HEADER: &str = "isotherm-protocol";
