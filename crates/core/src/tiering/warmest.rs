//! The warmest of any number of files that fit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::coldest::Used;

/// The warmest among any number of files whose contents fit into some room together, and no more than a limit: those that come by
/// themselves. What does not fit any more does not keep out what is colder and smaller.
#[derive(Debug)]
pub struct Warmest<T> {
    limit: usize,
    chosen: BinaryHeap<Reverse<Used<T>>>,
}

impl<T: Ord> Warmest<T> {
    /// At most `limit` files.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, chosen: BinaryHeap::new() }
    }

    /// One more file that may come.
    pub fn offer(&mut self, file: Used<T>) {
        if self.chosen.len() >= self.limit && self.chosen.peek().is_some_and(|coldest| file <= coldest.0) {
            return;
        }
        self.chosen.push(Reverse(file));
        if self.chosen.len() > self.limit {
            self.chosen.pop();
        }
    }

    /// Those that come, the warmest first, into so many bytes.
    #[must_use]
    pub fn into_room(self, mut bytes: u64) -> Vec<Used<T>> {
        let mut warmest: Vec<Used<T>> = self.chosen.into_iter().map(|Reverse(used)| used).collect();
        warmest.sort_unstable_by(|one, other| other.cmp(one));
        warmest.retain(|used| {
            let left = bytes.checked_sub(used.bytes);
            bytes = left.unwrap_or(bytes);
            left.is_some()
        });
        warmest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::heat::Heat;
    use super::*;

    proptest! {
        /// As if all were sorted, the first of them taken, and each of these that still fits.
        #[test]
        fn the_warmest_come_while_they_fit(
            files in prop::collection::vec((0..50_u64, 0..100_u64), 0..60),
            room in 0..2_000_u64,
            limit in 0..80_usize,
        ) {
            let mut warmest = Warmest::new(limit);
            let used = |(number, (hour, bytes)): (usize, &(u64, u64))| {
                Used { position: Heat::once(hour * 3_600_000).position(), bytes: *bytes, file: number }
            };
            let mut all: Vec<Used<usize>> = files.iter().enumerate().map(used).collect();
            all.iter().cloned().for_each(|used| warmest.offer(used));
            all.sort_unstable();
            let mut left = room;
            let mut expected = Vec::new();
            for used in all.into_iter().rev().take(limit) {
                if used.bytes <= left {
                    left -= used.bytes;
                    expected.push(used);
                }
            }
            prop_assert_eq!(warmest.into_room(room), expected);
        }
    }
}
