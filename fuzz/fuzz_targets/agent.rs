//! What the agent reads beside the records: kept steps, markers, requests, access lists, DOS attributes. What decodes keeps its
//! meaning when it is encoded again; the two forms of an attribute lead to each other.
#![no_main]

use isotherm_agent::control::Request;
use isotherm_agent::fuzzing;
use isotherm_agent::volume::Marker;
use isotherm_core::stored;
use isotherm_gate::Owners;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    let Some((&what, rest)) = data.split_first() else { return };
    match what % 7 {
        0 => steps(rest),
        1 => steps(&stored::seal(1, rest)),
        2 => list_of_kernel(rest),
        3 => list_of_share(rest),
        4 => attributes(rest),
        5 => text::<Marker>(rest),
        _ => text::<Request>(rest),
    }
});

fn steps(kept: &[u8]) {
    let steps = fuzzing::kept_steps(kept);
    let encoded = postcard::to_stdvec(&steps).expect("steps hold nothing that postcard refuses");
    assert_eq!(fuzzing::kept_steps(&encoded), steps);
    assert_eq!(fuzzing::kept_steps(&stored::seal(1, &encoded)), steps);
}

/// First bytes of the kernel's form.
const VERSION: &[u8] = b"\x02\0\0\0";
/// Every account of a list may be one more question to the name service.
const LIST_MAX: usize = 512;

/// A list comes back as it was, in the kernel's order; what is none is not changed.
fn list_of_kernel(rest: &[u8]) {
    let value = [VERSION, &rest[..rest.len().min(LIST_MAX)]].concat();
    let mut owners = Owners::default();
    let Ok(shared) = fuzzing::list_to_share(&value, &mut owners) else { return };
    let Ok(kernel) = fuzzing::list_to_kernel(&shared, &mut owners) else { return };
    assert_eq!(fuzzing::list_to_share(&kernel, &mut owners).as_ref(), Ok(&shared));
    if shared == value {
        assert_eq!(kernel, value);
    } else if !shared.is_empty() {
        assert_eq!(entries(&kernel), entries(&value));
    }
}

/// A list from elsewhere may lose entries, and gets no other ones.
fn list_of_share(rest: &[u8]) {
    let value = &rest[..rest.len().min(LIST_MAX)];
    let mut owners = Owners::default();
    let Ok(kernel) = fuzzing::list_to_kernel(value, &mut owners) else { return };
    if kernel == value {
        return;
    }
    let count = value.split(|byte| *byte == b',').count();
    assert!(kernel.starts_with(VERSION) && kernel.len() <= VERSION.len() + 8 * count);
    let Ok(shared) = fuzzing::list_to_share(&kernel, &mut owners) else { return };
    let Ok(again) = fuzzing::list_to_kernel(&shared, &mut owners) else { return };
    assert_eq!(entries(&again), entries(&kernel));
}

/// Kind, rights and account of each entry, sorted; the account only where the kind has one.
fn entries(kernel: &[u8]) -> Vec<(u8, u8, Option<u32>)> {
    let entries = kernel.strip_prefix(VERSION).unwrap_or_default().chunks_exact(8);
    let entry = |entry: &[u8]| {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        (entry[0], entry[2], matches!(entry[0], 2 | 8).then_some(id))
    };
    let mut entries: Vec<_> = entries.map(entry).collect();
    entries.sort_unstable();
    entries
}

/// The two bits that tell whether content is here.
const AWAY: u32 = 0x40_1000;

fn attributes(value: &[u8]) {
    let (here, away) = (fuzzing::attributes_here(value), fuzzing::attributes_away(value));
    assert_eq!(fuzzing::attributes_here(&here), here);
    assert_eq!(fuzzing::attributes_away(&away), away);
    let (back, forth) = (fuzzing::attributes_here(&away), fuzzing::attributes_away(&here));
    let Some(bits) = read_attributes(value) else {
        // A text beside fields that nobody knows may change, by the two bits.
        assert!(value.contains(&0) || (&here[..], &away[..]) == (value, value));
        return;
    };
    for (value, wanted) in [(&here, bits & !AWAY), (&away, bits | AWAY), (&back, bits & !AWAY), (&forth, bits | AWAY)] {
        assert_eq!(read_attributes(value), Some(wanted));
    }
    if value.contains(&0) {
        assert!([&here, &away, &back, &forth].iter().all(|new| new.len() == value.len()));
    } else {
        assert!(bits & AWAY != 0 || here == value);
        assert!(bits & AWAY != AWAY || away == value);
    }
}

/// A plain reading of both forms.
fn read_attributes(value: &[u8]) -> Option<u32> {
    let Some(end) = value.iter().position(|byte| *byte == 0) else {
        return u32::from_str_radix(std::str::from_utf8(value).ok()?.strip_prefix("0x")?, 16).ok();
    };
    let version_at = end + 1 + (end + 1) % 2;
    let fields_at = (version_at + 4).div_ceil(4) * 4;
    let number = |at: usize| value.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    match value.get(version_at..)?.first_chunk::<2>()? {
        [1, 0] => number(fields_at),
        [2..=5, 0] => number(fields_at + 4),
        _ => None,
    }
}

fn text<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("it is plain JSON");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("it was just written"), value);
}
