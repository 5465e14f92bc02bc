//! Everything that can be killed or cut is, at random, while tasks run; then the promises are counted.
//!
//! ```text
//! mayfly run, the API ──► tunnel ──► proxy that fails ──► orchestrator ──► machines, claude ──► scripted model
//!                 └────────────────────────────────────────────▲
//! ```
//!
//! What is counted comes from outside: each task's log as it was read while everything failed, and again afterwards by
//! each way there is; the session file that `claude` itself writes; processes and machines as the host shows them. A
//! task whose worker or `claude` was killed may end as it likes, but end it must, with nothing told twice. Over the run
//! neither end may take more and more memory or files (`wear`).

mod check;
mod faults;
mod load;
mod proxy;
mod wear;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mayfly_client::Client;
use mayfly_wire::api::Credential;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use self::check::Checked;
use self::faults::{Done, Tormentor};
use self::load::{Fulfilled, Load};
use self::proxy::Proxy;
use self::wear::Wear;
use crate::machines::{Left, Sampler, sandbox};
use crate::model::scripted_model;
use crate::orchestrator::{Build, Place, Serving};
use crate::report::{self, none};

/// How many machines an orchestrator runs at once by itself.
const PARALLEL: usize = 5;
/// How long everything may take to end once the faults are over.
const SETTLE_MAX: Duration = Duration::from_secs(5 * 60);
/// The pause between two looks at how far behind the tunnel is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const ABOUT: &str = "\
Kills and cuts whatever can be, at random, while tasks run here and through a tunnel, and checks each promise.

It starts `mayfly serve`, a TCP proxy that fails in front of its port, and `mayfly tunnel` through that. Tasks for the
real claude and a scripted model come in waves: by `mayfly run` and by the API, directly and through the tunnel. Until
the time is over it kills (SIGKILL) the orchestrator, the tunnel, a worker or a claude, stops the orchestrator or a
worker for a while, and cuts the proxy's connections, which also are slow, pass single bytes, go deaf or are reset by themselves.
Then nothing fails any more, all tasks are waited for, and the table tells what became of the promises. The exit code
is 1 if one of them was broken, or if an end took more and more memory or files. Nothing of this needs an account or the internet.";

const EXAMPLES: &str = "\
Examples:
  cargo xtask torture --minutes 1              # another seed each time; it is printed
  cargo xtask torture --minutes 30 --seed 7    # the same plan as every run with 7

The seed decides the tasks, the faults, their order and their times, and the fate of each connection. What the
processes do in between is theirs, so two runs with one seed are alike, and not the same. Of a run that found
something wrong the folder is kept, and named at the end: serve.log, the database, the tunnel's logs.";

#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How long to go on with it, such as 30 or 0.5
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    minutes: f64,
    /// Where the random choices come from; the same seed gives the same ones
    #[arg(long, default_value_t = fastrand::u64(..))]
    seed: u64,
    /// Take the mayfly that is beside this program as it is, and build nothing
    #[arg(long)]
    built: bool,
    /// The Claude Code CLI to run [default: the pinned one, fetched if need be]
    #[arg(long, value_name = "PATH")]
    claude: Option<PathBuf>,
}

/// What is killed, and started again.
pub(crate) struct Ends {
    orchestrator: Option<Serving>,
    tunnel: Option<Serving>,
}

/// The tunnel's data folder.
fn here(place: &Place) -> PathBuf {
    place.home.join("here")
}

/// `mayfly tunnel`; told where to, or as the last time.
async fn tunnel(place: &Place, to: Option<SocketAddr>) -> anyhow::Result<Serving> {
    let (to, token) = (to.map(|to| format!("http://{to}")), place.data().join("token"));
    let mut args: Vec<&OsStr> = vec!["tunnel".as_ref(), "--listen".as_ref(), "127.0.0.1:0".as_ref()];
    if let Some(to) = &to {
        args.extend(["--to".as_ref(), to.as_ref(), "--token-file".as_ref(), token.as_os_str()]);
    }
    place.start(&args, &here(place)).await
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { minutes, seed, built, claude } = args;
    println!("{minutes} minutes, seed {seed}");
    let home = tempfile::tempdir()?;
    let build = if built { Build::Not } else { Build::First };
    let place = Arc::new(Place::prepare(home.path(), build, claude).await?);
    let (api, credential) = scripted_model().await?;
    let time = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes is a time")?;
    let found = torture(&place, credential, seed, time).await;
    api.stop().await;
    let good = matches!(found, Ok(ExitCode::SUCCESS));
    if !good {
        println!("all of it is kept in {}", home.keep().display());
    }
    found
}

async fn torture(
    place: &Arc<Place>,
    credential: Credential,
    seed: u64,
    time: Duration,
) -> anyhow::Result<ExitCode> {
    let listen = free_port()?;
    let orchestrator = place.serve(listen).await?;
    // The first of the tunnel's links must come about; what follows need not.
    let proxy = Proxy::start(listen, seed).await?;
    let tunnel = first_tunnel(place, &proxy).await?;
    let sampler = Sampler::default();
    let sampling = tokio::spawn(sampler.clone().run(sandbox(place)));
    let wear = Wear::default();
    let wearing = tokio::spawn(wear.clone().run(Arc::clone(place)));

    let (until, mut random) = (Instant::now() + time, fastrand::Rng::with_seed(seed));
    let load = Load { place: Arc::clone(place), credential, seed };
    let load = tokio::spawn(load.run(random.fork(), until));
    let ends = Ends { orchestrator: Some(orchestrator), tunnel: Some(tunnel) };
    let tormentor = Tormentor { place, proxy: &proxy, listen, ends, done: Done::default() };
    let (ends, done) = tormentor.run(random.fork(), until).await?;
    wearing.abort();

    println!("no more faults; waiting for all to end");
    proxy.heal();
    let load = timeout(SETTLE_MAX, load).await.context("tasks do not end")???;
    timeout(SETTLE_MAX, caught_up(place)).await.context("the tunnel does not catch up")??;
    let checked = check::all(place, &load, &done).await?;
    sampling.abort();
    for end in [ends.tunnel, ends.orchestrator] {
        end.context("it is there")?.end(Signal::TERM).await?;
    }
    let found = sampler.seen();
    let ours = checked.sessions.iter().filter_map(|session| found.claudes.get(session));
    let claudes = ours.clone().flatten().copied().collect();
    let tasks: Vec<&str> = checked.tasks.iter().map(String::as_str).collect();
    let left = Left::of(place, &tasks, &claudes).await?;
    let runs = Runs { seen: ours.clone().count(), twice: ours.filter(|run| run.len() > 1).count() };
    println!("faults: {:?}, and {} connections through the proxy", done.faults, proxy.connections());
    wear.print();
    Ok(report(&load, &checked, &runs, (found.most, wear.lines()), &left))
}

/// The sessions that the host ran, as its processes tell.
struct Runs {
    seen: usize,
    /// Those of more than one `claude`.
    twice: usize,
}

fn report(
    load: &[Fulfilled],
    checked: &Checked,
    runs: &Runs,
    (most, wear): (usize, Vec<report::Line>),
    left: &Left,
) -> ExitCode {
    println!(
        "tasks: {}, of which {} had a worker or claude killed; outcomes: {:?}",
        checked.tasks.len(),
        checked.hit,
        checked.outcomes
    );
    let submitted = load.iter().filter(|wish| wish.told.is_some()).count();
    let unanswered = load.len() - submitted;
    let unexpected = checked.unasked.saturating_sub(unanswered);
    let promises = [
        ("submitted", submitted, submitted > 0),
        ("submits without an answer", unanswered, true),
        ("succeeded", checked.succeeded, checked.succeeded > 0),
        ("sessions seen as processes", runs.seen, runs.seen > 0),
        ("most alive at once", most, (1..=PARALLEL).contains(&most)),
        none("lost", checked.lost),
        none("unexpected", unexpected),
        none("keys that named two tasks", load.iter().filter(|wish| wish.key_broke).count()),
        none("run twice, by their logs", checked.twice),
        none("run twice, by their processes", runs.twice),
        none("logs with a gap, a repeat or a reorder", checked.torn),
        none("logs that a reader heard otherwise", checked.otherwise),
        none("logs unlike what claude itself kept", checked.unlike),
        none("`logs --raw` unlike what claude wrote", checked.raw),
        none("tunnel's logs unlike the orchestrator's", checked.tunnel),
        none("machines left", left.machines),
        none("cgroups left", left.cgroups),
        none("mounts left", left.mounts),
        none("processes left", left.processes),
    ];
    report::print(&[&promises[..], &wear].concat())
}

/// A port that nobody had a moment ago; the orchestrator keeps it over its lives.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// By ways that fail, the first one may take a few tries.
async fn first_tunnel(place: &Place, proxy: &Proxy) -> anyhow::Result<Serving> {
    const TRIES: usize = 20;
    for _ in 1..TRIES {
        let started = timeout(Duration::from_secs(2), tunnel(place, Some(proxy.address))).await;
        if let Ok(Ok(tunnel)) = started {
            return Ok(tunnel);
        }
    }
    tunnel(place, Some(proxy.address)).await
}

/// Waits until the tunnel has all that there is.
async fn caught_up(place: &Place) -> anyhow::Result<()> {
    let client = Client::new(&here(place).join("api.sock"));
    loop {
        let status = client.tunnel_status().await?;
        if status.connected && status.position == status.head {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}
