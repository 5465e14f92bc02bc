//! The user's repository, and the copy of it that tasks work on.

use std::path::Path;
use std::time::Duration;

use mayfly_git::{Git, GitError, Repo};
use mayfly_wire::api::Workspace;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::contact::Contact;
use crate::exit::Stop;
use crate::landing::Code;
use crate::printer::Printer;

/// How long the user sees nothing before a word about what takes so long.
const SILENCE_MAX: Duration = Duration::from_secs(2);

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
pub(crate) async fn capture(repo: &Repo, scratch: &TempDir, printer: &mut Printer) -> Result<Code, Stop> {
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

/// Hands the code over.
pub(crate) async fn upload(
    contact: &Contact,
    printer: &mut Printer,
    repo: &Repo,
    code: &Code,
) -> Result<Workspace, Stop> {
    let bundle = &code.snapshot.bundle;
    Ok(contact.ask(printer, async |client| client.upload_workspace(&repo.name, bundle).await).await?)
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
