//! The lives of a share: each time the service may have been put back to an earlier state, another one begins.
//!
//! A service cannot see that its disk, or the machine that it runs in, was put back. So every run of it that changes a share
//! begins a life of its own, which names where the one before ended. Whoever knows no more of a life than that reads on as if
//! nothing had happened; whoever knows more has seen what was taken back.
//!
//! **Invariant** (cases 10 and 26 of the ways to lose a file): versions of two lives are compared only up to where their
//! common past ends.

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, Version};

/// Lives that are told of, the newest; one that was longer ago has no past in common with the present one.
pub const LIVES_MAX: usize = 1_000;

/// A life that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// How much of it the next life knows: its head when that began. Zero where that is not known.
    pub ended: Version,
}

/// The lives of a share as somebody knows them.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct History {
    /// Those that have ended, the oldest first.
    pub lives: Vec<Life>,
    /// The one that goes on.
    pub present: Incarnation,
}

impl History {
    /// The newest version of a life that means the same in the present one; none for a life that this history does not know.
    #[must_use]
    pub fn common_with(&self, incarnation: Incarnation) -> Option<Version> {
        if incarnation == self.present {
            return Some(Version(u64::MAX));
        }
        let from = self.lives.iter().rposition(|life| life.incarnation == incarnation)?;
        self.lives[from..].iter().map(|life| life.ended).min()
    }

    /// The newest version that means the same in both histories.
    #[must_use]
    pub fn common(&self, other: &Self) -> Version {
        let known = [self.present].into_iter().chain(self.lives.iter().rev().map(|life| life.incarnation));
        let both = |life| Some(self.common_with(life)?.min(other.common_with(life)?));
        known.into_iter().find_map(both).unwrap_or(Version(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lives: &[(u64, u64)], present: u64) -> History {
        let life = |&(incarnation, ended): &(u64, u64)| Life { incarnation: Incarnation(incarnation), ended: Version(ended) };
        History { lives: lives.iter().map(life).collect(), present: Incarnation(present) }
    }

    #[test]
    fn the_common_past_ends_with_the_shortest_copy() {
        let share = history(&[(1, 100), (2, 150), (3, 120)], 4);
        let common = |incarnation| share.common_with(Incarnation(incarnation)).map(|version| version.0);
        assert_eq!([1, 2, 3, 9].map(common), [Some(100), Some(120), Some(120), None]);
        assert_eq!(common(4), Some(u64::MAX));
    }

    #[test]
    fn two_histories_part_where_the_first_of_them_left_the_last_life_that_both_know() {
        // The reader saw two more runs of the service; then a copy of the first run was put back.
        let reader = history(&[(1, 50), (2, 70)], 3);
        let put_back = history(&[(1, 40)], 9);
        assert_eq!((reader.common(&put_back), put_back.common(&reader)), (Version(40), Version(40)));
        // A copy of a moment after the first run had ended.
        assert_eq!(reader.common(&history(&[(1, 50), (2, 60)], 9)), Version(60));
        assert_eq!(reader.common(&history(&[(1, 60)], 9)), Version(50));
        assert_eq!(reader.common(&history(&[(5, 60)], 9)), Version(0));
        assert_eq!(reader.common(&reader), Version(u64::MAX));
    }
}
