//! What a stub holds, without its bytes: its record tells, and catalog and share know the rest.
//!
//! **Invariant:** holes are never taken for content. A file whose record cannot be used is not read at all.

use std::sync::{Mutex, PoisonError};

use isotherm_core::content::ChunkId;
use isotherm_core::content::manifest::Part;
use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::node::FileContent;
use isotherm_core::stub::{RecordError, Sought, StubRecord, Trouble};
use isotherm_gate::{ErrorKind, GateError, Inode, Stat, StubFile, mask_byte};

use super::{MetStubs, ReadError, Uploader};
use crate::catalog::CatalogReader;
use crate::engine::{ReadRequest, ReadResult};
use crate::volume::{ContentSource as _, Errand, StubRules, attributes, print_of};

/// Pieces in which a file is looked through, in bytes.
const PIECE: usize = 1 << 20;
/// Half of what a file system writes or leaves out as a whole, in bytes: wherever a chunk begins, one lies whole in each page.
const HALF_PAGE: usize = 2_048;

impl Uploader {
    /// What reading came to where a file cannot be read because it is a stub.
    pub(super) fn stub_or(&self, error: GateError, request: &ReadRequest, inode: &Inode) -> ReadError {
        match &self.met {
            Some(met) if error.kind() == ErrorKind::IsStub => self.stub(met, request, inode).unwrap_or_else(|error| error),
            _ => error.into(),
        }
    }

    fn stub(&self, met: &MetStubs, request: &ReadRequest, inode: &Inode) -> Result<ReadError, ReadError> {
        let stat = inode.stat()?;
        let Some(value) = inode.stub_record()? else { return Ok(ReadError::Changed) };
        if stat.size == 0 {
            return emptied(&met.rules, request, inode);
        }
        match StubRecord::decode(&value, &request.handle) {
            // By somebody about whom the kernel did not ask. Nobody can tell what it should be, and the share keeps what it was.
            Ok(record) if record.size != stat.size => {
                let trouble = Trouble::Size { found: stat.size, recorded: record.size };
                Ok(ReadError::Stub(ReadResult::Spoilt(trouble.to_string())))
            }
            Ok(record) => self.content_of(&met.known, &record, request.node, inode, &stat),
            Err(RecordError::Void) => self.without_copied_record(&met.known, &value, request, inode),
            Err(error) => Ok(failed(&format!("{error}; write it anew, or delete it and bring it back with `isotherm undelete`"))),
        }
    }

    fn content_of(
        &self,
        known: &Mutex<CatalogReader>,
        record: &StubRecord,
        asked: NodeId,
        inode: &Inode,
        stat: &Stat,
    ) -> Result<ReadError, ReadError> {
        let reader = |node| known.lock().unwrap_or_else(PoisonError::into_inner).record(node);
        let found = Sought::new(record, [asked]).find(reader, |nodes| self.share.had(nodes)).map_err(ReadError::Away)?;
        let Some(manifest) = found else {
            return Ok(failed("It is tiered, and the share does not know its content: it may belong to another share"));
        };
        // While its content comes, and after a recall that was broken off, it shows the time of that. Of a partially tiered file some is
        // always here: it shows its own time while nobody brings more of it.
        let file = StubFile::open_to_look(inode)?;
        let is_partial = || Ok::<_, ReadError>(file.record()?.is_some_and(|value| is_partial(&value)));
        let is_half = file.has_data()? && (!is_partial()? || inode.has_writer().unwrap_or(true));
        let of_content = reader(asked).and_then(|node| node.modified_of(record.content));
        let modified = of_content.filter(|_| is_half).unwrap_or(Timestamp(stat.mtime_ns));
        let content = FileContent { manifest, size: record.size, modified, link: None };
        Ok(ReadError::Stub(ReadResult::Content { content, print: print_of(stat) }))
    }

    /// A copy that was made with all attributes (`cp -a`, `rsync -X`) has all of the content, for whoever copied has read it, or what
    /// somebody made of it since. A copy that has zeros where the content has other bytes is a stub, or half of one, that a backup
    /// of the raw volume brought back (row 6): it stays as it is, and is not sent.
    fn without_copied_record(
        &self,
        known: &Mutex<CatalogReader>,
        value: &[u8],
        request: &ReadRequest,
        inode: &Inode,
    ) -> Result<ReadError, ReadError> {
        let copy = StubFile::open_to_look(inode)?;
        let is_hollow = match StubRecord::decode_unbound(value) {
            _ if !copy.has_data()? => true,
            Ok((record, resident)) => self.lacks_content(known, (&record, resident.is_some()), request.node, &copy)?,
            // Only the attribute's name came along: whoever copied saw it go, and so the content.
            Err(_) => false,
        };
        if is_hollow {
            return Ok(failed(
                "It is a copy of a tiered file, and has zeros where that has other bytes: remove it, or copy it again from where it is whole",
            ));
        }
        attributes::tell(&copy, true)?;
        copy.remove_record()?;
        // Read at once, as any other file.
        Ok(ReadError::Changed)
    }

    /// Whether a file has zeros, be it one page, where the content that a record stands for has other bytes.
    fn lacks_content(
        &self,
        known: &Mutex<CatalogReader>,
        (record, is_part): (&StubRecord, bool),
        asked: NodeId,
        copy: &StubFile,
    ) -> Result<bool, ReadError> {
        let size = copy.stat()?.size;
        let reader = |node| known.lock().unwrap_or_else(PoisonError::into_inner).record(node);
        let found = Sought::new(record, [asked]).find(reader, |nodes| self.share.had(nodes)).map_err(ReadError::Away)?;
        let manifest = match found {
            Some(id) => self.share.manifests(&[id]).map_err(ReadError::Away)?.pop().flatten(),
            None => None,
        };
        let Some(manifest) = manifest else { return Ok(is_part || are_zeros(copy, size)?) };
        for placed in manifest.placed() {
            let Part::Data { chunk, len } = placed.part else { continue };
            // What was cut off is no zeros.
            let here = usize::try_from(size.saturating_sub(placed.offset)).unwrap_or(usize::MAX).min(len as usize);
            let mut bytes = vec![0; here];
            copy.read_at(placed.offset, &mut bytes)?;
            // What stands for content that is not there: zeros, and the mask of a file that was streamed.
            let at = |part: usize| placed.offset + (part * HALF_PAGE) as u64;
            let has_none = || bytes.chunks(HALF_PAGE).enumerate().any(|(part, here)| is_zero(here) || is_mask(here, at(part)));
            if ChunkId::of(&bytes) == chunk || !has_none() {
                continue;
            }
            let mut original = None;
            let take = &mut |_, found| original = found;
            self.share.chunks((&[chunk], u64::from(len)), take, &Errand::OWN).map_err(ReadError::Away)?;
            // One that the share has no more cannot be compared.
            let Some(original) = original else { return Ok(true) };
            let lacks = |(part, (here, there)): (usize, (&[u8], &[u8]))| {
                (is_zero(here) && !is_zero(there)) || (is_mask(here, at(part)) && here != there)
            };
            if bytes.chunks(HALF_PAGE).zip(original.chunks(HALF_PAGE)).enumerate().any(lacks) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_partial(record: &[u8]) -> bool {
    matches!(StubRecord::decode_unbound(record), Ok((_, Some(_))))
}

fn is_mask(bytes: &[u8], offset: u64) -> bool {
    bytes.iter().zip(offset..).all(|(byte, at)| *byte == mask_byte(at))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn are_zeros(file: &StubFile, size: u64) -> Result<bool, GateError> {
    let mut bytes = vec![0; PIECE];
    for offset in (0..size).step_by(PIECE) {
        file.read_at(offset, &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Nothing is left of what the record was for (row 2). It goes in the order that survives a power cut, before anybody writes to the
/// file: whoever answers for the volume sees to that, and where nobody does nobody waits either.
fn emptied(rules: &StubRules, request: &ReadRequest, inode: &Inode) -> Result<ReadError, ReadError> {
    if !rules.forget_emptied(&request.handle) {
        let file = StubFile::open_to_look(inode)?;
        file.flush()?;
        attributes::tell(&file, true)?;
        file.remove_record()?;
        file.flush()?;
    }
    // Read as any other file, when the record is gone.
    Ok(ReadError::Changed)
}

fn failed(why: &str) -> ReadError {
    ReadError::Stub(ReadResult::Failed(why.to_owned()))
}
