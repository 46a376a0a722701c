//! Stub records: what decodes is encoded to the very same bytes.
#![no_main]

use isotherm_core::stored;
use isotherm_core::stub::StubRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for value in [data.to_vec(), stored::seal(1, data), stored::seal(2, data)] {
        if let Ok((record, resident)) = StubRecord::decode_unbound(&value) {
            let again = resident.map_or_else(|| record.encode(), |resident| record.encode_partial(&resident));
            assert_eq!(again, value);
        }
    }
});
