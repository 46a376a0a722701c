//! Which names never take part in sync.
//!
//! The defaults are the scratch files of the system and of editors: files that are rewritten all the time, mean
//! nothing on another server, or lock something there. A group adds globs of its own. Patterns match one name,
//! not a path, ignore case in ASCII, and know `*`, `?` and nothing else: names are bytes, and every pattern an
//! administrator writes here has to be obvious at three in the morning.

/// Names excluded in every sync group.
pub const DEFAULT: &[&str] = &[
    // The agent's own folder.
    ".isotherm",
    // Windows and Office.
    "pagefile.sys",
    "desktop.ini",
    "thumbs.db",
    "ehthumbs.db",
    "~$*",
    "*.tmp",
    "*.laccdb",
    "635D02A9D91C401B97884B82B3BCDAEA.*",
    "System Volume Information",
    "$RECYCLE.BIN",
    "SyncShareState",
    ".SystemShareInformation",
    // Linux: NFS's open-unlinked files, fsck's folder, trash, LibreOffice locks, editors' swap files.
    ".nfs????????????????*",
    "lost+found",
    ".Trash-*",
    ".~lock.*#",
    ".*.swp",
    ".*.swo",
    ".*.swx",
    ".*.swpx",
    "#*#",
    ".#*",
    ".goutputstream-*",
];

/// The patterns in force for one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exclusions {
    own: Vec<Vec<u8>>,
}

impl Exclusions {
    /// The defaults and a group's own patterns.
    #[must_use]
    pub fn new<S: AsRef<[u8]>>(own: &[S]) -> Self {
        Self { own: own.iter().map(|pattern| pattern.as_ref().to_vec()).collect() }
    }

    /// Whether a name stays out of sync.
    #[must_use]
    pub fn excludes(&self, name: &[u8]) -> bool {
        DEFAULT.iter().any(|pattern| matches(pattern.as_bytes(), name)) || self.own.iter().any(|pattern| matches(pattern, name))
    }
}

/// Whether a pattern leaves next to nothing in sync: it asks for no character.
#[must_use]
pub fn excludes_everything(pattern: &str) -> bool {
    pattern.contains('*') && pattern.bytes().all(|byte| matches!(byte, b'*' | b'?'))
}

/// Whether a whole name fits a pattern. Linear in both: on a mismatch only the last `*` takes one byte more.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte.eq_ignore_ascii_case(&name[n]) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, fits) in [
            ("*.tmp", "a.TMP", true),
            ("*.tmp", "a.tmp.bak", false),
            ("~$*", "~$report.docx", true),
            ("a*b*c", "aXbXbYc", true),
            ("a*b*c", "aXbXbY", false),
            (".*.sw?", ".plan.txt.swp", true),
            ("?", "", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn ordinary_files_take_part() {
        let exclusions = Exclusions::new(&["*.bak"]);
        for name in ["report.docx", "tmp", "swap", ".profile", "a.swp", "C#", "#1", ".swx"] {
            assert!(!exclusions.excludes(name.as_bytes()), "{name}");
        }
        for name in ["old.BAK", "Thumbs.db", ".nfs000000000012345600000001", ".~lock.plan.odt#", "#draft#"] {
            assert!(exclusions.excludes(name.as_bytes()), "{name}");
        }
    }
}
