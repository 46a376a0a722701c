//! The numbers of the API, each stated once.
//!
//! Limits protect the service's memory; they are no quotas. Client and service read them from here.
//!
//! **Invariant:** a client that keeps these limits is never refused for the size of a request.

use isotherm_core::content::pack::{ENTRIES_MAX, PACK_MAX};

/// Most operations of one commit.
pub const OPERATIONS_MAX: usize = 10_000;
/// Most nodes of one page of the change feed, ancestors that it needs not counted.
pub const FEED_MAX: usize = 4_096;
/// Most ids of one request that asks about chunks, manifests or nodes.
pub const IDS_MAX: usize = 65_536;
/// Most wanted contents of one answer.
pub const WANTED_MAX: usize = 1_024;
/// Most manifests of one upload.
pub const MANIFESTS_MAX: usize = 10_000;
/// Longest binary request but for packs, in bytes.
pub const BODY_MAX: usize = 32 * 1024 * 1024;
/// Longest JSON request in bytes.
pub const JSON_MAX: usize = 1024 * 1024;
/// Longest pack in bytes: the records, and a footer of at most 48 bytes a chunk.
pub const PACK_BODY_MAX: usize = PACK_MAX + ENTRIES_MAX * 48 + 64;
/// Longest binary answer that a client reads at once, in bytes; longer ones are streams of frames.
pub const ANSWER_MAX: usize = 512 * 1024 * 1024;
/// Longest frame of a stream in bytes.
pub const FRAME_MAX: usize = 64 * 1024 * 1024;
/// Longest time that the service holds a long poll, in milliseconds.
pub const WAIT_MAX_MS: u64 = 60_000;
/// A server that was heard of within this time counts as online, in milliseconds.
pub const ONLINE_MS: u64 = 15_000;
/// Most endpoints of one server (the number of the product that we follow).
pub const ENDPOINTS_PER_SERVER_MAX: usize = 30;
/// Most endpoints of one sync group (the number of the product that we follow).
pub const ENDPOINTS_PER_GROUP_MAX: usize = 100;
/// Longest name of a sync group or server in bytes: that of a DNS label.
pub const NAME_MAX: usize = 63;
/// Most problems that a report lists one by one.
pub const PROBLEMS_MAX: usize = 1_000;
/// Most recent changes that a report lists.
pub const RECENT_MAX: usize = 100;

/// What is wrong with a name for a sync group or server; nothing if it may be used.
#[must_use]
pub fn name_problem(name: &str) -> Option<&'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Some("is empty"),
        // Names are parts of URLs and of conflict copies.
        "." | ".." => Some("is a directory reference"),
        _ if name.len() > NAME_MAX => Some("is longer than 63 characters"),
        _ if !name.bytes().all(is_allowed) => Some("may hold only letters, digits, `.`, `_` and `-`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["munich", "Plans-2024_v1.0", &"x".repeat(63)] {
            assert_eq!(name_problem(good), None, "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(name_problem(bad).is_some(), "{bad}");
        }
    }
}
