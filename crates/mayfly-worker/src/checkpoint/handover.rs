//! Hands a checkpoint over: `PUT /v1/worker/checkpoint/<number>`, and a part of the session file beside it.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use mayfly_wire::worker::CHECKPOINT_PATH;
use tokio::time::Instant;

use crate::exchange::{Exchange, ExchangeError};

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

impl Exchange<'_> {
    /// Hands over what was looked at then. The age is that of the moment in which it is sent.
    pub(super) async fn put_checkpoint(
        &self,
        number: u64,
        looked_at: Instant,
        file: &Path,
    ) -> Result<(), ExchangeError> {
        let put = || {
            let age = looked_at.elapsed().as_millis();
            self.put_to(format!("{CHECKPOINT_PATH}{number}?age_ms={age}"), file)
        };
        self.until_answered("checkpoint", put).await.map(drop)
    }

    /// Hands over a part of the session file, which begins there.
    pub(super) async fn put_session(&self, from: u64, part: Bytes) -> Result<(), ExchangeError> {
        let put = || {
            let head = self.head(Method::PUT, &format!("{CHECKPOINT_PATH}transcript?from={from}"));
            let request = head.body(Full::new(part.clone())).expect("a path is plain");
            self.once(request, ANSWER_BYTES_MAX)
        };
        self.until_answered("session", put).await.map(drop)
    }
}
