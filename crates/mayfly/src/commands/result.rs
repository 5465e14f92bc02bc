//! `mayfly result`: what came out of a task that is over, told or taken.
//!
//! Everything is fetched from the orchestrator, however long ago the task was, and whoever followed it. The work is
//! looked at in a repository of our own; the user's is touched by `--branch` and `--apply` alone.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use mayfly_client::{Client, ClientError};
use mayfly_git::{Base, GitError, Hooks, Repo, Work};
use mayfly_library::artifacts::unpack;
use mayfly_wire::api::{Artifacts, Collected, Task};
use tempfile::TempDir;

use crate::cli::DataArgs;
use crate::config::Settings;
use crate::contact::{Contact, Origin};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::interrupts::Interrupts;
use crate::landing::{self, Landing, Place, Placed};
use crate::printer::Printer;
use crate::{repository, values};
use summary::Summary;

mod summary;

/// What is read of a file at once.
const READ_BYTES: usize = 64 * 1024;

const RESULT_EXAMPLES: &str = "\
Examples:
  mayfly result 1a2b3c4d                  # how it ended, what it did, and what came out
  mayfly result 1a2b3c4d --diff
  mayfly result 1a2b3c4d --branch         # mayfly/1a2b3c4d-<first words of the prompt>
  mayfly result 1a2b3c4d --patch | git apply
  mayfly result 1a2b3c4d --apply          # the same, in one step
  mayfly result 1a2b3c4d --artifacts out  # what `artifacts` in mayfly.toml or the task named

Everything is against the code that the task started from; of a task that was resumed, against that
of the first. What does not fit your files is refused before one of them is changed; a kill in the
middle of --apply can leave some of them missing, which `git status` shows: --branch has the whole, also
what is in no file: the commits of submodules, and those beside the work.
If no orchestrator runs, one is started in the background, as by `mayfly run`.";

/// Tell how a task ended and what came out of it, or take that
#[derive(Debug, clap::Args)]
#[command(after_help = RESULT_EXAMPLES)]
pub(crate) struct ResultArgs {
    /// The task: its id, or the last digits of it
    #[arg(value_name = "TASK", value_parser = values::task)]
    task: String,
    #[command(flatten)]
    form: Form,
    /// With --apply: also what takes effect by itself, such as hooks, pipelines and settings of editors and agents
    #[arg(long, requires = "apply")]
    with_flagged: bool,
    /// What this attempt left, from 1, of a task that was tried again [default: the last of which anything came out]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// The git repository that takes the work [default: the one around the current folder, else a new folder]
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
    /// Make a branch of the work [default: mayfly/<short id>-<words of the prompt>]; where no repository is around that
    /// the task worked on, and of a task that began with nothing, a new folder
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "as clap has it: no flag, a flag, a flag with a name")]
    branch: Option<Option<String>>,
    /// Put the work into the files of the repository, if it fits and nothing in it takes effect by itself; else
    /// no file is changed
    #[arg(long)]
    apply: bool,
    /// Put the artifacts into this folder, which is new or empty
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Print the session file of `claude`
    #[arg(long)]
    transcript: bool,
    /// Print the task and its summary as a JSON object
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
    let takes = args.form.branch.is_some() || args.form.apply || args.repo.is_some();
    let named = args.repo.is_some();
    let around = repository::around(&git, args.repo.as_deref(), &cwd).await;
    // Whoever only looks needs none, though with one less is to be fetched.
    let repo = if takes { around? } else { around.ok().flatten() };
    let origin = Origin::new(settings, environment)?;
    let saved = origin.data.join("saved");
    let contact = Contact::about_tasks(origin).await?;
    // From here on there is a folder to remove.
    let mut interrupts = Interrupts::install()?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let landing = Landing { repo, named, code: None, mirror: None, folder: cwd, saved, git };
    let mut taking = Taking { contact, printer, landing, attempt: args.attempt, scratch };
    tokio::select! {
        () = interrupts.next() => return Err(Stop::interrupted()),
        done = Box::pin(taking.perform(&args.task, args.form, args.with_flagged)) => done?,
    }
    taking.printer.exit(Exit::Success)
}

/// What it takes to take a result.
struct Taking {
    contact: Contact,
    printer: Printer,
    landing: Landing,
    /// The attempt that was asked for.
    attempt: Option<u32>,
    /// A folder of ours.
    scratch: TempDir,
}

impl Taking {
    async fn perform(&mut self, name: &str, form: Form, with_flagged: bool) -> Result<(), Stop> {
        let task = &mut self.contact.find(&mut self.printer, name).await?;
        if let Some(attempt) = self.attempt {
            self.of_attempt(task, attempt).await?;
        }
        let task = &*task;
        if form.json {
            let summary = Summary::of(task, self).await;
            self.printer.json(&summary);
            return Ok(());
        }
        if task.outcome.is_none() {
            return Err(self.contact.not_over(task));
        }
        match form {
            Form { transcript: true, .. } => self.transcript(task).await,
            Form { artifacts: Some(folder), .. } => self.artifacts(task, &folder).await,
            Form { branch: Some(name), .. } => self.branch(task, name).await,
            Form { diff: true, .. } | Form { patch: true, .. } | Form { apply: true, .. } => {
                self.work(task, &form, with_flagged).await
            }
            _ => {
                let lines = Summary::of(task, self).await.lines(self.contact.origin());
                for (label, text) in lines {
                    match label {
                        Some(label) => self.detail(label, &text),
                        None => self.printer.closing(&text),
                    }
                }
                Ok(())
            }
        }
    }

    /// Puts what another attempt left in the place of the task's result.
    async fn of_attempt(&mut self, task: &mut Task, attempt: u32) -> Result<(), Stop> {
        if task.outcome.is_none() {
            return Err(self.contact.not_over(task));
        }
        let asked = async |client: &Client| client.result(&task.id, Some(attempt)).await;
        let left = match self.contact.ask(&mut self.printer, asked).await {
            Err(error) if is_nothing(&error) => {
                return Err(Stop::wrong(format!(
                    "nothing came out of attempt {attempt} of task {}: it had {}",
                    task.short, task.attempt
                )));
            }
            left => left?,
        };
        (task.result, task.result_attempt) = (left.collected, left.attempt);
        Ok(())
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
        self.contact
            .ask(&mut self.printer, async |client| {
                client.transcript(&task.id, task.result_attempt, &file).await
            })
            .await?;
        self.print(&file)
    }

    /// Unpacks the artifacts beside their place, and moves them there when all are there.
    async fn artifacts(&mut self, task: &Task, folder: &Path) -> Result<(), Stop> {
        let result = brought_out(task)?;
        if result.artifacts.is_none() {
            let told = result.unsaved.iter().chain(&result.notes);
            let told: Vec<&str> = told.map(String::as_str).filter(|line| line.contains("artifact")).collect();
            let why = if told.is_empty() { "none were asked for".to_owned() } else { told.join("; ") };
            return Err(anyhow!("no artifacts came out of task {}: {why}", task.short).into());
        }
        let taken = || Stop::wrong(format!("`{}` is not empty: name a new folder", folder.display()));
        if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(taken());
        }
        let archive = self.scratch.path().join("artifacts");
        self.contact
            .ask(&mut self.printer, async |client| {
                client.artifacts(&task.id, task.result_attempt, &archive).await
            })
            .await?;
        let beside =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = || format!("cannot make a folder in `{}`", beside.display());
        let unfinished =
            tempfile::Builder::new().prefix(".mayfly-").tempdir_in(beside).with_context(cannot)?;
        // One level down, so that its mode is the user's usual one.
        let made = unfinished.path().join("made");
        std::fs::create_dir(&made).with_context(cannot)?;
        let members = unpack(BufReader::new(File::open(&archive)?), &made)?;
        match std::fs::rename(&made, folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Err(taken()),
            moved => moved.with_context(|| format!("cannot put them into `{}`", folder.display()))?,
        }
        let bytes: u64 = members.iter().map(|member| member.bytes).sum();
        let words = landing::artifacts_words(Artifacts { files: members.len() as u64, bytes });
        self.detail("artifacts", &format!("{words}, in {}", folder.display()));
        Ok(())
    }

    async fn branch(&mut self, task: &Task, name: Option<String>) -> Result<(), Stop> {
        let Some(head) = self.head(task)? else { return Ok(()) };
        let name = name.unwrap_or_else(|| landing::default_place(task, &task.title));
        let folder = match (&task.workspace, &self.landing.repo) {
            (Some(_), Some(repo)) => {
                repo.check_branch(&name).await.map_err(Stop::usage)?;
                None
            }
            (Some(_), None) => Some(self.landing.folder_for(&name)),
            (None, _) => Some(self.landing.folder.join(&name)),
        };
        if let Some(folder) = folder.filter(|folder| folder.symlink_metadata().is_ok()) {
            return Err(Stop::wrong(format!(
                "`{}` is there already: choose another name with --branch NAME",
                folder.display()
            )));
        }
        let place = self.landing.place(&self.contact, &mut self.printer, task, head, &name).await;
        let Placed { place, others, flagged, without_files } = place.map_err(usage_of_git)?;
        match &place {
            Place::Branch(branch) => self.detail("branch", branch),
            Place::Folder(folder) => self.detail("folder", &folder.display().to_string()),
        }
        for branch in &others {
            self.detail("branch", branch);
        }
        for line in &flagged {
            self.detail("flagged", line);
        }
        if let Some(line) = &without_files {
            self.detail("note", line);
        }
        for (label, command) in self.landing.next_steps(&place, task) {
            self.detail(label, &command);
        }
        Ok(())
    }

    /// Shows or applies the difference.
    async fn work(&mut self, task: &Task, form: &Form, with_flagged: bool) -> Result<(), Stop> {
        let Some(head) = self.head(task)? else { return Ok(()) };
        if form.apply {
            self.repo(task)?;
        }
        let work = self.fetch(task, head).await?;
        let file = self.scratch.path().join("difference");
        let mut changes = work.changes(&self.hooks().await?).await?;
        if form.apply {
            // What is beside the work does not come into the files.
            changes.flagged.retain(|file| file.beside.is_none());
        }
        let flagged = landing::flagged(&changes);
        if !form.apply {
            // Beside what is printed, which is the difference alone.
            for line in &flagged {
                self.printer.aside(&format!("flagged: {line}"));
            }
            for line in not_in_files(&work, &[]) {
                self.printer.aside(&format!("not shown: {line}; --branch takes it too"));
            }
        }
        if form.diff {
            work.diff(&file).await.map_err(usage_of_patch)?;
            return self.print(&file);
        }
        work.patch(&file).await.map_err(usage_of_patch)?;
        if form.patch {
            return self.print(&file);
        }
        if !flagged.is_empty() && !with_flagged {
            return Err(Stop::wrong(format!(
                "nothing was changed, since the work has files that take effect by themselves: look at them with --diff, then \
                 add --with-flagged to --apply, or take the work as a branch with --branch\n  {}",
                flagged.join("\n  ")
            )));
        }
        let submodules = work.submodules().await?;
        let left = not_in_files(&work, &submodules);
        if submodules.len() == changes.count {
            return Err(Stop::wrong(format!(
                "nothing was changed, since nothing of the work is in files: take it as a branch with --branch\n  {}",
                left.join("\n  ")
            )));
        }
        let repo = self.repo(task)?;
        work.apply(&file, repo).await.map_err(|error| match error {
            GitError::TooMuchMemory(_) => usage_of_patch(error),
            other => usage_of_git(other.into()),
        })?;
        let top = repo.top.display().to_string();
        self.detail("applied", &format!("to the files in {top}; nothing is staged or committed"));
        for line in &left {
            self.detail("not applied", line);
        }
        if let (false, Some(take)) = (left.is_empty(), self.take_command(task)) {
            self.detail("all of it", &take);
        }
        Ok(())
    }

    /// The command that takes all of the work.
    fn take_command(&self, task: &Task) -> Option<String> {
        let how = of_attempt(self.attempt, "--branch");
        self.landing.take_command(&self.contact, &task.short, task.workspace.is_some(), &how)
    }

    /// The hooks of the repository that takes the work, if there is one.
    pub(super) async fn hooks(&self) -> Result<Hooks, GitError> {
        match &self.landing.repo {
            Some(repo) => repo.hooks().await,
            None => Ok(Hooks::default()),
        }
    }

    /// The work in a repository of ours. Only where the user's does not have what it is built on, that is fetched too.
    pub(super) async fn fetch(&mut self, task: &Task, head: &str) -> Result<Work, Stop> {
        let Self { contact, printer, landing, scratch, .. } = self;
        let path = |name: &str| scratch.path().join(name);
        let (bundle, base) = (path("work.bundle"), path("base.bundle"));
        contact
            .ask(printer, async |client| client.bundle(&task.id, task.result_attempt, &bundle).await)
            .await?;
        if let (Some(repo), Some(workspace)) = (&landing.repo, &task.workspace) {
            let opened = Work::open_on(repo, scratch.path(), &workspace.base, &bundle, head).await?;
            if let Some(work) = opened {
                return Ok(work);
            }
        }
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

    fn repo(&self, task: &Task) -> Result<&Repo, Stop> {
        let name = task.workspace.as_ref().map(|workspace| workspace.name.as_str());
        self.landing.repo.as_ref().ok_or_else(|| {
            let which = name.map_or("one".to_owned(), |name| format!("a clone of `{name}`, which the task worked on"));
            Stop::wrong(format!(
                "there is no git repository here with files to put the work into: go into {which}, or name it with --repo \
                 PATH; if you have none, --branch makes a new folder of the work"
            ))
        })
    }

    fn detail(&mut self, label: &str, text: &str) {
        self.printer.closing(format!("          {label:<12}{text}").trim_end());
    }

    /// Prints what a task made: as it is, and to a terminal so that this obeys nothing of it.
    fn print(&mut self, file: &Path) -> Result<(), Stop> {
        if std::io::stdout().is_terminal() {
            return self.show(file);
        }
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

    fn show(&mut self, file: &Path) -> Result<(), Stop> {
        let mut file = BufReader::new(File::open(file)?);
        let mut line = Vec::new();
        while !self.printer.unread() && read_line(&mut file, &mut line)? {
            let text = String::from_utf8_lossy(&line);
            self.printer.code(text.trim_end_matches('\n'));
        }
        Ok(())
    }
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

/// What of the work cannot come into files, a line each.
fn not_in_files(work: &Work, submodules: &[String]) -> Vec<String> {
    let submodules = submodules.iter().map(|path| format!("{path}: the commit of a submodule"));
    let others = work.others().map(|name| format!("{name}: what the agent committed beside its work"));
    submodules.chain(others).collect()
}

/// A form of `mayfly result`, for the attempt that was asked for.
fn of_attempt(attempt: Option<u32>, form: &str) -> String {
    attempt.map_or(form.to_owned(), |attempt| format!("--attempt {attempt} {form}"))
}

/// Whether the orchestrator says that nothing came out.
fn is_nothing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Refused(problem)) if problem.kind == "no-such-result")
}

/// Takes the next line of a file, or of a longer one the next [`READ_BYTES`]. `false`: there is none.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    Ok(file.take(READ_BYTES as u64).read_until(b'\n', line)? > 0)
}

/// Of a file that was changed a patch has all that it was and is, which git holds in memory; a branch needs none of that.
fn usage_of_patch(error: GitError) -> Stop {
    match error {
        GitError::TooMuchMemory(_) | GitError::TooMuchText => Stop::usage(
            anyhow::Error::from(error).context("the work is too large for a patch: take it with --branch"),
        ),
        other => other.into(),
    }
}

/// What does not fit the user's repository is theirs to change.
fn usage_of_git(error: anyhow::Error) -> Stop {
    match error.downcast_ref() {
        Some(GitError::Unrelated(_) | GitError::CutOff { .. } | GitError::NoFit { .. }) => Stop::usage(error),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_length_is_read_in_pieces() {
        let long = "x".repeat(READ_BYTES + 1);
        let text = format!("a\n{long}\nb");
        let (mut file, mut line, mut lengths) = (text.as_bytes(), Vec::new(), Vec::new());
        while read_line(&mut file, &mut line).expect("memory") {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [2, READ_BYTES, 2, 1]);
    }

    #[test]
    fn work_that_is_too_large_for_a_patch_is_to_be_taken_as_a_branch() {
        let told = usage_of_patch(GitError::TooMuchMemory("diff".to_owned())).into_error();
        let told = format!("{told:#}");
        assert!(
            told.starts_with("the work is too large for a patch: take it with --branch: git diff"),
            "{told}"
        );
    }
}
