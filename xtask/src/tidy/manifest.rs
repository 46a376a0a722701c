//! Names of dependencies in a `Cargo.toml`.
//!
//! It deliberately reads only what this workspace writes: one dependency per line or per table. Versions and features
//! are cargo's business.
//!
//! Invariant: a dependency is never overlooked because it is bound to a target or has a table of its own.

use std::collections::BTreeSet;

/// Which dependencies are meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// What the product links or its build scripts use.
    Product,
    /// What only tests link.
    Test,
}

/// The names of all direct dependencies of one kind.
pub(crate) fn dependencies(text: &str, kind: Kind) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut in_list = false;
    // A value such as a list of features may go over several lines.
    let mut open_brackets = 0_usize;
    for line in text.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
        if open_brackets == 0 && line.starts_with('[') {
            let (is_list, own_table) = section(line, kind);
            in_list = is_list;
            names.extend(own_table);
            continue;
        }
        if in_list
            && open_brackets == 0
            && let Some((key, _)) = line.split_once('=')
        {
            let name = key.trim().split('.').next().unwrap_or("").trim_matches('"');
            names.insert(name.to_owned());
        }
        open_brackets += line.matches(['[', '{']).count();
        open_brackets = open_brackets.saturating_sub(line.matches([']', '}']).count());
    }
    names
}

/// Whether the section lists dependencies of the kind, or else the one that it is about.
fn section(header: &str, kind: Kind) -> (bool, Option<String>) {
    let header = header.trim_matches(['[', ']']);
    let headings: &[&str] = match kind {
        Kind::Product => &["dependencies", "build-dependencies"],
        Kind::Test => &["dev-dependencies"],
    };
    for heading in headings {
        // Also `target.'cfg(unix)'.dependencies`; the dot keeps `dev-dependencies` apart.
        if header == *heading || header.ends_with(&format!(".{heading}")) && !header.starts_with("workspace") {
            return (true, None);
        }
        let table = format!("{heading}.");
        if let Some(at) = header.find(&table)
            && (at == 0 || header[..at].ends_with('.'))
        {
            return (false, Some(header[at + table.len()..].trim_matches('"').to_owned()));
        }
    }
    (false, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[package]\nname = \"x\" # not a dependency\n[dependencies]\na.workspace = true\n\
        b = { version = \"1\", features = [\n    \"c\",\n] }\n[dependencies.d]\nversion = \"1\"\n\
        [target.'cfg(unix)'.dependencies]\ne = \"1\"\n[build-dependencies]\nf = \"1\"\n\
        [dev-dependencies]\ng = \"1\"\n[dev-dependencies.h]\nversion = \"1\"\n[features]\ni = []\n";

    #[test]
    fn all_shapes_are_read() {
        let names = |kind| dependencies(TEXT, kind).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(Kind::Product), "a b d e f");
        assert_eq!(names(Kind::Test), "g h");
    }
}
