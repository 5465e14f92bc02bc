//! The doors by which machines reach the orchestrator: one for each attempt, from before its machine is made until
//! after it is gone.
//!
//! Who opens them is the caller's choice. A machine sees the folder of its own door and nothing of the others, so
//! what it does to its door keeps nobody else waiting.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;

use mayfly_core::{AttemptId, TaskState};
use tracing::{Instrument as _, Span, info_span, warn};

use crate::engine::{Engine, StartError};
use crate::perform::RETRY_FIRST;

/// Opens and closes doors. Every verb is idempotent, and none waits for anybody.
pub trait Doors: fmt::Debug + Send + Sync + 'static {
    /// Opens the door of an attempt, or finds it open; gives the folder that its machine is to see. A folder that
    /// is there already is kept as it is: a machine may see it.
    fn open(&self, attempt: AttemptId) -> io::Result<PathBuf>;

    /// Closes the door and removes its folder. One that never was is a success. Connections through it end after
    /// the exchange that they are in.
    fn close(&self, attempt: AttemptId) -> io::Result<()>;

    /// Every attempt that has a folder, be its door open or not.
    fn list(&self) -> io::Result<Vec<AttemptId>>;
}

impl Engine {
    /// Opens the doors of live attempts, whose workers are dialling already, and removes all others.
    pub(crate) async fn take_up_doors(&self) -> Result<(), StartError> {
        let live: HashSet<AttemptId> =
            self.0.store.live().await?.into_iter().map(|(_, attempt)| attempt.id).collect();
        for attempt in self.0.doors.list().map_err(StartError::Doors)? {
            if !live.contains(&attempt)
                && let Err(error) = self.0.doors.close(attempt)
            {
                // The next start tries again.
                span(attempt).in_scope(|| warn!(error = %error, "door not removed"));
            }
        }
        for attempt in live {
            if let Err(error) = self.0.doors.open(attempt) {
                span(attempt).in_scope(|| warn!(error = %error, "door not opened yet"));
                self.open_later(attempt);
            }
        }
        Ok(())
    }

    /// Tries again until the door is open or nobody needs it.
    fn open_later(&self, attempt: AttemptId) {
        let engine = self.clone();
        let opening = async move {
            let mut wait = RETRY_FIRST;
            engine.pause(&mut wait).await;
            while let Err(error) = engine.open_if_owed(attempt).await {
                warn!(error = %error, "door not opened yet");
                engine.pause(&mut wait).await;
            }
        };
        self.spawn(opening.instrument(span(attempt)));
    }

    async fn open_if_owed(&self, attempt: AttemptId) -> io::Result<()> {
        // Nobody unmakes the machine meanwhile, and leaves an open door behind.
        let turn = self.0.links.turn(attempt);
        let _turn = turn.lock().await;
        let task = self.0.store.task(attempt.task).await.map_err(io::Error::other)?;
        match task.map(|task| task.state) {
            Some(TaskState::Launching(a) | TaskState::Running(a, _) | TaskState::Collecting(a, _))
                if a == attempt.attempt =>
            {
                self.0.doors.open(attempt).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// What is logged of the attempt's door.
fn span(attempt: AttemptId) -> Span {
    info_span!("door", task = %attempt.task, %attempt)
}
