//! What a machine sends over its link: frames of records, and the texts beside them. Nothing in it panics, and what
//! is taken is exactly what was sent.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mayfly_wire::worker::{Down, Hello, RECORD_BYTES_MAX, Report, decode, encode};

fuzz_target!(|input: &[u8]| {
    frame(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Hello::parse(text);
        let _ = serde_json::from_str::<Down>(text);
        if let Ok(report) = serde_json::from_str::<Report>(text) {
            let again = serde_json::to_string(&report).expect("it was JSON");
            assert_eq!(serde_json::from_str::<Report>(&again).expect("ours"), report);
        }
    }
});

fn frame(input: &[u8]) {
    let Ok(records) = decode(Bytes::copy_from_slice(input)) else { return };
    assert_eq!(encode(&records), input);
    assert!(records.iter().all(|record| record.number > 0 && record.bytes.len() <= RECORD_BYTES_MAX));
    assert!(records.windows(2).all(|two| two[0].number + 1 == two[1].number));
}
