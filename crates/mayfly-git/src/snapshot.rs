//! Captures the user's work as one commit, in a bare repository of our own.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::command::{Git, GitCommand, GitError};
use crate::repo::Repo;

/// The message of the commit that holds what was not committed.
const UNCOMMITTED: &str = "Uncommitted work when the task began";

/// A bare repository of our own that borrows the objects of the user's.
#[derive(Debug)]
pub struct Quarantine {
    pub(crate) repo: Repo,
    pub(crate) git_dir: PathBuf,
}

/// The user's work at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit to start from, in hex: the user's `HEAD`, or one on top of it.
    pub base: String,
    /// Whether `base` holds uncommitted or untracked work.
    pub dirty: bool,
    /// A git bundle with all of `base`.
    pub bundle: PathBuf,
    /// The paths of submodules: only the commits that they point to are captured, and nothing of their content.
    pub submodules: Vec<String>,
}

impl Repo {
    /// Captures `HEAD` plus staged, unstaged and untracked work, ignored files left out. `scratch` is an empty
    /// folder that must live as long as the quarantine. Nothing of the user's repository changes.
    pub async fn snapshot(&self, scratch: &Path) -> Result<(Quarantine, Snapshot), GitError> {
        let quarantine = Quarantine::create(self, scratch).await?;
        let base = quarantine.capture().await?;
        let bundle = scratch.join("base.bundle");
        quarantine.git().args(["update-ref", "refs/heads/base", &base]).run().await?;
        let create = ["bundle", "create", "--quiet"].map(OsStr::new);
        quarantine.git().args(create).args([bundle.as_os_str(), OsStr::new("refs/heads/base")]).run().await?;
        let dirty = base != self.head;
        let submodules = quarantine.submodules(&base).await?;
        Ok((quarantine, Snapshot { base, dirty, bundle, submodules }))
    }
}

impl Quarantine {
    pub(crate) async fn create(repo: &Repo, scratch: &Path) -> Result<Self, GitError> {
        let git_dir = scratch.join("quarantine.git");
        let format =
            repo.git.within(&repo.git_dir).args(["rev-parse", "--show-object-format"]).line().await?;
        let this = Self { repo: repo.clone(), git_dir };
        init_bare(&repo.git, &this.git_dir, &format).await?;
        let objects = repo.common_dir.join("objects");
        let alternates = this.git_dir.join("objects/info/alternates");
        let mut line = objects.into_os_string();
        line.push("\n");
        fs::write(&alternates, line.as_encoded_bytes()).map_err(GitError::file(&alternates))?;
        Ok(this)
    }

    pub(crate) fn git(&self) -> GitCommand {
        self.repo.git.within(&self.git_dir)
    }

    /// The commit that holds the user's work.
    async fn capture(&self) -> Result<String, GitError> {
        let head = &self.repo.head;
        self.take_index().await?;
        self.take_excludes()?;
        let mut add = self.git().work_tree(&self.repo.top);
        if let Some(excludes) = self.repo.git.excludes_file().await? {
            add = add.config("core.excludesFile", excludes.as_os_str());
        }
        add.args(["add", "--all", "--", "."]).run().await?;
        let tree = self.git().args(["write-tree"]).line().await?;
        if tree == self.git().args(["rev-parse", &format!("{head}^{{tree}}")]).line().await? {
            return Ok(head.clone());
        }
        self.git().args(["commit-tree", &tree, "-p", head, "-m", UNCOMMITTED]).line().await
    }

    async fn submodules(&self, commit: &str) -> Result<Vec<String>, GitError> {
        let entries = self.git().args(["ls-tree", "-r", "-z", commit]).run().await?;
        let entries = entries.split(|&byte| byte == 0).map(String::from_utf8_lossy);
        let path = |entry: std::borrow::Cow<'_, str>| {
            Some(entry.strip_prefix("160000 ")?.split_once('\t')?.1.to_owned())
        };
        Ok(entries.filter_map(path).collect())
    }

    /// The user's index, so that unchanged files are known without reading them and sparse ones stay.
    async fn take_index(&self) -> Result<(), GitError> {
        let ours = self.git_dir.join("index");
        let copied = fs::copy(self.repo.git_dir.join("index"), &ours);
        let usable = match copied {
            Ok(_) => {
                self.git().work_tree(&self.repo.top).args(["ls-files", "--", ":/nothing"]).run().await.is_ok()
            }
            Err(_) => false,
        };
        if !usable {
            // None yet, or split over files: start from the commit.
            remove_if_there(&ours)?;
            self.git().args(["read-tree", &self.repo.head]).run().await?;
        }
        Ok(())
    }

    fn take_excludes(&self) -> Result<(), GitError> {
        let info = self.git_dir.join("info");
        fs::create_dir_all(&info).map_err(GitError::file(&info))?;
        match fs::copy(self.repo.common_dir.join("info/exclude"), info.join("exclude")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GitError::file(&info)(error)),
            _ => Ok(()),
        }
    }
}

/// An empty bare repository without hooks or any other template.
pub(crate) async fn init_bare(git: &Git, git_dir: &Path, format: &str) -> Result<(), GitError> {
    let format = format!("--object-format={format}");
    git.within(git_dir).args(["init", "--quiet", "--bare", "--template=", &format]).run().await?;
    let info = git_dir.join("objects/info");
    fs::create_dir_all(&info).map_err(GitError::file(&info))
}

fn remove_if_there(file: &Path) -> Result<(), GitError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GitError::file(file)(error)),
        _ => Ok(()),
    }
}
