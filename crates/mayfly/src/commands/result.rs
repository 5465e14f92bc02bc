//! `mayfly result`: what came out of a task that is over, told or taken.
//!
//! Everything is fetched from the orchestrator, however long ago the task was, and whoever followed it. The work is
//! looked at in a repository of our own; the user's is touched by `--branch` and `--apply` alone.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use mayfly_git::{Base, GitError, Repo, Work};
use mayfly_wire::api::{Collected, Task, Usage};
use tempfile::TempDir;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::landing::{self, Landing, Place};
use crate::printer::Printer;
use crate::{repository, values};

/// What is read of a file at once.
const READ_BYTES: usize = 64 * 1024;

const RESULT_EXAMPLES: &str = "\
Examples:
  mayfly result 1a2b3c4d                  # how it ended, and what came out
  mayfly result 1a2b3c4d --diff
  mayfly result 1a2b3c4d --branch         # mayfly/1a2b3c4d-<first words of the prompt>
  mayfly result 1a2b3c4d --patch | git apply
  mayfly result 1a2b3c4d --apply          # the same, in one step

Everything is against the code that the task started from. If no orchestrator runs, one is started
in the background, as by `mayfly run`.";

/// Tell how a task ended and what came out of it, or take that
#[derive(Debug, clap::Args)]
#[command(after_help = RESULT_EXAMPLES)]
pub(crate) struct ResultArgs {
    /// The task: its id, or the last digits of it
    #[arg(value_name = "TASK", value_parser = values::task)]
    task: String,
    #[command(flatten)]
    form: Form,
    /// The git repository that takes the work [default: the one around the current folder]
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// What to do with it.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "flags, of which one is given at most")]
struct Form {
    /// Print what was changed, for reading
    #[arg(long)]
    diff: bool,
    /// Print what was changed as a patch for `git apply`, the content of binary files included
    #[arg(long)]
    patch: bool,
    /// Make a branch of the work [default: mayfly/<short id>-<words of the prompt>]; of a task that began
    /// with nothing, a new folder
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "as clap has it: no flag, a flag, a flag with a name")]
    branch: Option<Option<String>>,
    /// Put the work into the files of the repository, if it fits; else no file is changed
    #[arg(long)]
    apply: bool,
    /// Print the session file of `claude`
    #[arg(long)]
    transcript: bool,
    /// Print the task as a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn result(
    args: ResultArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let printer = Printer::of_lines(false, environment);
    let git = environment.git();
    let cwd = std::env::current_dir().context("the current folder is gone")?;
    let takes = args.form.branch.is_some() || args.form.apply;
    let repo = match takes {
        true => repository::around(&git, args.repo.as_deref(), &cwd).await?,
        false => None,
    };
    let origin = Origin::new(settings, environment)?;
    let saved = origin.data.join("saved");
    let contact = Contact::about_tasks(origin).await?;
    // From here on there is a folder to remove.
    let mut interrupts = Interrupts::install()?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let landing = Landing { repo, code: None, mirror: None, folder: cwd, saved, git };
    let mut taking = Taking { contact, printer, landing, scratch };
    tokio::select! {
        () = interrupts.next() => return Err(Stop::interrupted()),
        done = Box::pin(taking.perform(&args.task, args.form)) => done?,
    }
    taking.printer.exit(Exit::Success)
}

/// What it takes to take a result.
struct Taking {
    contact: Contact,
    printer: Printer,
    landing: Landing,
    /// A folder of ours.
    scratch: TempDir,
}

impl Taking {
    async fn perform(&mut self, name: &str, form: Form) -> Result<(), Stop> {
        let task = &self.contact.find(&mut self.printer, name).await?;
        if form.json {
            self.printer.json(task);
            return Ok(());
        }
        if task.outcome.is_none() {
            return Err(self.contact.not_over(task));
        }
        match form {
            Form { transcript: true, .. } => self.transcript(task).await,
            Form { branch: Some(name), .. } => self.branch(task, name).await,
            Form { diff: true, .. } | Form { patch: true, .. } | Form { apply: true, .. } => {
                self.work(task, &form).await
            }
            _ => {
                self.summary(task);
                Ok(())
            }
        }
    }

    async fn transcript(&mut self, task: &Task) -> Result<(), Stop> {
        let result = brought_out(task)?;
        if !result.transcript {
            let told = result.unsaved.iter().chain(&result.notes);
            let told: Vec<&str> =
                told.map(String::as_str).filter(|line| line.starts_with("the session")).collect();
            let why = told.join("; ");
            return Err(anyhow!("no session file came out of task {}: {why}", task.short).into());
        }
        let file = self.scratch.path().join("transcript");
        self.contact.ask(&mut self.printer, async |client| client.transcript(&task.id, &file).await).await?;
        self.print(&file)
    }

    async fn branch(&mut self, task: &Task, name: Option<String>) -> Result<(), Stop> {
        let Some(head) = self.head(task)? else { return Ok(()) };
        let name = name.unwrap_or_else(|| landing::default_place(task, &task.title));
        if task.workspace.is_some() {
            self.repo()?.check_branch(&name).await.map_err(Stop::usage)?;
        } else if self.landing.folder.join(&name).symlink_metadata().is_ok() {
            return Err(Stop::wrong(format!(
                "`{name}` is there already: choose another name with --branch NAME"
            )));
        }
        let place = self.landing.place(&self.contact, &mut self.printer, task, head, &name).await;
        let (place, others) = place.map_err(usage_of_git)?;
        match &place {
            Place::Branch(branch) => self.detail("branch", branch),
            Place::Folder(folder) => self.detail("folder", &folder.display().to_string()),
        }
        for branch in &others {
            self.detail("branch", branch);
        }
        for (label, command) in self.landing.next_steps(&place, task) {
            self.detail(label, &command);
        }
        Ok(())
    }

    /// Shows or applies the difference.
    async fn work(&mut self, task: &Task, form: &Form) -> Result<(), Stop> {
        let Some(head) = self.head(task)? else { return Ok(()) };
        if form.apply {
            self.repo()?;
        }
        let work = self.fetch(task, head).await?;
        let file = self.scratch.path().join("difference");
        if form.diff {
            work.diff(&file).await?;
            return if std::io::stdout().is_terminal() { self.show(&file) } else { self.print(&file) };
        }
        work.patch(&file).await?;
        if form.patch {
            return self.print(&file);
        }
        let repo = self.repo()?;
        work.apply(&file, repo).await.map_err(|error| usage_of_git(error.into()))?;
        let top = repo.top.display().to_string();
        self.detail("applied", &format!("to the files in {top}; nothing is staged or committed"));
        Ok(())
    }

    /// The work in a repository of ours.
    async fn fetch(&mut self, task: &Task, head: &str) -> Result<Work, Stop> {
        let Self { contact, printer, landing, scratch } = self;
        let path = |name: &str| scratch.path().join(name);
        let (bundle, base) = (path("work.bundle"), path("base.bundle"));
        contact.ask(printer, async |client| client.bundle(&task.id, &bundle).await).await?;
        if task.workspace.is_some() {
            contact.ask(printer, async |client| client.workspace(&task.id, &base).await).await?;
        }
        let commit = task.workspace.as_ref().map(|workspace| Base {
            bundle: &base,
            commit: &workspace.base,
            on: None,
        });
        Ok(Work::open(&landing.git, scratch.path(), commit, &bundle, head).await?)
    }

    /// The commit to take; none, and a word about it, if nothing was changed.
    fn head<'a>(&mut self, task: &'a Task) -> Result<Option<&'a str>, Stop> {
        let result = brought_out(task)?;
        let lost = || format!("task {}: not saved: {}", task.short, result.unsaved.join("; "));
        match landing::head(result) {
            Ok(Some(head)) => {
                result.unsaved.iter().for_each(|line| self.printer.aside(&format!("not saved: {line}")));
                Ok(Some(head))
            }
            Ok(None) if result.unsaved.is_empty() => {
                self.printer.aside(&format!("task {} changed nothing", task.short));
                Ok(None)
            }
            Ok(None) => Err(anyhow!(lost()).into()),
            Err(why) if result.unsaved.is_empty() => Err(anyhow!("task {}: {why}", task.short).into()),
            Err(_) => Err(anyhow!(lost()).into()),
        }
    }

    fn repo(&self) -> Result<&Repo, Stop> {
        self.landing.repo.as_ref().ok_or_else(|| {
            Stop::wrong(
                "there is no git repository here to take the work: go into it, or name it with --repo PATH",
            )
        })
    }

    fn summary(&mut self, task: &Task) {
        let Task { short, title, .. } = task;
        let outcome = task.outcome.as_ref();
        let name = outcome.map_or("", |outcome| outcome.name.as_str());
        self.printer.closing(&format!("{short}  {name}  {title}"));
        if let Some(reason) = outcome.and_then(|outcome| outcome.detail.as_deref()) {
            self.detail("reason", reason);
        }
        if let Some(usage) = &task.usage {
            self.detail("used", &used_words(usage));
        }
        if task.pruned {
            return self.detail("not kept", "what came out of it: it was over too long ago");
        }
        let Some(result) = &task.result else {
            return self.detail("no result", "nothing came out of a machine");
        };
        let head = landing::head(result);
        match (head, &task.workspace) {
            (Ok(Some(head)), Some(workspace)) => {
                self.detail("work", &format!("commit {head} on {} of {}", workspace.base, workspace.name));
            }
            (Ok(Some(head)), None) => self.detail("work", &format!("commit {head}, from an empty folder")),
            (Ok(None), _) if result.unsaved.is_empty() => self.detail("no changes", ""),
            (Ok(None), _) => {}
            (Err(why), _) => self.detail("not saved", why),
        }
        if !result.others.is_empty() {
            let others = result.others.join(", ");
            self.detail("beside", &format!("{others}: each becomes a branch of its own with --branch"));
        }
        result.unsaved.iter().for_each(|line| self.detail("not saved", line));
        result.notes.iter().for_each(|line| self.detail("note", line));
        let command = |how: &str| {
            let origin = self.contact.origin();
            origin.map_or_else(String::new, |origin| origin.command(&format!("result {short} {how}")))
        };
        let mut steps = Vec::new();
        if head.is_ok_and(|head| head.is_some()) {
            steps = vec![("look", command("--diff")), ("take", command("--branch"))];
        }
        steps.extend(result.transcript.then(|| ("transcript", command("--transcript"))));
        for (label, command) in steps {
            self.detail(label, &command);
        }
    }

    fn detail(&mut self, label: &str, text: &str) {
        self.printer.closing(format!("          {label:<12}{text}").trim_end());
    }

    /// Prints a file as it is.
    fn print(&mut self, file: &Path) -> Result<(), Stop> {
        let mut file = File::open(file)?;
        let mut buffer = vec![0; READ_BYTES];
        while !self.printer.unread() {
            match file.read(&mut buffer)? {
                0 => break,
                read => self.printer.bytes(&buffer[..read]),
            }
        }
        Ok(())
    }

    /// Prints a diff to a terminal, which obeys nothing of it.
    fn show(&mut self, file: &Path) -> Result<(), Stop> {
        let mut file = BufReader::new(File::open(file)?);
        let mut line = Vec::new();
        while !self.printer.unread() && file.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            self.printer.code(text.trim_end_matches('\n'));
            line.clear();
        }
        Ok(())
    }
}

/// What was used of the model API, and what it cost.
fn used_words(usage: &Usage) -> String {
    let Usage { requests, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, .. } = usage;
    let by = usage.cost_by.as_deref().unwrap_or_default();
    let cost = match usage.cost_usd {
        Some(usd) => format!("{} by {by}", values::show_dollars(usd)),
        None => format!("no cost: {by}"),
    };
    format!(
        "{requests} requests; tokens: {input_tokens} in, {output_tokens} out, {cache_read_tokens} read from a cache, \
         {cache_write_tokens} written to one; {cost}"
    )
}

/// What came out of the machine of a task.
fn brought_out(task: &Task) -> Result<&Collected, Stop> {
    if task.pruned {
        return Err(Stop::wrong(format!(
            "what came out of task {} is not kept any more: it was over longer ago than `keep_finished` of the \
             orchestrator says",
            task.short
        )));
    }
    let outcome = task.outcome.as_ref().map_or("", |outcome| outcome.name.as_str());
    task.result.as_ref().ok_or_else(|| {
        anyhow!("nothing came out of a machine of task {} ({outcome}): there is nothing to take", task.short)
            .into()
    })
}

/// What does not fit the user's repository is theirs to change.
fn usage_of_git(error: anyhow::Error) -> Stop {
    match error.downcast_ref() {
        Some(GitError::Unrelated(_) | GitError::NoFit { .. }) => Stop::usage(error),
        _ => error.into(),
    }
}
