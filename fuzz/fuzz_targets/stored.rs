//! Values in databases: what is sealed opens, and what decodes keeps its meaning when it is encoded again.
//!
//! postcard reads some values in more than one form (long integers, attributes in any order), so the bytes may differ once
//! and never again.
#![no_main]

use isotherm_core::namespace::{Answer, Batch, Operation, Page};
use isotherm_core::node::Node;
use isotherm_core::plan::{Intent, Step};
use isotherm_core::stored;
use isotherm_core::trees::{Local, Record, Synced};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    let Some((&what, body)) = data.split_first() else { return };
    if let Ok(inside) = stored::open(1, body) {
        assert_eq!(stored::seal(1, inside), body);
    }
    let sealed = stored::seal(what, body);
    assert_eq!(stored::open(what, &sealed), Ok(body));
    assert!(stored::open(what.wrapping_add(1), &sealed).is_err());
    match what % 10 {
        0 => check::<Node>(body),
        1 => check::<Answer>(body),
        2 => check::<Batch>(body),
        3 => check::<Operation>(body),
        4 => check::<Page>(body),
        5 => check::<Intent>(body),
        6 => check::<Step>(body),
        7 => check::<Local>(body),
        8 => check::<Synced>(body),
        _ => check::<Record>(body),
    }
});

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok((value, _)) = postcard::take_from_bytes::<T>(body) else { return };
    let encoded = postcard::to_stdvec(&value).expect("values hold nothing that postcard refuses");
    let (again, rest) = postcard::take_from_bytes::<T>(&encoded).expect("it was just encoded");
    assert_eq!(again, value);
    assert!(rest.is_empty());
}
