//! What a tunnel and an orchestrator send to each other: chunks of events, and the texts before them. Nothing in it
//! panics, and what is taken is exactly what was sent.

#![no_main]

use std::fmt::Debug;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mayfly_wire::tunnel::{Answer, Chunk, Hello, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: &[u8]| {
    if let Ok(chunk) = Chunk::decode(Bytes::copy_from_slice(input)) {
        assert_eq!(chunk.encode(), input);
        for run in &chunk.runs {
            let lines = run.lines.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!(run.first > 0 && run.last >= run.first && run.last - run.first + 1 == lines);
        }
    }
    reads_back::<Hello>(input);
    reads_back::<Answer>(input);
    reads_back::<Status>(input);
});

fn reads_back<T: Debug + PartialEq + Serialize + DeserializeOwned>(input: &[u8]) {
    if let Ok(word) = serde_json::from_slice::<T>(input) {
        let again = serde_json::to_vec(&word).expect("it was JSON");
        assert_eq!(serde_json::from_slice::<T>(&again).expect("ours"), word);
    }
}
