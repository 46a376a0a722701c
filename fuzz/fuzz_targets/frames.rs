//! A stream gives the same frames whatever the pieces in which it arrives, and keeps no more than came.
#![no_main]

use bytes::Bytes;
use isotherm_api::share::ObjectFrame;
use isotherm_api::wire::{Frames, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(whole, read(stream, usize::from(size).max(1)));
    let mut at = 0;
    for body in whole.0 {
        let framed = frame(&body);
        assert_eq!(framed, stream[at..at + framed.len()]);
        at += framed.len();
        object(&body);
    }
    object(&Bytes::copy_from_slice(stream));
});

/// The frames up to the end or the first error, and whether there was one.
fn read(stream: &[u8], size: usize) -> (Vec<Bytes>, bool) {
    let mut frames = Frames::default();
    let mut found = Vec::new();
    for piece in stream.chunks(size) {
        frames.push(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fn object(body: &Bytes) {
    let Ok(object) = ObjectFrame::decode(body) else { return };
    let encoded = object.encode().slice(4..);
    assert_eq!(ObjectFrame::decode(&encoded).as_ref(), Ok(&object));
    if let ObjectFrame::Object { .. } = object {
        assert_eq!(encoded, body);
    }
}
