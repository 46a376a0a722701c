//! Which parts of a content are meant: a set of units, kept as ranges.

use std::ops::Range;

/// Bytes of a unit: what a streaming open fetches at least, and what a partially tiered file has or has not (DESIGN 7.4).
pub const UNIT: u64 = 1 << 20;

/// A set of units of one file, by their numbers.
///
/// **Invariant:** the ranges are sorted; none is empty, and none touches the next.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Units(Vec<(u64, u64)>);

/// How many units a content of so many bytes has.
#[must_use]
pub fn units_of(size: u64) -> u64 {
    size.div_ceil(UNIT)
}

impl Units {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// These.
    #[must_use]
    pub fn of(range: Range<u64>) -> Self {
        if range.is_empty() { Self::none() } else { Self(vec![(range.start, range.end)]) }
    }

    /// All of a content of so many bytes.
    #[must_use]
    pub fn all(size: u64) -> Self {
        Self::of(0..units_of(size))
    }

    /// The last of such a content, if it has any.
    #[must_use]
    pub fn last(size: u64) -> Self {
        let count = units_of(size);
        Self::of(count.saturating_sub(1)..count)
    }

    /// Those that hold any of these bytes of a content of `size` bytes.
    #[must_use]
    pub fn with_bytes(offset: u64, len: u64, size: u64) -> Self {
        let end = offset.saturating_add(len).min(size);
        if offset >= end { Self::none() } else { Self::of(offset / UNIT..units_of(end)) }
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(first, end)| *first..*end)
    }

    /// The bytes that they hold of a content of `size` bytes, in order.
    pub fn bytes(&self, size: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let within = move |unit: u64| unit.saturating_mul(UNIT).min(size);
        self.0.iter().map(move |(first, end)| within(*first)..within(*end)).filter(|bytes| !bytes.is_empty())
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, end)| end - first).sum()
    }

    /// Whether it is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number behind the last one; 0 where there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |(_, end)| *end)
    }

    /// Whether all of `others` are among these.
    #[must_use]
    pub fn contain(&self, others: &Self) -> bool {
        let has = |(first, end): &(u64, u64)| self.0.iter().any(|(from, until)| from <= first && end <= until);
        others.0.iter().all(has)
    }

    /// These and the others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut ranges: Vec<(u64, u64)> = self.0.iter().chain(&others.0).copied().collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (first, end) in ranges {
            match joined.last_mut().filter(|(_, until)| first <= *until) {
                Some((_, until)) => *until = end.max(*until),
                None => joined.push((first, end)),
            }
        }
        Self(joined)
    }

    /// These without the others.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        let mut left = Vec::new();
        for (first, end) in &self.0 {
            let mut from = *first;
            for (out, until) in others.0.iter().filter(|(out, until)| out < end && first < until) {
                if from < *out {
                    left.push((from, *out));
                }
                from = from.max(*until);
            }
            if from < *end {
                left.push((from, *end));
            }
        }
        Self(left)
    }

    /// The longest ranges of these, so many at most: what is left out counts as absent.
    #[must_use]
    pub fn longest(&self, ranges: usize) -> Self {
        let mut kept = self.0.clone();
        kept.sort_by_key(|(first, end)| (std::cmp::Reverse(end - first), *first));
        kept.truncate(ranges);
        kept.sort_unstable();
        Self(kept)
    }
}

impl FromIterator<Range<u64>> for Units {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        ranges.into_iter().fold(Self::none(), |all, range| all.and(&Self::of(range)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The set whose units are the bits of a number.
    fn set(bits: u64) -> Units {
        (0..8).filter(|unit| bits >> unit & 1 == 1).map(|unit| unit..unit + 1).collect()
    }

    fn bits(units: &Units) -> u64 {
        units.ranges().flatten().fold(0, |bits, unit| bits | 1 << unit)
    }

    #[test]
    fn they_are_sets() {
        for a in 0..256 {
            assert_eq!((bits(&set(a)), set(a).len()), (a, u64::from(a.count_ones())));
            assert!(set(a).0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", set(a));
            for b in 0..256 {
                let [one, other] = [set(a), set(b)];
                assert_eq!(one.and(&other), set(a | b));
                assert_eq!(one.without(&other), set(a & !b), "{one:?} {other:?}");
                assert_eq!(one.contain(&other), a & b == b);
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_content() {
        let size = 3 * UNIT + 5;
        assert_eq!(Units::all(size), Units::of(0..4));
        assert_eq!(Units::last(size), Units::of(3..4));
        assert_eq!((Units::all(0), Units::last(0)), (Units::none(), Units::none()));
        assert_eq!(Units::with_bytes(UNIT - 1, 2, size), Units::of(0..2));
        assert_eq!(Units::with_bytes(0, u64::MAX, size), Units::all(size));
        for (offset, len) in [(size, 10), (u64::MAX, 1), (5, 0)] {
            assert_eq!(Units::with_bytes(offset, len, size), Units::none(), "{offset} {len}");
        }
        let bytes: Vec<Range<u64>> = Units::from_iter([0..1, 3..9]).bytes(size).collect();
        assert_eq!(bytes, [0..UNIT, 3 * UNIT..size]);
    }

    #[test]
    fn the_longest_ranges_are_kept_in_order() {
        let units = Units::from_iter([0..1, 2..5, 7..9, 20..21]);
        assert_eq!(units.longest(2), Units::from_iter([2..5, 7..9]));
        assert_eq!(units.longest(3), Units::from_iter([0..1, 2..5, 7..9]));
        assert_eq!((units.longest(0), units.longest(9)), (Units::none(), units));
    }
}
