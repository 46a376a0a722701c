//! Random ids. The only place of the agent that draws chance.

use crate::clock::wall_ms;

/// 128 random bits.
pub(crate) fn fresh_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the kernel's random numbers do not fail after boot");
    id
}

/// 128 random bits as text.
pub(crate) fn fresh_text() -> String {
    fresh_id().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ids that grow: databases then put what is new side by side, and a batch of new nodes writes few of their pages. Random ones
/// made a catalog of a million files write 100 KiB for each file.
///
/// Six bytes of milliseconds and two that count, as in the ids of RFC 9562 (version 7), then 64 random bits, which tell apart
/// what several servers make in the same millisecond. A clock that is set back does not make them shrink.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    last: u64,
}

impl Growing {
    pub(crate) fn next(&mut self) -> [u8; 16] {
        self.after(wall_ms())
    }

    fn after(&mut self, now_ms: u64) -> [u8; 16] {
        self.last = (now_ms << 16).max(self.last + 1);
        let mut id = fresh_id();
        id[..8].copy_from_slice(&self.last.to_be_bytes());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::Growing;

    #[test]
    fn ids_grow_also_when_the_clock_is_set_back() {
        let mut ids = Growing::default();
        let times = [1_774_794_600_000_u64, 1_774_794_600_000, 1_774_794_500_000, 1_774_794_600_001, 0];
        let made: Vec<[u8; 16]> = times.into_iter().map(|now| ids.after(now)).collect();
        assert!(made.is_sorted_by(|one, next| one[..8] < next[..8]), "{made:?}");
        assert_eq!(made[0][..6], 1_774_794_600_000_u64.to_be_bytes()[2..], "milliseconds come first");
        assert_ne!(made[0][8..], made[1][8..]);
    }
}
