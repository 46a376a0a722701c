//! A directory of very many entries.

use std::collections::BTreeSet;
use std::fs;

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::sized;
use crate::tree::{assert_equal, walk};

// semantics.md#renames-are-renames, #delete-travels
#[test]
fn a_directory_of_very_many_entries_comes_over_is_renamed_and_thinned_out() {
    let Some(fleet) = Fleet::sharing([Fs::Ext4, Fs::Xfs], &["--delete-limit", "100%"]) else { return };
    let entries = sized(5_000, 100_000);
    let [detroit, munich] = fleet.folders();
    fs::create_dir(detroit.join("many")).unwrap();
    for number in 0..entries {
        let text = if number % 3 == 0 { String::new() } else { format!("entry {number}") };
        fs::write(detroit.join(format!("many/{number}.txt")), text).unwrap();
    }
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), entries + 1);
    let (before, node) = (fleet.stored(), fleet.node(SITES[0], &detroit.join("many/7.txt")));
    fs::rename(munich.join("many"), munich.join("renamed")).unwrap();
    fleet.settle_clean();
    assert_eq!(fleet.node(SITES[0], &detroit.join("renamed/7.txt")), node);
    assert_eq!((fleet.stored(), detroit.join("many").exists()), (before, false), "a rename sends no content");
    // Both sites thin it out at once: each a half of what it may.
    for number in 0..entries / 2 {
        let folder = [&detroit, &munich][number % 2];
        fs::remove_file(folder.join(format!("renamed/{number}.txt"))).unwrap();
    }
    fleet.settle_clean();
    let left: BTreeSet<_> = walk(&detroit).into_iter().collect();
    let expected = (entries / 2..entries).map(|number| format!("renamed/{number}.txt").into());
    assert_eq!(left, expected.chain([std::path::PathBuf::from("renamed")]).collect());
    assert_equal(&detroit, &munich);
}
