//! What was measured: medians over the rounds, as a table and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// One quantity over the rounds.
struct Row {
    name: &'static str,
    unit: &'static str,
    /// What the design asks for, in words.
    target: &'static str,
    values: Vec<f64>,
}

/// All quantities, in the order in which they were first measured.
#[derive(Default)]
pub(super) struct Rows(Vec<Row>);

impl Rows {
    pub(super) fn add(&mut self, name: &'static str, unit: &'static str, target: &'static str, value: f64) {
        eprintln!("  {name}: {value:.2} {unit}");
        match self.0.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row { name, unit, target, values: vec![value] }),
        }
    }

    /// Shows the table and keeps it with the JSON in `bench/results`.
    pub(super) fn keep(&self, root: &Path, name: &str, title: &str) -> Result<()> {
        let table = self.table(title);
        print!("{table}");
        let folder = root.join("bench/results");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{name}.txt")), &table)?;
        fs::write(folder.join(format!("{name}.json")), self.json(title))?;
        Ok(())
    }

    fn table(&self, title: &str) -> String {
        let mut out = format!("{title}\n\n");
        let width = self.0.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let _ = writeln!(out, "{:width$}  {:>12}  {:>12}  {:>12}  {:<10}  target", "", "median", "least", "most", "unit");
        for row in &self.0 {
            let [least, median, most] = row.summary().map(number);
            let _ = writeln!(out, "{:width$}  {median:>12}  {least:>12}  {most:>12}  {:<10}  {}", row.name, row.unit, row.target);
        }
        out
    }

    fn json(&self, title: &str) -> String {
        let rows: Vec<String> = self
            .0
            .iter()
            .map(|row| {
                let values: Vec<String> = row.values.iter().map(|value| format!("{value:.4}")).collect();
                format!(
                    "    {{\"name\": {:?}, \"unit\": {:?}, \"target\": {:?}, \"median\": {:.4}, \"values\": [{}]}}",
                    row.name,
                    row.unit,
                    row.target,
                    row.summary()[1],
                    values.join(", ")
                )
            })
            .collect();
        format!("{{\n  \"title\": {title:?},\n  \"rows\": [\n{}\n  ]\n}}\n", rows.join(",\n"))
    }
}

impl Row {
    /// Least, median, most.
    fn summary(&self) -> [f64; 3] {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The value below which this part of the sorted ones lies.
pub(super) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}
