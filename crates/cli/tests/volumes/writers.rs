//! Programs that write in ways of their own: editors that save by rename.

use std::fs;
use std::os::unix::fs::MetadataExt;

use isotherm_gate::testing::Fs;

use crate::fleet::{Fleet, SITES};
use crate::tree::{assert_equal, walk};

// semantics.md#atomic-save
#[test]
fn case_16_saving_by_rename_is_an_edit_of_the_same_file() {
    let Some(mut fleet) = Fleet::sharing([Fs::Ext4, Fs::Xfs], &[]) else { return };
    let [detroit, munich] = fleet.folders();
    fs::write(detroit.join("plan.txt"), "first").unwrap();
    fs::write(detroit.join("letter.txt"), "first").unwrap();
    fleet.settle_clean();
    let nodes = ["plan.txt", "letter.txt"].map(|name| fleet.node(SITES[0], &detroit.join(name)));
    for round in 0..25 {
        // As vim and GNOME do: a new file renamed over the old one.
        fs::write(munich.join("4913"), "").unwrap();
        fs::remove_file(munich.join("4913")).unwrap();
        fs::write(munich.join("plan.txt.new"), format!("plan {round}")).unwrap();
        fs::rename(munich.join("plan.txt.new"), munich.join("plan.txt")).unwrap();
        // As emacs and LibreOffice do: the old one is moved aside, and removed when the new one is there.
        fs::rename(munich.join("letter.txt"), munich.join("letter.txt~")).unwrap();
        fs::write(munich.join("letter.txt"), format!("letter {round}")).unwrap();
        fs::remove_file(munich.join("letter.txt~")).unwrap();
        if round % 8 == 0 {
            fleet.settle_clean();
        }
    }
    fleet.settle_clean();
    // And while nobody looks.
    fleet.stop_agent(SITES[1]);
    let before = fs::metadata(munich.join("plan.txt")).unwrap().ino();
    fs::write(munich.join("aside"), "saved while the agent was away").unwrap();
    fs::rename(munich.join("aside"), munich.join("plan.txt")).unwrap();
    assert_ne!(fs::metadata(munich.join("plan.txt")).unwrap().ino(), before);
    fleet.start_agent(SITES[1]);
    fleet.settle_clean();
    assert_eq!(assert_equal(&detroit, &munich), 2, "{:?}", walk(&detroit));
    assert_eq!(fs::read_to_string(detroit.join("plan.txt")).unwrap(), "saved while the agent was away");
    assert_eq!(fs::read_to_string(detroit.join("letter.txt")).unwrap(), "letter 24");
    assert_eq!(["plan.txt", "letter.txt"].map(|name| fleet.node(SITES[0], &detroit.join(name))), nodes);
}
