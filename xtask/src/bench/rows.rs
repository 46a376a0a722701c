//! What was measured: medians over the rounds, as a table and as JSON.
//!
//! Invariant: what was not measured has no number, and says why.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// One quantity over the rounds.
struct Row {
    name: String,
    unit: &'static str,
    /// What the design asks for, in words; or why there is nothing.
    target: String,
    values: Vec<f64>,
}

/// All quantities, in the order in which they were first measured; those of several products side by side.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Rows {
    pub(super) fn add(&mut self, name: impl Into<String>, unit: &'static str, target: &str, value: f64) {
        let name = name.into();
        eprintln!("  {name}: {value:.2} {unit}");
        self.row(name, unit, target).values.push(value);
    }

    /// There is no number of this, for a reason.
    pub(super) fn absent(&mut self, name: impl Into<String>, unit: &'static str, reason: &str) {
        let name = name.into();
        eprintln!("  {name}: {reason}");
        self.row(name, unit, reason);
    }

    /// What a reader has to know of all of it.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            eprintln!("  {note}");
            self.notes.push(note);
        }
    }

    fn row(&mut self, name: String, unit: &'static str, target: &str) -> &mut Row {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let beside = self.rows.iter().rposition(|row| quantity(&row.name) == quantity(&name));
            let at = beside.map_or(self.rows.len(), |last| last + 1);
            self.rows.insert(at, Row { name, unit, target: target.to_owned(), values: Vec::new() });
            at
        });
        &mut self.rows[at]
    }

    pub(super) fn show(&self, title: &str) {
        print!("{}", self.table(title));
    }

    /// Keeps table and JSON in `bench/results`.
    pub(super) fn keep(&self, root: &Path, name: &str, title: &str) -> Result<()> {
        let folder = root.join("bench/results");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{name}.txt")), self.table(title))?;
        fs::write(folder.join(format!("{name}.json")), self.json(title))?;
        Ok(())
    }

    fn table(&self, title: &str) -> String {
        let mut out = format!("{title}\n");
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let _ = writeln!(out, "\n{:width$}  {:>12}  {:>12}  {:>12}  {:<10}  target", "", "median", "least", "most", "unit");
        for row in &self.rows {
            let [least, median, most] = row.summary().map_or_else(|| ["-"; 3].map(str::to_owned), |all| all.map(number));
            let _ = writeln!(out, "{:width$}  {median:>12}  {least:>12}  {most:>12}  {:<10}  {}", row.name, row.unit, row.target);
        }
        out
    }

    fn json(&self, title: &str) -> String {
        let rows: Vec<String> = self.rows.iter().map(Row::json).collect();
        let notes = &self.notes;
        format!("{{\n  \"title\": {title:?},\n  \"notes\": {notes:?},\n  \"rows\": [\n{}\n  ]\n}}\n", rows.join(",\n"))
    }
}

impl Row {
    /// Least, median, most.
    fn summary(&self) -> Option<[f64; 3]> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        // Of two in the middle neither.
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        Some([least, f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]), most])
    }

    fn json(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|value| format!("{value:.4}")).collect();
        let (label, median) = match self.summary() {
            Some([_, median, _]) => ("target", format!("{median:.4}")),
            None => ("absent", "null".to_owned()),
        };
        format!(
            "    {{\"name\": {:?}, \"unit\": {:?}, \"{label}\": {:?}, \"median\": {median}, \"values\": [{}]}}",
            self.name,
            self.unit,
            self.target,
            values.join(", ")
        )
    }
}

/// What a row is about, without the product: `delay: Syncthing` is beside `delay: Isotherm`.
fn quantity(name: &str) -> &str {
    name.split_once(": ").map_or(name, |(quantity, _)| quantity)
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The value below which this part of the sorted ones lies.
pub(super) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_side_by_side_and_what_is_absent_says_why() {
        let mut rows = Rows::default();
        rows.add("delay: ours", "ms", "", 1.0);
        rows.add("rate: ours", "MiB/s", ">= 3", 2.0);
        rows.absent("delay: theirs", "ms", "not \"there\"");
        rows.add("rate: ours", "MiB/s", ">= 3", 5.0);
        let names: Vec<&str> = rows.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["delay: ours", "delay: theirs", "rate: ours"]);
        assert_eq!(rows.rows[2].summary(), Some([2.0, 3.5, 5.0]));
        assert!(rows.json("t").contains(r#""absent": "not \"there\"", "median": null, "values": []"#));
        assert!(rows.table("t").contains("not \"there\""));
    }
}
