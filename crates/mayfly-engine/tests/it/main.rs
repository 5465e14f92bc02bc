//! The engine on a real store, with machines and time in the test's hand.
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cancel;
mod checkpoints;
mod doors;
mod egress;
mod events;
mod feed;
mod ingest;
mod library;
mod life;
mod limits;
mod link;
mod machines;
mod memory;
mod pool;
mod prune;
mod queue;
mod restart;
mod spans;
mod submit;
mod tokens;

use std::num::NonZeroU32;
use std::time::Duration;

use mayfly_core::Policy;
use mayfly_engine::{EngineConfig, Listing};

/// Every task of a test.
const ALL: Listing = Listing { state: None, before: None, most: 1000 };

/// Allows so many machines at once.
fn at_once(most: u32) -> impl FnOnce(&mut EngineConfig) {
    move |config| {
        config.rules.policy = Policy { machines_max: NonZeroU32::new(most).unwrap(), ..config.rules.policy }
    }
}

/// Long enough for everything that is tried many times.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// The pause after the first look for a machine whose worker has no link.
const LOOK_FIRST: Duration = Duration::from_millis(250);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Polls once and gives up, as a caller that leaves.
async fn leave<F: Future>(work: F) {
    tokio::select! {
        biased;
        _ = work => panic!("done before anybody could leave"),
        () = std::future::ready(()) => {}
    }
}
