//! From asking for a sandbox to its worker's hello, against `bwrap --unshare-all` of `/bin/true`.
//!
//! The two do not do equal work: ours ends with a worker that has its namespaces, overlay, landlock, seccomp and
//! cgroups and has spoken over its socket; `bwrap` starts and ends a process that does nothing.
//! Run: `MAYFLY_TEST_CLAUDE=$(mayfly claude-path) cargo bench --bench sandbox_start`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use mayfly_core::TaskId;
use mayfly_core::task::Attempt;
use mayfly_link::Frame;
use mayfly_provider::{Limits, MachineSpec, Provider};
use mayfly_wire::boot::WAY_OUT_SOCKET;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

const PAIRS: usize = 100;
const WARM_UPS: usize = 5;
const BWRAP: [&str; 13] = [
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "/bin/true",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let provider = support::sandbox(dir.path(), support::claude()?);
    let way_out = dir.path().join("way-out");
    let mut hellos = listen(&way_out)?;
    provider.probe().await?;
    let mut pairs = support::Pairs::default();
    for round in 0..WARM_UPS + PAIRS {
        let ours = machine(provider.as_ref(), &way_out, &mut hellos).await?;
        let theirs = tokio::task::block_in_place(bwrap)?;
        if round >= WARM_UPS {
            pairs.push(ours, theirs);
        }
    }
    pairs.print(
        "sandbox start",
        "mayfly: create -> the worker's hello",
        "bwrap --unshare-all /bin/true, to its end",
    );
    Ok(())
}

/// The orchestrator's door, as far as a hello.
fn listen(folder: &Path) -> anyhow::Result<mpsc::Receiver<Instant>> {
    fs::create_dir(folder)?;
    let listener = UnixListener::bind(folder.join(WAY_OUT_SOCKET))?;
    fs::set_permissions(folder.join(WAY_OUT_SOCKET), std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let (sender, hellos) = mpsc::channel(1);
    let router = Router::new().route("/v1/worker", get(hello)).with_state(sender);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(hellos)
}

async fn hello(State(heard): State<mpsc::Sender<Instant>>, mut request: Request) -> Response {
    let (response, accepting) = mayfly_link::accept(&mut request).expect("a worker's handshake");
    tokio::spawn(async move {
        let mut channel = accepting.channel().await.expect("a channel");
        if let Some(Ok(Frame::Text(_))) = channel.recv().await {
            let _ = heard.send(Instant::now()).await;
        }
        // Held until the machine is gone.
        while let Some(Ok(_)) = channel.recv().await {}
    });
    response.map(|()| Body::empty())
}

async fn machine(
    provider: &dyn Provider,
    way_out: &Path,
    hellos: &mut mpsc::Receiver<Instant>,
) -> anyhow::Result<Duration> {
    let attempt = TaskId::new(uuid::Uuid::now_v7()).attempt(Attempt(1));
    let ticket = secrecy::SecretString::from("made up");
    let (way_out, limits) = (way_out.to_owned(), Limits::default());
    let spec = MachineSpec { tools: Vec::new(), attempt, ticket, workspace: None, way_out, limits };
    let start = Instant::now();
    provider.create(&spec).await?;
    let heard = hellos.recv().await.context("no hello")?;
    provider.destroy(attempt).await?;
    Ok(heard - start)
}

fn bwrap() -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = Command::new("bwrap").args(BWRAP).status();
    ensure!(status.context("cannot run bwrap: apt-get install bubblewrap")?.success(), "bwrap failed");
    Ok(start.elapsed())
}
