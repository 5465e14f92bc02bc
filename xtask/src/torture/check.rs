//! The promises about each task's log, once nothing fails any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_client::Client;
use mayfly_core::TaskId;
use mayfly_wire::api::Task;
use sha2::{Digest as _, Sha256};

use super::faults::Done;
use super::load::Fulfilled;
use super::{Place, here};
use crate::told::{Told, follow};
use crate::witness::{Account, agree, says};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Every task that the orchestrator has.
    pub(crate) tasks: Vec<String>,
    /// The sessions of `claude` in them.
    pub(crate) sessions: BTreeSet<String>,
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Those whose worker or `claude` was killed.
    pub(crate) hit: usize,
    pub(crate) succeeded: usize,
    /// Those that are there and nobody was told of.
    pub(crate) unasked: usize,
    pub(crate) lost: usize,
    pub(crate) twice: usize,
    pub(crate) torn: usize,
    pub(crate) otherwise: usize,
    pub(crate) unlike: usize,
    pub(crate) raw: usize,
    pub(crate) tunnel: usize,
}

/// Checks every task there is, and that each is there that somebody was told of.
pub(crate) async fn all(place: &Place, load: &[Fulfilled], done: &Done) -> anyhow::Result<Checked> {
    let client = Client::new(&place.data().join("api.sock"));
    let asked: BTreeMap<&str, &Fulfilled> =
        load.iter().filter_map(|wish| Some((wish.told.as_ref()?.task.as_str(), wish))).collect();
    let tasks = list(&client).await?;
    let lost = asked.keys().filter(|id| !tasks.iter().any(|task| task.id == **id)).count();
    let mut checked = Checked { lost, ..Checked::default() };
    for task in tasks {
        let wish = asked.get(task.id.as_str()).copied();
        let hit = done.hit.contains(&task.id.parse::<TaskId>()?);
        let found = Found { told: follow(client.clone(), task.id.clone()).await?, wish, hit };
        checked.count(&found, place, &client).await.with_context(|| format!("task {}", task.id))?;
    }
    Ok(checked)
}

/// A task with all that is known about it.
struct Found<'a> {
    /// What its log tells now.
    told: Told,
    wish: Option<&'a Fulfilled>,
    hit: bool,
}

impl Found<'_> {
    fn succeeded(&self) -> bool {
        self.told.outcome.as_deref() == Some("succeeded")
    }

    /// What was not hit must succeed; what was must end.
    fn is_lost(&self) -> bool {
        self.told.outcome.is_none() || !(self.hit || self.succeeded())
    }

    /// Whether somebody who followed it heard something else.
    fn was_heard_otherwise(&self) -> bool {
        let heard = self.wish.and_then(|wish| wish.told.as_ref());
        heard.is_some_and(|heard| heard.hash.clone().finalize() != self.told.hash.clone().finalize())
    }

    fn is_torn(&self) -> bool {
        let heard = self.wish.and_then(|wish| wish.told.as_ref());
        !self.told.whole || heard.is_some_and(|heard| !heard.whole)
    }

    /// By the model's answer, and by the session file.
    async fn is_unlike(&self, client: &Client, scratch: &Path) -> anyhow::Result<bool> {
        let Told { task, raw, transcript, .. } = &self.told;
        if !self.hit && self.wish.is_some_and(|wish| !says(raw, &wish.answer)) {
            return Ok(true);
        }
        if !transcript {
            return Ok(!self.hit);
        }
        client.transcript(task, None, scratch).await?;
        let account = if self.hit { Account::UntilKilled } else { Account::Whole };
        Ok(!agree(raw, &std::fs::read(scratch)?, account))
    }
}

impl Checked {
    async fn count(&mut self, found: &Found<'_>, place: &Place, client: &Client) -> anyhow::Result<()> {
        let told = &found.told;
        let bad = [
            (&mut self.lost, found.is_lost()),
            (&mut self.twice, told.ran_twice()),
            (&mut self.torn, found.is_torn()),
            (&mut self.otherwise, found.was_heard_otherwise()),
            (&mut self.unlike, found.is_unlike(client, &place.home.join("session.jsonl")).await?),
            (&mut self.raw, !is_raw(place, told).await?),
            (&mut self.tunnel, !is_here(place, told)?),
        ];
        let mut wrong = false;
        for (counter, is_bad) in bad {
            *counter += usize::from(is_bad);
            wrong |= is_bad;
        }
        if wrong {
            println!("task {} is not as promised: {:?}", told.task, told.outcome);
        }
        self.hit += usize::from(found.hit);
        self.succeeded += usize::from(found.succeeded());
        self.unasked += usize::from(found.wish.is_none());
        *self.outcomes.entry(told.outcome.clone().unwrap_or_else(|| "none".to_owned())).or_default() += 1;
        self.sessions.extend(told.sessions.iter().cloned());
        self.tasks.push(told.task.clone());
        Ok(())
    }
}

/// Every task, page by page.
async fn list(client: &Client) -> anyhow::Result<Vec<Task>> {
    let mut tasks: Vec<Task> = Vec::new();
    loop {
        let page = client.tasks(None, tasks.last().map(|task| task.id.as_str())).await?;
        if page.is_empty() {
            return Ok(tasks);
        }
        tasks.extend(page);
    }
}

/// Whether `mayfly logs --raw` gives what `claude` wrote, at both ends.
async fn is_raw(place: &Place, told: &Told) -> anyhow::Result<bool> {
    let mut same = true;
    for data in [place.data(), here(place)] {
        let mut logs = place.command();
        logs.args(["--claude", "/nowhere", "logs", "--raw", &told.task, "--data"]).arg(data);
        let said = logs.output().await?;
        same &= said.status.success() && said.stdout == told.raw;
    }
    Ok(same)
}

/// Whether the tunnel's file has the very lines.
fn is_here(place: &Place, told: &Told) -> anyhow::Result<bool> {
    let log = std::fs::read(log_here(place, &told.task)?).unwrap_or_default();
    Ok(Sha256::digest(&log) == told.hash.clone().finalize())
}

fn log_here(place: &Place, task: &str) -> anyhow::Result<PathBuf> {
    let folder = here(place).join("tunnel");
    let store = std::fs::read_to_string(folder.join("store")).context("the tunnel follows a database")?;
    Ok(folder.join(store.trim()).join("logs").join(format!("{task}.ndjson")))
}
