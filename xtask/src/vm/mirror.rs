//! Where this machine gets its Debian packages from, read from what its own apt is told.
//!
//! It deliberately changes nothing there, and no address stands in the project: whoever runs this uses a mirror of his own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The mirror of Debian's main archive that this machine uses.
pub(super) fn of_this_machine() -> Result<String> {
    let mut texts = Vec::new();
    for path in files(Path::new("/etc/apt"))? {
        let is_list = path.extension().is_some_and(|ending| ending == "list");
        let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        texts.push((is_list, text));
    }
    let found = texts.iter().find_map(|(is_list, text)| if *is_list { of_list(text) } else { of_stanzas(text) });
    found.context("This machine's apt knows no mirror of Debian's archive: name one with --mirror URL")
}

/// The files that apt reads, in its order.
fn files(apt: &Path) -> Result<Vec<PathBuf>> {
    let mut parts: Vec<PathBuf> = match fs::read_dir(apt.join("sources.list.d")) {
        Ok(folder) => folder.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(_) => Vec::new(),
    };
    parts.retain(|path| path.extension().is_some_and(|ending| ending == "list" || ending == "sources"));
    parts.sort();
    let whole = apt.join("sources.list");
    Ok(whole.is_file().then_some(whole).into_iter().chain(parts).collect())
}

/// One line for each source: `deb [options] ADDRESS SUITE COMPONENT...`.
fn of_list(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        let (address, _suite) = (words.next()?, words.next()?);
        archive(address, words)
    })
}

/// Stanzas of fields, one for each source.
fn of_stanzas(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let field = |name: &str| {
            let value = stanza.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::split_whitespace)
        };
        let is_off = field("Enabled").is_some_and(|mut value| value.next() == Some("no"));
        if is_off || !field("Types")?.any(|kind| kind == "deb") {
            return None;
        }
        field("URIs")?.find_map(|address| archive(address, field("Components")?))
    })
}

/// The address, if Debian's own packages are there: the security archive and those of others are called something else.
fn archive<'a>(address: &str, mut components: impl Iterator<Item = &'a str>) -> Option<String> {
    let address = address.trim_end_matches('/');
    let is_web = address.starts_with("http://") || address.starts_with("https://");
    (is_web && address.ends_with("/debian") && components.any(|name| name == "main")).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "# deb http://no.example/debian stable main\ndeb-src http://a.example/debian stable main\n\
            deb https://other.example/apt stable main\ndeb http://a.example/debian-security s main\n\
            deb [arch=amd64 signed-by=/a.gpg] http://b.example/debian/ stable main contrib\n";
        assert_eq!(of_list(text).as_deref(), Some("http://b.example/debian"));
        assert_eq!(of_list("deb http://b.example/debian stable contrib\ndeb cdrom:[x]/debian stable main"), None);
    }

    #[test]
    fn stanzas_are_read() {
        let stanza = |address: &str, more: &str| format!("Types: deb\nURIs: {address}\nSuites: s\nComponents: main\n{more}\n");
        let text = format!(
            "# Comment\n{}\n{}\n{}",
            stanza("http://a.example/debian-security", ""),
            stanza("http://off.example/debian", "Enabled: no\n"),
            stanza("http://b.example/debian", "# Comment\nSigned-By: /a.gpg\n")
        );
        assert_eq!(of_stanzas(&text).as_deref(), Some("http://b.example/debian"));
        assert_eq!(of_stanzas("Types: deb-src\nURIs: http://b.example/debian\nComponents: main\n"), None);
        assert_eq!(of_stanzas(""), None);
    }
}
