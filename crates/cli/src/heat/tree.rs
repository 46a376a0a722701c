//! Folders in folders, the largest first, as lines that show what lies in what.
//!
//! **Invariant:** what has no line of its own is in the line that says how many more there are: the bytes of a level are those of the
//! line above it, but for files that lie directly there.

use std::collections::BTreeMap;

use isotherm_agent::control::HeatRow;
use isotherm_api::path::ShownPath;
use isotherm_core::name::escape;
use unicode_width::UnicodeWidthChar as _;

/// Folders of one level that have lines of their own.
const SHOWN: usize = 12;
/// Most columns of the names, with what shows where they lie.
const COLUMNS: usize = 44;

/// A line: what stands for the folder, and what is in it.
pub(super) type Line = (String, HeatRow);

/// The rows of a map in the order of a tree: each folder before those in it, the largest of a level first, and files that lie directly
/// in the folder asked for last.
pub(super) fn in_order(rows: Vec<HeatRow>) -> Vec<HeatRow> {
    let (mut own, mut below) = (Vec::new(), BTreeMap::<Vec<u8>, Vec<HeatRow>>::new());
    for row in rows {
        match row.name.bytes().unwrap_or_default() {
            path if path.is_empty() => own.push(row),
            path => below.entry(parent(&path).to_vec()).or_default().push(row),
        }
    }
    let mut ordered = Vec::new();
    take(b"", &mut below, &mut ordered);
    ordered.extend(own);
    ordered
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn take(above: &[u8], below: &mut BTreeMap<Vec<u8>, Vec<HeatRow>>, ordered: &mut Vec<HeatRow>) {
    let mut rows = below.remove(above).unwrap_or_default();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    for row in rows {
        let path = row.name.bytes().unwrap_or_default();
        ordered.push(row);
        take(&path, below, ordered);
    }
}

/// The lines of rows that are in order, below one for all of them.
pub(super) fn lines(top: &str, rows: &[HeatRow]) -> Vec<Line> {
    let mut all = HeatRow { name: ShownPath::new(b""), ..HeatRow::default() };
    let depth = |row: &HeatRow| row.name.bytes().map_or(0, |path| path.iter().filter(|byte| **byte == b'/').count());
    rows.iter().filter(|row| depth(row) == 0).for_each(|row| all.add(row));
    let mut lines = vec![(fit(top), all)];
    level(rows, 0, "", &mut lines);
    lines
}

/// The lines of what lies at one depth in a run of rows, and below that.
fn level(rows: &[HeatRow], depth: usize, before: &str, lines: &mut Vec<Line>) {
    let path = |row: &HeatRow| row.name.bytes().unwrap_or_default();
    let is_here = |row: &HeatRow| path(row).iter().filter(|byte| **byte == b'/').count() == depth;
    let starts: Vec<usize> = (0..rows.len()).filter(|at| is_here(&rows[*at])).collect();
    let rest = starts.get(SHOWN..).filter(|rest| rest.len() > 1).unwrap_or_default();
    let shown = &starts[..starts.len() - rest.len()];
    for (number, at) in shown.iter().enumerate() {
        let is_last = rest.is_empty() && number + 1 == shown.len();
        let end = starts.get(number + 1).copied().unwrap_or(rows.len());
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let path = path(&rows[*at]);
        let name = match path.rsplit(|byte| *byte == b'/').next() {
            Some(name) if !name.is_empty() => format!("{}/", escape(name)),
            _ => "(files here)".to_owned(),
        };
        lines.push((fit(&format!("{before}{branch}{name}")), rows[*at].clone()));
        level(&rows[at + 1..end], depth + 1, &format!("{before}{below}"), lines);
    }
    if !rest.is_empty() {
        let mut more = HeatRow { name: ShownPath::new(b""), ..HeatRow::default() };
        rest.iter().for_each(|at| more.add(&rows[*at]));
        lines.push((fit(&format!("{before}└─ ({} more)", rest.len())), more));
    }
}

/// The beginning of a text that is too long.
fn fit(text: &str) -> String {
    let mut columns = 0;
    let fits = |character: &char| {
        columns += character.width().unwrap_or(0);
        columns < COLUMNS
    };
    let kept: String = text.chars().take_while(fits).collect();
    if kept.len() == text.len() { kept } else { format!("{kept}…") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, bytes: u64) -> HeatRow {
        HeatRow { name: ShownPath::new(path.as_bytes()), files: 1, bytes, ..HeatRow::default() }
    }

    #[test]
    fn the_largest_come_first_and_each_stands_in_its_folder() {
        let rows = vec![row("b", 50), row("b/x", 10), row("b/y", 40), row("a", 70), row("a/x", 70), row("a/x/z", 7), row("", 5)];
        let rows = in_order(rows);
        let shown: Vec<(String, u64)> = lines("/srv", &rows).into_iter().map(|(name, row)| (name, row.bytes)).collect();
        let expected = [
            ("/srv", 125),
            ("├─ a/", 70),
            ("│  └─ x/", 70),
            ("│     └─ z/", 7),
            ("├─ b/", 50),
            ("│  ├─ y/", 40),
            ("│  └─ x/", 10),
            ("└─ (files here)", 5),
        ];
        assert_eq!(shown, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
    }

    #[test]
    fn many_folders_of_a_level_share_a_line() {
        let mut rows: Vec<HeatRow> = (0..40).map(|number| row(&format!("f{number:02}"), 100 - number)).collect();
        rows.push(row("f39/deep", 1));
        let shown = lines("/srv", &in_order(rows));
        assert_eq!(shown.len(), 1 + SHOWN + 1);
        let (name, more) = &shown[SHOWN + 1];
        assert_eq!((name.as_str(), more.files, more.bytes), ("└─ (28 more)", 28, (12..40).map(|number| 100 - number).sum()));
    }

    #[test]
    fn long_and_hostile_names_stay_in_their_column() {
        let shown = lines("/srv", &in_order(vec![row("a\u{1b}[2J", 1), row(&"図面".repeat(40), 2)]));
        assert!(shown[1].0.ends_with('…') && shown[2].0.contains("\\x1b"), "{shown:?}");
    }
}
