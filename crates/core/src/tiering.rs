//! Which contents go when there has to be room.

use std::collections::BinaryHeap;

/// A file whose content may go. Ordered by when it was last used: the greatest was used last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Used<T> {
    /// When it was last used, or came, in nanoseconds since 1970.
    pub at_ns: i64,
    /// What its content takes, in bytes.
    pub bytes: u64,
    /// The file.
    pub file: T,
}

/// The files that were unused for longest among any number, just so many that together they free what is needed.
///
/// **Invariant:** without the one of them that was used last they would not free enough. So what it holds does not grow with the
/// files that it is offered.
#[derive(Debug)]
pub struct Coldest<T> {
    needed: u64,
    bytes: u64,
    chosen: BinaryHeap<Used<T>>,
}

impl<T: Ord> Coldest<T> {
    /// Of those that free so many bytes.
    #[must_use]
    pub fn freeing(needed: u64) -> Self {
        Self { needed, bytes: 0, chosen: BinaryHeap::new() }
    }

    /// One more file that may be chosen.
    pub fn offer(&mut self, file: Used<T>) {
        self.bytes = self.bytes.saturating_add(file.bytes);
        self.chosen.push(file);
        while let Some(last) = self.chosen.peek()
            && self.bytes - last.bytes >= self.needed
        {
            self.bytes -= last.bytes;
            self.chosen.pop();
        }
    }

    /// Whether a file that was used at that time would be chosen: not after all that are, if these are enough.
    #[must_use]
    pub fn would_take(&self, at_ns: i64) -> bool {
        self.bytes < self.needed || self.chosen.peek().is_some_and(|last| at_ns < last.at_ns)
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

    use super::*;

    proptest! {
        /// As if all were sorted and taken until there is enough.
        #[test]
        fn the_coldest_go_and_no_more_than_needed(files in prop::collection::vec((0..50_i64, 0..100_u64), 0..60), needed in 0..2_000_u64) {
            let mut coldest = Coldest::freeing(needed);
            for (number, (at_ns, bytes)) in files.iter().copied().enumerate() {
                coldest.offer(Used { at_ns, bytes, file: number });
            }
            let mut all: Vec<(i64, u64, usize)> = files.iter().enumerate().map(|(number, (at, bytes))| (*at, *bytes, number)).collect();
            all.sort_unstable();
            let mut freed = 0;
            let taken = all.iter().take_while(|(_, bytes, _)| {
                let is_taken = freed < needed;
                freed += bytes;
                is_taken
            });
            let expected: Vec<usize> = taken.map(|(.., number)| *number).collect();
            let chosen: Vec<usize> = coldest.into_files().into_iter().map(|used| used.file).collect();
            prop_assert_eq!(chosen, expected);
        }
    }

    #[test]
    fn what_would_not_be_chosen_need_not_be_looked_at() {
        let mut coldest = Coldest::freeing(10);
        assert!(coldest.would_take(100));
        coldest.offer(Used { at_ns: 5, bytes: 10, file: "plan" });
        assert!(coldest.would_take(4) && !coldest.would_take(5) && !coldest.would_take(6));
    }
}
