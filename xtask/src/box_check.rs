//! Many tasks on one orchestrator, with the real CLI and a scripted model; the orchestrator is killed at random.
//!
//! What is counted comes from outside: outcomes and starts from each task's log, machines from the folder in which
//! they are.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mayfly_client::Client;
use mayfly_provider::Provider as _;
use mayfly_wire::api::CreateTask;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::machines::{Sampler, sandbox};
use crate::model::scripted_model;
use crate::orchestrator::{Build, Place, Serving};
use crate::report::{self, none};
use crate::told::{Told, follow, submit};

/// Any free port.
const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
/// How long one orchestrator lives, in milliseconds.
const LIFE_MS: std::ops::Range<u64> = 300..4000;
/// How long nobody is there after it.
const AWAY_MS: std::ops::Range<u64> = 0..1500;
/// No check takes longer.
const CHECK_MAX: Duration = Duration::from_secs(30 * 60);
/// How many machines an orchestrator runs at once by itself.
const PARALLEL: usize = 5;

/// What the agents do, in turn; each is worked on for a moment, so that kills meet every part of a task's life.
const SCRIPTS: [&str; 4] = [
    "[script: text] Say something",
    "[script: write path=made.txt] Write a file",
    "[script: bash command=\"sleep 1; echo done > done.txt\"] Work for a second",
    "[script: slow chunks=20 pause_ms=50] Speak slowly",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many tasks to submit
    #[arg(long, default_value_t = 40)]
    tasks: usize,
    /// How often to kill the orchestrator
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// How long nobody is there after a kill, in seconds [default: up to 1.5, at random]
    #[arg(long, value_name = "SECONDS")]
    away: Option<u64>,
    /// Where the random moments come from; the same seed gives the same ones
    #[arg(long, default_value_t = fastrand::u64(..))]
    seed: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { tasks, kills, away, seed } = args;
    println!("{tasks} tasks, {kills} kills, seed {seed}");
    let home = tempfile::tempdir()?;
    let place = Arc::new(Place::prepare(home.path(), Build::First, None).await?);
    let (api, credential) = scripted_model().await?;

    let sampler = Sampler::default();
    let sampling = tokio::spawn(sampler.clone().run(sandbox(&place)));
    let killer =
        tokio::spawn(kill_again_and_again(Arc::clone(&place), kills, away, fastrand::Rng::with_seed(seed)));
    let client = Client::new(&place.data().join("api.sock"));
    let mut following = JoinSet::new();
    for number in 0..tasks {
        let prompt = SCRIPTS[number % SCRIPTS.len()].to_owned();
        let create = CreateTask { prompt, credential: Some(credential.clone()), ..CreateTask::default() };
        let key = format!("task {number}");
        let task = submit(&client, &create, &key).await?;
        following.spawn(follow(client.clone(), task));
    }
    let start = Instant::now();
    let followed = async { following.join_all().await.into_iter().collect::<Result<Vec<Told>, _>>() };
    let last = async { killer.await? };
    let both = timeout(CHECK_MAX, async { tokio::try_join!(followed, last) }).await;
    let (told, last) = both.context("it takes too long")??;
    let took = start.elapsed();
    sampling.abort();
    let left = sandbox(&place).list().await?.len();
    last.end(Signal::TERM).await?;
    api.stop().await;
    Ok(report(&told, tasks, sampler.seen().most, left, took))
}

fn report(told: &[Told], tasks: usize, most: usize, left: usize, took: Duration) -> ExitCode {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for task in told {
        *outcomes.entry(task.outcome.as_deref().unwrap_or("none")).or_default() += 1;
    }
    let finished = told.iter().filter(|task| task.outcome.is_some()).count();
    let count = |is_bad: fn(&&Told) -> bool| told.iter().filter(is_bad).count();
    println!("{took:.1?} after the last submit: {outcomes:?}");
    report::print(&[
        ("outcomes", finished, finished == tasks),
        ("most alive at once", most, most <= PARALLEL && most > 0),
        none("lost", count(|task| task.outcome.as_deref() != Some("succeeded"))),
        none("run twice", count(|task| task.ran_twice())),
        none("logs with a gap or a repeat", count(|task| !task.whole)),
        none("machines left", left),
    ])
}

/// Gives the orchestrator that is left in the end.
async fn kill_again_and_again(
    place: Arc<Place>,
    kills: usize,
    away: Option<u64>,
    mut random: fastrand::Rng,
) -> anyhow::Result<Serving> {
    for kill in 1..=kills {
        let serve = place.serve(LISTEN).await?;
        let life = Duration::from_millis(random.u64(LIFE_MS));
        sleep(life).await;
        serve.end(Signal::KILL).await.with_context(|| format!("see {}", place.log().display()))?;
        println!("kill {kill} of {kills}, after {life:?}");
        let some = Duration::from_millis(random.u64(AWAY_MS));
        sleep(away.map_or(some, Duration::from_secs)).await;
    }
    place.serve(LISTEN).await
}
