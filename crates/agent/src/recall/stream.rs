//! Files that are read while they come: masking what is not here, bringing parts, and giving up the rest when nobody has the file open.
//!
//! What is on disk is what the record says, durably, and beside it whatever else: a mask, or what came and is in no record yet. **Invariant:**
//! the record names only what is durable, and nothing is given up that a record names which may still be there after a power cut.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::PoisonError;

use isotherm_core::stub::{Event, Failure, Parted, RANGES_MAX, StubRecord, Trouble, UNIT, Units};
use isotherm_core::trees::Handle;
use isotherm_gate::{FileHandle, GateError, MaskPool, StubFile};

use super::News;
use super::fill::is_written_to;
use super::perform::{FetchFailure, Performer};
use super::remains::Remains;
use super::seals::Seals;
use super::stub_file;
use crate::volume::attributes;

/// What of units that are on their way has not come, in bytes. Only for contents without holes.
#[derive(Debug)]
pub(super) struct Arrivals {
    size: u64,
    wanted: Vec<Range<u64>>,
    left: BTreeMap<u64, u64>,
}

impl Arrivals {
    /// Of these units of a content of `size` bytes.
    pub(super) fn of(units: &Units, size: u64) -> Self {
        let bytes = |unit: u64| (unit * UNIT + UNIT).min(size) - unit * UNIT;
        let left = units.ranges().flatten().map(|unit| (unit, bytes(unit))).collect();
        Self { size, wanted: units.bytes(size).collect(), left }
    }

    /// The parts of a piece that are wanted, with their offsets.
    pub(super) fn parts<'a>(&self, offset: u64, piece: &'a [u8]) -> Vec<(u64, &'a [u8])> {
        let end = offset + piece.len() as u64;
        let within = |range: &Range<u64>| range.start.max(offset)..range.end.min(end);
        let cut =
            |range: Range<u64>| Some((range.start, piece.get(to_usize(range.start - offset)..to_usize(range.end - offset))?));
        self.wanted.iter().map(within).filter(|range| !range.is_empty()).filter_map(cut).collect()
    }

    /// A part has come; the units that are whole with it.
    pub(super) fn came(&mut self, offset: u64, part: &[u8]) -> Units {
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

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Performer {
    /// Whether the record of a file names what is here.
    pub(super) fn is_partial(&self, file: &FileHandle) -> bool {
        let value = self.root.inode(file).and_then(|inode| StubFile::open_to_look(&inode)).and_then(|opened| opened.record());
        value.is_ok_and(|value| value.is_some_and(|value| matches!(StubRecord::decode_unbound(&value), Ok((_, Some(_))))))
    }

    /// Files of which a part was left here, if there is too little room now.
    pub(super) fn parted(&self) -> Vec<Handle> {
        if !self.room.as_ref().is_some_and(|room| room.is_short()) {
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
        if !self.source.is_dense(file, record)? {
            return Err(FetchFailure::Content("its content has holes".to_owned()));
        }
        let (inode, opened) = stub_file(&self.root, file)?;
        let stat = opened.stat()?;
        let value = opened.record()?.unwrap_or_default();
        let (found, partial) = StubRecord::decode_with(&value, file).map_err(|error| FetchFailure::Content(error.to_string()))?;
        if found != *record || stat.size != record.size {
            return Err(FetchFailure::Content("it has changed".to_owned()));
        }
        let modified = match partial {
            None if !opened.has_data()? => stat.mtime_ns,
            _ => self.source.modified(file, record).unwrap_or(stat.mtime_ns),
        };
        // From then on it may hold what is not the content's.
        if partial.is_none() {
            opened.set_record(&record.encode_partial(resident))?;
            opened.flush()?;
        }
        self.streamed().insert(file.clone(), modified);
        let absent = Units::all(record.size).without(resident);
        opened.mask(self.pool()?, absent.bytes(record.size))?;
        inode.set_mtime(modified)?;
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

    /// Brings units of a file that somebody reads.
    pub(super) fn bring(
        &self,
        (file, record): (&Handle, &StubRecord),
        units: &Units,
        progress: &(dyn Fn() + Sync),
        done: &(dyn Fn(Event) + Sync),
    ) -> Result<(), Failure> {
        let opened = self.open_to_fill(file);
        let Ok((inode, opened)) = opened else { return self.told(file, opened.map(|_| ())) };
        let modified = self.streamed().get(file).copied();
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
                    done(Event::Came(vec![(file.clone(), whole)]));
                }
            }
            progress();
            Ok(())
        };
        let size = opened.stat().map(|stat| stat.size);
        let fetched = match size {
            Ok(size) if size != record.size => {
                self.show(file, &Trouble::Size { found: size, recorded: record.size }.to_string());
                return Err(Failure::Other);
            }
            Ok(_) => self.source.fetch((file, record), units, &mut take, &|| self.is_wanted(file), progress),
            Err(error) => Err(error.into()),
        };
        let fetched = fetched.and_then(|()| {
            if opened.stat()?.size != record.size || !seals.hold(&opened, progress)? {
                return Err(FetchFailure::Content("The file was cut, without being opened, while its content came".to_owned()));
            }
            Ok(())
        });
        let mended = modified.map_or(Ok(()), |modified| inode.set_mtime(modified));
        if let Err(error) = mended {
            tracing::debug!(?file, %error, "A file that is read while it comes shows a time of its own");
        }
        match fetched {
            Ok(()) => Ok(()),
            Err(FetchFailure::Volume(_)) if written => self.why_not(file, FetchFailure::Written),
            Err(failure) => self.why_not(file, failure),
        }
    }

    /// Gives up what is not here of a file that was streamed, if nobody has it open.
    pub(super) fn part(&self, file: &Handle, record: &StubRecord, present: &Units) -> Parted {
        match self.try_part(file, record, present) {
            Ok(parted) => {
                if parted == Parted::Over {
                    self.streamed().remove(file);
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
        let is_short = self.room.as_ref().is_some_and(|room| room.is_short());
        let kept = if is_short { Units::none() } else { present.longest(RANGES_MAX) };
        let known = self.streamed().get(file).copied();
        let modified = known.or_else(|| self.source.modified(file, record)).unwrap_or(stat.mtime_ns);
        opened.flush()?;
        opened.set_record(&record.encode_partial(&kept))?;
        opened.flush()?;
        // Kept while the rest goes; see tiering.
        if !opened.take_alone()? {
            return Ok(Parted::InUse);
        }
        opened.give_up_within(Units::all(record.size).without(&kept).bytes(record.size))?;
        if kept.is_empty() {
            // Without a mask it may say so.
            opened.flush()?;
            opened.set_record(&record.encode())?;
        }
        inode.set_mtime(modified)?;
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
        assert_eq!(arrivals.came(UNIT, half), Units::of(1..2));
        assert_eq!(arrivals.came(UNIT, half), Units::none());
        assert_eq!(arrivals.came(4 * UNIT, &piece[..10]), Units::of(4..5), "the last one is short");
    }
}
