//! Tasks in machines of Fly's, with the real CLI and a scripted model. Fly is a stand-in, whose machines are real workers in
//! roots of their own; it fails by a script, and the orchestrator is killed in the middle.
//!
//! ```text
//! the API ──► mayfly serve --provider fly ──HTTP──► stand-in for Fly ──► mayfly worker, claude ──► scripted model
//!                        ▲──────────────── dials ────────────────────────────┘
//! ```

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mayfly_client::Client;
use mayfly_engine::SystemClock;
use mayfly_fake_fly::vm::Vms;
use mayfly_fake_fly::{FakeFly, Fault, On, Run, Setup, no_room};
use mayfly_wire::api::CreateTask;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::model::scripted_model;
use crate::orchestrator::{Build, Place};
use crate::report::{self, none};
use crate::told::{Told, follow, submit};
use crate::witness::{Account, agree};

const APP: &str = "workers";
const REGIONS: &str = "iad,ord,ams,fra,lhr,sin,syd,nrt";
/// What opens the stand-in, and nothing else.
const TOKEN: &str = "fm2_made-up";
/// How many machines an orchestrator runs at once by itself.
const PARALLEL: usize = 5;
/// How many tasks have ended when the orchestrator is killed.
const BEFORE_THE_KILL: usize = 2;
/// The machine that is gone before its worker says a word, by its number.
const VANISHES: usize = 3;
/// No check takes longer.
const CHECK_MAX: Duration = Duration::from_secs(10 * 60);
/// How long the last machine may take to be gone after its task has ended.
const GONE_MAX: Duration = Duration::from_secs(30);
/// The pause between two looks at the machines.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the agents do, in turn; each is worked on for a moment, so that the kill meets every part of a task's life.
const SCRIPTS: [&str; 4] = [
    "[script: bash command=\"sleep 2; echo done > done.txt\"] Work for two seconds",
    "[script: slow chunks=40 pause_ms=50] Speak slowly",
    "[script: write path=made.txt] Write a file",
    "[script: text] Say something",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many tasks to run
    #[arg(long, default_value_t = 10)]
    tasks: usize,
    /// Take the mayfly that is beside this program as it is, and build nothing
    #[arg(long)]
    built: bool,
    /// The Claude Code CLI to run [default: the pinned one, fetched if need be]
    #[arg(long, value_name = "PATH")]
    claude: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { tasks, built, claude } = args;
    ensure!(rustix::process::geteuid().is_root(), "only root can make the roots of the stand-in's machines");
    let home = tempfile::tempdir()?;
    // The agent's user goes in to what is its own.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let build = if built { Build::Not } else { Build::First };
    let mut place = Place::prepare(home.path(), build, claude).await?;
    let (fake, silent) = stand_in(&place).await?;
    place.environment = vec![("FLY_API_TOKEN", TOKEN.to_owned()), ("FLY_FLAPS_BASE_URL", fake.url())];
    let checked = timeout(CHECK_MAX, check(&place, &fake, silent, tasks)).await;
    let good = matches!(checked, Ok(Ok(ExitCode::SUCCESS)));
    if !good {
        println!("all of it is kept in {}", home.keep().display());
    }
    checked.context("it takes too long")?
}

/// Fly, and what tells of machines whose worker says nothing.
async fn stand_in(place: &Place) -> anyhow::Result<(FakeFly, UnboundedReceiver<String>)> {
    let machines = place.home.join("machines");
    fs::create_dir(&machines)?;
    let mut setup = Setup::new(Arc::new(SystemClock), APP, TOKEN, &image());
    // More than are without room: one that had none is left out for minutes.
    setup.regions = REGIONS.split(',').map(str::to_owned).collect();
    setup.boot = Duration::from_millis(100);
    let (run, silent) = with_one_silent(Vms::new(&machines, &place.claude, &place.mayfly).run());
    setup.run = run;
    Ok((FakeFly::start(setup).await, silent))
}

/// All that goes wrong there.
fn torment(fake: &FakeFly) {
    let late = json!({ "error": "deadline_exceeded: timed out waiting for machine" });
    fake.once(On::Create, Fault::Stuck);
    fake.once(On::Create, Fault::Done(408, late));
    fake.once(On::Create, Fault::Broken);
    fake.once(On::Create, Fault::refused(503, "unavailable"));
    // Done and not told: the next request for the same name is answered by 409.
    fake.each(4, On::Create, Fault::Html);
    for disguise in no_room() {
        fake.once(On::Create, disguise);
    }
    fake.each(2, On::List, Fault::Empty);
    fake.each(5, On::List, Fault::Html);
    fake.each(3, On::Get, Fault::refused(404, "not_found: machine not found"));
    fake.each(3, On::Destroy, Fault::Lingers);
    fake.each(4, On::Destroy, Fault::refused(412, "failed_precondition: machine still active"));
    for on in [On::Create, On::List, On::Get, On::Wait, On::Destroy] {
        fake.each(7, on, Fault::Rate(Some(1)));
    }
}

/// The same machines, but for one whose worker never says a word; it is told of.
fn with_one_silent(run: Run) -> (Run, UnboundedReceiver<String>) {
    let (count, (tell, silent)) = (AtomicUsize::new(0), unbounded_channel());
    let run: Run = Arc::new(move |start| match count.fetch_add(1, Ordering::Relaxed) + 1 {
        VANISHES => {
            // Nobody listens any more when the check is over.
            let _ = tell.send(start.id);
            Box::pin(std::future::pending())
        }
        _ => run(start),
    });
    (run, silent)
}

fn image() -> String {
    format!("registry.fly.io/{APP}@sha256:{}", "ab".repeat(32))
}

/// The configuration, with a port that nobody had a moment ago; the orchestrator keeps it over its lives.
fn configure(place: &Place) -> anyhow::Result<PathBuf> {
    let port: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (path, image) = (place.home.join("mayfly.toml"), image());
    let text = format!(
        "[serve]\nprovider = \"fly\"\nlisten = \"{port}\"\nparallel = {PARALLEL}\n[fly]\napp = \"{APP}\"\n\
         image = \"{image}\"\nregions = \"{REGIONS}\"\norchestrator = \"http://{port}\"\nboot_timeout = \"10s\"\n"
    );
    fs::write(&path, text)?;
    Ok(path)
}

async fn check(
    place: &Place,
    fake: &FakeFly,
    mut silent: UnboundedReceiver<String>,
    tasks: usize,
) -> anyhow::Result<ExitCode> {
    let (api, credential) = scripted_model().await?;
    let configuration = configure(place)?;
    let data = place.data();
    let serve = ["--config".as_ref(), configuration.as_os_str(), "serve".as_ref()];
    let mut serving = place.start(&serve, &data).await?;
    torment(fake);
    let (client, start) = (Client::new(&data.join("api.sock")), Instant::now());
    let mut following = JoinSet::new();
    for number in 0..tasks {
        let prompt = SCRIPTS[number % SCRIPTS.len()].to_owned();
        let create = CreateTask { prompt, credential: Some(credential.clone()), ..CreateTask::default() };
        let task = submit(&client, &create, &format!("task {number}")).await?;
        following.spawn(follow(client.clone(), task));
    }
    let (mut told, mut most) = (Vec::new(), 0);
    let mut is_killed = false;
    while told.len() < tasks {
        tokio::select! {
            Some(task) = following.join_next() => told.push(say(task??)),
            Some(machine) = silent.recv() => fake.vanish(&machine),
            () = sleep(LOOK_EVERY) => most = most.max(started(fake)),
        }
        if told.len() == BEFORE_THE_KILL && !is_killed {
            println!("the orchestrator is killed, with {} machines at work", started(fake));
            serving.end(Signal::KILL).await?;
            serving = place.start(&serve, &data).await?;
            is_killed = true;
        }
    }
    println!("{tasks} tasks in {:.1?}", start.elapsed());
    // Who is gone was asked for before its task ended; Fly may need a moment to say so.
    fake.calm();
    let _ = timeout(GONE_MAX, fake.until(<[_]>::is_empty)).await;
    let lost = lost(&client, &told, &place.home.join("session.jsonl")).await?;
    serving.end(Signal::TERM).await?;
    api.stop().await;
    for complaint in fake.complaints() {
        println!("not by the document: {complaint}");
    }
    Ok(report(&told, most, lost, fake))
}

/// The machines that run.
fn started(fake: &FakeFly) -> usize {
    fake.machines().iter().filter(|machine| machine.state == "started").count()
}

fn say(told: Told) -> Told {
    println!("task {}: {}", told.task, told.outcome.as_deref().unwrap_or("no outcome"));
    told
}

/// Tasks of which the log does not have all that `claude` itself kept, in the same order.
async fn lost(client: &Client, told: &[Told], scratch: &Path) -> anyhow::Result<usize> {
    let mut lost = 0;
    for Told { task, raw, .. } in told {
        client.transcript(task, scratch).await?;
        lost += usize::from(!agree(raw, &fs::read(scratch)?, Account::Whole));
    }
    Ok(lost)
}

fn report(told: &[Told], most: usize, lost: usize, fake: &FakeFly) -> ExitCode {
    let count = |is_bad: fn(&&Told) -> bool| told.iter().filter(is_bad).count();
    let succeeded = count(|task| task.outcome.as_deref() == Some("succeeded"));
    let faults = usize::try_from(fake.faults()).unwrap_or(usize::MAX);
    let requests = usize::try_from(fake.requests()).unwrap_or(usize::MAX);
    report::print(&[
        ("outcomes", count(|task| task.outcome.is_some()), told.iter().all(|task| task.outcome.is_some())),
        ("succeeded", succeeded, succeeded == told.len()),
        ("most machines at work at once", most, (1..=PARALLEL).contains(&most)),
        ("requests to Fly", requests, requests > 0),
        ("faults there", faults, faults > 0),
        none("requests and answers that are not by the document", fake.complaints().len()),
        none("tasks that lost a message", lost),
        none("logs with a gap or a repeat", count(|task| !task.whole)),
        none("run twice", count(|task| task.ran_twice())),
        none("machines left", fake.machines().len()),
    ])
}
