//! The repository that tasks work on, the user's or one elsewhere, and the copy of it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use mayfly_git::{Git, GitError, Mirror, Mirrors, Repo, Wanted, name_in};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::environment::Environment;
use crate::exit::Stop;
use crate::git_url::{GitUrl, ways};
use crate::landing::Code;
use crate::printer::Printer;
use crate::progress::Progress;

/// How long the user sees nothing before a word about what takes so long.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What tasks work on.
#[derive(Debug)]
pub(crate) enum Chosen {
    /// A repository of this machine.
    Here(Repo),
    /// One elsewhere, of which this machine has a copy once it is [fetched](fetch).
    Elsewhere(GitUrl),
}

impl Chosen {
    /// The repository that was named, with a branch or a commit after `#` or without, or the one around `cwd` if there is
    /// one.
    pub(crate) async fn read(git: &Git, named: Option<&str>, cwd: &Path) -> Result<Option<Self>, Stop> {
        let Some(named) = named else { return Ok(around(git, None, cwd).await?.map(Self::Here)) };
        let path = PathBuf::from(named);
        // A path that is there is that path, whatever else it looks like.
        if path.symlink_metadata().is_ok() {
            return Ok(around(git, Some(&path), cwd).await?.map(Self::Here));
        }
        if let Some(url) = GitUrl::read(named)? {
            return match url.after.as_deref() {
                Some("") => Err(no_revision()),
                _ => Ok(Some(Self::Elsewhere(url))),
            };
        }
        let (path, revision) = named.rsplit_once('#').map_or((named, None), |(path, at)| (path, Some(at)));
        let repo = around(git, Some(Path::new(path)), cwd).await?;
        let Some(revision) = revision else { return Ok(repo.map(Self::Here)) };
        match repo {
            _ if revision.is_empty() => Err(no_revision()),
            Some(repo) => Ok(Some(Self::Here(repo.at(revision).await.map_err(Stop::usage)?))),
            None => Ok(None),
        }
    }

    /// What it is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Here(repo) => repo.name.clone(),
            Self::Elsewhere(from) => name_in(&from.url),
        }
    }

    /// Which one it is, of all that are called so.
    pub(crate) fn place(&self) -> String {
        match self {
            // As it is written here, also where that is no text.
            Self::Here(repo) => repo.top.as_os_str().as_encoded_bytes().escape_ascii().to_string(),
            Self::Elsewhere(from) => from.url.clone(),
        }
    }
}

fn no_revision() -> Stop {
    Stop::wrong("after `#` stands a branch, a tag or a commit, such as --repo PATH#main")
}

/// Brings here what is new in a repository elsewhere, with as many commits of its history, or all: by this machine, so that
/// what opens it stays with its user.
pub(crate) async fn fetch(
    from: &GitUrl,
    depth: Option<NonZeroU32>,
    data: &Path,
    git: &Git,
    environment: &Environment,
) -> Result<Mirror, Stop> {
    let (folder, ways) = (data.join("mirrors"), ways(environment));
    let mirrors = Mirrors { folder: &folder, git, ways: &ways };
    let mut progress = Progress::if_slow(format!("fetching {}", from.url));
    let wanted = Wanted { url: &from.url, revision: from.after.as_deref(), depth };
    let fetched = mirrors.fetch(wanted, |line| progress.note(line)).await;
    drop(progress);
    let fetched = fetched.with_context(|| format!("cannot fetch `{}`", from.url));
    fetched.map_err(Stop::usage)
}

/// The repository that was named, or the one around `cwd` if there is one.
pub(crate) async fn around(git: &Git, named: Option<&Path>, cwd: &Path) -> Result<Option<Repo>, Stop> {
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
            "here --repo takes a path, and no URL: `git clone` it first, then name the clone with --repo PATH",
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

/// The user's work as it is now, or the commit that they named. `top` is what the user calls the repository.
pub(crate) async fn capture(
    repo: &Repo,
    top: &str,
    scratch: &TempDir,
    printer: &mut Printer,
) -> Result<Code, Stop> {
    let tell = || printer.aside(&format!("taking a copy of {top}; a big repository takes its time"));
    let taken = telling_if_slow(repo.snapshot(scratch.path()), tell).await;
    let (quarantine, snapshot) = taken.map_err(|error| match error {
        // The repository is theirs to complete, or to hand over in part.
        GitError::Partial(_) | GitError::TooManyFiles(_) => Stop::usage(error),
        other => other.into(),
    })?;
    let what = match () {
        () if repo.is_at_commit() => format!("commit {}", &repo.head[..12]),
        () if snapshot.dirty => "HEAD plus uncommitted and untracked work".to_owned(),
        () => "HEAD".to_owned(),
    };
    printer.aside(&format!("working on a copy of {top}: {what}"));
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
    Ok(Code { quarantine, snapshot })
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
