//! Which ranges of files hold the same bytes, so that they can be the same blocks of a volume.
//!
//! The ids of chunks say what is equal before a byte is read. Blocks are shared as a whole, so equal bytes are of use only where they lie
//! at the same place within a block; chunks end anywhere, so neighbours that are equal in both files are taken together first.
//! **Invariant:** nothing here is proof: whoever shares blocks has the kernel compare them, and a name that fits by chance costs one comparison.

use crate::content::{ChunkId, Manifest, ManifestId, Part};

/// Shortest range of a file that is shared, unless it is the whole file, in bytes: each one is a piece more of which the file consists,
/// and files in many small pieces are slow to read.
pub const RANGE_MIN: u64 = 128 << 10;

/// Under which name bytes are remembered: what they are, and where they begin within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// Of all bytes of a content, at the beginning of a file.
    #[must_use]
    pub fn of_content(content: &ManifestId) -> Self {
        Self(first_bytes(content.as_bytes()))
    }

    /// Of a chunk that begins at this place of a file.
    #[must_use]
    pub fn of_chunk(chunk: &ChunkId, offset: u64, block: u64) -> Self {
        // Odd, so that no two places within a block fall together.
        Self(first_bytes(chunk.as_bytes()) ^ (offset % block).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// For a database.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0.cast_signed()
    }
}

fn first_bytes(id: &[u8; 32]) -> u64 {
    id.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Where bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot<F> {
    /// Which file.
    pub file: F,
    /// Where in it.
    pub offset: u64,
    /// How long the file is.
    pub size: u64,
}

/// A range of a file that has the same bytes as one of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equal<F> {
    /// The other file.
    pub file: F,
    /// Where the bytes are in that.
    pub from: u64,
    /// Where they are in this one.
    pub to: u64,
    /// How many there are: whole blocks, up to the end of both files at most.
    pub len: u64,
}

/// The ranges of a content that other files have too, in order: `known` says where bytes of that name are.
///
/// `block` is what the volume shares at once, in bytes, and not 0.
pub fn equal_ranges<F: Clone + PartialEq>(
    manifest: &Manifest,
    block: u64,
    mut known: impl FnMut(Key) -> Option<Spot<F>>,
) -> Vec<Equal<F>> {
    let size = manifest.len();
    let mut runs: Vec<(Equal<F>, u64)> = Vec::new();
    for placed in manifest.placed() {
        let Part::Data { chunk, len } = placed.part else { continue };
        let (to, len) = (placed.offset, u64::from(len));
        let Some(Spot { file, offset: from, size: other }) = known(Key::of_chunk(&chunk, to, block)) else { continue };
        // A name that fits by chance.
        if from % block != to % block {
            continue;
        }
        match runs.last_mut() {
            Some((run, _)) if run.file == file && run.to + run.len == to && run.from + run.len == from => run.len += len,
            _ => runs.push((Equal { file, from, to, len }, other)),
        }
    }
    runs.into_iter().filter_map(|(run, other)| in_blocks(run, block, (size, other))).collect()
}

/// The whole blocks of a range; none where that is too little to be worth it.
fn in_blocks<F>(run: Equal<F>, block: u64, (size, other): (u64, u64)) -> Option<Equal<F>> {
    let skipped = run.to.next_multiple_of(block) - run.to;
    let is_to_the_end = run.to + run.len == size && run.from + run.len == other;
    let len = run.len.checked_sub(skipped)?;
    let len = if is_to_the_end { len } else { len - len % block };
    let is_whole = is_to_the_end && run.to == 0;
    let is_worth_it = len >= RANGE_MIN || (is_whole && len > 0);
    is_worth_it.then_some(Equal { from: run.from + skipped, to: run.to + skipped, len, ..run })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::content::HOLE_MIN;

    const BLOCK: u64 = 4_096;

    fn chunk(number: u8) -> ChunkId {
        ChunkId::of(&[number])
    }

    /// A content of chunks by number and length; number 0 is a hole.
    fn content(parts: &[(u8, u32)]) -> Manifest {
        let part = |(number, len): &(u8, u32)| match number {
            0 => Part::Hole { len: HOLE_MIN + u64::from(*len) },
            number => Part::Data { chunk: chunk(*number), len: *len },
        };
        Manifest::new(parts.iter().map(part).collect()).unwrap()
    }

    fn index(file: &'static str, of: &Manifest) -> BTreeMap<Key, Spot<&'static str>> {
        let mut known = BTreeMap::new();
        for placed in of.placed() {
            if let Part::Data { chunk, .. } = placed.part {
                let spot = Spot { file, offset: placed.offset, size: of.len() };
                known.entry(Key::of_chunk(&chunk, placed.offset, BLOCK)).or_insert(spot);
            }
        }
        known
    }

    fn equal(one: &[(u8, u32)], other: &[(u8, u32)]) -> Vec<(u64, u64, u64)> {
        let known = index("one", &content(one));
        let found = equal_ranges(&content(other), BLOCK, |key| known.get(&key).cloned());
        found.into_iter().map(|equal| (equal.from, equal.to, equal.len)).collect()
    }

    #[test]
    fn equal_files_are_equal_to_their_last_byte() {
        let file = [(1, 300_001), (2, 700_000), (3, 123)];
        assert_eq!(equal(&file, &file), [(0, 0, 1_000_124)]);
        assert_eq!(equal(&[(1, 5_000)], &[(1, 5_000)]), [(0, 0, 5_000)]);
    }

    #[test]
    fn what_was_changed_in_the_middle_is_left_out_by_whole_blocks() {
        let before = [(1, 300_001), (2, 700_000), (3, 400_000)];
        let after = [(1, 300_001), (9, 700_000), (3, 400_000)];
        // 300,001 is 73 blocks and more; the third chunk begins at 1,000,001, 244 blocks and more.
        assert_eq!(equal(&before, &after), [(0, 0, 73 * BLOCK), (245 * BLOCK, 245 * BLOCK, 1_400_001 - 245 * BLOCK)]);
    }

    #[test]
    fn what_was_moved_is_shared_only_by_whole_blocks() {
        let before = [(1, 300_000), (2, 500_000)];
        assert_eq!(equal(&before, &[(7, 300_000 + 8 * 4_096), (2, 500_000)]), [(74 * BLOCK, 82 * BLOCK, 800_000 - 74 * BLOCK)]);
        assert_eq!(equal(&before, &[(7, 300_001), (2, 500_000)]), []);
    }

    #[test]
    fn little_is_not_worth_a_piece_of_its_own() {
        assert_eq!(equal(&[(1, 100_000), (2, 300_000)], &[(1, 100_000), (3, 300_000)]), []);
    }

    #[test]
    fn the_end_of_a_longer_file_is_not_the_end_of_a_shorter_one() {
        let (long, short) = ([(1, 300_001), (2, 700_000)], [(1, 300_001)]);
        assert_eq!(equal(&long, &short), [(0, 0, 73 * BLOCK)]);
    }

    proptest! {
        #[test]
        fn ranges_are_blocks_of_equal_chunks(
            one in prop::collection::vec((0..6_u8, 1..400_000_u32), 0..12),
            other in prop::collection::vec((0..6_u8, 1..400_000_u32), 0..12),
            lengths in prop::array::uniform6(1..400_000_u32),
        ) {
            // A chunk has one length, and no two holes touch.
            let parts = |chosen: &[(u8, u32)]| {
                let mut parts: Vec<(u8, u32)> = Vec::new();
                for (number, len) in chosen {
                    let len = if *number == 0 { *len } else { lengths[usize::from(*number)] };
                    if *number != 0 || parts.last().is_some_and(|last| last.0 != 0) {
                        parts.push((*number, len));
                    }
                }
                content(&parts)
            };
            let (one, other) = (parts(&one), parts(&other));
            let known = index("one", &one);
            let byte = |of: &Manifest, at: u64| {
                let placed = of.parts_in(at..at + 1).next().unwrap();
                placed.part.chunk().map(|chunk| (chunk, at - placed.offset))
            };
            let mut last = 0;
            for Equal { from, to, len, .. } in equal_ranges(&other, BLOCK, |key| known.get(&key).cloned()) {
                prop_assert!(to >= last && to % BLOCK == 0 && from % BLOCK == 0 && len > 0);
                let is_to_the_end = from + len == one.len() && to + len == other.len();
                prop_assert!(len % BLOCK == 0 || is_to_the_end);
                prop_assert!(len >= RANGE_MIN || (to == 0 && is_to_the_end));
                for at in [0, 1, len / 2, len - 1] {
                    prop_assert!(byte(&other, to + at).is_some());
                    prop_assert_eq!(byte(&one, from + at), byte(&other, to + at));
                }
                last = to + len;
            }
        }
    }
}
