//! Sizes and module headers of Rust files.
//!
//! It deliberately counts lines as a reader scrolls them: blank lines and comments inside a function count, attributes
//! and documentation above it do not.
//!
//! Invariant: no file escapes because of its kind: tests have the same limits.

use super::Finding;
use super::source::{Source, block_end, line_of};

/// Longer files are split. Aim at 300.
const FILE_LINES_MAX: usize = 500;
/// About one screen; the number is the one of TigerBeetle's tidy test.
const FUNCTION_LINES_MAX: usize = 70;

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let rule = format!("The file has {lines} lines, at most {FILE_LINES_MAX} are allowed: split it by idea");
        findings.push(Finding::new(source.path, 0, rule));
    }
    // Attributes of the file may stand above its header.
    let first = source.text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
    if !first.is_some_and(|line| line.starts_with("//! ")) {
        let rule = "The file does not start with a `//!` header: what it is, what it refuses, its invariant";
        findings.push(Finding::new(source.path, 1, rule));
    }
    for (line, length, name) in functions(&source.code) {
        if length > FUNCTION_LINES_MAX {
            let rule = format!("Function {name} has {length} lines, at most {FUNCTION_LINES_MAX} are allowed");
            findings.push(Finding::new(source.path, line + 1, rule));
        }
    }
    findings
}

/// Line counted from 0, number of lines, and name of each function with a body.
fn functions(code: &str) -> Vec<(usize, usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word_start = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name = code[at + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        if !is_word_start || name.is_empty() {
            continue;
        }
        if let Some(open) = body_start(code, at) {
            let first = line_of(code, at);
            let last = line_of(code, block_end(code, open) - 1);
            found.push((first, last - first + 1, name));
        }
    }
    found
}

/// The brace that opens the body; `None` for a declaration without one.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in code.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at + offset),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        let source = Source::new("a.rs", text);
        check(&source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn functions_are_measured_from_signature_to_closing_brace() {
        let text = "trait T {\n    fn a(&self, x: [u8; 2]);\n    fn b() {\n        if x {\n        }\n    }\n}\n\
            type F = fn(u8);\nconst fn c(\n    x: u8,\n) -> [u8; 3] { [x; 3] }\n";
        assert_eq!(functions(text), [(2, 4, "b"), (8, 3, "c")]);
    }

    #[test]
    fn a_function_may_fill_the_screen_and_no_more() {
        let body = |lines: usize| format!("//! Header.\nfn f() {{\n{}}}\n", "    x();\n".repeat(lines));
        assert!(rules(&body(FUNCTION_LINES_MAX - 2)).is_empty());
        let broken = rules(&body(FUNCTION_LINES_MAX - 1));
        assert_eq!(broken, ["a.rs:2: Function f has 71 lines, at most 70 are allowed"]);
    }

    #[test]
    fn file_size_and_header_are_checked() {
        assert!(rules("//! Header.\n").is_empty());
        assert!(rules("#![allow(missing_docs)]\n//! Header.\n").is_empty());
        assert!(rules("fn f() {}\n")[0].contains("header"));
        let long = format!("//! Header.\n{}", "// x\n".repeat(FILE_LINES_MAX));
        assert!(rules(&long)[0].starts_with("a.rs: The file has 501 lines"));
    }
}
