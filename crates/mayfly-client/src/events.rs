//! A task's log, line by line, over as many connections as it takes.
//!
//! The last number seen is the place to go on from: a connection that breaks, also in the middle of a line,
//! costs nothing but time.
//!
//! Bounds: [`LINE_BYTES_MAX`](crate::LINE_BYTES_MAX) a line, [`RECONNECTS_MAX`] connections in a row that bring no event, with waits
//! from [`WAIT_MIN`] to [`WAIT_MAX`] between them.

use std::time::Duration;

use reqwest::{Method, Response};
use tokio::time::sleep;

use crate::lines::EventLines;
use crate::{Client, ClientError};

/// Connections in a row that may bring no event.
pub const RECONNECTS_MAX: u32 = 7;
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The events of one task. Dropped, it is over.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    task: String,
    /// Whether it goes on to the task's end.
    follow: bool,
    connection: Option<Response>,
    /// What came of it and is not given yet.
    lines: EventLines,
    /// Connections that broke since the last event.
    breaks: u32,
}

impl EventStream {
    pub(crate) fn new(client: Client, task: String, after: u64, follow: bool) -> Self {
        Self { client, task, follow, connection: None, lines: EventLines::after(after), breaks: 0 }
    }

    /// The next event's line, without its line end. `None`: everything was given, and the task is over if it is
    /// followed.
    ///
    /// Given up half-way, nothing is lost; asked again after an error, it goes on where it was.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(line) = self.lines.take()? {
                self.breaks = 0;
                return Ok(Some(line));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if self.lines.is_empty() => return Ok(None),
                // An end in the middle of a line: whoever was between us and the orchestrator cut it.
                Ok(false) => self.forget(),
                Err(error) => self.retry(error).await?,
            }
        }
    }

    /// Reads more, from a new connection if need be. `false`: the log ended.
    async fn read(&mut self) -> Result<bool, ClientError> {
        if self.connection.is_none() {
            let query = [("after", self.lines.seq().to_string()), ("follow", self.follow.to_string())];
            let request = self.client.about(Method::GET, &self.task, &["events"]).query(&query);
            self.connection = Some(self.client.send(request).await?);
        }
        let connection = self.connection.as_mut().expect("it was just made");
        let chunk = connection.chunk().await.map_err(|error| self.client.transport(error))?;
        Ok(chunk.map(|chunk| self.lines.push(&chunk)).is_some())
    }

    /// Waits before the next connection, if this error is of the kind that passes.
    async fn retry(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.forget();
        let passes = match &error {
            ClientError::Unreachable { .. } => true,
            ClientError::Refused(problem) => problem.status >= 500,
            _ => false,
        };
        if !passes || self.breaks == RECONNECTS_MAX {
            self.breaks = 0;
            return Err(error);
        }
        let wait = WAIT_MIN * 2_u32.pow(self.breaks);
        self.breaks += 1;
        sleep(wait.min(WAIT_MAX)).await;
        Ok(())
    }

    /// The rest of a broken connection comes again with the next.
    fn forget(&mut self) {
        self.connection = None;
        self.lines.forget();
    }
}
