//! The coldest of any number of files.

use std::collections::BinaryHeap;

use super::heat::Position;

/// A file whose content may go. The greatest goes last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Used<T> {
    /// Where it stands in the order.
    pub position: Position,
    /// What its content takes, in bytes.
    pub bytes: u64,
    /// The file.
    pub file: T,
}

/// The coldest among any number of files, just so many that together they free what is needed, and no more than a limit.
///
/// **Invariant:** without the warmest of them they would not free enough. So what it holds does not grow with the
/// files that it is offered.
#[derive(Debug)]
pub struct Coldest<T> {
    needed: u64,
    limit: usize,
    bytes: u64,
    chosen: BinaryHeap<Used<T>>,
}

impl<T: Ord> Coldest<T> {
    /// Of those that free so many bytes, at most `limit` files.
    #[must_use]
    pub fn freeing(needed: u64, limit: usize) -> Self {
        Self { needed, limit, bytes: 0, chosen: BinaryHeap::new() }
    }

    /// One more file that may be chosen.
    pub fn offer(&mut self, file: Used<T>) {
        self.bytes = self.bytes.saturating_add(file.bytes);
        self.chosen.push(file);
        self.shrink();
    }

    /// Whether a file that stands there would be chosen: not after all that are, if these are enough.
    #[must_use]
    pub fn would_take(&self, position: Position) -> bool {
        let has_room = self.bytes < self.needed && self.chosen.len() < self.limit;
        has_room || self.chosen.peek().is_some_and(|last| position < last.position)
    }

    /// So much less is needed.
    pub fn lessen(&mut self, bytes: u64) {
        self.needed = self.needed.saturating_sub(bytes);
        self.shrink();
    }

    fn shrink(&mut self) {
        while let Some(last) = self.chosen.peek()
            && (self.bytes - last.bytes >= self.needed || self.chosen.len() > self.limit)
        {
            self.bytes -= last.bytes;
            self.chosen.pop();
        }
    }

    /// Those that were chosen, the coldest first. Together they may free less than was needed: then there are no more.
    #[must_use]
    pub fn into_files(self) -> Vec<Used<T>> {
        self.chosen.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::heat::Heat;
    use super::*;

    fn at(hour: u64) -> Position {
        Heat::once(hour * 3_600_000).position()
    }

    proptest! {
        /// As if all were sorted and taken until there is enough.
        #[test]
        fn the_coldest_go_and_no_more_than_needed(
            files in prop::collection::vec((0..50_u64, 0..100_u64), 0..60),
            needed in 0..2_000_u64,
            less in 0..500_u64,
            limit in 0..80_usize,
        ) {
            let mut coldest = Coldest::freeing(needed + less, limit);
            for (number, (hour, bytes)) in files.iter().copied().enumerate() {
                coldest.offer(Used { position: at(hour), bytes, file: number });
            }
            coldest.lessen(less);
            let all = files.iter().enumerate();
            let mut all: Vec<(Position, u64, usize)> = all.map(|(number, (hour, bytes))| (at(*hour), *bytes, number)).collect();
            all.sort_unstable();
            let mut freed = 0;
            let taken = all.iter().take_while(|(_, bytes, _)| {
                let is_taken = freed < needed;
                freed += bytes;
                is_taken
            });
            let expected: Vec<usize> = taken.take(limit).map(|(.., number)| *number).collect();
            let chosen: Vec<usize> = coldest.into_files().into_iter().map(|used| used.file).collect();
            prop_assert_eq!(chosen, expected);
        }
    }

    #[test]
    fn what_would_not_be_chosen_need_not_be_looked_at() {
        let mut coldest = Coldest::freeing(10, 9);
        assert!(coldest.would_take(at(100)));
        coldest.offer(Used { position: at(5), bytes: 10, file: "plan" });
        assert!(coldest.would_take(at(4)) && !coldest.would_take(at(5)) && !coldest.would_take(at(6)));
    }
}
