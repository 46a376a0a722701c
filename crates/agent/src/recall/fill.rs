//! Bringing a content whole, and putting right what somebody has cut.
//!
//! **Invariant:** a file that was not filled is as it was, or holds over its record only what is the content's.

use std::time::{Duration, Instant};

use isotherm_core::stub::{Failure, StubRecord, Trouble, Units};
use isotherm_core::trees::Handle;
use isotherm_gate::{ErrorKind, GateError, Inode, StubFile};

use super::FetchFailure;
use super::ahead::Ahead;
use super::lanes::Wanted;
use super::perform::Performer;
use super::remains::Remains;
use super::seals::Seals;
use super::stream::{Arrivals, without_holes};
use super::stub_file;
use crate::volume::Errand;

/// How long somebody may take to give back a lease, and how often he is asked.
const FREE_WITHIN: Duration = Duration::from_secs(10);
const FREE_AGAIN: Duration = Duration::from_millis(20);

/// Bytes of a content that are written before they are made durable.
const FLUSHED_EVERY: u64 = 128 << 20;

/// How often room is made for one content.
pub(super) const ROOM_TRIES: usize = 4;

/// Somebody has written to a stub.
pub(super) fn is_written_to() -> GateError {
    GateError::new(ErrorKind::Busy, "fill", "what somebody has written to")
}

impl Performer {
    /// Gives a stub whose length was changed the right one again. What it may hold came with a recall that was broken off: it goes,
    /// since after a cut nobody knows which of it is still the content's.
    pub(super) fn mend(&self, file: &Handle, record: &StubRecord) -> Result<(), GateError> {
        let (inode, opened) = stub_file(&self.root, file)?;
        // It may have been emptied, or been brought back, since it was looked at: then there is nothing to mend.
        let is_it = opened.record()?.is_some_and(|value| StubRecord::decode(&value, file).as_ref() == Ok(record));
        if !is_it || opened.stat()?.size == 0 {
            return Ok(());
        }
        // Somebody may be reading what is here of a file that was streamed.
        let is_partial = self.remains(file, &opened)?.1;
        let in_use = || GateError::new(ErrorKind::Busy, "mend", "a file that somebody has open");
        opened.flush()?;
        if is_partial {
            // What is here may have been cut; a record that names it must not survive it.
            opened.set_record(&record.encode_partial(&Units::none()))?;
            opened.flush()?;
            // Kept only while it goes; see tiering.
            if !opened.take_alone()? {
                return Err(in_use());
            }
        }
        opened.give_up()?;
        opened.set_len(record.size)?;
        if is_partial {
            opened.let_others_in()?;
            opened.flush()?;
            opened.set_record(&record.encode())?;
        }
        // Whoever changed its length left his own time.
        self.source.modified(file, record).map_or(Ok(()), |modified| inode.set_mtime(modified))
    }

    /// Fills a file, or leaves it as it was. Where the volume is full, what has been here for longer goes first, if somebody waits:
    /// whoever brings back a tree that does not fit would have it push itself out.
    pub(super) fn fill(
        &self,
        of: (&Handle, &StubRecord),
        present: &Units,
        (is_awaited, wanted, ahead): (bool, &Wanted, &Ahead),
        told: (&(dyn Fn() + Sync), &dyn Fn(Units)),
    ) -> Result<(), Failure> {
        let ((file, record), (progress, _)) = (of, told);
        for tries in 0..ROOM_TRIES {
            let seen = (self.room_made(), tries == 0);
            match self.fill_once(of, present, (wanted, ahead), told) {
                // Somebody may have come since it was begun.
                Err(Failure::NoSpace) if (is_awaited || self.is_awaited(file)) && self.make_room(record.size, seen, progress) => {
                    progress();
                }
                filled => return filled,
            }
        }
        self.fill_once(of, present, (wanted, ahead), told)
    }

    fn fill_once(
        &self,
        (file, record): (&Handle, &StubRecord),
        present: &Units,
        (still, ahead): (&Wanted, &Ahead),
        (progress, came): (&(dyn Fn() + Sync), &dyn Fn(Units)),
    ) -> Result<(), Failure> {
        let opened = self.open_to_fill(file, still).and_then(|(inode, opened)| Ok((opened.stat()?, inode, opened)));
        let Ok((stat, inode, opened)) = opened else { return self.told(file, opened.map(|_| ())) };
        if stat.size != record.size {
            // Whoever changed it did so without being asked about; filling it would bring back what he has cut.
            self.show(file, &Trouble::Size { found: stat.size, recorded: record.size }.to_string());
            return Err(Failure::Other);
        }
        let remains = self.remains(file, &opened);
        let Ok((mut remains, is_partial)) = remains else { return self.told(file, remains.map(|_| ())) };
        let wanted = Units::all(record.size).without(present);
        // What comes is told of where somebody may read it before all is there.
        let mut arrivals = Arrivals::of(&wanted, record.size);
        // A recall that was broken off has left its own time.
        let of_content = if remains.are_any() && !is_partial { self.source.modified(file, record) } else { None };
        let modified = of_content.unwrap_or(stat.mtime_ns);
        let mut seals = Seals::default();
        let (mut unflushed, mut written) = (0, false);
        let mut take = |offset: u64, piece: &[u8]| {
            for (offset, piece) in arrivals.parts(offset, piece) {
                if !remains.allow(&opened, offset, piece)? {
                    written = true;
                    return Err(is_written_to());
                }
                opened.fill(offset, piece)?;
                seals.add(offset, piece);
                unflushed += piece.len() as u64;
                let whole = arrivals.came(offset, piece);
                if is_partial && !whole.is_empty() {
                    came(whole);
                }
            }
            if unflushed >= FLUSHED_EVERY {
                // Not all at the end, when nothing tells that it gets on.
                unflushed = 0;
                opened.flush()?;
            }
            progress();
            Ok(())
        };
        let errand = Errand { go_on: &|| still.is(), is_awaited: &|| self.is_urgent(file), heard: progress };
        let fetched = self.source.fetch((file, record), &wanted, ahead, &mut take, &errand);
        let fetched = fetched.and_then(|()| {
            let has_holes = is_partial && without_holes(&opened, present, record.size)? != *present;
            if has_holes || opened.stat()?.size != record.size || !seals.hold(&opened, progress)? {
                return Err(FetchFailure::Content("The file was cut, without being opened, while its content came".to_owned()));
            }
            if !remains.leave_holes(&opened, record.size, progress)? {
                return Err(FetchFailure::Written);
            }
            Ok(inode.set_mtime(modified)?)
        });
        let Err(failure) = fetched else { return Ok(()) };
        if written || matches!(failure, FetchFailure::Written) {
            self.show(file, &FetchFailure::Written.to_string());
            return Err(Failure::Other);
        }
        // Where something had been, all stays, and the next try compares. Of a partial file somebody may be reading it.
        let is_own = !remains.are_any();
        let is_left = self.leave(file, (&inode, &opened), modified, is_own);
        // What came of a file that is read meanwhile may be lost.
        if is_left || is_own { self.why_not(file, failure) } else { Err(Failure::Other) }
    }

    /// Leaves a file that was not filled as it was: what came is given up if it is ours. The record may not be durable yet, and without
    /// it nobody knows what the holes stand for. False if that failed.
    fn leave(&self, file: &Handle, (inode, opened): (&Inode, &StubFile), modified: i64, is_own: bool) -> bool {
        let given_up = opened.flush().and_then(|()| if is_own { opened.give_up() } else { Ok(()) });
        let left = given_up.and_then(|()| inode.set_mtime(modified));
        if let Err(error) = &left {
            tracing::warn!(?file, %error, "What came of a recall that failed was not given up");
        }
        left.is_ok()
    }

    /// What whoever waited is told, and administrators.
    pub(super) fn why_not(&self, file: &Handle, failure: FetchFailure) -> Result<(), Failure> {
        match failure {
            FetchFailure::NotWanted => Err(Failure::GivenUp),
            FetchFailure::Volume(error) => self.told(file, Err(error)),
            FetchFailure::Content(_) | FetchFailure::Unknown(_) | FetchFailure::Written => {
                self.show(file, &failure.to_string());
                Err(Failure::Other)
            }
        }
    }

    /// What may be in the way of a content, and whether its record names what is here.
    fn remains(&self, file: &Handle, opened: &StubFile) -> Result<(Remains, bool), GateError> {
        let is_partial = opened.record()?.is_some_and(|value| matches!(StubRecord::decode_with(&value, file), Ok((_, Some(_)))));
        Ok((if is_partial { Remains::of_partial() } else { Remains::of(opened)? }, is_partial))
    }

    /// Opened for the first time, a file that a client of NFS has in his charge is asked back from him, and is free in a moment.
    pub(super) fn open_to_fill(&self, file: &Handle, wanted: &Wanted) -> Result<(Inode, StubFile), GateError> {
        let begun = Instant::now();
        loop {
            match stub_file(&self.root, file) {
                Err(error) if error.kind() == ErrorKind::Busy && begun.elapsed() < FREE_WITHIN && wanted.is() => {
                    std::thread::sleep(FREE_AGAIN);
                }
                opened => return opened,
            }
        }
    }
}
