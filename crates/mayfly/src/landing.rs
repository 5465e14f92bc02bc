//! Brings a task's work home: as a branch of the user's repository, or as a folder where there was none.
//!
//! The bundle and the transcript are stored in `saved` first. A bundle is removed once it has landed; one that
//! cannot land stays, and the user is told where it is and how to take it by hand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mayfly_client::Client;
use mayfly_git::{Git, Quarantine, Snapshot, unbundle};
use mayfly_wire::api::{Collected, Task};

use crate::orchestrator::make_private;
use crate::values::slug;

/// Where work lands, and what it starts from.
#[derive(Debug)]
pub(crate) struct Landing {
    /// The repository; none is an empty workspace.
    pub(crate) code: Option<Code>,
    /// Where new folders are made.
    pub(crate) folder: PathBuf,
    /// Where bundles and transcripts are kept.
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

/// What became of a task's work.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Landed {
    /// The branch or folder; none if there was nothing, or it could not land.
    pub(crate) place: Option<Place>,
    /// The session file.
    pub(crate) transcript: Option<PathBuf>,
    /// What could not be saved or landed, a line each.
    pub(crate) lost: Vec<String>,
    /// Whether something that the orchestrator has did not come home.
    pub(crate) failed: bool,
}

impl Landed {
    fn fail(&mut self, what: &str, error: &anyhow::Error) {
        self.lost.push(format!("{what}: {error:#}"));
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

    /// Brings home what `task` left. Not a failure: whatever does not work is said in [`Landed::lost`].
    pub(crate) async fn land(&self, client: &Client, task: &Task, title: &str) -> Landed {
        let mut landed = Landed::default();
        let Some(result) = &task.result else {
            landed.lost.push("its machine ended before the work could be brought out".to_owned());
            return landed;
        };
        landed.lost.clone_from(&result.unsaved);
        if let Err(error) = make_private(&self.saved) {
            landed.fail("the work", &error);
            return landed;
        }
        if result.transcript {
            let path = self.saved.join(format!("{}.jsonl", task.short));
            match client.transcript(&task.id, &path).await {
                Ok(()) => landed.transcript = Some(path),
                Err(error) => landed.fail("the transcript", &error.into()),
            }
        }
        match self.work(client, task, title, result).await {
            Ok(place) => landed.place = place,
            Err(error) => landed.fail("the work", &error),
        }
        landed
    }

    async fn work(
        &self,
        client: &Client,
        task: &Task,
        title: &str,
        result: &Collected,
    ) -> anyhow::Result<Option<Place>> {
        let Some(head) = result.head.as_deref().filter(|_| result.bundle) else { return Ok(None) };
        let bundle = self.saved.join(format!("{}.bundle", task.short));
        client.bundle(&task.id, &bundle).await?;
        let name = format!("{}-{}", task.short, slug(title));
        let place = match self.place(&bundle, head, &name).await {
            Ok(place) => place,
            Err(error) => return Err(error.context(self.by_hand(&bundle, &name)?)),
        };
        fs::remove_file(&bundle).with_context(|| format!("cannot remove `{}`", bundle.display()))?;
        Ok(Some(place))
    }

    async fn place(&self, bundle: &Path, head: &str, name: &str) -> anyhow::Result<Place> {
        if let Some(code) = &self.code {
            let branch = format!("mayfly/{name}");
            code.quarantine.land(bundle, head, &branch).await?;
            return Ok(Place::Branch(branch));
        }
        let folder = self.folder.join(format!("mayfly-{name}"));
        unbundle(&self.git, bundle, head, &folder, "main").await?;
        Ok(Place::Folder(folder))
    }

    /// How to take a bundle that did not land. What it builds on is put beside it.
    fn by_hand(&self, bundle: &Path, name: &str) -> anyhow::Result<String> {
        let mut steps = Vec::new();
        if let Some(code) = &self.code {
            let base = bundle.with_extension("base.bundle");
            fs::copy(&code.snapshot.bundle, &base)?;
            steps.push(format!("git fetch {} refs/heads/base", base.display()));
        } else {
            steps.push("git init".to_owned());
        }
        steps.push(format!("git fetch {} refs/heads/work:mayfly/{name}", bundle.display()));
        Ok(format!("it could not land and is kept; take it with `{}`", steps.join("; ")))
    }
}

/// What to print of it, below the task's own line.
pub(crate) fn lines(landed: &Landed) -> Vec<String> {
    let mut lines = Vec::new();
    match &landed.place {
        Some(Place::Branch(branch)) => lines.push(format!("branch      {branch}")),
        Some(Place::Folder(folder)) => lines.push(format!("folder      {}", folder.display())),
        None if landed.lost.is_empty() => lines.push("no changes".to_owned()),
        None => {}
    }
    lines.extend(landed.lost.iter().map(|lost| format!("not saved   {lost}")));
    lines.extend(landed.transcript.iter().map(|path| format!("transcript  {}", path.display())));
    lines
}
