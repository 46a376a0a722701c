//! The lives of a share: each time the service's data are put back from a copy, another one begins.
//!
//! **Invariant** (case 10 of the ways to lose a file): versions of two lives are compared only up to where their common
//! past ends.

use serde::{Deserialize, Serialize};

use crate::ids::{Cursor, Incarnation, Version};

/// A life that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// How much of it the next life knows: its head in the copy that was put back. Zero where that is not known.
    pub ended: Version,
}

/// The newest version that means the same in the share's present life and to a reader who stood at `known`, in the life of
/// then. `lives` are those that have ended, the oldest first.
#[must_use]
pub fn common_past(lives: &[Life], known: Cursor) -> Version {
    let Some(from) = lives.iter().position(|life| life.incarnation == known.incarnation) else { return Version(0) };
    lives[from..].iter().map(|life| life.ended).fold(known.version, Version::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_past_ends_with_the_shortest_copy() {
        let lives = [(1, 100), (2, 150), (3, 120)];
        let lives = lives.map(|(incarnation, ended)| Life { incarnation: Incarnation(incarnation), ended: Version(ended) });
        let common = |incarnation, version| {
            let known = Cursor { incarnation: Incarnation(incarnation), version: Version(version) };
            common_past(&lives, known).0
        };
        assert_eq!((common(1, 130), common(1, 90)), (100, 90));
        assert_eq!((common(2, 140), common(2, 110)), (120, 110));
        assert_eq!((common(3, 200), common(9, 50)), (120, 0));
    }
}
