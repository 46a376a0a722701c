//! What a stub holds, without its bytes: its record tells, and catalog and share know the rest.
//!
//! **Invariant:** holes are never taken for content. A file whose record cannot be used is not read at all.

use std::sync::{Mutex, PoisonError};

use isotherm_core::ids::{NodeId, Timestamp};
use isotherm_core::node::FileContent;
use isotherm_core::stub::{RecordError, Sought, StubRecord, Trouble};
use isotherm_gate::{ErrorKind, GateError, Inode, Stat, StubFile};

use super::{MetStubs, ReadError, Uploader};
use crate::catalog::CatalogReader;
use crate::engine::{ReadRequest, ReadResult};
use crate::volume::{StubRules, attributes, print_of};

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
            Ok(record) => self.content_of(&met.known, &record, request.node, &stat),
            Err(RecordError::Void) => without_copied_record(inode),
            Err(error) => Ok(failed(&format!("{error}; write it anew, or delete it and bring it back with `isotherm undelete`"))),
        }
    }

    fn content_of(
        &self,
        known: &Mutex<CatalogReader>,
        record: &StubRecord,
        asked: NodeId,
        stat: &Stat,
    ) -> Result<ReadError, ReadError> {
        let reader = |node| known.lock().unwrap_or_else(PoisonError::into_inner).record(node);
        let found = Sought::new(record, [asked]).find(reader, |nodes| self.share.had(nodes)).map_err(ReadError::Away)?;
        let Some(manifest) = found else {
            return Ok(failed("It is tiered, and the share does not know its content: it may belong to another share"));
        };
        let content = FileContent { manifest, size: record.size, modified: Timestamp(stat.mtime_ns), link: None };
        Ok(ReadError::Stub(ReadResult::Content { content, print: print_of(stat) }))
    }
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

/// A copy that was made with all attributes (`cp -a`, `rsync -X`): whoever copied has read all of the content. A copy without any
/// block is something else, such as a stub that a backup of the raw volume brought back, and stays as it is.
fn without_copied_record(inode: &Inode) -> Result<ReadError, ReadError> {
    let copy = StubFile::open_to_look(inode)?;
    if !copy.has_data()? {
        return Ok(failed("It is a copy of a tiered file without its content; remove it"));
    }
    attributes::tell(&copy, true)?;
    copy.remove_record()?;
    // Read at once, as any other file.
    Ok(ReadError::Changed)
}
