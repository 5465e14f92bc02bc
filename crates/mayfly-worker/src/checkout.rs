//! Checks the code out in a machine that came without it: where the provider is not on the orchestrator's host.
//!
//! The bundle is fetched by the machine's own way, and unpacked twice: into the workspace, and into the folder of the base,
//! whose objects what comes out of the machine is built upon. There the agent is the worker's user, so it could spoil that
//! folder as well; what it wins is that less of its work can be told from what was there.
//!
//! Bounds: [`WORKSPACE_BYTES_MAX`] for the bundle, [`TIME_MAX`] for git; the machine's disk and [`ENTRIES_MAX`] for what its
//! commit comes to, which is counted before a file is written.
//!
//! [`ENTRIES_MAX`]: unfold::ENTRIES_MAX

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_core::unfold::{self, TooMuch, Unfolding};
use mayfly_wire::worker::{OrderedWorkspace, WORKSPACE_BYTES_MAX, WORKSPACE_PATH, shallow};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::collect::git::{Git, GitError, not_run, object_format};
use crate::exchange::{Exchange, ExchangeError};
use crate::reaper::Reaper;

/// The time for putting the code in its place.
const TIME_MAX: Duration = Duration::from_secs(20 * 60);
/// The branch of a repository that was just handed over.
const BRANCH: &str = "refs/heads/main";
/// As in every checkout that is handed over: git takes a file as it is by its size and time, and repacks nothing by itself.
const SETTINGS: [(&str, &str); 4] = [
    ("core.checkStat", "minimal"),
    ("core.trustctime", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
];

/// What it takes to check the code out.
#[derive(Debug)]
pub(crate) struct Checkout<'a> {
    pub(crate) workspace: &'a OrderedWorkspace,
    /// Where the code is to be.
    pub(crate) folder: &'a Path,
    /// Where the code is to be as it was.
    pub(crate) base: &'a Path,
    pub(crate) reaper: &'a Reaper,
    pub(crate) exchange: &'a Exchange<'a>,
    pub(crate) home: &'a Path,
    /// What the machine's files may take on the disk.
    pub(crate) disk_bytes_max: u64,
}

/// Why the code is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckoutError {
    /// It cannot be fetched.
    #[error("it cannot be fetched")]
    Fetch(#[source] ExchangeError),
    /// It cannot be unpacked.
    #[error("it cannot be unpacked")]
    Unpack(#[from] GitError),
    /// It is small as a bundle alone.
    #[error(
        "{0}, the most that its machine may have: hand over a part of the repository, or raise `machine.disk`"
    )]
    TooMuch(#[from] TooMuch),
    /// What is in it cannot be counted.
    #[error("what is in it cannot be counted")]
    Count(#[source] io::Error),
    /// There is no room, or no right.
    #[error("{} cannot be made", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Checkout<'_> {
    /// Fetches the code and puts it in its place.
    pub(crate) async fn make(&self) -> Result<(), CheckoutError> {
        let folder = |path: &Path| {
            let path = path.to_owned();
            move |source| CheckoutError::Folder { path, source }
        };
        let scratch = tempfile::Builder::new().prefix("mayfly-").tempdir_in(self.home);
        let scratch = scratch.map_err(folder(self.home))?;
        let bundle = scratch.path().join("bundle");
        let fetched = self.exchange.fetch(WORKSPACE_PATH, &bundle, WORKSPACE_BYTES_MAX).await;
        fetched.map_err(CheckoutError::Fetch)?;
        let deadline = Instant::now() + TIME_MAX;
        for (at, with_files) in [(self.base, false), (self.folder, true)] {
            fs::create_dir_all(at).map_err(folder(at))?;
            let from = Bundle { file: &bundle, base: &self.workspace.base };
            let bytes_max = with_files.then_some(self.disk_bytes_max);
            from.unpack(self.reaper, at, bytes_max, deadline).await?;
        }
        Ok(())
    }
}

/// A git bundle, and the commit in it that is to be there.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    pub(crate) file: &'a Path,
    pub(crate) base: &'a str,
}

impl Bundle<'_> {
    /// Makes a repository of it in a folder that is there: with files, if they are given room, of no more than that.
    pub(crate) async fn unpack(
        &self,
        reaper: &Reaper,
        at: &Path,
        bytes_max: Option<u64>,
        deadline: Instant,
    ) -> Result<(), CheckoutError> {
        let own = at.join(".git");
        let git = Git { reaper, folder: &own, work_tree: at };
        let Self { file, base } = *self;
        let format = object_format(base);
        git.run(["init", "--quiet", "--template=", "--initial-branch=main", format], deadline).await?;
        let refs = git.run(["bundle", "unbundle", &*file.to_string_lossy()], deadline).await?;
        if let Some(cut) = shallow(&refs) {
            fs::write(own.join("shallow"), cut).map_err(not_run("bundle"))?;
        }
        git.run(["update-ref", BRANCH, base], deadline).await?;
        let Some(bytes_max) = bytes_max else { return Ok(()) };
        check_room(&git, bytes_max, deadline).await?;
        for (key, value) in SETTINGS {
            git.run(["config", key, value], deadline).await?;
        }
        Ok(git.run(["reset", "--quiet", "--hard"], deadline).await.map(drop)?)
    }
}

/// Counts what the branch comes to.
async fn check_room(git: &Git<'_>, bytes_max: u64, deadline: Instant) -> Result<(), CheckoutError> {
    let (list, to) = io::pipe().map_err(CheckoutError::Count)?;
    // Once too much has come, the pipe is closed, and git ends.
    let counting = spawn_blocking(move || Unfolding::of(bytes_max, list));
    let listed = git.print(&[&unfold::LIST[..], &[BRANCH]].concat(), to, deadline).await;
    counting.await.expect("counting does not panic").map_err(CheckoutError::Count)??;
    Ok(listed?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use mayfly_core::causes;

    use super::*;
    use crate::reaper::Realm;

    fn git(at: &Path, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=u", "-c", "user.email=u@localhost"]).args(args).current_dir(at);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Into a new folder.
    async fn unpack(
        bundle: &Path,
        base: &str,
        at: &Path,
        bytes_max: Option<u64>,
    ) -> Result<(), CheckoutError> {
        fs::create_dir(at).unwrap();
        let reaper = Reaper::start(Realm::Children).unwrap();
        Bundle { file: bundle, base }.unpack(&reaper, at, bytes_max, Instant::now() + TIME_MAX).await
    }

    #[tokio::test]
    async fn a_bundle_becomes_a_repository_at_its_commit_and_its_objects_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, at, base) = (dir.path().join("from"), dir.path().join("at"), dir.path().join("base"));
        fs::create_dir(&from).unwrap();
        git(&from, &["init", "-q", "-b", "main"]);
        fs::write(from.join("a.txt"), "one\n").unwrap();
        git(&from, &["add", "."]);
        git(&from, &["commit", "-q", "-m", "first"]);
        let bundle = dir.path().join("bundle");
        git(&from, &["bundle", "create", "-q", &bundle.to_string_lossy(), "main"]);
        let commit = git(&from, &["rev-parse", "main"]);
        for (to, bytes_max) in [(&base, None), (&at, Some(1 << 20))] {
            unpack(&bundle, &commit, to, bytes_max).await.unwrap();
            assert_eq!(git(to, &["rev-parse", "main"]), commit);
        }
        assert_eq!(git(&at, &["status", "--porcelain", "--branch"]), "## main");
        assert_eq!(fs::read_to_string(at.join("a.txt")).unwrap(), "one\n");
        assert!(!base.join("a.txt").exists(), "nobody reads files there");
    }

    #[tokio::test]
    async fn a_history_that_is_cut_off_ends_there() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, part, at] = ["whole", "part", "at"].map(|name| dir.path().join(name));
        fs::create_dir(&whole).unwrap();
        git(&whole, &["init", "-q", "-b", "main"]);
        for message in ["first", "second", "third"] {
            git(&whole, &["commit", "-q", "--allow-empty", "-m", message]);
        }
        let url = format!("file://{}", whole.display());
        git(dir.path(), &["clone", "-q", "--depth=2", &url, "part"]);
        let base = git(&part, &["rev-parse", "HEAD"]);
        let cut = format!("refs/mayfly/cut/{}", git(&part, &["rev-parse", "HEAD~1"]));
        git(&part, &["update-ref", &cut, &base]);
        let bundle = dir.path().join("bundle");
        git(&part, &["bundle", "create", "-q", &bundle.to_string_lossy(), "main", &cut]);
        unpack(&bundle, &base, &at, Some(1 << 20)).await.unwrap();
        assert_eq!(git(&at, &["log", "--format=%s"]), "third\nsecond");
        git(&at, &["fsck", "--strict"]);
    }

    #[tokio::test]
    async fn what_is_no_bundle_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (at, bundle) = (dir.path().join("at"), dir.path().join("bundle"));
        fs::write(&bundle, "no bundle").unwrap();
        let error = unpack(&bundle, &"a".repeat(40), &at, Some(1 << 20)).await.unwrap_err();
        assert!(causes(&error).starts_with("it cannot be unpacked: git bundle failed: "), "{error}");
    }

    /// S11: nothing of it is written.
    #[tokio::test]
    async fn what_a_small_bundle_unfolds_to_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let [from, at] = ["from", "at"].map(|name| dir.path().join(name));
        fs::create_dir(&from).unwrap();
        git(&from, &["init", "-q", "-b", "main"]);
        fs::write(from.join("0"), vec![0; 1 << 20]).unwrap();
        for copy in 1..10 {
            fs::hard_link(from.join("0"), from.join(copy.to_string())).unwrap();
        }
        git(&from, &["add", "."]);
        git(&from, &["commit", "-q", "-m", "ten times the same"]);
        let bundle = dir.path().join("bundle");
        git(&from, &["bundle", "create", "-q", &bundle.to_string_lossy(), "main"]);
        let commit = git(&from, &["rev-parse", "main"]);
        let error = unpack(&bundle, &commit, &at, Some((10 << 20) - 1)).await.unwrap_err();
        assert!(error.to_string().starts_with("it unfolds to more than 10 MiB, the most that"), "{error}");
        assert_eq!(fs::read_dir(&at).unwrap().count(), 1, "its git folder");
        fs::remove_dir_all(&at).unwrap();
        unpack(&bundle, &commit, &at, Some(10 << 20)).await.unwrap();
    }
}
