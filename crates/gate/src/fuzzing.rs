//! What fuzz targets call beside the public surface: decoders of what the gate keeps, and what encodes it. Only builds for
//! fuzzing have it.

use crate::FileHandle;
use crate::device::Superblock;
use crate::link::{VolumeId, VolumeSettings};
use crate::safety_net::btf::Btf;
use crate::serve::list::{self, IdText, Listed};
use crate::volume::ledger;
use crate::watch::Batch;
use crate::watch::parse::RawEvent;

/// The entries of a list of stubs, its own file first; none where it may lack something.
#[must_use]
pub fn ledger(bytes: &[u8]) -> Option<Vec<FileHandle>> {
    let ledger::Entries { own, files } = ledger::parse(bytes)?;
    Some(std::iter::once(own).chain(files).collect())
}

/// A list of stubs as it is written, in the file that comes first.
#[must_use]
pub fn ledger_of(files: &[FileHandle]) -> Vec<u8> {
    files.split_first().map_or_else(Vec::new, |(own, files)| ledger::bytes_of(own, files))
}

/// What the events of one read mean.
#[must_use]
pub fn batch(events: Vec<RawEvent>) -> Batch {
    let mut batch = Batch::default();
    events.into_iter().for_each(|event| batch.add(event));
    batch
}

/// What is on a device that holds these bytes.
#[must_use]
pub fn superblock(device: &[u8]) -> Option<Superblock> {
    Superblock::found(|bytes, at| {
        let found = usize::try_from(at).ok().and_then(|at| device.get(at..)?.get(..bytes.len()));
        found.is_some_and(|found| {
            bytes.copy_from_slice(found);
            true
        })
    })
}

/// What was found among the types of a kernel.
#[derive(Debug)]
pub struct KernelTypes {
    /// How many types there are.
    pub types: usize,
    /// The number of a function.
    pub function: Option<u32>,
    /// Bytes before a field, and its own.
    pub field: Option<(u32, Option<u32>)>,
}

/// Types of a kernel, and what is called `name` among them; none where they are not understood.
#[must_use]
pub fn kernel_types(bytes: &[u8], structure: &str, name: &str) -> Option<KernelTypes> {
    let btf = Btf::read(bytes)?;
    let field = btf.field(structure, name).map(|field| (field.offset, field.size));
    Some(KernelTypes { types: btf.len(), function: btf.function(name), field })
}

/// The list of guarded volumes; none where it is damaged or of another release.
#[must_use]
pub fn volumes(list: &[u8]) -> Option<Vec<(VolumeId, VolumeSettings)>> {
    let listed = list::parse(list).ok()?;
    Some(listed.into_iter().map(|listed| (listed.id.0, listed.settings)).collect())
}

/// The list of guarded volumes as it is written; none where a path is no text.
#[must_use]
pub fn volumes_as_written(volumes: &[(VolumeId, VolumeSettings)]) -> Option<Vec<u8>> {
    let listed = volumes.iter().map(|(id, settings)| Listed { id: IdText(*id), settings: settings.clone() });
    list::bytes_of(&listed.collect::<Vec<_>>()).ok()
}
