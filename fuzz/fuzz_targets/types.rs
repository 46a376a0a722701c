//! What a kernel says of its types. Any bytes give an answer or none, and what is found has the name that was asked for.
#![no_main]

use isotherm_gate::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[is_raw, share], rest)) = data.split_first_chunk::<2>() else { return };
    if is_raw % 4 == 0 {
        look(rest);
        return;
    }
    // The fuzzer finds no lengths: types and strings with a head before them.
    let (types, strings) = rest.split_at(rest.len() * usize::from(share) / 256);
    let head = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
    let mut bytes = [&0xeb9f_u16.to_ne_bytes()[..], &[1, 0]].concat();
    bytes.extend(head.iter().flat_map(|number| number.to_ne_bytes()));
    bytes.extend([types, strings].concat());
    look(&bytes);
});

fn look(bytes: &[u8]) {
    let Some(found) = fuzzing::kernel_types(bytes, "s", "f") else { return };
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(found.function.is_none() || has(b"f\0"));
    assert!(found.field.is_none() || has(b"f\0") && has(b"s\0"));
    assert!(found.types * 12 <= bytes.len(), "no more types than the bytes have room for");
}
