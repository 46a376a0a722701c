//! A streaming open: who reads a file while not all of it is here.
//!
//! What is fetched is what was asked for, and the more ahead of it the longer somebody reads one part after the other.
//! **Invariant:** nobody is let through to a unit that has not come.

use super::event::{Millis, Purpose};
use super::record::StubRecord;
use super::units::{Units, units_of};

/// Files from this size on may be read while they come if nothing else is said, in bytes (DESIGN 7.4).
pub const STREAM_MIN: u64 = 64 << 20;

/// Most units that are fetched ahead of one reader.
const AHEAD_MAX: u64 = 32;
/// Places of a file at which somebody reads one part after the other, of which it is remembered.
const READERS: usize = 8;

/// How long nobody has to ask anything of a file before it is tried to give it up, in milliseconds.
pub(super) const QUIET: Millis = 2_000;

/// What is known of a file that is read while it comes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Stream {
    pub(super) record: StubRecord,
    /// What is here by its record.
    pub(super) resident: Units,
    /// What is here.
    pub(super) present: Units,
    /// No hole shows.
    pub(super) masked: bool,
    /// What is here has to be looked at anew before anything else is done.
    pub(super) doubted: bool,
    /// What is on its way.
    coming: Units,
    /// Fetches that have not ended, whether all that they bring is here or not.
    fetches: u32,
    readers: Vec<Reader>,
    /// When somebody asked last, or it was found that somebody still has it open.
    pub(super) used: Millis,
}

/// Somebody who reads one part after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Reader {
    /// The unit behind the last that he asked for.
    next: u64,
    /// Units to fetch ahead of it.
    ahead: u64,
}

/// What has to be here before somebody may go on, who is not to wait for all.
pub(super) fn needed(purpose: Purpose, size: u64) -> Option<Units> {
    match purpose {
        // A mask covers whole blocks, so the end is the content itself. Many formats say there what is in a file.
        Purpose::Stream => Some(Units::last(size)),
        Purpose::Range(offset, len) => Some(Units::with_bytes(offset, len, size)),
        Purpose::Read | Purpose::Write | Purpose::Empty => None,
    }
}

impl Stream {
    pub(super) fn new(record: StubRecord, resident: Units, now: Millis) -> Self {
        let (present, coming) = (resident.clone(), Units::none());
        Self { record, resident, present, masked: false, doubted: false, coming, fetches: 0, readers: Vec::new(), used: now }
    }

    /// Whether somebody may go on.
    pub(super) fn has(&self, purpose: Purpose) -> bool {
        let needed = needed(purpose, self.record.size).filter(|_| self.masked || purpose != Purpose::Stream);
        needed.is_some_and(|needed| self.present.contain(&needed))
    }

    /// What to fetch now for somebody who asks for this; it is on its way then.
    pub(super) fn fetch_for(&mut self, purpose: Purpose) -> Units {
        let size = self.record.size;
        let Some(needed) = needed(purpose, size) else { return Units::none() };
        let ahead = if purpose == Purpose::Stream { 0 } else { self.ahead(&needed) };
        let soon = match purpose {
            // Whoever opens a file will soon read its beginning.
            Purpose::Stream => Units::with_bytes(0, 1, size),
            _ => Units::of(needed.end()..(needed.end() + ahead).min(units_of(size))),
        };
        let lacking = |units: &Units| units.without(&self.present).without(&self.coming);
        let (now, later) = (lacking(&needed), lacking(&soon));
        // Not each unit by itself that comes into reach.
        let wanted = if now.is_empty() && later.len() * 2 < ahead { Units::none() } else { now.and(&later) };
        self.coming = self.coming.and(&wanted);
        wanted
    }

    /// What was to be fetched is being fetched, until [`Self::ended`].
    pub(super) fn begun(&mut self) {
        self.fetches += 1;
    }

    /// Whether nothing is on its way.
    pub(super) fn is_still(&self) -> bool {
        self.fetches == 0
    }

    /// How many units are to be fetched ahead of somebody who asks for these.
    fn ahead(&mut self, asked: &Units) -> u64 {
        let Some(range) = asked.ranges().next() else { return 0 };
        // He goes on where he was, in the same units or right behind them.
        let goes_on = |reader: &Reader| range.start <= reader.next && reader.next <= range.end;
        let Some(at) = self.readers.iter().position(goes_on) else {
            if self.readers.len() == READERS {
                self.readers.remove(0);
            }
            self.readers.push(Reader { next: range.end, ahead: 0 });
            return 0;
        };
        let mut reader = self.readers.remove(at);
        if range.end > reader.next {
            reader = Reader { next: range.end, ahead: (reader.ahead * 2).clamp(1, AHEAD_MAX) };
        }
        self.readers.push(reader);
        reader.ahead
    }

    /// Whether somebody waits for any of these units, and for some that are neither here nor on their way.
    pub(super) fn lacks(&self, purpose: Purpose, units: &Units) -> bool {
        let needed = needed(purpose, self.record.size);
        let is_of_these = |needed: &Units| needed.without(units) != *needed;
        needed.is_some_and(|needed| is_of_these(&needed) && !self.present.and(&self.coming).contain(&needed))
    }

    /// These have come.
    pub(super) fn came(&mut self, units: &Units) {
        self.present = self.present.and(units);
        self.coming = self.coming.without(units);
    }

    /// A fetch has ended: what of these has not come will not.
    pub(super) fn ended(&mut self, units: &Units) {
        self.fetches = self.fetches.saturating_sub(1);
        self.coming = self.coming.without(units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ManifestId;
    use crate::ids::{NodeId, Version};
    use crate::stub::{Bound, ContentPrefix, UNIT};
    use crate::trees::Handle;

    fn stream(units: u64) -> Stream {
        let content = ContentPrefix::of(&ManifestId::from_bytes([1; 32]));
        let bound = Bound::to(&Handle(Box::from([1])));
        let record = StubRecord { node: NodeId([1; 16]), version: Version(1), content, size: units * UNIT - 1, bound };
        Stream { masked: true, ..Stream::new(record, Units::none(), 0) }
    }

    fn read(unit: u64) -> Purpose {
        Purpose::Range(unit * UNIT, 4_096)
    }

    #[test]
    fn whoever_opens_a_file_needs_its_end_and_soon_its_beginning() {
        let mut stream = stream(100);
        assert_eq!(stream.fetch_for(Purpose::Stream), Units::from_iter([0..1, 99..100]));
        assert_eq!(stream.fetch_for(Purpose::Stream), Units::none(), "it is on its way");
        assert!(!stream.has(Purpose::Stream));
        stream.came(&Units::of(99..100));
        assert!(stream.has(Purpose::Stream) && !stream.has(read(0)));
    }

    #[test]
    fn the_longer_somebody_reads_on_the_more_is_fetched_ahead() {
        let mut stream = stream(1_000);
        let mut fetched = Vec::new();
        for unit in 0..200 {
            // Several reads in a unit make no difference.
            for part in 0..3 {
                let units = stream.fetch_for(Purpose::Range(unit * UNIT + part * 4_096, 4_096));
                if !units.is_empty() {
                    fetched.push(units.len());
                }
                stream.came(&units);
                assert!(stream.has(read(unit)));
            }
        }
        assert_eq!(fetched[..7], [1, 2, 2, 3, 5, 9, 17], "{fetched:?}");
        assert!(fetched.iter().all(|units| *units <= AHEAD_MAX + 1), "{fetched:?}");
        assert!(fetched.len() < 30, "{fetched:?}");
        assert!(stream.present.len() <= 200 + AHEAD_MAX);
    }

    #[test]
    fn whoever_reads_here_and_there_gets_what_he_asks_for() {
        let mut stream = stream(1_000);
        let mut at = 7;
        for _ in 0..100 {
            at = (at * 389 + 17) % 997;
            let units = stream.fetch_for(read(at));
            stream.came(&units);
        }
        assert!(stream.present.len() <= 110, "{}", stream.present.len());
        assert_eq!(stream.fetch_for(Purpose::Range(u64::MAX - 5, 5)), Units::none(), "there is nothing behind the end");
        assert!(stream.has(Purpose::Range(u64::MAX - 5, 5)));
    }

    #[test]
    fn readers_at_several_places_are_told_apart() {
        let mut stream = stream(1_000);
        for step in 0..40 {
            for place in [0, 300, 600] {
                let units = stream.fetch_for(read(place + step));
                stream.came(&units);
            }
        }
        assert!(stream.readers.iter().all(|reader| reader.ahead > 8), "{:?}", stream.readers);
    }
}
