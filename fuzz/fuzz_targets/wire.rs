//! Bodies of the sync protocol: no bytes make a decoder panic, and what decodes keeps its meaning when it is encoded again.
#![no_main]

use isotherm_api::share::{
    FeedRequest, HaveAnswer, HaveRequest, HistoryAnswer, HistoryRequest, IdsRequest, ManifestAnswer, ManifestsPut, PackStored,
    SnapshotFrame, Wanted, WantedRequest,
};
use isotherm_api::sync::{Assignments, Attach, Attached, Report};
use isotherm_api::wire::{FORMAT, decode, encode};
use isotherm_core::namespace::{Answer, Batch, Page};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    let Some((&what, body)) = data.split_first() else { return };
    let message = [&[FORMAT], body].concat();
    assert!(decode::<Attach>(&[&[what.max(FORMAT + 1)], body].concat()).is_err());
    // Apart, so that kept inputs mean what they meant.
    match what {
        254 => return check::<WantedRequest>(&message),
        255 => return check::<Wanted>(&message),
        _ => {}
    }
    match what % 17 {
        0 => check::<Attach>(&message),
        1 => check::<Attached>(&message),
        2 => check::<Assignments>(&message),
        3 => check::<Report>(&message),
        4 => check::<FeedRequest>(&message),
        5 => check::<SnapshotFrame>(&message),
        6 => check::<HaveRequest>(&message),
        7 => {
            if let Ok(answer) = decode::<HaveAnswer>(&message) {
                assert!(!answer.has(body.len() * 8));
            }
            check::<HaveAnswer>(&message);
        }
        8 => check::<PackStored>(&message),
        9 => check::<ManifestsPut>(&message),
        10 => check::<Vec<ManifestAnswer>>(&message),
        11 => check::<IdsRequest>(&message),
        12 => check::<HistoryRequest>(&message),
        13 => check::<HistoryAnswer>(&message),
        14 => check::<Batch>(&message),
        15 => check::<Vec<Answer>>(&message),
        _ => check::<Page>(&message),
    }
});

/// By bytes: a fraction may be no number, which equals nothing.
fn check<T: Serialize + DeserializeOwned>(message: &[u8]) {
    let Ok(value) = decode::<T>(message) else { return };
    let encoded = encode(&value);
    let again = decode::<T>(&encoded).expect("it was just encoded");
    assert_eq!(encode(&again), encoded);
}
