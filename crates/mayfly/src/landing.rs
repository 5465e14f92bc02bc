//! Brings a task's work home: as a branch of the user's repository, or as a folder where there was none.
//!
//! The bundle and the transcript are stored in `saved` first. A bundle is removed once it has landed; one that
//! cannot land stays, and the user is told where it is and how to take it by hand. It lands by one last step
//! (a ref, a rename), so that what is given up half-way has landed or has not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_git::{Git, Quarantine, Snapshot, unbundle};
use mayfly_wire::api::{Collected, Task};
use mayfly_wire::worker::{OTHER_REFS, WORK_REF};

use crate::contact::Contact;
use crate::orchestrator::make_private;
use crate::printer::Printer;
use crate::values::{shell_word, slug};

/// Where work lands, and what it starts from.
#[derive(Debug)]
pub(crate) struct Landing {
    /// The repository; none is an empty workspace.
    pub(crate) code: Option<Code>,
    /// The user's current folder, where new folders are made.
    pub(crate) folder: PathBuf,
    /// Where bundles and transcripts are kept.
    pub(crate) saved: PathBuf,
    /// git, as this user has it.
    pub(crate) git: Git,
}

/// The code that tasks work on.
#[derive(Debug)]
pub(crate) struct Code {
    /// The top folder of the user's repository.
    pub(crate) top: PathBuf,
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
    /// The session file.
    pub(crate) transcript: Option<PathBuf>,
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

/// Where work landed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A new branch of the user's repository.
    Branch(String),
    /// A new repository.
    Folder(PathBuf),
}

impl Landing {
    /// Whether the tasks began with work that the user has not committed.
    pub(crate) fn dirty(&self) -> bool {
        self.code.as_ref().is_some_and(|code| code.snapshot.dirty)
    }

    /// How the user calls git on the repository from where they are.
    pub(crate) fn git_words(&self) -> String {
        match &self.code {
            Some(code) if !self.folder.starts_with(&code.top) => format!("git -C {}", word(&code.top)),
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
        landed.notes.clone_from(&result.notes);
        result.unsaved.iter().for_each(|unsaved| landed.fail(unsaved));
        if let Err(error) = make_private(&self.saved) {
            landed.fail(&format!("the work: {error:#}"));
            return landed;
        }
        if result.transcript {
            let path = self.saved.join(format!("{}.jsonl", task.short));
            match contact.ask(printer, async |client| client.transcript(&task.id, &path).await).await {
                Ok(()) => landed.transcript = Some(path),
                Err(error) => landed.fail(&format!("the transcript: {error:#}")),
            }
        }
        match head(result) {
            Ok(None) => landed.unchanged = result.unsaved.is_empty(),
            Ok(Some(head)) => {
                let bundle = self.bundle(&task.short);
                match contact.ask(printer, async |client| client.bundle(&task.id, &bundle).await).await {
                    Ok(()) => self.work(&bundle, head, &name(&task.short, title), &mut landed).await,
                    Err(error) => landed.fail(&format!("the work: {error:#}")),
                }
            }
            // The worker has said why, most likely.
            Err(why) if landed.lost.is_empty() => landed.fail(why),
            Err(_) => {}
        }
        landed
    }

    /// Lands a bundle that is here.
    async fn work(&self, bundle: &Path, head: &str, name: &str, landed: &mut Landed) {
        match self.place(bundle, head, name).await {
            Ok((place, others)) => (landed.place, landed.others) = (Some(place), others),
            Err(error) => {
                landed.fail(&format!("the work: it is here, and has not landed: {error:#}"));
                match self.by_hand(bundle, name) {
                    Ok(by_hand) => landed.by_hand = Some(by_hand),
                    Err(error) => landed.fail(&format!("what the work builds on: {error:#}")),
                }
            }
        }
        if landed.place.is_some()
            && let Err(error) = fs::remove_file(bundle)
        {
            landed.notes.push(format!("cannot remove `{}`, which has landed: {error}", bundle.display()));
        }
    }

    async fn place(&self, bundle: &Path, head: &str, name: &str) -> anyhow::Result<(Place, Vec<String>)> {
        if let Some(code) = &self.code {
            let branch = format!("mayfly/{name}");
            let others = code.quarantine.land(bundle, head, &branch).await?;
            return Ok((Place::Branch(branch), others));
        }
        let folder = self.folder.join(format!("mayfly-{name}"));
        let others = unbundle(&self.git, bundle, head, &folder, "main").await?;
        Ok((Place::Folder(folder), others))
    }

    /// How to take the bundle of a task that has not landed, if it is here.
    pub(crate) fn kept(&self, short: &str, title: &str) -> Option<String> {
        let bundle = self.bundle(short);
        bundle.is_file().then(|| self.by_hand(&bundle, &name(short, title)).ok()).flatten()
    }

    fn bundle(&self, short: &str) -> PathBuf {
        self.saved.join(format!("{short}.bundle"))
    }

    /// The command that takes a bundle. Its names are in nobody's way: a branch `mayfly` rules out any
    /// `mayfly/…`, and the folder may be what was in the way. What the bundle builds on is put beside it.
    fn by_hand(&self, bundle: &Path, name: &str) -> anyhow::Result<String> {
        let Some(code) = &self.code else {
            return Ok(format!("git clone --branch work {} mayfly-{name}-by-hand", word(bundle)));
        };
        let fetch = |what: &Path, from: &str, to: &str| {
            format!("{} fetch {} {from}:{to}", self.git_words(), word(what))
        };
        let mut steps = Vec::new();
        if code.snapshot.dirty {
            let base = bundle.with_extension("base.bundle");
            let copied = fs::copy(&code.snapshot.bundle, &base);
            copied.with_context(|| format!("cannot write `{}`", base.display()))?;
            // Under a ref, since a bundle is taken only on top of what a ref holds.
            steps.push(fetch(&base, "refs/heads/base", &format!("refs/mayfly/base-{name}")));
        }
        // With what the agent committed beside its work, if it did.
        let others = format!("'{OTHER_REFS}*:refs/heads/mayfly-{name}--*'");
        steps.push(format!("{} {others}", fetch(bundle, WORK_REF, &format!("refs/heads/mayfly-{name}"))));
        Ok(steps.join(" && "))
    }
}

/// The commit that comes home, if there is one.
fn head(result: &Collected) -> Result<Option<&str>, &'static str> {
    match (result.head.as_deref(), result.bundle) {
        (None, _) => Ok(None),
        (Some(head), true) => Ok(Some(head)),
        (Some(_), false) => Err("the work: it was committed, and did not come out of the machine"),
    }
}

fn name(short: &str, title: &str) -> String {
    format!("{short}-{}", slug(title))
}

fn word(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
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
    lines.extend(landed.lost.iter().map(|lost| ("not saved", lost.clone())));
    lines.extend(landed.by_hand.iter().map(|command| ("by hand", command.clone())));
    lines.extend(landed.notes.iter().map(|note| ("note", note.clone())));
    lines.extend(landed.transcript.iter().map(|path| ("transcript", path.display().to_string())));
    lines
}

#[cfg(test)]
mod tests;
