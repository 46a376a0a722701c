//! Documents against code: each command is described, each described command exists, and the map stays short.
//!
//! It deliberately reads the definitions of the commands and not the program's help, so that tidy needs no build.
//!
//! Invariant: if the definitions cannot be found, that is a finding, never a pass.

use std::collections::BTreeSet;

use super::source::{Source, block_end, line_of};
use super::{File, Finding};

const MANUAL: &str = "docs/operations.md";
const MAP: &str = "ARCHITECTURE.md";
/// Short enough that everybody reads it.
const MAP_WORDS_MAX: usize = 2500;

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match files.iter().find(|file| file.path == MAP) {
        None => findings.push(Finding::new(MAP, 0, "The file is missing")),
        Some(map) => {
            let words = map.text.split_whitespace().count();
            if words > MAP_WORDS_MAX {
                let rule = format!("{words} words, at most {MAP_WORDS_MAX} are allowed");
                findings.push(Finding::new(MAP, 0, rule));
            }
        }
    }
    let Some(manual) = files.iter().find(|file| file.path == MANUAL) else {
        findings.push(Finding::new(MANUAL, 0, "The file is missing"));
        return findings;
    };
    let sources = files.iter().filter(|file| file.path.starts_with("crates/cli/src/") && file.path.ends_with(".rs"));
    let verbs: Vec<Verb> = sources.flat_map(|file| verbs(&Source::new(&file.path, &file.text))).collect();
    if verbs.is_empty() {
        findings.push(Finding::new("crates/cli/src", 0, "No enum that derives clap's Subcommand was found"));
        return findings;
    }
    findings.extend(compare(&verbs, &manual.text));
    findings
}

/// One command word, where it is defined, and whether users are meant to see it.
#[derive(Debug, PartialEq)]
struct Verb {
    name: String,
    path: String,
    line: usize,
}

fn compare(verbs: &[Verb], manual: &str) -> Vec<Finding> {
    let described = described(manual);
    let known: BTreeSet<&str> = verbs.iter().map(|verb| verb.name.as_str()).collect();
    let words: BTreeSet<&str> = described.iter().flat_map(|(_, words)| words).map(String::as_str).collect();
    let missing = verbs.iter().filter(|verb| !words.contains(verb.name.as_str()));
    let mut findings: Vec<Finding> = missing
        .map(|verb| {
            let rule = format!("Command {:?} is not described in {MANUAL} as `isotherm ...`", verb.name);
            Finding::new(&verb.path, verb.line, rule)
        })
        .collect();
    for (line, words) in &described {
        for word in words.iter().filter(|word| !known.contains(word.as_str())) {
            let rule = format!("`isotherm {}` is described, but {word:?} is no command", words.join(" "));
            findings.push(Finding::new(MANUAL, *line, rule));
        }
    }
    findings
}

/// The command words of each `isotherm ...` in the manual: up to the first option, argument or value.
fn described(manual: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (number, line) in manual.lines().enumerate() {
        for (at, _) in line.match_indices("isotherm ") {
            let before = line[..at].chars().next_back();
            // In a code span, at the start of a line of a code block, after a prompt, or in a unit file.
            if !matches!(before, None | Some('`' | '/')) && !line[..at].ends_with("sudo ") {
                continue;
            }
            let rest = line[at + "isotherm ".len()..].split('`').next().unwrap_or("");
            let is_verb = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
            // A noun and a verb: what follows is a value.
            let words: Vec<String> = rest.split_whitespace().take_while(is_verb).take(2).map(str::to_owned).collect();
            if !words.is_empty() {
                found.push((number + 1, words));
            }
        }
    }
    found
}

/// The variants of all enums that derive `Subcommand`, as the user types them.
fn verbs(source: &Source<'_>) -> Vec<Verb> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("Subcommand") {
        let is_derived = source.code[..at].rfind("#[derive(").is_some_and(|start| !source.code[start..at].contains(')'));
        let open = source.code[at..].find('{').map(|offset| at + offset);
        if let (true, Some(open)) = (is_derived, open) {
            let end = block_end(&source.code, open) - 1;
            found.extend(variants(&source.code, open + 1, end).into_iter().filter_map(|(name, at)| {
                let line = line_of(&source.code, at);
                let is_hidden = attributes(source.text, line).contains("hide");
                let verb = Verb { name: kebab(&name), path: source.path.to_owned(), line: line + 1 };
                (!is_hidden).then_some(verb)
            }));
        }
    }
    found
}

/// Names at depth 0 between two bytes that are followed by a body, a comma or the end.
fn variants(code: &str, start: usize, end: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut expect_name = true;
    for (offset, c) in code[start..end].char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => expect_name = true,
            c if depth == 0 && expect_name && c.is_ascii_uppercase() => {
                let rest = &code[start + offset..end];
                let name = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
                found.push((name.to_owned(), start + offset));
                expect_name = false;
            }
            _ => {}
        }
    }
    found
}

/// The attribute lines directly above a line.
fn attributes(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let above = lines.iter().rev().map(|line| line.trim());
    above.take_while(|line| line.starts_with("#[")).collect()
}

/// `ConfirmDeletes` becomes `confirm-deletes`, as clap does it.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENTS: &str = "//! Header.\n#[derive(Debug, clap::Subcommand)]\nenum Command {\n    /// Text, more.\n\
        \x20   Group { #[command(subcommand)] verb: GroupVerb, json: bool },\n    Status(Flags),\n\
        \x20   #[command(hide = true)]\n    Debug,\n}\n#[derive(Subcommand)]\nenum GroupVerb {\n    ConfirmDeletes,\n}\n";

    fn names(text: &str) -> Vec<String> {
        verbs(&Source::new("crates/cli/src/args.rs", text)).into_iter().map(|verb| verb.name).collect()
    }

    #[test]
    fn commands_are_read_from_their_definition() {
        assert_eq!(names(ARGUMENTS), ["group", "status", "confirm-deletes"]);
        assert!(names("use clap::Subcommand;\nstruct A { x: u8 }\n").is_empty());
    }

    #[test]
    fn manual_and_definition_must_agree() {
        let verbs = verbs(&Source::new("crates/cli/src/args.rs", ARGUMENTS));
        let good = "`isotherm group confirm-deletes NAME`\nisotherm status --json\n";
        assert_eq!(compare(&verbs, good), []);
        let bad = "Use `isotherm group remove x`. The isotherm service is no command here.";
        let found: Vec<String> = compare(&verbs, bad).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[2].starts_with("docs/operations.md:1:"), "{found:?}");
    }

    #[test]
    fn missing_documents_and_definitions_are_findings() {
        assert_eq!(check(&[]).len(), 2);
        let manual = File { path: MANUAL.into(), text: String::new() };
        let map = File { path: MAP.into(), text: "word ".repeat(MAP_WORDS_MAX + 1) };
        let found = check(&[manual, map]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].rule.starts_with("2501 words"));
    }
}
