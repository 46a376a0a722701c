//! Files that are read while they come: masking what is not here, bringing parts, and giving up the rest when nobody has the file open.
//!
//! What is on disk is what the record says, durably, and beside it whatever else: a mask, or what came and is in no record yet. **Invariant:**
//! the record names only what is durable, and nothing is given up that a record names which may still be there after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::PoisonError;

use isotherm_core::stub::{Event, Failure, Parted, RANGES_MAX, StubRecord, Trouble, UNIT, Units};
use isotherm_core::trees::Handle;
use isotherm_gate::{FileHandle, GateError, Inode, MaskPool, StubFile, mask_byte};

use super::FetchFailure;
use super::fill::{ROOM_TRIES, is_written_to};
use super::lanes::Wanted;
use super::perform::Performer;
use super::remains::Remains;
use super::seals::Seals;
use super::stub_file;
use super::{Ahead, Input, News};
use crate::volume::{Errand, attributes};

/// Units of an earlier run that are compared together.
const STRANGE_TOGETHER: u64 = 32;
/// Units that are looked at before it is told that it goes on.
const LOOKED_AT: u64 = 64;

/// A file that is read while it comes.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    /// Its time before the fetches that are under way.
    modified: i64,
    fetches: u32,
    /// Units that held something when this run of the agent met them: of an earlier run, or of somebody who wrote to the file while nobody
    /// guarded it. It stays until somebody fetches it, who compares.
    strange: Units,
}

/// What of units that are on their way has not come, in bytes. A unit of which a part is a hole of the content never counts as here.
#[derive(Debug)]
pub(super) struct Arrivals {
    size: u64,
    wanted: Vec<Range<u64>>,
    left: BTreeMap<u64, u64>,
    /// Where parts began that have come: over a line that breaks some come more than once.
    counted: BTreeSet<u64>,
}

impl Arrivals {
    /// Of these units of a content of `size` bytes.
    pub(super) fn of(units: &Units, size: u64) -> Self {
        let bytes = |unit: u64| (unit * UNIT + UNIT).min(size) - unit * UNIT;
        let left = units.ranges().flatten().map(|unit| (unit, bytes(unit))).collect();
        Self { size, wanted: units.bytes(size).collect(), left, counted: BTreeSet::new() }
    }

    /// The parts of a piece that are wanted, with their offsets.
    pub(super) fn parts<'a>(&self, offset: u64, piece: &'a [u8]) -> Vec<(u64, &'a [u8])> {
        let end = offset + piece.len() as u64;
        let within = |range: &Range<u64>| range.start.max(offset)..range.end.min(end);
        let cut =
            |range: Range<u64>| Some((range.start, piece.get(to_usize(range.start - offset)..to_usize(range.end - offset))?));
        self.wanted.iter().map(within).filter(|range| !range.is_empty()).filter_map(cut).collect()
    }

    /// A part has come, for the first time or again; the units that are whole with it.
    pub(super) fn came(&mut self, offset: u64, part: &[u8]) -> Units {
        if !self.counted.insert(offset) {
            return Units::none();
        }
        let (mut at, end) = (offset, (offset + part.len() as u64).min(self.size));
        let mut whole = Units::none();
        while at < end {
            let unit = at / UNIT;
            let until = (unit * UNIT + UNIT).min(end);
            if let Some(left) = self.left.get_mut(&unit) {
                *left = left.saturating_sub(until - at);
                if *left == 0 {
                    self.left.remove(&unit);
                    whole = whole.and(&Units::of(unit..unit + 1));
                }
            }
            at = until;
        }
        whole
    }
}

/// Those of the units in which no hole is.
pub(super) fn without_holes(file: &StubFile, units: &Units, size: u64) -> Result<Units, GateError> {
    let mut whole = Units::none();
    for unit in units.ranges().flatten() {
        let bytes = unit * UNIT..(unit * UNIT + UNIT).min(size);
        if file.next_hole(bytes.start, bytes.end)? == bytes.end {
            whole = whole.and(&Units::of(unit..unit + 1));
        }
    }
    Ok(whole)
}

/// Those of the units that hold something that is neither nothing nor a mask.
fn strange(file: &StubFile, units: &Units, size: u64, goes_on: &dyn Fn()) -> Result<Units, GateError> {
    let mut found = Units::none();
    let mut bytes = vec![0; to_usize(UNIT)];
    for unit in units.ranges().flatten() {
        let (from, end) = (unit * UNIT, (unit * UNIT + UNIT).min(size));
        if unit.is_multiple_of(LOOKED_AT) {
            goes_on();
        }
        if file.next_data(from)?.is_none_or(|data| data >= end) {
            continue;
        }
        let here = &mut bytes[..to_usize(end - from)];
        file.read_at(from, here)?;
        if here.iter().zip(from..).any(|(byte, at)| *byte != 0 && *byte != mask_byte(at)) {
            found = found.and(&Units::of(unit..unit + 1));
        }
    }
    Ok(found)
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Performer {
    /// Whether the record of a file names what is here.
    pub(super) fn is_partial(&self, file: &FileHandle) -> bool {
        let value = self.root.inode(file).and_then(|inode| StubFile::open_to_look(&inode)).and_then(|opened| opened.record());
        value.is_ok_and(|value| value.is_some_and(|value| matches!(StubRecord::decode_unbound(&value), Ok((_, Some(_))))))
    }

    /// Somebody wants nothing of it to stay.
    pub(super) fn keeps_nothing_of(&self, file: &Handle) {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone());
    }

    /// It is not streamed any more.
    pub(super) fn forget_stream(&self, file: &Handle) {
        self.streamed().remove(file);
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner).remove(file);
    }

    /// Those of the units that are here, as far as can be told without reading them (row 18): a content that was streamed has no holes. A cut
    /// that was made long again shows in the time, and may have ended in the last block of what is no hole now.
    pub(super) fn believed(
        &self,
        file: &Handle,
        record: &StubRecord,
        opened: &StubFile,
        units: &Units,
    ) -> Result<Units, GateError> {
        let whole = without_holes(opened, units, record.size)?;
        let modified = opened.stat()?.mtime_ns;
        let is_as_left = self.source.modified(file, record).is_none_or(|known| known == modified);
        let but_last = |range: Range<u64>| range.start..range.end - 1;
        Ok(if is_as_left { whole } else { whole.ranges().map(but_last).filter(|range| !range.is_empty()).collect() })
    }

    /// Files of which a part was left here, if there is too little room now.
    pub(super) fn parted(&self) -> Vec<Handle> {
        if !self.room.as_ref().is_some_and(|room| room.is_short(0)) {
            return Vec::new();
        }
        std::mem::take(&mut *self.parted.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// Whether a file may be read while it comes. Where Samba takes it for sparse it asks for holes before it reads.
    pub(super) fn may_stream(file: &StubFile) -> Result<bool, GateError> {
        Ok(!file.dos_attributes()?.is_some_and(|value| attributes::is_sparse(&value)))
    }

    /// Masks what is not here. Without a word where it cannot be: there is another way.
    pub(super) fn mask(&self, file: &Handle, record: &StubRecord, resident: &Units) -> Result<(), Failure> {
        let masked = self.try_mask(file, record, resident);
        if let Err(why) = &masked {
            tracing::debug!(?file, %why, "A file is not shown while it comes");
        }
        masked.map_err(|_| Failure::Other)?;
        (self.tell)(News::Used(file.clone(), true));
        Ok(())
    }

    fn try_mask(&self, file: &Handle, record: &StubRecord, resident: &Units) -> Result<(), FetchFailure> {
        let (inode, opened) = stub_file(&self.root, file)?;
        let stat = opened.stat()?;
        let value = opened.record()?.unwrap_or_default();
        let (found, partial) = StubRecord::decode_with(&value, file).map_err(|error| FetchFailure::Content(error.to_string()))?;
        if found != *record || stat.size != record.size {
            return Err(FetchFailure::Content("it has changed".to_owned()));
        }
        let absent = Units::all(record.size).without(resident);
        match partial {
            None if !self.source.is_dense(file, record)? => {
                return Err(FetchFailure::Content("its content has holes".to_owned()));
            }
            // Of a recall that was broken off, or of somebody who wrote to it while nobody guarded it: whoever brings all of it compares.
            None if opened.has_data()? => return Err(FetchFailure::Content("something is in it already".to_owned())),
            // From then on it may hold what is not the content's.
            None => {
                opened.set_record(&record.encode_partial(resident))?;
                opened.flush()?;
                self.streamed().insert(file.clone(), Streamed::default());
            }
            Some(_) => self.know(file, record, (&inode, &opened), &absent)?,
        }
        let modified = opened.stat()?.mtime_ns;
        let masked = self.pool().and_then(|pool| opened.mask(pool, absent.bytes(record.size)));
        if masked.is_err() && partial.is_none() {
            // Nobody was let through yet, and what was reserved may be what others lack.
            opened.give_up_within(absent.bytes(record.size))?;
        }
        inode.set_mtime(modified)?;
        Ok(masked?)
    }

    /// Work on it takes long.
    fn goes_on(&self, file: &Handle) {
        // The desk may have ended.
        let _ = self.inputs.send(Input::Event(Event::Progress(vec![file.clone()])));
    }

    /// Remembers what an earlier run has left, before anything of this one comes.
    fn know(
        &self,
        file: &Handle,
        record: &StubRecord,
        (inode, opened): (&Inode, &StubFile),
        absent: &Units,
    ) -> Result<(), GateError> {
        let size = record.size;
        if self.streamed().contains_key(file) {
            return Ok(());
        }
        let strange = strange(opened, absent, size, &|| self.goes_on(file))?;
        // An agent that was killed while something came has left the time of that.
        if !strange.is_empty()
            && let Some(modified) = self.source.modified(file, record)
        {
            inode.set_mtime(modified)?;
        }
        self.streamed().insert(file.clone(), Streamed { strange, ..Streamed::default() });
        Ok(())
    }

    fn pool(&self) -> Result<&MaskPool, GateError> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let made = MaskPool::new(&self.root)?;
        // Whoever came first has made one as well.
        Ok(self.pool.get_or_init(|| made))
    }

    /// Brings units of a file that somebody reads; where the volume is full, others go first.
    pub(super) fn bring(
        &self,
        of: (&Handle, &StubRecord),
        units: &Units,
        wanted: &Wanted,
        told: (&(dyn Fn() + Sync), &dyn Fn(Units)),
    ) -> Result<(), Failure> {
        for tries in 0..ROOM_TRIES {
            let seen = (self.room_made(), tries == 0);
            match self.bring_once(of, units, wanted, told) {
                Err(Failure::NoSpace) if self.is_awaited(of.0) && self.make_room(units.len() * UNIT, seen, told.0) => told.0(),
                brought => return brought,
            }
        }
        self.bring_once(of, units, wanted, told)
    }

    fn bring_once(
        &self,
        (file, record): (&Handle, &StubRecord),
        units: &Units,
        wanted: &Wanted,
        (progress, came): (&(dyn Fn() + Sync), &dyn Fn(Units)),
    ) -> Result<(), Failure> {
        let opened = self.open_to_fill(file, wanted).and_then(|(inode, opened)| {
            let found = opened.stat()?.size;
            if found == record.size {
                self.fetch_begins(file, record, (&inode, &opened))?;
            }
            Ok((found, inode, opened))
        });
        let Ok((found, inode, opened)) = opened else { return self.told(file, opened.map(|_| ())) };
        if found != record.size {
            self.show(file, &Trouble::Size { found, recorded: record.size }.to_string());
            return Err(Failure::Other);
        }
        let (mut arrivals, mut seals, mut remains) = (Arrivals::of(units, record.size), Seals::default(), Remains::of_partial());
        let mut written = false;
        let mut take = |offset: u64, piece: &[u8]| {
            for (offset, part) in arrivals.parts(offset, piece) {
                if !remains.allow(&opened, offset, part)? {
                    written = true;
                    return Err(is_written_to());
                }
                opened.fill(offset, part)?;
                seals.add(offset, part);
                let whole = arrivals.came(offset, part);
                if !whole.is_empty() {
                    came(whole);
                }
            }
            progress();
            Ok(())
        };
        let errand = Errand { go_on: &|| wanted.is(), is_awaited: &|| self.is_urgent(file), heard: progress };
        let fetched = self.source.fetch((file, record), units, &Ahead::NOTHING, &mut take, &errand);
        let fetched = fetched.and_then(|()| {
            if opened.stat()?.size != record.size || !seals.hold(&opened, progress)? {
                return Err(FetchFailure::Content("The file was cut, without being opened, while its content came".to_owned()));
            }
            Ok(())
        });
        if let Err(error) = self.fetch_ends(file, &inode) {
            tracing::debug!(?file, %error, "A file that is read while it comes shows a time of its own");
        }
        match fetched {
            Ok(()) => Ok(()),
            Err(FetchFailure::Volume(_)) if written => self.why_not(file, FetchFailure::Written),
            Err(failure) => self.why_not(file, failure),
        }
    }

    /// The time that a file shows before anything is written to it is its own.
    fn fetch_begins(&self, file: &Handle, record: &StubRecord, of: (&Inode, &StubFile)) -> Result<(), GateError> {
        let value = of.1.record()?.unwrap_or_default();
        let resident = StubRecord::decode_with(&value, file).ok().and_then(|(_, resident)| resident).unwrap_or_default();
        self.know(file, record, of, &Units::all(record.size).without(&resident))?;
        let mut streamed = self.streamed();
        let it = streamed.entry(file.clone()).or_default();
        if it.fetches == 0 {
            it.modified = of.1.stat()?.mtime_ns;
        }
        it.fetches += 1;
        Ok(())
    }

    fn fetch_ends(&self, file: &Handle, inode: &Inode) -> Result<(), GateError> {
        let mut streamed = self.streamed();
        let Some(it) = streamed.get_mut(file) else { return Ok(()) };
        it.fetches = it.fetches.saturating_sub(1);
        // Before the next one looks at it.
        inode.set_mtime(it.modified)
    }

    /// Gives up what is not here of a file that was streamed, if nobody has it open.
    pub(super) fn part(&self, file: &Handle, record: &StubRecord, present: &Units) -> Parted {
        match self.try_part(file, record, present) {
            Ok(parted) => {
                if parted == Parted::Over {
                    self.forget_stream(file);
                }
                parted
            }
            Err(_) if self.is_gone(file) => Parted::Over,
            Err(error) => {
                tracing::warn!(?file, %error, "What is left of a file that was streamed keeps its room");
                Parted::Failed
            }
        }
    }

    fn try_part(&self, file: &Handle, record: &StubRecord, present: &Units) -> Result<Parted, GateError> {
        let (inode, opened) = stub_file(&self.root, file)?;
        let is_alone = opened.take_alone()?;
        opened.let_others_in()?;
        if !is_alone {
            return Ok(Parted::InUse);
        }
        let stat = opened.stat()?;
        let is_it = opened.record()?.is_some_and(|value| StubRecord::decode(&value, file).as_ref() == Ok(record));
        if !is_it || stat.size != record.size {
            return Ok(Parted::Over);
        }
        let absent = Units::all(record.size).without(present);
        self.know(file, record, (&inode, &opened), &absent)?;
        let strange = self.streamed().get(file).map(|it| it.strange.without(present)).unwrap_or_default();
        if let Some(range) = strange.ranges().next() {
            // A few at a time: whoever opens the file waits for them.
            return Ok(Parted::Strange(Units::of(range.start..range.end.min(range.start + STRANGE_TOGETHER))));
        }
        let modified = opened.stat()?.mtime_ns;
        let reserved = if self.pool()?.reserves() { absent.len() * UNIT } else { 0 };
        let is_short = self.room.as_ref().is_some_and(|room| room.is_short(reserved));
        // What somebody has cut and made long again (row 18) is not here.
        let is_unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner).contains(file);
        let kept = if is_short || is_unkept {
            Units::none()
        } else {
            self.believed(file, record, &opened, present)?.longest(RANGES_MAX)
        };
        opened.flush()?;
        opened.set_record(&record.encode_partial(&kept))?;
        opened.flush()?;
        // Kept while the rest goes; see tiering.
        if !opened.take_alone()? {
            return Ok(Parted::InUse);
        }
        // From here on the record on the disk is right, and what was remembered of the file is not.
        let rest = Units::all(record.size).without(&kept);
        let given_up = opened.give_up_within(rest.bytes(record.size)).and_then(|()| {
            opened.let_others_in()?;
            if kept.is_empty() {
                // Without a mask it may say so. Whoever opens it waits at the gate.
                opened.flush()?;
                opened.set_record(&record.encode())?;
            }
            Ok(())
        });
        if let Err(error) = given_up.and_then(|()| inode.set_mtime(modified)) {
            tracing::warn!(?file, %error, "Not all went that a file has no record of");
        }
        if !kept.is_empty() {
            self.parted.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone());
        }
        tracing::info!(?file, kept = kept.len() * UNIT, "A file that was read while it came is tiered again");
        Ok(Parted::Over)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wanted_of_a_piece_is_cut_out_and_units_are_told_of_once() {
        let size = 4 * UNIT + 10;
        let mut arrivals = Arrivals::of(&Units::from_iter([1..2, 4..5]), size);
        let piece = vec![1; to_usize(3 * UNIT)];
        let parts = arrivals.parts(UNIT / 2, &piece);
        assert_eq!(parts.iter().map(|(offset, part)| (*offset, part.len() as u64)).collect::<Vec<_>>(), [(UNIT, UNIT)]);
        assert_eq!(
            arrivals.parts(2 * UNIT, &piece).iter().map(|(offset, part)| (*offset, part.len())).collect::<Vec<_>>(),
            [(4 * UNIT, 10)]
        );
        let half = &piece[..to_usize(UNIT / 2)];
        assert_eq!(arrivals.came(UNIT + UNIT / 2, half), Units::none());
        assert_eq!(arrivals.came(UNIT + UNIT / 2, half), Units::none(), "it came once more over another connection");
        assert_eq!(arrivals.came(UNIT, half), Units::of(1..2));
        assert_eq!(arrivals.came(UNIT, half), Units::none());
        assert_eq!(arrivals.came(4 * UNIT, &piece[..10]), Units::of(4..5), "the last one is short");
    }
}
