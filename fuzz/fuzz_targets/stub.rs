//! Stub records: what decodes is encoded to the very same bytes.
#![no_main]

use isotherm_core::stored;
use isotherm_core::stub::StubRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for value in [data.to_vec(), stored::seal(1, data)] {
        if let Ok(record) = StubRecord::decode_unbound(&value) {
            assert_eq!(record.encode(), value);
        }
    }
});
