//! The sample drawings of the demo: a few dozen small files in folders, the same on every machine.
//!
//! It writes only into a folder that is empty, so that it never mixes with files of the user.
//!
//! **Invariant:** the content of a file depends on its path alone.

use std::path::Path;

use crate::failure::Failure;

/// Folders of the sample, and the drawings in each.
const FOLDERS: &[(&str, &[&str])] = &[
    ("Hall A/Floor plans", &["ground floor", "first floor", "roof", "cellar"]),
    ("Hall A/Sections", &["A-A", "B-B", "C-C"]),
    ("Hall A/Details", &["stairs", "door 1", "door 2", "gutter", "crane rail"]),
    ("Hall B/Floor plans", &["ground floor", "gallery", "roof"]),
    ("Hall B/Sections", &["A-A", "B-B"]),
    ("Hall B/Details", &["gate", "smoke vent", "column foot", "column head"]),
    ("Site/Surveys", &["terrain", "soil", "trees"]),
    ("Site/Pipes", &["water", "sewer", "gas", "power", "fibre"]),
    ("Letters", &[]),
];

/// Texts beside the drawings.
const TEXTS: &[(&str, &str)] = &[
    (
        "README.txt",
        "Two sites share this folder: detroit and munich.\n\
         Change, add, rename or delete anything in one of them, and look at the other.\n\
         Change the same file in both at once to see a conflict copy.\n",
    ),
    ("Letters/2024-03-04 building permit.txt", "The permit for halls A and B has come. Work may begin.\n"),
    ("Letters/2024-05-17 crane rail.txt", "Please move the crane rail by 120 mm; see Hall A/Details/crane rail.svg.\n"),
    ("Letters/Größe der Tore.txt", "Bitte die Tore von Halle B auf 4,50 m erhöhen.\n"),
];

/// Fills a folder that is empty. Gives how many files were written.
pub(super) fn write(folder: &Path) -> Result<usize, Failure> {
    let is_empty = folder.read_dir().map_err(|error| Failure::io("read", folder, &error))?.next().is_none();
    if !is_empty {
        return Ok(0);
    }
    let mut files = 0;
    for (below, names) in FOLDERS {
        let below = folder.join(below);
        std::fs::create_dir_all(&below).map_err(|error| Failure::io("make", &below, &error))?;
        for name in *names {
            let path = below.join(format!("{name}.svg"));
            std::fs::write(&path, drawing(name)).map_err(|error| Failure::io("write", &path, &error))?;
            files += 1;
        }
    }
    for (name, text) in TEXTS {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| Failure::io("write", &path, &error))?;
        files += 1;
    }
    Ok(files)
}

/// A picture of rooms that a browser shows: rectangles from a small generator that starts with the title.
fn drawing(title: &str) -> String {
    let mut seed: u32 = title.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let mut next = |below: u32| {
        // The constants of Numerical Recipes; good enough for walls.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let mut out =
        String::from("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 594\" fill=\"none\" stroke=\"black\">\n");
    out.push_str("<rect x=\"10\" y=\"10\" width=\"820\" height=\"574\" stroke-width=\"3\"/>\n");
    for _ in 0..24 + next(40) {
        let (x, y) = (20 + next(600), 20 + next(400));
        let (width, height) = (20 + next(200), 20 + next(140));
        out.push_str(&format!("<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n"));
    }
    out.push_str(&format!("<text x=\"640\" y=\"570\" fill=\"black\" stroke=\"none\">{title}</text>\n</svg>\n"));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_empty_folder_is_filled_once() {
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path()).unwrap();
        assert!((24..100).contains(&written), "{written}");
        assert_eq!(write(folder.path()).unwrap(), 0);
        assert!(folder.path().join("Hall A/Details/crane rail.svg").exists());
    }

    #[test]
    fn drawings_differ_and_stay_the_same() {
        assert_eq!(drawing("roof"), drawing("roof"));
        assert_ne!(drawing("roof"), drawing("cellar"));
    }
}
