//! Sizes and times of the engine, in one place so that tests can make them small.

use super::Millis;

/// Limits of one engine. Every loop, queue and wait has one of them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A name is looked at when nothing has happened to it for this long.
    pub quiet_ms: Millis,
    /// A name that never rests is looked at all the same after this long.
    pub restless_ms: Millis,
    /// A file that never rests is read again and again, but not faster than this: a large log must not keep a disk busy.
    pub restless_bytes_per_ms: u64,
    /// Tries after which a file that changes while it is read is taken from a snapshot, or as its prefix.
    pub restless_tries: u32,
    /// Names in one look.
    pub look_names: usize,
    /// Directories in one look of a scan.
    pub look_directories: usize,
    /// Names of one directory that are remembered one by one; more make it "list it whole".
    pub dirty_names: usize,
    /// Time between scans while the kernel reports changes.
    pub scan_every_ms: Millis,
    /// Time between scans where it does not.
    pub scan_unwatched_ms: Millis,
    /// A scan that was asked for because an inode is missing waits this long for its name to turn up.
    pub search_after_ms: Millis,
    /// Nodes in one planning.
    pub plan_nodes: usize,
    /// Files in one read, and their bytes; a larger file is read alone.
    pub read_files: usize,
    /// See `read_files`.
    pub read_bytes: u64,
    /// Reads under way at a time; one more place is kept for small files while large ones are under way.
    pub reads: usize,
    /// Operations in one commit.
    pub operations: usize,
    /// Steps in one effect.
    pub steps: usize,
    /// A content above this is fetched apart, so that small ones need not wait for it.
    pub bulk_bytes: u64,
    /// First and longest wait before something that failed is tried again.
    pub retry_ms: (Millis, Millis),
    /// A file that somebody keeps open for writing becomes a problem after this long.
    pub busy_problem_ms: Millis,
    /// Deletes within this time count together for the safety stop, but for those of nodes that were made within it.
    pub deletes_window_ms: Millis,
    /// Deletes within this time count together, also of such nodes.
    pub deletes_together_ms: Millis,
    /// From this many waiting deletes on, more are waited for this long, so that they are judged together.
    pub deletes_settle_from: u64,
    /// See `deletes_settle_from`.
    pub deletes_settle_ms: Millis,
    /// Deletes that never need a confirmation, however small the share.
    pub deletes_free: u64,
    /// Beyond `deletes_free`: percent of the nodes that may be deleted within the window without a confirmation.
    pub deletes_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            quiet_ms: 500,
            restless_ms: 5_000,
            restless_bytes_per_ms: 20_000,
            restless_tries: 3,
            look_names: 2_000,
            look_directories: 64,
            dirty_names: 10_000,
            scan_every_ms: 3_600_000,
            scan_unwatched_ms: 5_000,
            search_after_ms: 2_000,
            plan_nodes: 4_000,
            read_files: 512,
            read_bytes: 32 << 20,
            reads: 3,
            operations: 1_000,
            steps: 512,
            bulk_bytes: 8 << 20,
            retry_ms: (1_000, 60_000),
            busy_problem_ms: 15 * 60_000,
            deletes_window_ms: 10 * 60_000,
            deletes_together_ms: 5_000,
            deletes_settle_from: 10,
            deletes_settle_ms: 1_000,
            deletes_free: 20,
            deletes_percent: 25,
        }
    }
}
