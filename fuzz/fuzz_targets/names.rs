//! Names, paths and exclusions: any bytes survive their forms as text, conflict names are names, and a pattern fits what a
//! plain reading of it fits.
#![no_main]

use isotherm_api::limits::name_problem;
use isotherm_api::path::{ShownPath, percent_decode, percent_encode};
use isotherm_core::exclude::{Exclusions, matches};
use isotherm_core::fold::fold;
use isotherm_core::name::{Name, escape};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else { return };
    let at = usize::from(how).min(rest.len());
    let (left, right) = rest.split_at(at);
    text(rest);
    name(right, left);
    pattern(left, right);
});

fn text(bytes: &[u8]) {
    let shown = escape(bytes);
    assert!(!shown.chars().any(char::is_control), "{shown}");
    assert_eq!(percent_decode(&percent_encode(bytes)).as_deref(), Some(bytes));
    let json = serde_json::to_string(&ShownPath::new(bytes)).expect("a path is plain JSON");
    let again: ShownPath = serde_json::from_str(&json).expect("it was just written");
    assert_eq!(again.bytes().as_deref(), Some(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = percent_decode(text);
        if let Ok(shown) = serde_json::from_str::<ShownPath>(text) {
            let _ = shown.bytes();
        }
    }
}

fn name(bytes: &[u8], server: &[u8]) {
    let folded = fold(bytes);
    assert_eq!(fold(&folded), folded);
    let Ok(name) = Name::new(bytes) else { return };
    assert_eq!(name.as_bytes(), bytes);
    let Ok(server) = std::str::from_utf8(server) else { return };
    if name_problem(server).is_some() {
        return;
    }
    let mut before = name.clone();
    for number in [0, 1, 99] {
        let conflict = name.conflict(server, number);
        assert!(Name::new(conflict.as_bytes()).is_ok(), "{conflict}");
        assert!(conflict != before);
        // What was text stays text.
        assert!(std::str::from_utf8(bytes).is_err() || std::str::from_utf8(conflict.as_bytes()).is_ok());
        before = conflict;
    }
}

fn pattern(pattern: &[u8], name: &[u8]) {
    if pattern.len() * name.len() > 1 << 14 {
        return;
    }
    let fits = matches(pattern, name);
    assert_eq!(fits, plainly_fits(pattern, name));
    assert!(!fits || Exclusions::new(&[pattern]).excludes(name));
}

/// Which beginnings of the name each beginning of the pattern fits.
fn plainly_fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for byte in pattern {
        let before = fits.clone();
        for at in 0..=name.len() {
            fits[at] = match byte {
                b'*' => before[at] || at > 0 && fits[at - 1],
                _ if at == 0 => false,
                b'?' => before[at - 1],
                byte => before[at - 1] && byte.eq_ignore_ascii_case(&name[at - 1]),
            };
        }
    }
    fits[name.len()]
}
