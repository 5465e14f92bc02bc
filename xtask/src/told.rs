//! What a task's log tells, read to its end over as many orchestrators as it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use mayfly_client::{Client, ClientError};
use mayfly_wire::api::CreateTask;
use mayfly_wire::event::{Event, EventSource, MayflyEvent};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

/// The pause before a call is repeated that found no orchestrator.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a task's log told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) task: String,
    pub(crate) outcome: Option<String>,
    pub(crate) attempts_started: BTreeSet<u32>,
    /// First messages of `claude`: one for each process of it.
    pub(crate) inits: usize,
    /// The sessions of `claude` that they name.
    pub(crate) sessions: BTreeSet<String>,
    /// Whether the CLI's own copy of the session was kept.
    pub(crate) transcript: bool,
    /// Whether the numbers of its events are 1, 2, 3 and so on.
    pub(crate) whole: bool,
    /// The SHA-256 of its lines.
    pub(crate) hash: Sha256,
    /// What `claude` wrote.
    pub(crate) raw: Vec<u8>,
    last: u64,
}

#[derive(Deserialize)]
struct Init {
    session_id: String,
}

impl Told {
    fn hear(&mut self, line: &str) -> anyhow::Result<()> {
        let event = Event::parse(line)?;
        self.whole &= event.seq == self.last + 1;
        self.last = event.seq;
        self.hash.update(line);
        self.hash.update("\n");
        if event.source == EventSource::Claude {
            self.raw.extend(event.raw());
            if line.contains(r#""subtype":"init""#) {
                self.inits += 1;
                let init = event.line.and_then(|line| serde_json::from_str::<Init>(line.get()).ok());
                self.sessions.extend(init.map(|init| init.session_id));
            }
        }
        match event.event {
            Some(MayflyEvent::Started) => drop(self.attempts_started.insert(event.attempt)),
            Some(MayflyEvent::Collected { result }) => self.transcript = result.transcript,
            Some(MayflyEvent::Finished { outcome }) => self.outcome = Some(outcome.name),
            _ => {}
        }
        Ok(())
    }

    /// Whether more than one `claude` ran for it, as far as its log tells.
    pub(crate) fn ran_twice(&self) -> bool {
        self.attempts_started.len() > 1 || self.inits > 1
    }
}

/// Reads a task's log to its end.
pub(crate) async fn follow(client: Client, task: String) -> anyhow::Result<Told> {
    let mut told = Told { task: task.clone(), whole: true, ..Told::default() };
    loop {
        let mut events = client.events(&task, told.last);
        loop {
            match events.next().await {
                Ok(Some(line)) => told.hear(&line)?,
                Ok(None) => return Ok(told),
                Err(error) if passes(&error) => break,
                Err(error) => {
                    println!("task {task}: {error}");
                    return Ok(Told { whole: false, ..told });
                }
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Submits a task, again and again until there is an orchestrator that answers.
pub(crate) async fn submit(client: &Client, create: &CreateTask, key: &str) -> anyhow::Result<String> {
    loop {
        match client.submit(create, key).await {
            Err(error) if passes(&error) => sleep(AGAIN_AFTER).await,
            answered => return Ok(answered?.id),
        }
    }
}

/// Whether nobody was there, or only somebody on the way.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => problem.status >= 500,
        _ => false,
    }
}
