//! Comparing and merging metadata.

use crate::node::{Metadata, Principal, Xattrs};

/// Whether two principals are one account: by name where both have one, else by number.
#[must_use]
pub fn same_principal(a: &Principal, b: &Principal) -> bool {
    match (&a.name, &b.name) {
        (Some(a), Some(b)) => a == b,
        _ => a.id == b.id,
    }
}

/// Whether two metadata are the same for a user. The time of birth is a value that travels, not a difference.
#[must_use]
pub fn same_metadata(a: &Metadata, b: &Metadata) -> bool {
    a.mode == b.mode && same_principal(&a.user, &b.user) && same_principal(&a.group, &b.group) && a.xattrs == b.xattrs
}

/// Merges two changes of one base, field by field and attribute by attribute; where both changed one field, the
/// share's value stands.
#[must_use]
pub fn merge_metadata(base: &Metadata, local: &Metadata, remote: &Metadata) -> Metadata {
    let principal = |base: &Principal, local: &Principal, remote: &Principal| {
        if same_principal(remote, base) { local.clone() } else { remote.clone() }
    };
    Metadata {
        mode: if remote.mode == base.mode { local.mode } else { remote.mode },
        user: principal(&base.user, &local.user, &remote.user),
        group: principal(&base.group, &local.group, &remote.group),
        born: remote.born,
        xattrs: merge_xattrs(&base.xattrs, &local.xattrs, &remote.xattrs),
    }
}

fn merge_xattrs(base: &Xattrs, local: &Xattrs, remote: &Xattrs) -> Xattrs {
    let names = base.keys().chain(local.keys()).chain(remote.keys());
    let mut merged = Xattrs::new();
    for name in names {
        let (base, local, remote) = (base.get(name), local.get(name), remote.get(name));
        let value = if remote == base { local } else { remote };
        if let Some(value) = value {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_keeps_what_only_it_changed() {
        let attribute = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let base = Metadata { mode: 0o644, xattrs: [attribute("a", "1"), attribute("b", "1")].into(), ..Metadata::default() };
        let local = Metadata { mode: 0o600, xattrs: [attribute("a", "2"), attribute("c", "1")].into(), ..base.clone() };
        let remote = Metadata { mode: 0o644, xattrs: [attribute("a", "3"), attribute("b", "1")].into(), ..base.clone() };
        let merged = merge_metadata(&base, &local, &remote);
        assert_eq!(merged.mode, 0o600);
        assert_eq!(merged.xattrs, [attribute("a", "3"), attribute("c", "1")].into());
    }

    #[test]
    fn names_of_accounts_count_before_numbers() {
        let principal = |id, name: Option<&str>| Principal { id, name: name.map(str::to_owned) };
        assert!(same_principal(&principal(1, Some("anna")), &principal(7, Some("anna"))));
        assert!(!same_principal(&principal(1, Some("anna")), &principal(1, Some("ben"))));
        assert!(same_principal(&principal(1, None), &principal(1, Some("ben"))));
    }
}
