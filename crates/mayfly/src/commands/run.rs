//! `mayfly run`: one prompt, from the words on the command line to a branch in the user's repository.
//!
//! Everything that the user can have got wrong is found before anything is started: the prompt, the
//! credential, the repository, the CLI. Then the orchestrator of the data folder is joined or started.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use mayfly_git::{Git, GitError, Repo};
use mayfly_wire::api::{CreateTask, Workspace};
use tempfile::TempDir;

use crate::cli::RunArgs;
use crate::config::{Settings, Source};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::follow::{Job, carry_out};
use crate::interrupts::Interrupts;
use crate::landing::{Code, Landing};
use crate::printer::Printer;
use crate::server_process::{self, log_file};
use crate::{credential, prompt};

pub(crate) async fn run(args: RunArgs, settings: &Settings, environment: &Environment) -> Result<Exit, Stop> {
    let prompt = prompt::read(&args.prompt, io::stdin().lock()).map_err(Stop::usage)?;
    let found = credential::find(environment).map_err(Stop::usage)?;
    let data = environment.data_folder(settings.data())?;
    let git = environment.git();
    let cwd = std::env::current_dir().context("the current folder is gone")?;
    let repo = repository(&git, args.repo.as_deref(), &cwd).await?;

    let mut interrupts = Interrupts::install()?;
    let mut printer = Printer::of_process(args.json, environment);
    found.note.iter().for_each(|note| printer.aside(note));
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let code = match &repo {
        Some(repo) => Some(interrupts.or_stop(capture(repo, &scratch, &mut printer)).await?),
        None => None,
    };
    let named = settings.claude.as_ref().is_some_and(|claude| claude.from == Source::Flag);
    let joined = interrupts.or_stop(server_process::join(&data, settings, environment)).await?;
    if joined.was_there && named {
        printer.aside(
            "the orchestrator that is already there keeps its own Claude Code CLI; --claude is not used",
        );
    }
    let client = joined.client;
    let workspace = match (&repo, &code) {
        (Some(repo), Some(code)) => Some(interrupts.or_stop(upload(&client, repo, code)).await?),
        _ => None,
    };
    let create = CreateTask {
        prompt: prompt.clone(),
        workspace,
        model: Some(settings.model.value.clone()),
        timeout_ms: Some(milliseconds(settings.timeout.value)),
        idle_timeout_ms: Some(milliseconds(settings.idle_timeout.value)),
        max_turns: settings.max_turns.as_ref().map(|given| given.value.into()),
        max_budget_usd: settings.max_budget_usd.as_ref().map(|given| given.value),
        priority: 0,
        retries: 0,
        credential: Some(found.credential),
    };
    let landing = Landing { code, folder: cwd, saved: data.join("saved"), git };
    let jobs = vec![Job { title: prompt, create }];
    let exit = carry_out(&client, jobs, &landing, &mut printer, &mut interrupts).await?;
    if exit == Exit::Trouble {
        printer.closing(&format!("The orchestrator's log: {}", log_file(&data).display()));
    }
    match printer.into_error() {
        Some(error) => Err(anyhow!(error).context("cannot write to standard output").into()),
        None => Ok(exit),
    }
}

/// The repository to work on: the one that was named, or the one around `cwd` if there is one.
async fn repository(git: &Git, named: Option<&Path>, cwd: &Path) -> Result<Option<Repo>, Stop> {
    match Repo::discover(git, named.unwrap_or(cwd)).await {
        Ok(repo) => Ok(Some(repo)),
        Err(GitError::NoRepository(_)) if named.is_none() => Ok(None),
        Err(error) => Err(Stop::usage(error)),
    }
}

/// The user's work as it is now.
async fn capture(repo: &Repo, scratch: &TempDir, printer: &mut Printer) -> Result<Code, Stop> {
    let (quarantine, snapshot) = repo.snapshot(scratch.path()).await?;
    let what = if snapshot.dirty { "HEAD plus uncommitted and untracked work" } else { "HEAD" };
    printer.aside(&format!("working on a copy of {}: {what}", repo.top.display()));
    if !snapshot.submodules.is_empty() {
        let paths = snapshot.submodules.join(", ");
        printer.aside(&format!(
            "submodules are empty folders in it, and work in them does not come back: {paths}"
        ));
    }
    Ok(Code { quarantine, snapshot })
}

/// Hands the code over.
async fn upload(client: &mayfly_client::Client, repo: &Repo, code: &Code) -> Result<Workspace, Stop> {
    Ok(client.upload_workspace(&repo.name, &code.snapshot.bundle).await?)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
