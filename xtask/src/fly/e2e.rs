//! Tasks in machines of Fly's, with the real CLI and a scripted model. Fly is a stand-in, whose machines are real processes in
//! roots of their own; it fails by a script, and the orchestrator is killed in the middle, and upgraded.
//!
//! ```text
//! an image's layout ──► mayfly fly deploy ──HTTP──► stand-in for Fly, its registry ──► mayfly serve, with a volume
//! the API ──► mayfly serve ──HTTP──► stand-in ──► mayfly worker, claude ──► scripted model
//!                  ▲────────── dials, by Flycast's address ──┘
//! ```
//!
//! All of it is in a network namespace of its own, where there is nothing but a loopback, which has that address too.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mayfly_client::Client;
use mayfly_engine::SystemClock;
use mayfly_fake_fly::image;
use mayfly_fake_fly::vm::Vms;
use mayfly_fake_fly::{Checks, FakeFly, Fault, On, Run, Seen, Setup, Start, Token, no_room};
use mayfly_wire::api::CreateTask;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::model::scripted_model;
use crate::orchestrator::{Build, Place};
use crate::report::{self, none};
use crate::told::{Told, follow, submit};
use crate::witness::{Account, agree};

const APP: &str = "e2e";
const ORGANISATION: &str = "acme";
/// Fly's, in the workers' network.
const FLYCAST: Ipv6Addr = Ipv6Addr::new(0xfdaa, 0, 1, 0, 1, 0, 0, 2);
/// Where an orchestrator listens that `mayfly fly deploy` has made.
const PORT: u16 = 8080;
const REGIONS: &str = "iad,ord,ams,fra,lhr,sin,syd,nrt";
/// What opens the stand-in, and nothing else.
const TOKEN: &str = "fm2_made-up";
/// How many workers an orchestrator runs at once by itself.
const PARALLEL: usize = 5;
/// How many tasks have ended when the orchestrator is killed.
const BEFORE_THE_KILL: usize = 2;
/// How many have ended when it is upgraded, to the same image with a new token.
const BEFORE_THE_UPGRADE: usize = 4;
/// The worker that is gone before it says a word, by its number.
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
    /// The network namespace is ours already
    #[arg(long, hide = true)]
    inside: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { tasks, built, claude, inside } = args;
    ensure!(rustix::process::geteuid().is_root(), "only root can make the roots of the stand-in's machines");
    let home = tempfile::tempdir()?;
    // The agent's user goes in to what is its own.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let build = if built { Build::Not } else { Build::First };
    let mut place = Place::prepare(home.path(), build, claude).await?;
    if !inside {
        return in_own_network(&place, tasks).await;
    }
    loopback().await?;
    let (fake, silent) = stand_in(&place).await?;
    let cache = place.home.join("cache");
    image::make_up(&cache, "1")?;
    place.environment = vec![
        (mayfly_provider_fly::TOKEN, TOKEN.to_owned()),
        (mayfly_provider_fly::BASE_URL, fake.url()),
        (mayfly_provider_fly::REGISTRY_HOST, fake.registry()),
        ("XDG_CACHE_HOME", cache.to_string_lossy().into_owned()),
    ];
    let checked = timeout(CHECK_MAX, check(&place, &fake, silent, tasks)).await;
    let good = matches!(checked, Ok(Ok(ExitCode::SUCCESS)));
    if !good {
        println!("all of it is kept in {}", home.keep().display());
    }
    checked.context("it takes too long")?
}

/// The same once more, where nobody else listens. What is fetched was fetched before.
async fn in_own_network(place: &Place, tasks: usize) -> anyhow::Result<ExitCode> {
    let mut again = Command::new("unshare");
    again.arg("--net").arg(std::env::current_exe()?).args(["fly-e2e", "--inside", "--built", "--tasks"]);
    again.arg(tasks.to_string()).arg("--claude").arg(&place.claude).kill_on_drop(true);
    let status = again.status().await.context("cannot run `unshare`")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

async fn loopback() -> anyhow::Result<()> {
    let script = format!("ip link set lo up && ip -6 address add {FLYCAST}/128 dev lo");
    let done = Command::new("sh").args(["-c", &script]).status().await.context("cannot run `sh`")?;
    ensure!(done.success(), "the loopback of the network namespace cannot be set up");
    Ok(())
}

/// Fly, and what tells of workers that say nothing.
async fn stand_in(place: &Place) -> anyhow::Result<(FakeFly, UnboundedReceiver<String>)> {
    let machines = place.home.join("machines");
    fs::create_dir(&machines)?;
    let mut setup = Setup::new(Arc::new(SystemClock), APP, TOKEN, "");
    (setup.apps, setup.images) = (BTreeMap::new(), Vec::new());
    setup.tokens = vec![Token { app: None, ..Token::deploy(TOKEN, ORGANISATION, "") }];
    (setup.flycast, setup.checks) = (FLYCAST, Checks::Ask);
    // More than are without room: one that had none is left out for minutes.
    setup.regions = REGIONS.split(',').map(str::to_owned).collect();
    setup.boot = Duration::from_millis(100);
    let (run, silent) =
        with_one_silent(Vms::new(&machines, &place.claude, &place.mayfly, (FLYCAST, PORT).into()).run());
    setup.run = run;
    Ok((FakeFly::start(setup).await, silent))
}

/// All that goes wrong there.
fn torment(fake: &FakeFly) {
    let late = json!({ "error": "deadline_exceeded: timed out waiting for machine" });
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
    let number = move |start: &Start| match start.app == APP {
        true => 0,
        false => count.fetch_add(1, Ordering::Relaxed) + 1,
    };
    let run: Run = Arc::new(move |start| match number(&start) {
        VANISHES => {
            // Nobody listens any more when the check is over.
            let _ = tell.send(start.id);
            Box::pin(std::future::pending())
        }
        _ => run(start),
    });
    (run, silent)
}

/// A verb of `mayfly fly`, which must succeed.
async fn fly(place: &Place, verb: &str, more: &[&str]) -> anyhow::Result<()> {
    let mut command = place.command();
    command.args(["fly", verb, "--app", APP, "--org", ORGANISATION]).args(more);
    let said = command.output().await?;
    print!("{}", String::from_utf8_lossy(&said.stdout));
    ensure!(said.status.success(), "mayfly fly {verb}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}

async fn check(
    place: &Place,
    fake: &FakeFly,
    mut silent: UnboundedReceiver<String>,
    tasks: usize,
) -> anyhow::Result<ExitCode> {
    let (api, credential) = scripted_model().await?;
    fly(place, "deploy", &["--regions", REGIONS]).await?;
    let machines = fake.machines();
    let orchestrator = &machines.first().context("an orchestrator")?.id;
    torment(fake);
    let data = place.home.join(format!("machines/volumes/vol_{APP}_0/mayfly"));
    let (client, start) = (Client::new(&data.join("api.sock")), Instant::now());
    let mut following = JoinSet::new();
    for number in 0..tasks {
        let prompt = SCRIPTS[number % SCRIPTS.len()].to_owned();
        let create = CreateTask { prompt, credential: Some(credential.clone()), ..CreateTask::default() };
        let task = submit(&client, &create, &format!("task {number}")).await?;
        following.spawn(follow(client.clone(), task));
    }
    let (mut told, mut most) = (Vec::new(), 0);
    let (mut is_killed, mut is_upgraded) = (false, false);
    while told.len() < tasks {
        tokio::select! {
            Some(task) = following.join_next() => told.push(say(task??)),
            Some(machine) = silent.recv() => fake.vanish(&machine),
            () = sleep(LOOK_EVERY) => most = most.max(started(fake)),
        }
        if told.len() == BEFORE_THE_KILL && !is_killed {
            println!("the orchestrator is killed, with {} workers at work", started(fake));
            fake.crash(orchestrator);
            is_killed = true;
        }
        if told.len() == BEFORE_THE_UPGRADE && !is_upgraded {
            // Whoever upgrades waits until Fly is well.
            fake.calm();
            println!("the orchestrator is upgraded, with {} workers at work", started(fake));
            fly(place, "upgrade", &[]).await?;
            torment(fake);
            is_upgraded = true;
        }
    }
    println!("{tasks} tasks in {:.1?}", start.elapsed());
    // Who is gone was asked for before its task ended; Fly may need a moment to say so.
    fake.calm();
    let _ = timeout(GONE_MAX, fake.until(|machines| machines.len() <= 1)).await;
    let workers = fake.machines().len().saturating_sub(1);
    let others = roots_of_others(&place.home.join("machines"))?;
    let lost = lost(&client, &told, &place.home.join("session.jsonl")).await?;
    fly(place, "status", &[]).await?;
    fly(place, "destroy", &["--yes"]).await?;
    api.stop().await;
    for complaint in fake.complaints() {
        println!("not by the document: {complaint}");
    }
    Ok(report(&told, (most, workers), (lost, others), fake))
}

/// How many machines had another root than that of the image that was pushed.
fn roots_of_others(machines: &Path) -> anyhow::Result<usize> {
    let mut others = 0;
    for entry in fs::read_dir(machines)? {
        let root = entry?.path();
        // One that was silent never had a root.
        if root.join("opt/mayfly").is_dir() {
            let mark = fs::read_to_string(root.join(image::MARK.0.trim_start_matches('/')));
            others += usize::from(!mark.is_ok_and(|mark| mark == image::MARK.1));
        }
    }
    Ok(others)
}

/// The workers that run.
fn started(fake: &FakeFly) -> usize {
    let is_at_work = |machine: &&Seen| machine.app != APP && machine.state == "started";
    fake.machines().iter().filter(is_at_work).count()
}

fn say(told: Told) -> Told {
    println!("task {}: {}", told.task, told.outcome.as_deref().unwrap_or("no outcome"));
    told
}

/// Tasks of which the log does not have all that `claude` itself kept, in the same order.
async fn lost(client: &Client, told: &[Told], scratch: &Path) -> anyhow::Result<usize> {
    let mut lost = 0;
    for Told { task, raw, .. } in told {
        client.transcript(task, None, scratch).await?;
        lost += usize::from(!agree(raw, &fs::read(scratch)?, Account::Whole));
    }
    Ok(lost)
}

fn report(
    told: &[Told],
    (most, workers): (usize, usize),
    (lost, others): (usize, usize),
    fake: &FakeFly,
) -> ExitCode {
    let count = |is_bad: fn(&&Told) -> bool| told.iter().filter(is_bad).count();
    let succeeded = count(|task| task.outcome.as_deref() == Some("succeeded"));
    let faults = usize::try_from(fake.faults()).unwrap_or(usize::MAX);
    let requests = usize::try_from(fake.requests()).unwrap_or(usize::MAX);
    report::print(&[
        ("outcomes", count(|task| task.outcome.is_some()), told.iter().all(|task| task.outcome.is_some())),
        ("succeeded", succeeded, succeeded == told.len()),
        ("most workers at once", most, (1..=PARALLEL).contains(&most)),
        ("requests to Fly", requests, requests > 0),
        ("faults there", faults, faults > 0),
        none("requests and answers that are not by the document", fake.complaints().len()),
        ("uploads to the registry", fake.uploads(), fake.uploads() > 0),
        none("machines of another image than was pushed", others),
        none("tasks that lost a message", lost),
        none("logs with a gap or a repeat", count(|task| !task.whole)),
        none("run twice", count(|task| task.ran_twice())),
        none("workers left", workers),
        none("machines left of what was destroyed", fake.machines().len()),
        none("apps left", fake.apps().len()),
    ])
}
