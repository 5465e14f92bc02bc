//! `mayfly run`: prompts, from the words on the command line to branches in the user's repository.
//!
//! Everything that the user can have got wrong is found before anything is started: the prompts, the
//! credential, the repository, the CLI. Then the orchestrator of the data folder is joined or started.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mayfly_engine::{check_kept, check_setup};
use mayfly_wire::api::CreateTask;

use crate::carry_out::{Job, Wish, carry_out};
use crate::cli::RunArgs;
use crate::config::{Settings, Source};
use crate::contact::{Contact, Origin};
use crate::credential::{self, BadCredential, Choice};
use crate::detach::detach;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::hand_over::hand_over;
use crate::interrupts::Interrupts;
use crate::landing::Landing;
use crate::lend::Lent;
use crate::printer::Printer;
use crate::registries::Found;
use crate::repository::Chosen;
use crate::server_process::{Was, log_file};
use crate::{prompt, registries, repository, tasks_file};

/// The most tasks that are followed at once: each has a connection of its own.
const FOLLOWED_MAX: usize = 256;

pub(crate) async fn run(args: RunArgs, settings: &Settings, environment: &Environment) -> Result<Exit, Stop> {
    let registries = args.allow_registries.then(|| registries::find(environment, Path::new("/")));
    let mut tasks = tasks(&args, settings, registries.as_ref()).map_err(Stop::usage)?;
    if tasks.len() > FOLLOWED_MAX && !args.detach {
        return Err(Stop::wrong(format!(
            "{} tasks are too many to follow at once, {FOLLOWED_MAX} are the most: add --detach, and follow those \
             that you want with `mayfly logs --follow`",
            tasks.len()
        )));
    }
    let origin = Origin::new(settings, environment)?;
    let note = add_credential(&mut tasks, settings, &origin)?;
    let git = environment.git();
    let cwd = std::env::current_dir().context("the current folder is gone")?;
    let chosen = Chosen::read(&git, args.repo.as_deref(), &cwd).await?;
    let name = chosen.as_ref().map(Chosen::name);
    let lent = args.lent.as_ref().map(|folder| Lent::choose(folder, &tasks, name.as_deref(), settings));
    let lent = lent.transpose()?;
    add_setup(&mut tasks, chosen.as_ref(), settings).map_err(Stop::usage)?;
    // What has its own code needs no other.
    let chosen = chosen.filter(|chosen| {
        matches!(chosen, Chosen::Here(_)) || tasks.iter().any(|task| task.workspace.is_none())
    });

    let mut interrupts = Interrupts::install()?;
    let mut printer = match args.detach {
        true => Printer::of_lines(args.json, environment),
        false => Printer::of_process(args.json, environment),
    };
    if let Some(note) = note {
        printer.aside(&note);
    }
    if let Some(found) = &registries {
        printer.aside(&registries_words(found));
    }
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut code = match &chosen {
        Some(Chosen::Here(repo)) if tasks.iter().any(|task| task.workspace.is_none()) => {
            let top = repo.top.display().to_string();
            Some(interrupts.or_stop(repository::capture(repo, &top, &scratch, &mut printer)).await?)
        }
        _ => None,
    };
    let data = origin.data.clone();
    let named = settings.values.claude.as_ref().is_some_and(|claude| claude.from == Source::Flag);
    let (contact, was) = interrupts.or_stop(Box::pin(Contact::join(origin))).await?;
    let of_pool = tasks.iter().filter(|task| task.credential.is_none());
    let of_pool: BTreeSet<_> = of_pool.map(|task| task.credential_name.as_deref()).collect();
    interrupts.or_stop(credential::check_pool(&contact, &mut printer, of_pool)).await?;
    match was {
        Was::There if named => printer.aside(
            "the orchestrator that is already there goes on with the Claude Code CLI that it was started with; \
             --claude is for one that has to be started",
        ),
        Was::Killed | Was::Ended => printer.aside(
            "the last orchestrator here had not ended its tasks: started one with its settings, which hold until it ends",
        ),
        Was::There | Was::Nowhere => {}
    }
    // Not before the folder is known to be ours, since it is kept there.
    let (mut repo, mut mirror) = (None, None);
    match chosen {
        Some(Chosen::Here(here)) => repo = Some(here),
        Some(Chosen::Elsewhere(from)) => {
            let depth = name.as_deref().and_then(|name| settings.depth(name));
            let fetch = repository::fetch(&from, depth, &data, &git, environment);
            let fetched = interrupts.or_stop(fetch).await?;
            let capture = repository::capture(&fetched.repo, &from.url, &scratch, &mut printer);
            code = Some(interrupts.or_stop(capture).await?);
            mirror = Some(fetched);
        }
        None => {}
    }
    if let (Some(name), Some(code)) = (&name, &code) {
        let upload = async { Ok(hand_over(&contact, &mut printer, name, code, mirror.as_ref()).await?) };
        let workspace = interrupts.or_stop(upload).await?;
        let without = tasks.iter_mut().filter(|task| task.workspace.is_none());
        without.for_each(|task| task.workspace = Some(workspace.clone()));
    }
    if let Some(lent) = lent {
        interrupts.or_stop(lent.hand_over(&contact, &mut printer, &mut tasks)).await?;
    }
    let job = |task| Job { title: None, wish: Wish::Create(Box::new(task)) };
    let jobs: Vec<Job> = tasks.into_iter().map(job).collect();
    if args.detach {
        let exit = detach(&contact, jobs, args.json, &mut printer, &mut interrupts).await?;
        return printer.exit(exit);
    }
    if let Some(mirror) = &mirror {
        // A clone of the user's that they stand in takes the branches; elsewhere each becomes a clone.
        let around = repository::around(&git, None, &cwd).await.ok().flatten();
        repo = match around {
            Some(clone) if clone.has(&mirror.repo.head).await => Some(clone),
            _ => None,
        };
        code = None;
    }
    let landing = Landing { repo, named: false, code, mirror, folder: cwd, saved: data.join("saved"), git };
    let exit = carry_out(&Arc::new(contact), jobs, &landing, &mut printer, &mut interrupts).await?;
    if exit == Exit::Trouble {
        printer.closing(&format!("The orchestrator's log: {}", log_file(&data).display()));
    }
    printer.exit(exit)
}

/// The tasks that the command line names, or the file that it names; without what is found out later.
fn tasks(args: &RunArgs, settings: &Settings, registries: Option<&Found>) -> anyhow::Result<Vec<CreateTask>> {
    let values = &settings.values;
    let allow = values.allow.as_ref().map(|given| given.value.0.iter()).into_iter().flatten();
    let registries = registries.map(|found| found.rules.iter()).into_iter().flatten();
    let flags = CreateTask {
        provider: args.provider.map(|provider| provider.word().to_owned()),
        model: (values.model.from != Source::Default).then(|| values.model.value.clone()),
        project: args.library.project.as_ref().map(ToString::to_string),
        agent: args.library.agent.as_ref().map(ToString::to_string),
        resources: args.library.resources(),
        without: args.library.without(),
        timeout_ms: Some(milliseconds(values.timeout.value)),
        idle_timeout_ms: Some(milliseconds(values.idle_timeout.value)),
        max_turns: values.max_turns.as_ref().map(|given| given.value.into()),
        max_budget_usd: values.max_budget_usd.as_ref().map(|given| given.value),
        allow: allow.chain(registries).map(ToString::to_string).collect(),
        artifacts: values.artifacts.iter().flat_map(|given| &given.value).map(ToString::to_string).collect(),
        trust_repo: values.trust_repo.value,
        priority: args.priority,
        retries: args.retries,
        ..CreateTask::default()
    };
    if let Some(file) = &args.file {
        return Ok(tasks_file::read(file, &flags, io::stdin().lock())?);
    }
    let prompts = prompt::read(&args.prompt, io::stdin().lock())?;
    Ok(prompts.into_iter().map(|prompt| CreateTask { prompt, ..flags.clone() }).collect())
}

/// Gives each task that says nothing of a set-up that of its repository, and sees to it that each says of which one.
fn add_setup(
    tasks: &mut [CreateTask],
    chosen: Option<&Chosen>,
    settings: &Settings,
) -> Result<(), anyhow::Error> {
    let (name, place) = (chosen.map(Chosen::name), chosen.map(Chosen::place));
    for task in tasks {
        if task.setup.is_none()
            && let Some(name) = task.workspace.as_ref().map(|own| &own.name).or(name.as_ref())
        {
            task.setup = settings.setup(name);
            task.setup
                .as_ref()
                .map_or(Ok(()), check_setup)
                .with_context(|| format!("[repo.{name:?}.setup] of the configuration is no set-up"))?;
        }
        if let Some(setup) = &mut task.setup {
            let its_own = task.workspace.is_none().then(|| place.clone()).flatten();
            setup.repository = setup.repository.take().or(its_own);
            check_kept(setup)?;
        }
    }
    Ok(())
}

/// Gives each task that says nothing of a credential that of this environment, or the name of one in the pool. Returns
/// what to tell about it.
fn add_credential(
    tasks: &mut [CreateTask],
    settings: &Settings,
    origin: &Origin,
) -> Result<Option<String>, Stop> {
    let silent = |task: &&mut CreateTask| task.credential.is_none() && task.credential_name.is_none();
    let mut without = tasks.iter_mut().filter(silent).peekable();
    if without.peek().is_none() {
        return Ok(None);
    }
    match credential::choose(settings, &origin.environment).map_err(Stop::usage)? {
        Choice::Own(found) => {
            without.for_each(|task| task.credential = Some(found.credential.clone()));
            Ok(found.note)
        }
        // A pool that never was is empty: that can be said before anything is started.
        Choice::Pool(None) if !origin.data.exists() => Err(Stop::usage(BadCredential::None)),
        Choice::Pool(name) => {
            without.for_each(|task| task.credential_name.clone_from(&name));
            Ok(None)
        }
    }
}

/// What is told of the hosts that were found.
fn registries_words(Found { rules, unfit }: &Found) -> String {
    let hosts: Vec<String> = rules.iter().map(ToString::to_string).collect();
    let known = match hosts.is_empty() {
        true => {
            "the configuration of npm, pip, cargo and apt names no host: --allow HOST names one".to_owned()
        }
        false => format!("the agent may reach your registries: {}", hosts.join(", ")),
    };
    match unfit {
        0 => known,
        unfit => format!("{known}; {unfit} more are not named by a host's name, and cannot be allowed"),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
