//! Brings a task's work home: as a branch of the user's repository, or as a folder where there is none: a new repository,
//! or a clone of the one elsewhere that the task worked on.
//!
//! It lands by one last step (a ref, a rename), so that what is given up half-way has landed or has not. What has not
//! is still with the orchestrator, and the user is told the command that takes it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_git::{
    Base, Began, Changes, Flagged, Git, GitError, Made, Mirror, Quarantine, Repo, Snapshot, changes, unbundle,
};
use mayfly_wire::api::{Artifacts, Collected, Task, Workspace};
use mayfly_wire::worker::NO_ARTIFACTS;
use tempfile::TempDir;

use crate::contact::{Contact, Origin};
use crate::git_url::GitUrl;
use crate::printer::Printer;
use crate::values::{shell_word, slug};

/// The most files that are named of those that would run by themselves.
const FLAGGED_MAX: usize = 10;

/// Where work lands, and what it starts from.
#[derive(Debug)]
pub(crate) struct Landing {
    /// The user's repository; none is around.
    pub(crate) repo: Option<Repo>,
    /// Whether the user has named it, and so means no other place.
    pub(crate) named: bool,
    /// What was handed over from it just now.
    pub(crate) code: Option<Code>,
    /// The repository elsewhere that it was handed over from, which takes work only as a clone of it.
    pub(crate) mirror: Option<Mirror>,
    /// The user's current folder, where new folders are made.
    pub(crate) folder: PathBuf,
    /// Where transcripts are kept.
    pub(crate) saved: PathBuf,
    /// git, as this user has it.
    pub(crate) git: Git,
}

/// The code that tasks work on.
#[derive(Debug)]
pub(crate) struct Code {
    /// Takes what comes back.
    pub(crate) quarantine: Quarantine,
    /// What was handed over.
    pub(crate) snapshot: Snapshot,
}

/// A task that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over<'a> {
    /// As the orchestrator has it.
    pub(crate) task: &'a Task,
    /// The words that name its branch.
    pub(crate) title: &'a str,
    /// Whether it got so far that there should be a result.
    pub(crate) result_due: bool,
}

/// What became of a task's work.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Landed {
    /// The branch or folder; none if there was nothing, or it could not land.
    pub(crate) place: Option<Place>,
    /// The branches with what the agent committed beside its work.
    pub(crate) others: Vec<String>,
    /// What of it would run by itself, a line each.
    pub(crate) flagged: Vec<String>,
    /// The session file.
    pub(crate) transcript: Option<PathBuf>,
    /// What came out besides the work.
    pub(crate) artifacts: Option<Artifacts>,
    /// Whether the machine says that nothing was changed.
    pub(crate) unchanged: bool,
    /// What could not be saved or landed, a line each.
    pub(crate) lost: Vec<String>,
    /// The command that takes what has not landed.
    pub(crate) by_hand: Option<String>,
    /// What else is worth knowing, a line each.
    pub(crate) notes: Vec<String>,
    /// Whether something that should have come home did not.
    pub(crate) failed: bool,
}

impl Landed {
    fn fail(&mut self, what: &str) {
        self.lost.push(what.to_owned());
        self.failed = true;
    }
}

/// Work that has landed.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    /// The branches with what the agent committed beside its work.
    pub(crate) others: Vec<String>,
    /// What of it would run by itself, a line each.
    pub(crate) flagged: Vec<String>,
    /// Why its files are not in its folder, and how to get them; none is that they are.
    pub(crate) without_files: Option<String>,
}

impl Placed {
    fn new(place: Place, others: Vec<String>, changes: Result<Changes, GitError>) -> Self {
        let flagged = match changes {
            Ok(changes) => flagged(&changes),
            Err(error) => vec![format!("what it changed cannot be listed, so look at it first: {error}")],
        };
        Self { place, others, flagged, without_files: None }
    }

    fn in_folder(folder: PathBuf, made: Made, changes: Result<Changes, GitError>) -> Self {
        let words = |too_much| {
            let shown = shell_word(&folder.to_string_lossy());
            format!(
                "the folder has no files yet, since {too_much}: `git -C {shown} reset --hard` writes them"
            )
        };
        let without_files = made.without_files.map(words);
        Self { without_files, ..Self::new(Place::Folder(folder), made.others, changes) }
    }
}

/// Where work landed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A new branch of the user's repository.
    Branch(String),
    /// A new repository, or a new clone.
    Folder(PathBuf),
}

impl Landing {
    /// How the user calls git on the repository from where they are.
    pub(crate) fn git_words(&self) -> String {
        match &self.repo {
            Some(repo) if !self.folder.starts_with(&repo.top) => {
                format!("git -C {}", shell_word(&repo.top.to_string_lossy()))
            }
            _ => "git".to_owned(),
        }
    }

    /// Brings home what a task left. Not a failure: whatever does not work is said in [`Landed::lost`].
    pub(crate) async fn land(&self, contact: &Contact, printer: &mut Printer, over: Over<'_>) -> Landed {
        let mut landed = Landed::default();
        let Over { task, title, result_due } = over;
        let Some(result) = &task.result else {
            if result_due {
                landed.fail("the work: its machine ended before it could be brought out");
            }
            return landed;
        };
        // Patterns may be meant for every task there is.
        landed.notes.extend(result.notes.iter().filter(|note| *note != NO_ARTIFACTS).cloned());
        landed.artifacts = result.artifacts;
        match other_attempts(contact, printer, task).await {
            Ok(others) => {
                let note = |attempt| attempt_words(contact.origin(), &task.short, attempt);
                landed.notes.extend(others.into_iter().map(note));
            }
            Err(error) => landed.notes.push(format!("what other attempts left is not known: {error:#}")),
        }
        result.unsaved.iter().for_each(|unsaved| landed.fail(unsaved));
        self.transcript(contact, printer, task, &mut landed).await;
        match head(result) {
            Ok(None) => landed.unchanged = result.unsaved.is_empty(),
            Ok(Some(head)) => {
                let place = default_place(task, title);
                match self.place(contact, printer, task, head, &place).await {
                    Ok(Placed { place, others, flagged, without_files }) => {
                        landed.place = Some(place);
                        landed.notes.extend(without_files);
                        (landed.others, landed.flagged) = (others, flagged);
                    }
                    // Another place would not make it any better.
                    Err(error) if is_refusal(&error) => {
                        landed.fail(&format!("the work: it was refused, and has not landed: {error:#}"));
                    }
                    Err(error) => {
                        landed.fail(&format!("the work: it has not landed: {error:#}"));
                        landed.by_hand = self.by_hand(contact, task, title);
                    }
                }
            }
            // The worker has said why, most likely.
            Err(why) if landed.lost.is_empty() => landed.fail(why),
            Err(_) => {}
        }
        landed
    }

    async fn transcript(&self, contact: &Contact, printer: &mut Printer, task: &Task, landed: &mut Landed) {
        if !task.result.as_ref().is_some_and(|result| result.transcript) {
            return;
        }
        let path = self.saved.join(format!("{}.jsonl", task.short));
        let saved = async {
            make_private(&self.saved)?;
            contact
                .ask(printer, async |client| client.transcript(&task.id, task.result_attempt, &path).await)
                .await
        };
        match saved.await {
            Ok(()) => landed.transcript = Some(path),
            Err(error) => landed.fail(&format!("the transcript: {error:#}")),
        }
    }

    /// Lands the work of a task at a place named `name`: a branch, or a folder if the task began with nothing. With it
    /// come the branches with what the agent committed beside its work.
    pub(crate) async fn place(
        &self,
        contact: &Contact,
        printer: &mut Printer,
        task: &Task,
        head: &str,
        name: &str,
    ) -> anyhow::Result<Placed> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let bundle = scratch.path().join("work.bundle");
        contact
            .ask(printer, async |client| client.bundle(&task.id, task.result_attempt, &bundle).await)
            .await?;
        let Some(workspace) = &task.workspace else {
            let folder = self.folder.join(name);
            let made = unbundle(&self.git, None, &bundle, head, &folder, "main").await?;
            return Ok(self.in_folder(folder, made, None, head, &bundle).await);
        };
        let folder = self.folder_for(name);
        let base = Some(&*workspace.base);
        if let (Some(mirror), None) = (&self.mirror, &self.repo) {
            let made = mirror.clone_with(&bundle, head, &folder, name).await?;
            return Ok(self.in_folder(folder, made, base, head, &bundle).await);
        }
        let own;
        let quarantine = match (&self.code, &self.repo) {
            (Some(code), _) if code.snapshot.base == workspace.base => Some(&code.quarantine),
            (_, Some(repo)) => {
                own = self.quarantine(contact, printer, task, workspace, repo, &scratch).await?;
                own.as_ref()
            }
            (_, None) => None,
        };
        let Some(quarantine) = quarantine else {
            let code = scratch.path().join("code.bundle");
            contact.ask(printer, async |client| client.workspace(&task.id, &code).await).await?;
            let base_of = Base { bundle: &code, commit: &workspace.base, on: None };
            let began = Began { base: base_of, origin: origin(workspace) };
            let made = unbundle(&self.git, Some(began), &bundle, head, &folder, name).await?;
            return Ok(self.in_folder(folder, made, base, head, &bundle).await);
        };
        let others = quarantine.land(&bundle, head, name).await?;
        let changes = quarantine.changes(&workspace.base, head, &bundle).await;
        Ok(Placed::new(Place::Branch(name.to_owned()), others, changes))
    }

    async fn in_folder(
        &self,
        folder: PathBuf,
        made: Made,
        base: Option<&str>,
        head: &str,
        bundle: &Path,
    ) -> Placed {
        let changes = changes(&self.git, &folder.join(".git"), base, head, bundle).await;
        Placed::in_folder(folder, made, changes)
    }

    /// The folder of work whose branch is called so, where no repository takes it.
    pub(crate) fn folder_for(&self, branch: &str) -> PathBuf {
        self.folder.join(branch.replace('/', "-"))
    }

    /// One that takes the work of a task that was handed over at some other time. `None`: the task worked on a repository
    /// elsewhere, and `repo` is another one, which only happens to be around.
    async fn quarantine(
        &self,
        contact: &Contact,
        printer: &mut Printer,
        task: &Task,
        workspace: &Workspace,
        repo: &Repo,
        scratch: &TempDir,
    ) -> anyhow::Result<Option<Quarantine>> {
        let quarantine = repo.quarantine(scratch.path()).await?;
        if !quarantine.starts_from(&workspace.base).await? {
            let base = scratch.path().join("base.bundle");
            contact.ask(printer, async |client| client.workspace(&task.id, &base).await).await?;
            match quarantine.start_from(&base, &workspace.base).await {
                Err(GitError::Unrelated(_)) if workspace.origin.is_some() && !self.named => return Ok(None),
                started => started?,
            }
        }
        Ok(Some(quarantine))
    }

    /// The command that takes work that has not landed. Its name is in nobody's way: what could be in the way of the
    /// usual one is a branch `mayfly`, or the folder.
    fn by_hand(&self, contact: &Contact, task: &Task, title: &str) -> Option<String> {
        let name = format!("mayfly-{}-by-hand", name(&task.short, title));
        self.take_command(contact, &task.short, task.workspace.is_some(), &format!("--branch {name}"))
    }

    /// The command that takes the work of the task `short`. None where the orchestrator ends with this process.
    pub(crate) fn take_command(
        &self,
        contact: &Contact,
        short: &str,
        has_code: bool,
        how: &str,
    ) -> Option<String> {
        let repo = match &self.repo {
            None => String::new(),
            _ if !has_code => String::new(),
            Some(repo) if self.folder.starts_with(&repo.top) => String::new(),
            Some(repo) => format!(" --repo {}", shell_word(&repo.top.to_string_lossy())),
        };
        Some(contact.origin()?.command(&format!("result {short} {how}{repo}")))
    }

    /// How to look at what has landed, and to take it: labels and commands.
    pub(crate) fn next_steps(&self, place: &Place, task: &Task) -> Vec<(&'static str, String)> {
        let Place::Branch(branch) = place else { return Vec::new() };
        let git = self.git_words();
        let base = task.workspace.as_ref().map(|workspace| &workspace.base);
        // Merging brings what was not committed when the task began, which is still in the user's files.
        let dirty = self.repo.as_ref().is_some_and(|repo| base != Some(&repo.head));
        let first = if dirty { "   # after a commit or stash of what you have not committed" } else { "" };
        vec![
            ("look", format!("{git} diff HEAD...{branch}")),
            ("take", format!("{git} merge {branch}{first}")),
        ]
    }
}

/// The URL that code was fetched from, if it is one that `git` is to be led to.
fn origin(workspace: &Workspace) -> Option<&str> {
    workspace.origin.as_deref().filter(|url| matches!(GitUrl::read(url), Ok(Some(_))))
}

/// What would run later by itself, a line each.
pub(crate) fn flagged(changes: &Changes) -> Vec<String> {
    let all = &changes.flagged;
    let line = |Flagged { beside, path, words }: &Flagged| {
        let beside = beside.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        format!("{beside}{path}: {words}, which takes effect by itself")
    };
    let more = all.len().saturating_sub(FLAGGED_MAX);
    let mut lines: Vec<_> = all.iter().take(FLAGGED_MAX).map(line).collect();
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

/// Whether what came back is not fit for a repository.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(GitError::is_refusal)
}

/// The commit that comes home, if there is one.
pub(crate) fn head(result: &Collected) -> Result<Option<&str>, &'static str> {
    match (result.head.as_deref(), result.bundle) {
        (None, _) => Ok(None),
        (Some(head), true) => Ok(Some(head)),
        (Some(_), false) => Err("the work: it was committed, and did not come out of the machine"),
    }
}

/// Where a task's work lands unless another name is given.
pub(crate) fn default_place(task: &Task, title: &str) -> String {
    let between = if task.workspace.is_some() { '/' } else { '-' };
    format!("mayfly{between}{}", name(&task.short, title))
}

fn name(short: &str, title: &str) -> String {
    format!("{short}-{}", slug(title))
}

/// What to print of it, below the task's own line: labels and texts.
pub(crate) fn lines(landed: &Landed) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    match &landed.place {
        Some(Place::Branch(branch)) => lines.push(("branch", branch.clone())),
        Some(Place::Folder(folder)) => lines.push(("folder", folder.display().to_string())),
        None if landed.unchanged => lines.push(("no changes", String::new())),
        None => {}
    }
    lines.extend(landed.others.iter().map(|branch| ("branch", branch.clone())));
    lines.extend(landed.flagged.iter().map(|line| ("flagged", line.clone())));
    lines.extend(landed.lost.iter().map(|lost| ("not saved", lost.clone())));
    lines.extend(landed.by_hand.iter().map(|command| ("by hand", command.clone())));
    lines.extend(landed.notes.iter().map(|note| ("note", note.clone())));
    lines.extend(landed.artifacts.map(|artifacts| ("artifacts", artifacts_words(artifacts))));
    lines.extend(landed.transcript.iter().map(|path| ("transcript", path.display().to_string())));
    lines
}

/// The attempts of a task that left work which is not its result.
pub(crate) async fn other_attempts(
    contact: &Contact,
    printer: &mut Printer,
    task: &Task,
) -> anyhow::Result<Vec<u32>> {
    if task.attempt < 2 || task.pruned {
        return Ok(Vec::new());
    }
    let attempt = task.result_attempt;
    let result = contact.ask(printer, async |client| client.result(&task.id, attempt).await).await;
    result.map(|result| result.other_attempts)
}

/// What is told of one of them, with the command that shows it.
pub(crate) fn attempt_words(origin: Option<&Origin>, short: &str, attempt: u32) -> String {
    let command = origin.map(|origin| origin.command(&format!("result {short} --attempt {attempt}")));
    let command = command.map(|command| format!(": `{command}`")).unwrap_or_default();
    format!("attempt {attempt} left work too{command}")
}

/// How much came out besides the work.
pub(crate) fn artifacts_words(Artifacts { files, bytes }: Artifacts) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{files} {noun}, {bytes} bytes")
}

/// Makes a folder that only this user can enter, if it is not there.
fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder `{}`", folder.display()))
}

#[cfg(test)]
mod tests;
