//! Case folding for shares that are `case = insensitive`.
//!
//! The fold is per character and locale-free: the lowercase of the uppercase, so that for instance final and
//! medial sigma are one. Names that are not UTF-8 fold their ASCII letters only. A share stores
//! [`FOLD_VERSION`] when it is made, and a golden test over all characters holds the table still: a change of
//! the table needs a new version, because two names that were different may not become the same under a
//! share's feet.

/// The table that [`fold`] implements. Stored with each case-insensitive share.
pub const FOLD_VERSION: u32 = 1;

/// The form of a name under which a case-insensitive share looks it up.
#[must_use]
pub fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.chars().map(fold_char).collect::<String>().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

/// One character to one character: characters whose case mapping is longer than one (such as sharp s) stay.
fn fold_char(character: char) -> char {
    let upper = single(character.to_uppercase(), character);
    single(upper.to_lowercase(), upper)
}

fn single(mut mapped: impl Iterator<Item = char>, otherwise: char) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_letters_of_any_script_and_leaves_the_rest() {
        assert_eq!(fold("Straße ÄÖÜ ΣΑΣ.TXT".as_bytes()), fold("STRAßE äöü σας.txt".as_bytes()));
        assert_eq!(fold(b"\xffABC"), b"\xffabc");
        assert_ne!(fold("ß".as_bytes()), fold(b"ss"));
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for character in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            assert_eq!(fold_char(fold_char(character)), fold_char(character), "{character:?}");
        }
    }

    /// The digest of the whole table. If a toolchain brings other Unicode data this fails; the answer is a new
    /// `FOLD_VERSION` that keeps the old table, never a new digest here.
    #[test]
    fn table_of_version_1_is_pinned() {
        let mut hasher = blake3::Hasher::new();
        for character in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            hasher.update(&u32::from(fold_char(character)).to_le_bytes());
        }
        assert_eq!(hasher.finalize().to_hex().as_str(), GOLDEN_VERSION_1);
    }

    const GOLDEN_VERSION_1: &str = "ed1f1e630d267c05b81226f1f414dcd98c679b5015241c91e863be5c25e5e43b";
}
