//! Many tasks on one orchestrator, with the real CLI and a scripted model; the orchestrator is killed at random.
//!
//! What is counted comes from outside: outcomes and starts from each task's log, machines from the folder in which
//! they are, looked at every [`SAMPLE_EVERY`].

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mayfly_client::{Client, ClientError};
use mayfly_provider::Provider as _;
use mayfly_provider_sandbox::{Sandbox, SandboxConfig};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind};
use mayfly_wire::event::{Event, EventSource, MayflyEvent};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::orchestrator::{Place, Serving};

/// How often the machines are counted.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// The pause before a call is repeated that found no orchestrator.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
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

/// What a task's log told.
#[derive(Debug, Default)]
struct Told {
    outcome: Option<String>,
    attempts_started: BTreeSet<u32>,
    /// First messages of `claude`: one for each process of it.
    inits: usize,
    /// Whether the numbers of its events are 1, 2, 3 and so on.
    whole: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { tasks, kills, away, seed } = args;
    println!("{tasks} tasks, {kills} kills, seed {seed}");
    let home = tempfile::tempdir()?;
    let place = Arc::new(Place::prepare(home.path()).await?);
    let secret = format!("made-up-{}", uuid::Uuid::now_v7());
    let api = ScriptedApi::start("127.0.0.1:0".parse()?, Accepted::Oauth(secret.clone())).await?;
    let credential = Credential {
        kind: CredentialKind::OauthToken,
        secret: secret.into(),
        base_url: Some(api.base_url()),
    };

    let most = Arc::new(AtomicUsize::new(0));
    let sampler = tokio::spawn(sample(sandbox(&place), Arc::clone(&most)));
    let killer =
        tokio::spawn(kill_again_and_again(Arc::clone(&place), kills, away, fastrand::Rng::with_seed(seed)));
    let client = Client::new(&place.data().join("api.sock"));
    let mut following = JoinSet::new();
    for number in 0..tasks {
        let prompt = SCRIPTS[number % SCRIPTS.len()].to_owned();
        let create = CreateTask { prompt, credential: Some(credential.clone()), ..CreateTask::default() };
        let key = format!("task {number}");
        let task = again(async || client.submit(&create, &key).await).await?;
        following.spawn(follow(client.clone(), task.id));
    }
    let start = Instant::now();
    let followed = async { following.join_all().await.into_iter().collect::<Result<Vec<Told>, _>>() };
    let last = async { killer.await? };
    let both = timeout(CHECK_MAX, async { tokio::try_join!(followed, last) }).await;
    let (told, Serving { child: mut last, .. }) = both.context("it takes too long")??;
    let took = start.elapsed();
    sampler.abort();
    let left = sandbox(&place).list().await?.len();
    let pid = last.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("it still runs")?;
    kill_process(pid, Signal::TERM)?;
    last.wait().await?;
    api.stop().await;
    Ok(report(&told, tasks, most.load(Ordering::Relaxed), left, took))
}

fn report(told: &[Told], tasks: usize, most: usize, left: usize, took: Duration) -> ExitCode {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for task in told {
        *outcomes.entry(task.outcome.as_deref().unwrap_or("none")).or_default() += 1;
    }
    let finished = told.iter().filter(|task| task.outcome.is_some()).count();
    let lost = told.iter().filter(|task| task.outcome.as_deref() != Some("succeeded")).count();
    let twice = told.iter().filter(|task| task.attempts_started.len() > 1 || task.inits > 1).count();
    let torn = told.iter().filter(|task| !task.whole).count();
    let lines = [
        ("outcomes", finished, finished == tasks),
        ("most alive at once", most, most <= PARALLEL && most > 0),
        ("lost", lost, lost == 0),
        ("run twice", twice, twice == 0),
        ("logs with a gap or a repeat", torn, torn == 0),
        ("machines left", left, left == 0),
    ];
    println!("{took:.1?} after the last submit: {outcomes:?}");
    for (name, count, good) in lines {
        println!("{count:>6}  {name}{}", if good { "" } else { "   <-- not as promised" });
    }
    ExitCode::from(u8::from(!lines.iter().all(|(.., good)| *good)))
}

fn sandbox(place: &Place) -> Sandbox {
    Sandbox::new(SandboxConfig {
        machines: place.data().join("machines"),
        bases: place.data().join("bases"),
        claude: place.claude.clone(),
        mayfly: place.mayfly.clone(),
    })
}

async fn sample(sandbox: Sandbox, most: Arc<AtomicUsize>) {
    loop {
        if let Ok(machines) = sandbox.list().await {
            let alive =
                machines.iter().filter(|machine| machine.alive && machine.attempt.attempt.0 > 0).count();
            most.fetch_max(alive, Ordering::Relaxed);
        }
        sleep(SAMPLE_EVERY).await;
    }
}

/// Gives the orchestrator that is left in the end.
async fn kill_again_and_again(
    place: Arc<Place>,
    kills: usize,
    away: Option<u64>,
    mut random: fastrand::Rng,
) -> anyhow::Result<Serving> {
    for kill in 1..=kills {
        let mut serve = place.serve().await?;
        let life = Duration::from_millis(random.u64(LIFE_MS));
        sleep(life).await;
        ensure!(
            serve.child.try_wait()?.is_none(),
            "the orchestrator ended by itself: see {}",
            place.log().display()
        );
        serve.child.kill().await?;
        println!("kill {kill} of {kills}, after {life:?}");
        let some = Duration::from_millis(random.u64(AWAY_MS));
        sleep(away.map_or(some, Duration::from_secs)).await;
    }
    place.serve().await
}

/// Reads a task's log to its end, over as many orchestrators as it takes.
async fn follow(client: Client, task: String) -> anyhow::Result<Told> {
    let (mut told, mut last) = (Told { whole: true, ..Told::default() }, 0);
    loop {
        let mut events = client.events(&task, last);
        loop {
            match events.next().await {
                Ok(Some(line)) => last = hear(&mut told, &line, last)?,
                Ok(None) => return Ok(told),
                Err(ClientError::Unreachable { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}

fn hear(told: &mut Told, line: &str, last: u64) -> anyhow::Result<u64> {
    let event = Event::parse(line)?;
    told.whole &= event.seq == last + 1;
    if event.source == EventSource::Claude && line.contains(r#""subtype":"init""#) {
        told.inits += 1;
    }
    match event.event {
        Some(MayflyEvent::Started) => drop(told.attempts_started.insert(event.attempt)),
        Some(MayflyEvent::Finished { outcome }) => told.outcome = Some(outcome.name),
        _ => {}
    }
    Ok(event.seq)
}

/// Repeats a call until there is an orchestrator that answers it.
async fn again<T>(call: impl AsyncFn() -> Result<T, ClientError>) -> anyhow::Result<T> {
    loop {
        match call().await {
            Err(ClientError::Unreachable { .. }) => sleep(AGAIN_AFTER).await,
            answered => return Ok(answered?),
        }
    }
}
