//! How warm the contents below a directory are, folder by folder.

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

/// A folder, or the files that lie directly in the one that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatRow {
    /// Its name; empty for the files that lie directly in the folder asked for.
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

/// The folders directly below a directory, by name.
pub(super) fn show((overview, guarded): (&Overview, &GuardedVolumes), path: &[u8]) -> Result<Vec<HeatRow>, String> {
    let Spot { catalog, volume, record: top, .. } = file::on_guarded((overview, guarded), path)?;
    let map = Map { catalog: &catalog, volume: &volume, now_ms: wall_ms() };
    let mut rows = vec![];
    let mut own = HeatRow { name: ShownPath::new(b""), ..HeatRow::default() };
    for directory in map.add_files(top.node, &mut own) {
        let mut row = HeatRow { name: ShownPath::new(name_of(&directory)), ..HeatRow::default() };
        map.add_all(directory.node, &mut row);
        rows.push(row);
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
