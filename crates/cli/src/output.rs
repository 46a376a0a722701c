//! What goes to standard output: lines, tables that line up, JSON.
//!
//! It decides no content. Text for people escapes control characters; programs read JSON, where paths are exact.
//!
//! **Invariant:** a reader that goes away early (`| head`) ends the command quietly.

use std::io::{self, Write};

use isotherm_api::path::ShownPath;
use isotherm_core::name::escape;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::failure::{Exit, Failure};

/// What a command that came to its end leaves behind.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) exit: Exit,
}

impl Answer {
    /// The text, or the JSON of the value, as the user wants it.
    pub(crate) fn new(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Self {
        let text = if json { to_json(value) } else { text() };
        Self { text, exit: Exit::Done }
    }

    /// Exit code 3 where there is something to look at.
    pub(crate) fn with_problems(self, are_there: bool) -> Self {
        Self { exit: if are_there { Exit::Problems } else { self.exit }, ..self }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, exit: Exit::Done }
    }
}

/// A value as JSON that people can read too.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("answers are plain JSON")
}

/// A value as one line of JSON, for streams of events.
pub(crate) fn to_json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("events are plain JSON")
}

/// Writes lines and passes them on at once. False when nobody reads any more.
pub(crate) fn print(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    let written = if text.is_empty() || text.ends_with('\n') {
        out.write_all(text.as_bytes())
    } else {
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"))
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A path for people.
pub(crate) fn path(shown: &ShownPath) -> String {
    match shown.bytes() {
        Some(bytes) => escape(&bytes).into_owned(),
        None => escape(shown.path.as_bytes()).into_owned(),
    }
}

/// A path below an endpoint, for people; the endpoint itself has none.
pub(crate) fn path_below(shown: &ShownPath) -> String {
    let path = path(shown);
    if path.is_empty() { "(the whole folder)".to_owned() } else { path }
}

/// Text from elsewhere for people.
pub(crate) fn text(text: &str) -> String {
    escape(text.as_bytes()).into_owned()
}

/// `1 file`, `2 files`.
pub(crate) fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", crate::size::count(number))
}

/// Columns of a terminal that a text takes: two for a character of East Asia, none for an accent of its own.
fn columns(text: &str) -> usize {
    text.width()
}

/// Rows under headings. Columns are as wide as their widest cell; the last one is not padded.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

/// What stands in a cell without a value.
pub(crate) const NOTHING: &str = "-";

impl Table {
    /// Headings that end in `>` are those of columns that line up on the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), indent: 0 }
    }

    pub(crate) fn indented(mut self, columns: usize) -> Self {
        self.indent = columns;
        self
    }

    /// A row; it has as many cells as there are headings.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len(), "{cells:?}");
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn render(&self) -> String {
        let headings: Vec<String> = self.headings.iter().map(|text| text.trim_end_matches('>').to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&headings).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| columns(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let mut out = String::new();
        for row in all {
            let mut line = " ".repeat(self.indent);
            for (column, cell) in row.iter().enumerate() {
                let gap = " ".repeat(widths[column] - columns(cell));
                let is_right = self.headings[column].ends_with('>');
                line.push_str(&if is_right { format!("{gap}{cell}") } else { format!("{cell}{gap}") });
                line.push_str("  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Names and values under each other, for one thing in detail.
pub(crate) fn details(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| columns(name)).max().unwrap_or(0);
    let row = |(name, value): &(&str, String)| format!("{name}{}  {value}\n", " ".repeat(width - columns(name)));
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", "files>", "folder"]).indented(2);
        table.row(vec!["detroit".into(), "1,204".into(), "/srv/a".into()]);
        table.row(vec!["mü".into(), "9".into(), "/srv/long name".into()]);
        let expected = "  name     files  folder\n  detroit  1,204  /srv/a\n  mü           9  /srv/long name\n";
        assert_eq!(table.render(), expected);
        let mut wide = Table::new(&["name", "size>"]);
        wide.row(vec!["図面".into(), "1 B".into()]);
        wide.row(vec!["u\u{308}ber".into(), "22 B".into()]);
        assert_eq!(wide.render(), "name  size\n図面   1 B\nu\u{308}ber  22 B\n");
        assert_eq!(Table::new(&["name"]).render(), "name\n");
    }

    #[test]
    fn details_line_up() {
        assert_eq!(details(&[("id", "1".into()), ("folder", "/a".into())]), "id      1\nfolder  /a\n");
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        assert_eq!(path(&ShownPath::new(b"a\n\x1b[2J\xff")), "a\\x0a\\x1b[2J\\xff");
        let broken = ShownPath { path: "a\nb".into(), path_b64: Some("?".into()) };
        assert_eq!(path(&broken), "a\\x0ab");
    }

    #[test]
    fn nouns_agree_with_numbers() {
        assert_eq!(
            (plural(1, "file"), plural(0, "file"), plural(2000, "file")),
            ("1 file".into(), "0 files".into(), "2,000 files".into())
        );
    }
}
