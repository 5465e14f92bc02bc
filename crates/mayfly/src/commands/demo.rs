//! `mayfly demo`: the real thing with a scripted model, in temporary folders.
//!
//! The orchestrator and the Messages API run in this process, the API on loopback with a credential made up
//! for this run. The demo repository is kept, with the branches that come back; everything else is removed, and
//! what a demo that was killed has left is removed by the next ([`leftovers`]).

mod leftovers;

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mayfly_client::Client;
use mayfly_engine::archive_of;
use mayfly_git::{Git, Repo};
use mayfly_library::{Library, Reference, Wishes};
use mayfly_scripted_api::{Accepted, ScriptedApi, demo as script};
use mayfly_server::ServerConfig;
use mayfly_wire::api::{CreateTask, Credential, CredentialKind, Workspace};
use mayfly_wire::secret::Secret;
use tempfile::TempDir;

use crate::carry_out::{Job, Wish, carry_out};
use crate::claude;
use crate::cli::DemoArgs;
use crate::config::Settings;
use crate::contact::Contact;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::hand_over::hand_over;
use crate::interrupts::Interrupts;
use crate::landing::{Code, Landing};
use crate::machines;
use crate::orchestrator::Orchestrator;
use crate::printer::Printer;
use crate::values::ProviderName;

/// Nobody comes back for a demo that was killed: its machines end themselves soon.
const ORPHAN_AFTER: Duration = Duration::from_secs(30);
/// The model that the scripted API is asked for.
const MODEL: &str = "sonnet";

pub(crate) async fn demo(
    args: DemoArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    machines::here_can_be_made(settings, environment, "mayfly demo")?;
    let library = args.agent.as_ref().map(|agent| library_with(agent, settings, environment)).transpose()?;
    let mut interrupts = Interrupts::install()?;
    let claude = match settings.provider() {
        // It is in their image.
        ProviderName::Microvm => None,
        _ => Some(interrupts.or_stop(claude::find(settings.claude(), environment)).await?),
    };
    let git = environment.git();
    let (data, kept) = (folder(leftovers::DATA)?, folder("mayfly-demo-")?);
    if let Some(beside) = data.path().parent() {
        let removed = async {
            leftovers::remove(beside).await;
            Ok(())
        };
        interrupts.or_stop(removed).await?;
    }
    let repo = interrupts.or_stop(repository(&git, kept.path())).await?;
    let mut config = ServerConfig::in_dir(data.path());
    settings.bound_machines(&mut config.rules);
    config.rules.orphan_after = ORPHAN_AFTER;
    // Without an agent, that of this folder, where there is none.
    config.library = library.unwrap_or(config.library);
    let provider = machines::here(settings, environment, claude.as_ref(), &mut config)?;
    let start = Box::pin(Orchestrator::start(config, claude.as_ref(), provider));
    let orchestrator = interrupts.or_stop(start).await?;

    let mut printer = Printer::of_process(args.json, environment);
    let play = Play { repo: &repo, git, kept: kept.path(), data: data.path(), orchestrator: &orchestrator };
    let played = Box::pin(play.tasks(args.tasks, args.agent.as_ref(), &mut printer, &mut interrupts)).await;
    printer.end();
    // Counted where they are made, and not where they are only known of.
    let left = orchestrator.provider.list().await;
    orchestrator.server.stop().await;
    let left = left?.len();
    if printer.follows_any() {
        // There may be branches and transcripts to look at.
        let _ = kept.keep();
        closing(&mut printer, &repo, left);
    }
    let exit = played?.max(if left == 0 { Exit::Success } else { Exit::Trouble });
    printer.exit(exit)
}

/// What the tasks of one demo share.
struct Play<'a> {
    repo: &'a Repo,
    git: Git,
    kept: &'a Path,
    data: &'a Path,
    orchestrator: &'a Orchestrator,
}

impl Play<'_> {
    /// Runs `count` tasks from beginning to end; the five jobs take turns.
    async fn tasks(
        self,
        count: u32,
        agent: Option<&Reference>,
        printer: &mut Printer,
        interrupts: &mut Interrupts,
    ) -> Result<Exit, Stop> {
        // It opens this run's scripted API and nothing else.
        let made_up = format!("made-up-{}", uuid::Uuid::now_v7());
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let api = ScriptedApi::start(loopback, Accepted::Oauth(made_up.clone())).await;
        let api = api.context("cannot listen on 127.0.0.1")?;
        let credential =
            Credential::new(CredentialKind::OauthToken, Secret::from(made_up), Some(api.base_url()));

        let scratch = self.data.join("scratch");
        fs::create_dir(&scratch)?;
        let client = Client::new(&self.orchestrator.server.socket());
        let contact = Arc::new(Contact::within(client));
        let hand_over = async {
            let (quarantine, snapshot) = self.repo.snapshot(&scratch).await?;
            let code = Code { quarantine, snapshot };
            let workspace = hand_over(&contact, printer, &self.repo.name, &code, None).await?;
            Ok((code, workspace))
        };
        let (code, workspace) = interrupts.or_stop(hand_over).await?;
        let jobs = jobs(count, agent, &workspace, &credential);
        let landing = Landing {
            named: false,
            repo: Some(self.repo.clone()),
            code: Some(code),
            mirror: None,
            folder: self.kept.to_owned(),
            saved: self.kept.join("saved"),
            git: self.git,
        };
        let exit = carry_out(&contact, jobs, &landing, printer, interrupts).await;
        api.stop().await;
        exit
    }
}

fn jobs(count: u32, agent: Option<&Reference>, workspace: &Workspace, credential: &Credential) -> Vec<Job> {
    let create = |prompt: &str| CreateTask {
        agent: agent.map(ToString::to_string),
        prompt: prompt.to_owned(),
        workspace: Some(workspace.clone()),
        model: Some(MODEL.to_owned()),
        credential: Some(credential.clone()),
        ..CreateTask::default()
    };
    let all = if agent.is_some() { script::AGENT_JOBS } else { script::JOBS };
    let taken = all.iter().cycle().take(count as usize);
    let job = |job: &script::Job| Job {
        title: Some(job.title.to_owned()),
        wish: Wish::Create(Box::new(create(job.prompt))),
    };
    taken.map(job).collect()
}

/// The user's library, which must have the agent.
fn library_with(agent: &Reference, settings: &Settings, environment: &Environment) -> Result<PathBuf, Stop> {
    let mut config = ServerConfig::in_dir(environment.data_folder(settings.data())?);
    settings.lend(&mut config);
    let wishes =
        Wishes { project: script::NAME.parse().ok(), agent: Some(agent.clone()), ..Wishes::default() };
    let kept = |content: &str| archive_of(&config.archives(), content);
    let resolution = Library::at(&config.library).resolve(&wishes, &kept).map_err(Stop::usage)?;
    if resolution.main_agent().is_none() {
        return Err(Stop::wrong(format!(
            "there is no agent `{agent}` in the library `{}`: `mayfly library ls` lists those that are there, and \
             `mayfly library init` puts some there",
            config.library.display()
        )));
    }
    Ok(config.library)
}

fn folder(prefix: &str) -> Result<TempDir, Stop> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir();
    made.context("cannot make a temporary folder (is TMPDIR right, and has it room?)").map_err(Stop::from)
}

/// Makes the demo repository below `kept`.
async fn repository(git: &Git, kept: &Path) -> Result<Repo, Stop> {
    let top = kept.join(script::NAME);
    for file in script::FILES {
        write(&top.join(file.path), file.content, file.executable)
            .with_context(|| format!("cannot write the demo repository at `{}`", top.display()))?;
    }
    mayfly_git::create(git, &top, "A small program with a bug").await?;
    Ok(Repo::discover(git, &top).await?)
}

fn write(path: &Path, content: &str, executable: bool) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().ok_or(std::io::ErrorKind::InvalidInput)?)?;
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
}

fn closing(printer: &mut Printer, repo: &Repo, left: usize) {
    let top = repo.top.display();
    for line in [
        String::new(),
        format!("The repository, with the branches: {top}"),
        format!("{left} machines left"),
        String::new(),
        "Now for real, in a git repository of yours:".to_owned(),
        "  claude setup-token                       # once; prints a token".to_owned(),
        "  export CLAUDE_CODE_OAUTH_TOKEN=...       # that token".to_owned(),
        "  mayfly run \"fix the failing test\"".to_owned(),
    ] {
        printer.closing(&line);
    }
}
