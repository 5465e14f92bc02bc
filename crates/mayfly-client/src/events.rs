//! A task's log, line by line, over as many connections as it takes.
//!
//! The last number seen is the place to go on from: a connection that breaks, also in the middle of a line,
//! costs nothing but time. Numbers must follow one another, so that no event is missed or told twice.
//!
//! Bounds: [`LINE_BYTES_MAX`] a line, [`RECONNECTS_MAX`] connections in a row that bring no event, with waits
//! from [`WAIT_MIN`] to [`WAIT_MAX`] between them.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use reqwest::{Method, Response};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{Client, ClientError};

/// The longest line: the longest record with every byte escaped, and its envelope.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Connections in a row that may bring no event.
pub const RECONNECTS_MAX: u32 = 7;
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The events of one task. Dropped, it is over.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    task: String,
    /// The last event given.
    seq: u64,
    /// Whether it goes on to the task's end.
    follow: bool,
    connection: Option<Response>,
    /// What came of this connection and is not given yet.
    unread: BytesMut,
    /// How much of it is known to hold no line end.
    scanned: usize,
    /// Connections that broke since the last event.
    breaks: u32,
}

/// All that this reader looks at.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl EventStream {
    pub(crate) fn new(client: Client, task: String, after: u64, follow: bool) -> Self {
        let unread = BytesMut::new();
        Self { client, task, seq: after, follow, connection: None, unread, scanned: 0, breaks: 0 }
    }

    /// The next event's line, without its line end. `None`: everything was given, and the task is over if it is
    /// followed.
    ///
    /// Given up half-way, nothing is lost; asked again after an error, it goes on where it was.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(line) = self.line()? {
                return self.accept(line).map(Some);
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if self.unread.is_empty() => return Ok(None),
                // An end in the middle of a line: whoever was between us and the orchestrator cut it.
                Ok(false) => self.forget(),
                Err(error) => self.retry(error).await?,
            }
        }
    }

    /// Takes a whole line out of what was read.
    fn line(&mut self) -> Result<Option<BytesMut>, ClientError> {
        let Some(at) = self.unread[self.scanned..].iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.unread.len();
            let fits = self.scanned <= LINE_BYTES_MAX;
            return fits.then_some(None).ok_or(ClientError::TooLong { bytes_max: LINE_BYTES_MAX });
        };
        let line = self.unread.split_to(self.scanned + at);
        self.unread.advance(1);
        self.scanned = 0;
        Ok(Some(line))
    }

    fn accept(&mut self, line: BytesMut) -> Result<String, ClientError> {
        let Numbered { seq } = serde_json::from_slice(&line).map_err(ClientError::Protocol)?;
        if self.seq.checked_add(1) != Some(seq) {
            return Err(ClientError::Gap { after: self.seq, seq });
        }
        let line = String::from_utf8(line.into());
        let line =
            line.map_err(|error| ClientError::Protocol(serde::de::Error::custom(error.utf8_error())))?;
        (self.seq, self.breaks) = (seq, 0);
        Ok(line)
    }

    /// Reads more, from a new connection if need be. `false`: the log ended.
    async fn read(&mut self) -> Result<bool, ClientError> {
        if self.connection.is_none() {
            let query = [("after", self.seq.to_string()), ("follow", self.follow.to_string())];
            let request = self.client.about(Method::GET, &self.task, &["events"]).query(&query);
            self.connection = Some(self.client.send(request).await?);
        }
        let connection = self.connection.as_mut().expect("it was just made");
        let chunk = connection.chunk().await.map_err(|error| self.client.transport(error))?;
        Ok(chunk.map(|chunk| self.unread.extend_from_slice(&chunk)).is_some())
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
        self.unread.clear();
        self.scanned = 0;
    }
}
