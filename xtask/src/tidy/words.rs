//! One word per idea: refuses the other words for an idea that `docs/glossary.md` names.
//!
//! It deliberately looks at crates only, comments and strings included; documents may explain a foreign word.
//!
//! Invariant: every refused word comes with the word to use.

use super::Finding;
use super::source::Source;

/// A refused word, whether parts of longer words count too, and what to write.
struct Refused {
    word: &'static str,
    inside: bool,
    instead: &'static str,
}

const REFUSED: &[Refused] = &[
    Refused { word: "hydrat", inside: true, instead: "tier or recall" },
    Refused { word: "placeholder", inside: true, instead: "stub" },
    Refused { word: "evict", inside: true, instead: "tier (marks of the kernel may be called evictable)" },
    Refused { word: "offload", inside: true, instead: "tier" },
    Refused { word: "hub", inside: false, instead: "service" },
    Refused { word: "hubs", inside: false, instead: "service" },
    Refused { word: "site", inside: false, instead: "server (demo and simulation may say site)" },
    Refused { word: "sites", inside: false, instead: "servers (demo and simulation may say sites)" },
];

/// Nouns that say nothing about what a type or file is.
const EMPTY_NOUNS: &[&str] = &["manager", "helper", "helpers", "util", "utils", "misc", "common"];

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let Some(crate_name) = source.crate_name() else { return Vec::new() };
    // End-to-end tests tell stories of examples, as the demo does.
    let may_say_site = crate_name == "sim" || source.path.contains("demo") || source.path.starts_with("crates/cli/tests/");
    let mut findings = Vec::new();
    let mut refuse = |line, rule| findings.push(Finding::new(source.path, line, rule));
    for (number, line) in source.text.lines().enumerate() {
        let parts = parts(line);
        for refused in REFUSED {
            let is_allowed = match refused.word {
                "evict" => parts.iter().all(|part| !part.contains("evict") || part == "evictable"),
                "site" | "sites" => may_say_site,
                _ => false,
            };
            let is_there = |part: &String| part == refused.word || refused.inside && part.contains(refused.word);
            if !is_allowed && parts.iter().any(is_there) {
                refuse(number + 1, format!("{:?} is not a word here: write {}", refused.word, refused.instead));
            }
        }
    }
    for (number, line) in source.code_lines() {
        if let Some(noun) = empty_noun(line) {
            refuse(number + 1, format!("The type name ends in {noun:?}, which says nothing: name what it is"));
        }
    }
    let names = source.path.split('/').skip(2).map(|part| part.trim_end_matches(".rs"));
    for name in names.filter(|name| EMPTY_NOUNS.contains(name)) {
        refuse(0, format!("A file called {name:?} says nothing: name what it holds"));
    }
    findings
}

/// The last part of a type's name on this line, if it is an empty noun.
fn empty_noun(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| !matches!(*word, "struct" | "enum" | "trait"));
    let name = words.nth(1)?.split(|c: char| !c.is_alphanumeric()).next()?;
    parts(name).pop().filter(|last| EMPTY_NOUNS.contains(&last.as_str()))
}

/// The words of a line in lower case; `CamelCase` and `snake_case` names are taken apart.
fn parts(line: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for c in line.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && was_lower) {
            parts.push(String::new());
        }
        if c.is_alphabetic()
            && let Some(part) = parts.last_mut()
        {
            part.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(parts("let SiteName = on_Site2(HTTPHub);"), ["let", "site", "name", "on", "site", "httphub"]);
    }

    #[test]
    fn foreign_words_are_refused_in_code_and_comments() {
        for text in [
            "fn dehydrate() {}",
            "// rehydrated",
            "struct PlaceholderFile;",
            "fn evict_all() {}",
            "let site = 1;",
            "struct SyncHub;",
            "/// Files at other sites.",
        ] {
            assert_eq!(count("crates/agent/src/a.rs", text), 1, "{text}");
        }
        for text in ["FAN_MARK_EVICTABLE", "// evictable marks get lost", "github", "opposite", "// a website"] {
            assert_eq!(count("crates/gate/src/a.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn demo_and_simulation_speak_of_sites() {
        assert_eq!(count("crates/cli/src/demo.rs", "let site = 1;"), 0);
        assert_eq!(count("crates/sim/src/world.rs", "let site = 1;"), 0);
        assert_eq!(count("xtask/src/a.rs", "let site = 1;"), 0);
    }

    #[test]
    fn empty_nouns_are_refused() {
        assert_eq!(count("crates/core/src/a.rs", "pub struct VolumeManager {"), 1);
        assert_eq!(count("crates/core/src/a.rs", "pub struct Volume<Manager> {"), 0);
        assert_eq!(count("crates/core/src/utils.rs", ""), 1);
        assert_eq!(count("crates/core/tests/common/mod.rs", ""), 1);
    }
}
