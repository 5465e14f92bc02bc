//! `mayfly run`: one prompt, from the words on the command line to a branch in the user's repository.
//!
//! Everything that the user can have got wrong is found before anything is started: the prompt, the
//! credential, the repository, the CLI. Then the orchestrator of the data folder is joined or started.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mayfly_git::{Git, GitError, Repo};
use mayfly_wire::api::{CreateTask, Workspace};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::carry_out::{Job, carry_out};
use crate::cli::RunArgs;
use crate::config::{Settings, Source};
use crate::contact::{Contact, Origin};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::landing::{Code, Landing};
use crate::printer::Printer;
use crate::server_process::log_file;
use crate::{credential, prompt};

/// How long the user sees nothing before a word about what takes so long.
const SILENCE_MAX: Duration = Duration::from_secs(2);

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
    let named = settings.values.claude.as_ref().is_some_and(|claude| claude.from == Source::Flag);
    let origin = Origin {
        data: data.clone(),
        claude: settings.claude(),
        settings: settings.clone(),
        environment: environment.clone(),
    };
    let (contact, was_there) = interrupts.or_stop(Box::pin(Contact::join(origin))).await?;
    if was_there && named {
        printer.aside(
            "the orchestrator that is already there goes on with the Claude Code CLI that it was started with; \
             --claude is for one that has to be started",
        );
    }
    let workspace = match (&repo, &code) {
        (Some(repo), Some(code)) => {
            Some(interrupts.or_stop(upload(&contact, &mut printer, repo, code)).await?)
        }
        _ => None,
    };
    let values = &settings.values;
    let create = CreateTask {
        prompt: prompt.clone(),
        workspace,
        model: Some(values.model.value.clone()),
        timeout_ms: Some(milliseconds(values.timeout.value)),
        idle_timeout_ms: Some(milliseconds(values.idle_timeout.value)),
        max_turns: values.max_turns.as_ref().map(|given| given.value.into()),
        max_budget_usd: values.max_budget_usd.as_ref().map(|given| given.value),
        priority: 0,
        retries: 0,
        credential: Some(found.credential),
    };
    let landing = Landing { code, folder: cwd, saved: data.join("saved"), git };
    let jobs = vec![Job { title: prompt, create }];
    let exit = carry_out(&Arc::new(contact), jobs, &landing, &mut printer, &mut interrupts).await?;
    if exit == Exit::Trouble {
        printer.closing(&format!("The orchestrator's log: {}", log_file(&data).display()));
    }
    printer.exit(exit)
}

/// The repository to work on: the one that was named, or the one around `cwd` if there is one.
async fn repository(git: &Git, named: Option<&Path>, cwd: &Path) -> Result<Option<Repo>, Stop> {
    if let Some(named) = named {
        check_path(named)?;
    }
    match Repo::discover(git, named.unwrap_or(cwd)).await {
        Ok(repo) => Ok(Some(repo)),
        Err(GitError::NoRepository(_)) if named.is_none() => Ok(None),
        Err(error) => Err(Stop::usage(error)),
    }
}

/// Checks that `named` is there. A URL is not repeated: it may have a password in it.
fn check_path(named: &Path) -> Result<(), Stop> {
    let text = named.to_string_lossy();
    let remote =
        text.split_once(':').is_some_and(|(host, path)| path.starts_with("//") || host.contains('@'));
    match named.try_exists() {
        Ok(false) if remote => Err(Stop::wrong(
            "--repo takes a path, and no URL yet: `git clone` it first, then name the clone with --repo PATH",
        )),
        Ok(false) => Err(Stop::wrong(format!(
            "`{}` does not exist: name the folder of a git repository with --repo, or leave it out to use the one \
             around the current folder",
            named.display()
        ))),
        // What cannot be looked at is named by whoever uses it.
        _ => Ok(()),
    }
}

/// The user's work as it is now.
async fn capture(repo: &Repo, scratch: &TempDir, printer: &mut Printer) -> Result<Code, Stop> {
    let top = repo.top.display();
    let tell = || printer.aside(&format!("taking a copy of {top}; a big repository takes its time"));
    let (quarantine, snapshot) = telling_if_slow(repo.snapshot(scratch.path()), tell).await?;
    let what = if snapshot.dirty { "HEAD plus uncommitted and untracked work" } else { "HEAD" };
    printer.aside(&format!("working on a copy of {}: {what}", repo.top.display()));
    if !snapshot.submodules.is_empty() {
        let paths = snapshot.submodules.join(", ");
        printer.aside(&format!(
            "submodules are empty folders in it, and work in them does not come back: {paths}"
        ));
    }
    if !snapshot.left_out.is_empty() {
        let paths = snapshot.left_out.join(", ");
        printer.aside(&format!("repositories inside it that are no submodules are left out: {paths}"));
    }
    if !snapshot.unfiltered.is_empty() {
        let paths = snapshot.unfiltered.join(", ");
        printer.aside(&format!(
            "no filter (such as LFS) is run for changed files, and the branch will have their whole content, unless \
             you `git add` them first: {paths}"
        ));
    }
    Ok(Code { top: repo.top.clone(), quarantine, snapshot })
}

/// Performs a step, and calls `tell` once if it takes longer than one waits without wondering.
async fn telling_if_slow<T>(step: impl Future<Output = T>, tell: impl FnOnce()) -> T {
    let mut step = Box::pin(step);
    if let Ok(done) = timeout(SILENCE_MAX, &mut step).await {
        return done;
    }
    tell();
    step.await
}

/// Hands the code over.
async fn upload(
    contact: &Contact,
    printer: &mut Printer,
    repo: &Repo,
    code: &Code,
) -> Result<Workspace, Stop> {
    let bundle = &code.snapshot.bundle;
    Ok(contact.ask(printer, async |client| client.upload_workspace(&repo.name, bundle).await).await?)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_step_is_told_of_and_a_quick_one_is_not() {
        for (time, expected) in [(SILENCE_MAX / 2, false), (SILENCE_MAX * 10, true)] {
            let told = Cell::new(false);
            telling_if_slow(sleep(time), || told.set(true)).await;
            assert_eq!(told.get(), expected, "{time:?}");
        }
    }
}
