//! Tasks in waves: submitted with the real CLI and by the API, directly and through the tunnel, and followed by
//! whichever way they came.
//!
//! Bound: [`UNFINISHED_MAX`] tasks at once.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use mayfly_client::Client;
use mayfly_wire::api::{CreateTask, Credential};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::Place;
use crate::told::{Told, follow, submit};

/// No wave begins while so many tasks are not over.
const UNFINISHED_MAX: usize = 10;
/// The tasks of a wave.
const WAVE: std::ops::RangeInclusive<usize> = 1..=5;
/// The pause between two waves, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 100..2500;
/// A text that is long, and no argument too long for the system.
const LONG_BYTES: usize = 100_000;

/// By which way a task comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Cli,
    Api,
}

/// A task that was asked for.
#[derive(Debug, Clone)]
struct Wish {
    number: usize,
    door: Door,
    /// The data folder: the orchestrator's, or the tunnel's.
    data: PathBuf,
    prompt: String,
}

/// What became of a wish.
#[derive(Debug)]
pub(crate) struct Fulfilled {
    /// What its agent says last, and nobody else does.
    pub(crate) answer: String,
    /// What a reader heard who followed it from the start; none: there was no answer to the submit.
    pub(crate) told: Option<Told>,
    /// Whether the same key gave another task.
    pub(crate) key_broke: bool,
}

/// What it takes to submit.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) place: std::sync::Arc<Place>,
    pub(crate) credential: Credential,
    pub(crate) seed: u64,
}

impl Load {
    /// Submits until the time is over, and follows each to its end.
    pub(crate) async fn run(
        self,
        mut random: fastrand::Rng,
        until: Instant,
    ) -> anyhow::Result<Vec<Fulfilled>> {
        let (mut open, mut over, mut number) = (JoinSet::new(), Vec::new(), 0);
        while Instant::now() < until {
            for _ in 0..random.usize(WAVE) {
                open.spawn(self.clone().fulfil(self.wish(number, &mut random)));
                number += 1;
            }
            // Past the end, who is still open is waited for below.
            let _ = timeout_at(until, sleep(Duration::from_millis(random.u64(PAUSE_MS)))).await;
            while let Some(done) = open.try_join_next() {
                over.push(done??);
            }
            while open.len() >= UNFINISHED_MAX {
                over.push(open.join_next().await.context("there are some")???);
            }
        }
        while let Some(done) = open.join_next().await {
            over.push(done??);
        }
        Ok(over)
    }

    fn answer(&self, number: usize) -> String {
        format!("answer {number} of {}", self.seed)
    }

    fn wish(&self, number: usize, random: &mut fastrand::Rng) -> Wish {
        let door = if random.bool() { Door::Cli } else { Door::Api };
        let data = if random.bool() { self.place.data() } else { super::here(&self.place) };
        let prompt = prompt(random.u8(0..6), &self.answer(number));
        Wish { number, door, data, prompt }
    }

    async fn fulfil(self, wish: Wish) -> anyhow::Result<Fulfilled> {
        let client = Client::new(&wish.data.join("api.sock"));
        let (task, key_broke) = match wish.door {
            Door::Cli => (self.by_cli(&wish).await?, false),
            Door::Api => self.by_api(&client, &wish).await?,
        };
        let answer = self.answer(wish.number);
        let told = match task {
            Some(task) => Some(follow(client, task).await?),
            None => None,
        };
        Ok(Fulfilled { answer, told, key_broke })
    }

    /// Nobody repeats what failed: whether it was stored is not known then.
    async fn by_cli(&self, wish: &Wish) -> anyhow::Result<Option<String>> {
        #[derive(Deserialize)]
        struct Submitted {
            id: String,
        }
        let mut run = self.place.command();
        let Credential { secret, base_url, .. } = &self.credential;
        run.env("CLAUDE_CODE_OAUTH_TOKEN", secret.expose());
        run.env("ANTHROPIC_BASE_URL", base_url.as_deref().unwrap_or_default());
        // No orchestrator can be started by it: there is no such CLI.
        run.args(["--claude", "/nowhere", "run", "--detach", "--json", "--data"]);
        run.arg(&wish.data).arg(&wish.prompt).stderr(Stdio::null());
        let said = run.output().await?;
        Ok(match said.status.success() {
            true => Some(serde_json::from_slice::<Submitted>(&said.stdout)?.id),
            false => None,
        })
    }

    /// R01: twice with the same key, and each until there is an answer.
    async fn by_api(&self, client: &Client, wish: &Wish) -> anyhow::Result<(Option<String>, bool)> {
        let create = CreateTask {
            prompt: wish.prompt.clone(),
            credential: Some(self.credential.clone()),
            ..CreateTask::default()
        };
        let key = format!("wish {} of {}", wish.number, self.seed);
        let (first, second) = (submit(client, &create, &key).await?, submit(client, &create, &key).await?);
        let broke = first != second;
        Ok((Some(first), broke))
    }
}

/// Work of each kind, so that faults meet every part of a task's life.
fn prompt(kind: u8, answer: &str) -> String {
    let bash = |command: &str| json!({"tools": [{"name": "Bash", "input": {"command": command}}]});
    let said = json!({"text": answer});
    let steps: Vec<Value> = match kind {
        0 => vec![said],
        1 => vec![
            json!({"tools": [{"name": "Write", "input": {"file_path": "{cwd}/made.txt", "content": "made\n"}}]}),
            said,
        ],
        2 => vec![bash("sleep 1; echo done > done.txt"), said],
        3 => (0..6).map(|step| bash(&format!("echo step {step}"))).chain([said]).collect(),
        4 => vec![json!({"text": answer, "pause_ms": 1500})],
        _ => vec![bash(&format!("head -c {LONG_BYTES} /dev/zero | tr '\\0' x")), said],
    };
    format!("[script: steps list={}]", Value::from(steps))
}
