//! What one file system holds and the other does not.

use std::fs;

use isotherm_gate::testing::Fs;
use rustix::fs::{XattrFlags, lsetxattr};

use crate::fleet::{Fleet, SITES};

/// An access list with so many users: more than ext4 has room for.
fn access_list(users: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, permissions: u16, id: u32| {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    };
    entry(1, 6, NOBODY);
    (0..users).for_each(|user| entry(2, 4, 10_000 + user));
    entry(4, 4, NOBODY);
    entry(16, 4, NOBODY);
    entry(32, 0, NOBODY);
    list
}

/// The content arrives, and the problem names the file and what to do; what was not held is not taken for a change.
// semantics.md#metadata-that-does-not-fit
#[test]
fn an_access_list_that_does_not_fit_is_a_problem_with_path_and_remedy() {
    let Some(fleet) = Fleet::sharing([Fs::Xfs, Fs::Ext4], &[]) else { return };
    let [detroit, munich] = fleet.folders();
    let list = access_list(900);
    fs::write(detroit.join("crowded"), "everybody").unwrap();
    lsetxattr(detroit.join("crowded"), "system.posix_acl_access", &list, XattrFlags::empty()).unwrap();
    fs::write(detroit.join("plain"), "nobody").unwrap();
    fleet.settle();
    assert_eq!(fs::read_to_string(munich.join("crowded")).unwrap(), "everybody");
    assert_eq!(fs::read_to_string(munich.join("plain")).unwrap(), "nobody");
    let problems = fleet.run(&["problems", "--json"]).json();
    let found = problems["problems"].as_array().unwrap().iter().find(|one| one["path"] == "crowded");
    let found = found.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!((&found["server"], &found["code"]), (&fleet.server(SITES[1]).into(), &"metadata_partial".into()), "{problems}");
    assert!(!found["remedy"].as_str().unwrap().is_empty(), "{problems}");
    // An edit where it did not fit leaves the list alone where it did.
    fs::write(munich.join("crowded"), "edited").unwrap();
    fleet.settle();
    assert_eq!(fs::read_to_string(detroit.join("crowded")).unwrap(), "edited");
    let mut kept = vec![0_u8; list.len() + 100];
    let len = rustix::fs::lgetxattr(detroit.join("crowded"), "system.posix_acl_access", &mut kept[..]).unwrap();
    assert_eq!(len, list.len(), "the access list stays whole");
}
