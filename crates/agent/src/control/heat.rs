//! How warm the contents below a directory are, folder by folder, and folders in folders.

use std::collections::BTreeMap;

use isotherm_api::path::ShownPath;
use isotherm_core::ids::NodeId;
use isotherm_core::name::Name;
use isotherm_core::node::Kind;
use isotherm_core::trees::Record;
use serde::{Deserialize, Serialize};

use super::file::{self, Spot};
use crate::agent::Overview;
use crate::catalog::{CatalogReader, Recorded as _, RecordedState};
use crate::clock::wall_ms;
use crate::guarded::{GuardedVolume, GuardedVolumes};

/// Ends of the bands, in days since the last use; what is beyond the last is in one more.
pub const BANDS_DAYS: [u64; 4] = [1, 7, 30, 365];
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Folders in folders are told of down to this depth.
pub const DEPTH_MAX: u32 = 64;

/// A folder, or the files that lie directly in the one that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatRow {
    /// Its path below the folder asked for; empty for the files that lie directly in the folder asked for.
    #[serde(flatten)]
    pub name: ShownPath,
    /// Files in it and below.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, files whose content is in the share only.
    pub tiered_files: u64,
    /// Their bytes.
    pub tiered_bytes: u64,
    /// Bytes by the last use: within each of [`BANDS_DAYS`], and longer ago.
    pub bands: [u64; BANDS_DAYS.len() + 1],
    /// The last use of any of them, in milliseconds since 1970.
    pub last_ms: u64,
}

impl HeatRow {
    /// With the files of another one too.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.tiered_files += other.tiered_files;
        self.tiered_bytes += other.tiered_bytes;
        self.bands.iter_mut().zip(other.bands).for_each(|(bytes, more)| *bytes += more);
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

/// The folders below a directory down to a depth, each with all that is below it: 1 for those directly in it. Each stands before
/// those in it.
pub(super) fn show((overview, guarded): (&Overview, &GuardedVolumes), path: &[u8], depth: u32) -> Result<Vec<HeatRow>, String> {
    let Spot { catalog, volume, record: top, .. } = file::on_guarded((overview, guarded), path)?;
    let map = Map { catalog: &catalog, volume: &volume, now_ms: wall_ms() };
    let mut rows = vec![];
    let mut own = HeatRow { name: ShownPath::new(b""), ..HeatRow::default() };
    for directory in map.add_files(top.node, &mut own) {
        map.add_folder(&directory, b"", depth.clamp(1, DEPTH_MAX), &mut rows);
    }
    if own.files > 0 {
        rows.push(own);
    }
    Ok(rows)
}

/// All files below a directory together.
pub(super) fn sum(catalog: &CatalogReader, volume: &GuardedVolume, directory: NodeId) -> HeatRow {
    let map = Map { catalog, volume, now_ms: wall_ms() };
    let mut row = HeatRow { name: ShownPath::new(b""), ..HeatRow::default() };
    map.add_all(directory, &mut row);
    row
}

fn name_of(record: &Record) -> &[u8] {
    record.here().map_or(b"", |local| local.place.name.as_bytes())
}

struct Map<'a> {
    catalog: &'a CatalogReader,
    volume: &'a GuardedVolume,
    now_ms: u64,
}

impl Map<'_> {
    /// Adds all files below a directory.
    fn add_all(&self, directory: NodeId, row: &mut HeatRow) {
        let mut open = vec![directory];
        while let Some(node) = open.pop() {
            open.extend(self.add_files(node, row).into_iter().map(|below| below.node));
        }
    }

    /// Adds the row of a directory that lies in the folder with this path, and of those in it down to a depth; how much there is.
    fn add_folder(&self, directory: &Record, above: &[u8], depth: u32, rows: &mut Vec<HeatRow>) -> HeatRow {
        let separator: &[u8] = if above.is_empty() { b"" } else { b"/" };
        let path = [above, separator, name_of(directory)].concat();
        let (mut row, at) = (HeatRow { name: ShownPath::new(&path), ..HeatRow::default() }, rows.len());
        rows.push(row.clone());
        if depth > 1 {
            for below in self.add_files(directory.node, &mut row) {
                let more = self.add_folder(&below, &path, depth - 1, rows);
                row.add(&more);
            }
        } else {
            self.add_all(directory.node, &mut row);
        }
        rows[at] = row.clone();
        row
    }

    /// Adds the files of a directory, and gives the directories in it.
    fn add_files(&self, directory: NodeId, row: &mut HeatRow) -> Vec<Record> {
        let states: BTreeMap<Name, RecordedState> = self.catalog.names(directory);
        let (directories, others): (Vec<Record>, Vec<Record>) = self
            .catalog
            .children(directory)
            .into_iter()
            .partition(|record| record.here().map(|local| local.kind()) == Some(Kind::Directory));
        for record in &others {
            let Some(local) = record.here().filter(|local| local.kind() == Kind::File) else { continue };
            let is_tiered = states.get(&local.place.name).is_some_and(|state| state.is_tiered);
            let (size, last_ms) = (local.print.size, self.volume.last_use(record, local).last_ms);
            let days = self.now_ms.saturating_sub(last_ms) / DAY_MS;
            let band = BANDS_DAYS.iter().position(|end| days < *end).unwrap_or(BANDS_DAYS.len());
            row.files += 1;
            row.bytes += size;
            row.tiered_files += u64::from(is_tiered);
            row.tiered_bytes += if is_tiered { size } else { 0 };
            row.bands[band] += size;
            row.last_ms = row.last_ms.max(last_ms);
        }
        directories
    }
}
