//! The owner: submits tasks until each is acknowledged, follows each over all faults, cancels and asks again at random.
//! It believes only what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::Method;
use mayfly_core::TaskId;
use mayfly_link::Dial;
use mayfly_wire::api::{Cancel, CreateTask, Credential, CredentialKind, Retry, Task};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::http::{ask, follow, request};
use crate::ledger::Ledger;

/// How long it waits at most before it asks again.
const AGAIN_MS: u64 = 2000;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) way: Arc<dyn Dial>,
    pub(crate) ledger: Ledger,
}

fn credential() -> Credential {
    Credential::new(CredentialKind::ApiKey, "not-a-secret".to_owned().into(), None)
}

fn json<T: serde::Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("plain data").into()
}

impl Owner {
    /// Asks for `count` tasks, within some time, and stays to their ends.
    pub(crate) async fn act(self, count: u32, within_ms: u64, mut rng: Rng) {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (owner, mut rng) = (self.clone(), rng.fork());
            tasks.spawn(async move {
                sleep(Duration::from_millis(rng.u64(0..=within_ms))).await;
                owner.task(format!("task {number}"), rng).await;
            });
        }
        while tasks.join_next().await.is_some() {}
        self.ledger.facts().all_asked = true;
    }

    async fn task(&self, key: String, mut rng: Rng) {
        let task = CreateTask {
            prompt: key.clone(),
            retries: if rng.u8(0..3) == 0 { rng.u32(1..=2) } else { 0 },
            priority: rng.i32(-1..=1),
            credential: Some(credential()),
            ..CreateTask::default()
        };
        let id = self.submit("/v1/tasks", &key, &json(&task), task.retries, &mut rng).await;
        let again = rng.u8(0..6) == 0;
        tokio::join!(self.follow(id, rng.fork()), self.perhaps_cancel(id, rng.fork()));
        if again {
            let (key, path) = (format!("{key} again"), format!("/v1/tasks/{id}/retry"));
            let retry = json(&Retry { credential: Some(credential()), ..Retry::default() });
            let id = self.submit(&path, &key, &retry, task.retries, &mut rng).await;
            self.follow(id, rng).await;
        }
    }

    /// Asks with the same key until it is acknowledged.
    async fn submit(&self, path: &str, key: &str, body: &Bytes, retries: u32, rng: &mut Rng) -> TaskId {
        loop {
            match ask(&*self.way, request(Method::POST, path, Some(key), body.clone())).await {
                Ok((202, answer)) => {
                    let task: Task = serde_json::from_slice(&answer).expect("a task");
                    let id = task.id.parse().expect("an id");
                    let mut facts = self.ledger.facts();
                    facts.tasks.entry(id).or_default().retries = retries;
                    let known = facts.keys.insert(key.to_owned(), id);
                    drop(facts);
                    if known.is_none() && rng.u8(0..4) == 0 {
                        // As if the answer had been lost: it must be the same task.
                        continue;
                    }
                    if known.is_some_and(|known| known != id) {
                        self.ledger.violated(format!("one key, two tasks: {key}"));
                    }
                    return id;
                }
                Ok((status, answer)) if status < 500 => {
                    self.ledger.violated(format!("{path} was refused: {status} {answer:?}"));
                    std::future::pending::<()>().await;
                }
                other => tracing::debug!(?other, "not acknowledged"),
            }
            sleep(Duration::from_millis(rng.u64(0..=AGAIN_MS))).await;
        }
    }

    async fn perhaps_cancel(&self, id: TaskId, mut rng: Rng) {
        if rng.u8(0..4) > 0 {
            return;
        }
        sleep(Duration::from_millis(rng.u64(0..60_000))).await;
        self.ledger.facts().tasks.entry(id).or_default().cancelled = true;
        let (path, body) = (format!("/v1/tasks/{id}/cancel"), json(&Cancel { force: rng.bool() }));
        while !matches!(ask(&*self.way, request(Method::POST, &path, None, body.clone())).await, Ok((202, _)))
        {
            sleep(Duration::from_millis(rng.u64(0..=AGAIN_MS))).await;
        }
    }

    /// Follows a task to its end, over as many connections as it takes.
    async fn follow(&self, id: TaskId, mut rng: Rng) {
        let mut log: Vec<u8> = Vec::new();
        loop {
            let after = log.split_inclusive(|&byte| byte == b'\n').count();
            let path = format!("/v1/tasks/{id}/events?after={after}");
            let ended = follow(&*self.way, &path, |bytes| log.extend_from_slice(bytes)).await;
            if ended.is_ok() {
                self.ledger.facts().tasks.entry(id).or_default().followed = Some(log.into());
                return;
            }
            // Half a line comes again.
            log.truncate(log.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
            sleep(Duration::from_millis(rng.u64(0..=AGAIN_MS))).await;
        }
    }

    /// Reads everything that there is, in calm weather.
    pub(crate) async fn read_all(self) {
        match self.all().await {
            Ok(logs) => self.ledger.facts().logs = Some(logs),
            Err(error) => self.ledger.violated(format!("the logs cannot be read: {error:#}")),
        }
    }

    async fn all(&self) -> anyhow::Result<BTreeMap<TaskId, (Task, Bytes)>> {
        let list = request(Method::GET, "/v1/tasks?limit=1000", None, Bytes::new());
        let (_, tasks) = ask(&*self.way, list).await?;
        let mut logs = BTreeMap::new();
        for task in serde_json::from_slice::<Vec<Task>>(&tasks)? {
            let path = format!("/v1/tasks/{}/events?follow=false", task.id);
            let (_, log) = ask(&*self.way, request(Method::GET, &path, None, Bytes::new())).await?;
            logs.insert(task.id.parse()?, (task, log));
        }
        Ok(logs)
    }
}
