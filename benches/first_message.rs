//! From submitting a task to the agent's first message, against bare `claude -p`.
//!
//! Both run the same binary with the same flags, environment, prompt and script, on the same small repository;
//! mayfly's way has the queue with its commits, a sandbox, the gateway and the durable log in it. The model
//! answers without a pause. Run: `MAYFLY_TEST_CLAUDE=$(mayfly claude-path) cargo bench --bench first_message`
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mayfly_client::{Bundle, Client};
use mayfly_engine::SystemClock;
use mayfly_git::{Git, Repo};
use mayfly_library::Compiled;
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_server::{Server, ServerConfig};
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, Workspace};
use mayfly_wire::worker::WorkOrder;
use mayfly_worker::{Launch, opening};

const PAIRS: usize = 30;
const WARM_UPS: usize = 3;
const TOKEN: &str = "sk-ant-oat01-made-up";
const PROMPT: &str = "hi [script: text]";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let claude = support::claude()?;
    let dir = tempfile::tempdir()?;
    let api =
        ScriptedApi::start_paced("127.0.0.1:0".parse()?, Accepted::Oauth(TOKEN.to_owned()), 0.0).await?;
    let config = ServerConfig::in_dir(dir.path().join("data"));
    fs::create_dir(&config.data)?;
    let provider = support::sandbox(&config.data, claude.clone());
    let server = Server::start(config, provider, std::sync::Arc::new(SystemClock)).await?;
    let client = Client::new(&server.socket());
    let top = dir.path().join("repo");
    fs::create_dir(&top)?;
    fs::write(top.join("a.txt"), "one\n")?;
    let git = Git::new(std::env::var_os("PATH").unwrap_or_default(), None, None);
    mayfly_git::create(&git, &top, "first").await?;
    let scratch = tempfile::tempdir()?;
    let (quarantine, snapshot) = Repo::discover(&git, &top).await?.snapshot(scratch.path()).await?;
    let bundle = scratch.path().join("base.bundle");
    quarantine.bundle(&snapshot.base, None, &bundle).await?;
    let workspace = client.upload_workspace("repo", &Bundle::read(&bundle, None).await?).await?;

    let mut pairs = support::Pairs::default();
    for round in 0..WARM_UPS + PAIRS {
        let ours = task(&client, &workspace, &api.base_url()).await?;
        let bare = tokio::task::block_in_place(|| bare(&claude, &top, &api.base_url()))?;
        if round >= WARM_UPS {
            pairs.push(ours, bare);
        }
    }
    pairs.print(
        "submit -> first agent message",
        "mayfly: queue, sandbox, gateway, durable log",
        "bare claude -p",
    );
    server.stop().await;
    api.stop().await;
    Ok(())
}

async fn task(client: &Client, workspace: &Workspace, base_url: &str) -> anyhow::Result<Duration> {
    let create = CreateTask {
        prompt: PROMPT.to_owned(),
        workspace: Some(workspace.clone()),
        model: Some("sonnet".to_owned()),
        credential: Some(Credential::new(
            CredentialKind::OauthToken,
            TOKEN.to_owned().into(),
            Some(base_url.to_owned()),
        )),
        ..CreateTask::default()
    };
    let start = Instant::now();
    let task = client.submit(&create, &uuid::Uuid::now_v7().to_string()).await?;
    let mut events = client.events(&task.id, 0);
    let mut first = None;
    while let Some(line) = events.next().await? {
        if first.is_none() && line.contains(r#""type":"assistant""#) {
            first = Some(start.elapsed());
        }
    }
    first.context("the agent said nothing")
}

fn bare(claude: &Path, cwd: &Path, base_url: &str) -> anyhow::Result<Duration> {
    let home = tempfile::tempdir()?;
    fs::create_dir(home.path().join(".claude"))?;
    let port = base_url.rsplit_once(':').context("a port")?.1.parse()?;
    let order = WorkOrder {
        prompt: PROMPT.to_owned(),
        workspace: None,
        setup: None,
        model: "sonnet".to_owned(),
        session_id: uuid::Uuid::now_v7().to_string(),
        max_turns: None,
        max_budget_usd: None,
        trust_repo: false,
        resume: None,
        artifacts: Vec::new(),
        library: None,
        claude_version: None,
        credential: None,
        model_token: TOKEN.to_owned().into(),
        result_token: String::new().into(),
        egress_token: None,
        collect_ms_max: 0,
        orphan_after_ms: 0,
        log_bytes_max: None,
    };
    let start = Instant::now();
    let (home, library) = (home.path(), &Compiled::default());
    let launch = Launch { binary: claude, home, cwd, port, egress_port: None, order: &order, library };
    let mut child = launch.command()?.0.spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(&opening(PROMPT))?;
    let mut first = None;
    for line in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
        let line = line?;
        if first.is_none() && line.contains(r#""type":"assistant""#) {
            first = Some(start.elapsed());
        }
        if line.contains(r#""type":"result""#) {
            break;
        }
    }
    drop(stdin);
    ensure!(child.wait()?.success(), "claude failed");
    first.context("claude said nothing")
}
