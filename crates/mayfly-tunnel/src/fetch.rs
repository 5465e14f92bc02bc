//! Fetches a task's log from the orchestrator, where the one here cannot be gone on with.
//!
//! It is gathered in a file of its own, and only what is whole becomes the log. Bounds: [`FETCHES_MAX`] at once, and
//! those of a request that is passed on.

use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt as _;
use mayfly_core::TaskId;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::forward::{Forward, ForwardError, QUIET_MAX};
use crate::logs::LogError;

/// How many logs are fetched at once.
const FETCHES_MAX: usize = 4;

/// Why a log was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Nobody has it any more.
    #[error("the orchestrator does not keep it any more")]
    Gone,
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("the orchestrator answers {0}")]
    Refused(StatusCode),
    #[error("its last line is cut")]
    Cut,
    #[error("it cannot be written")]
    File(#[from] std::io::Error),
    /// It was fetched, and is not the log yet.
    #[error(transparent)]
    Logs(#[from] LogError),
}

/// What fetches.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    forward: Forward,
    places: Arc<Semaphore>,
}

impl Fetch {
    pub(crate) fn new(forward: Forward) -> Self {
        Self { forward, places: Arc::new(Semaphore::new(FETCHES_MAX)) }
    }

    /// Writes all that the log of `task` has by now to the file `to`. Gives the number of its last event.
    pub(crate) async fn whole(&self, task: TaskId, to: PathBuf) -> Result<u64, FetchError> {
        let _place = self.places.acquire().await.expect("it is never closed");
        // The file itself stays: it is the mark of what is still to be fetched.
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&to).await?;
        self.rest(task, to, 0).await
    }

    /// Appends what the log of `task` has by now after the event `after`. Gives the number of its last event.
    pub(crate) async fn rest(&self, task: TaskId, to: PathBuf, after: u64) -> Result<u64, FetchError> {
        let answer = self.forward.get(&format!("/v1/tasks/{task}/events?after={after}&follow=false")).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::GONE | StatusCode::NOT_FOUND => return Err(FetchError::Gone),
            status => return Err(FetchError::Refused(status)),
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(to).await?;
        let (mut body, mut last, mut whole) = (answer.into_body(), after, true);
        while let Some(frame) = timeout(QUIET_MAX, body.frame()).await.map_err(|_| ForwardError::Quiet)? {
            let Ok(bytes) = frame.map_err(ForwardError::from)?.into_data() else { continue };
            last += memchr::memchr_iter(b'\n', &bytes).count() as u64;
            whole = bytes.last().map_or(whole, |&byte| byte == b'\n');
            file.write_all(&bytes).await?;
        }
        file.flush().await?;
        if whole { Ok(last) } else { Err(FetchError::Cut) }
    }
}
