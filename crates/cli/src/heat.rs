//! `isotherm heat`: how warm the contents below a folder are, as a map for people, a table for spreadsheets, or JSON; and what goes and
//! comes next.
//!
//! It asks the agent of this machine.
//!
//! **Invariant:** the cells of a map are shared out by bytes, and together they are all of them.

mod next;
mod tree;

use std::os::unix::ffi::OsStrExt;

use isotherm_agent::control::{self, Answer as AgentAnswer, BANDS_DAYS, HeatRow, Request};
use isotherm_api::path::ShownPath;

use crate::agents;
use crate::args::Heat;
use crate::failure::Failure;
use crate::file::{agent_of, real};
use crate::output::{self, Answer, Table, text};
use crate::size;

/// Cells of a map.
const CELLS: usize = 24;
/// One for each band, the warmest first.
const SHADES: [char; BANDS_DAYS.len() + 1] = ['\u{2588}', '\u{2593}', '\u{2592}', '\u{2591}', '\u{b7}'];

pub(crate) fn run(wanted: Heat) -> Result<Answer, Failure> {
    if wanted.next {
        return next::run(&wanted);
    }
    let path = real(&wanted.path)?;
    let (_, state) = agent_of(&path, wanted.state.as_deref())?;
    let depth = if wanted.tree { wanted.depth } else { 1 };
    let request = Request::Heat { path: ShownPath::new(path.as_os_str().as_bytes()), depth };
    // A million files take some seconds.
    let mut rows = match agents::answered(&state, control::ask_and_follow(&state, &request, |_| ()))? {
        AgentAnswer::Heat(rows) => rows,
        AgentAnswer::Error(why) => return Err(Failure::failed(text(&why))),
        _ => return Err(agents::unfitting(&state)),
    };
    if wanted.tree {
        rows = tree::in_order(rows);
    } else {
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    }
    let show = || match (wanted.csv, wanted.tree) {
        (true, _) => csv(&rows),
        (false, true) => map(&tree::lines(&text(&path.display().to_string()), &rows)),
        (false, false) => map(&rows.iter().map(|row| (name(row), row.clone())).collect::<Vec<_>>()),
    };
    Ok(Answer::new(wanted.format.json, &rows, show))
}

/// Each folder as a line, by what stands for it.
fn map(lines: &[(String, HeatRow)]) -> String {
    let mut table = Table::new(&["folder", "files>", "size>", "tiered>", "last use", "warm to cold"]);
    for (name, row) in lines {
        table.row(vec![
            name.clone(),
            size::count(row.files),
            size::bytes(row.bytes),
            size::bytes(row.tiered_bytes),
            if row.files == 0 { output::NOTHING.to_owned() } else { crate::moment::show(row.last_ms) },
            cells(&row.bands),
        ]);
    }
    let spans = ["a day", "a week", "a month", "a year", "longer ago"];
    let legend: Vec<String> = SHADES.iter().zip(spans).map(|(shade, span)| format!("{shade} {span}")).collect();
    format!("{}\nused within  {}\n", table.render(), legend.join("   "))
}

fn name(row: &HeatRow) -> String {
    let name = output::path_below(&row.name);
    if row.name.bytes().is_some_and(|bytes| bytes.is_empty()) { "(files here)".to_owned() } else { format!("{name}/") }
}

/// A map's cells: each band gets some by its bytes, and whoever has any gets one as long as there are.
pub(crate) fn cells(bands: &[u64; SHADES.len()]) -> String {
    let all: u64 = bands.iter().sum();
    if all == 0 {
        return String::new();
    }
    let share = |bytes: u64| (u128::from(bytes) * CELLS as u128 / u128::from(all)) as usize;
    let mut counts = bands.map(|bytes| share(bytes).max(usize::from(bytes > 0)));
    // What was rounded is given to, or taken from, the largest.
    while let used = counts.iter().sum::<usize>()
        && used != CELLS
    {
        let Some(largest) = counts.iter_mut().max() else { break };
        *largest = if used < CELLS { *largest + 1 } else { *largest - 1 };
    }
    counts.iter().zip(SHADES).map(|(count, shade)| shade.to_string().repeat(*count)).collect()
}

fn csv(rows: &[HeatRow]) -> String {
    let mut out = String::from("folder,files,bytes,tiered_files,tiered_bytes,day,week,month,year,older,last_use_ms\n");
    for row in rows {
        let bands: Vec<String> = row.bands.iter().map(u64::to_string).collect();
        let name = name(row).replace('"', "\"\"");
        let numbers = format!("{},{},{},{}", row.files, row.bytes, row.tiered_files, row.tiered_bytes);
        out.push_str(&format!("\"{name}\",{numbers},{},{}\n", bands.join(","), row.last_ms));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shared_out_by_bytes() {
        let count = |bands| {
            let cells = cells(&bands);
            SHADES.map(|shade| cells.chars().filter(|cell| *cell == shade).count())
        };
        assert_eq!(count([1, 1, 1, 1, 0]), [6, 6, 6, 6, 0]);
        assert_eq!(count([1, 0, 0, 0, 1_000_000]), [1, 0, 0, 0, 23]);
        assert_eq!(count([0, 0, 7, 0, 0]), [0, 0, 24, 0, 0]);
        assert_eq!(count([1, 1, 1, 1, u64::MAX / 2]), [1, 1, 1, 1, 20]);
        assert_eq!(cells(&[0; 5]), "");
    }

    #[test]
    fn a_map_has_a_row_for_each_folder_and_a_legend() {
        let row = |name: &[u8], bands: [u64; 5]| HeatRow {
            name: ShownPath::new(name),
            files: 3,
            bytes: bands.iter().sum(),
            bands,
            ..HeatRow::default()
        };
        let rows = [row(b"plans", [50, 0, 0, 0, 50]), row(b"", [0, 0, 0, 10, 0])];
        let shown = map(&rows.clone().map(|row| (name(&row), row)));
        assert!(shown.contains("plans/") && shown.contains("(files here)") && shown.contains("used within"), "{shown}");
        assert_eq!(csv(&rows).lines().nth(1), Some("\"plans/\",3,100,0,0,50,0,0,0,50,0"));
    }
}
