//! Captures the user's work as one commit, in a bare repository of our own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use mayfly_core::unfold::ENTRIES_MAX;

use crate::changes::{Changes, with_others};
use crate::command::{Git, GitCommand, GitError};
use crate::entries::Entries;
use crate::filtered;
use crate::land::heads;
use crate::repo::Repo;

/// The message of the commit that holds what was not committed.
const UNCOMMITTED: &str = "Uncommitted work when the task began";

/// Where git has the commits whose parents are not there.
pub(crate) const SHALLOW: &str = "shallow";

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
    /// The paths of submodules: only the commits that they point to are captured, and nothing of their content.
    pub submodules: Vec<String>,
    /// The paths of untracked repositories inside the user's: nothing of them is captured.
    pub left_out: Vec<String>,
    /// The paths of changed files that have a filter: captured as they are, and not as it would have them.
    pub unfiltered: Vec<String>,
}

/// What the user's git would be told about their files, as far as it names no program.
pub(crate) struct Rules {
    settings: Vec<Setting>,
    own_files: Vec<(&'static str, PathBuf)>,
    /// The filters that the user's git knows how to run; ours runs none.
    pub(crate) filters: Vec<String>,
}

/// A name and a value.
type Setting = (String, String);

/// The settings that say when a file is unchanged, and what its line ends are in the repository.
const SETTINGS: &str =
    r"^(core\.(autocrlf|eol|filemode|symlinks|trustctime|checkstat)|filter\..+\.(clean|process))$";

/// The settings of a clone that may lack objects.
const PARTIAL: &str = r"^(extensions\.partialclone|remote\..+\.(promisor|partialclonefilter))$";

impl Repo {
    /// Captures `HEAD` plus staged, unstaged and untracked work, ignored files left out; [at](Self::at) another commit,
    /// that alone. `scratch` is an empty folder that must live as long as the quarantine. Nothing of the user's
    /// repository changes.
    pub async fn snapshot(&self, scratch: &Path) -> Result<(Quarantine, Snapshot), GitError> {
        let quarantine = Quarantine::create(self, scratch).await?;
        quarantine.check_whole(&self.head).await?;
        let (base, left_out, unfiltered) = match self.at_commit {
            true => (self.head.clone(), Vec::new(), Vec::new()),
            false => quarantine.take_work().await?,
        };
        let dirty = base != self.head;
        let submodules = quarantine.submodules(&base).await?;
        let (left_out, unfiltered) = (texts(&left_out), texts(&unfiltered));
        Ok((quarantine, Snapshot { base, dirty, submodules, left_out, unfiltered }))
    }

    /// The settings that the user's git has for their files, and the drivers of its filters.
    pub(crate) async fn settings(&self) -> Result<(Vec<Setting>, Vec<Setting>), GitError> {
        let found = self.git.settings(&self.git_dir, SETTINGS).await?;
        Ok(found.into_iter().partition(|(key, _)| key.starts_with("core.")))
    }
}

impl Quarantine {
    /// The commit that holds the user's work, and the paths of what was left out and of what was not filtered.
    async fn take_work(&self) -> Result<(String, Vec<Vec<u8>>, Vec<Vec<u8>>), GitError> {
        self.take_index().await?;
        let rules = self.rules().await?;
        let left_out = self.untracked_repositories(&rules).await?;
        self.add(&rules, &left_out).await?;
        let unfiltered = filtered::settle(self, &rules).await?;
        Ok((self.commit().await?, left_out, unfiltered))
    }

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
        copy_shallow(&repo.common_dir, &this.git_dir)?;
        Ok(this)
    }

    pub(crate) fn git(&self) -> GitCommand {
        self.repo.git.within(&self.git_dir)
    }

    /// What work that has [landed](Self::land) out of `bundle` has other than `base`, as [`changes`](crate::changes) tells.
    pub async fn changes(&self, base: &str, head: &str, bundle: &Path) -> Result<Changes, GitError> {
        let hooks = self.repo.hooks().await?;
        with_others(|| self.git(), base, head, &heads(bundle)?.others, &hooks).await
    }

    /// git with the user's files and their rules.
    pub(crate) fn at_work(&self, rules: &Rules) -> GitCommand {
        let settings = rules.settings.iter().map(|(key, value)| (key.as_str(), OsStr::new(value)));
        let files = rules.own_files.iter().map(|(key, path)| (*key, path.as_os_str()));
        let git = self.git().work_tree(&self.repo.top);
        settings.chain(files).fold(git, |git, (key, value)| git.config(key, value))
    }

    /// Asks the user's git for its settings, and copies the rules that are in no commit.
    async fn rules(&self) -> Result<Rules, GitError> {
        let git = &self.repo.git;
        let (settings, drivers) = self.repo.settings().await?;
        let name = |key: &str| Some(key.strip_prefix("filter.")?.rsplit_once('.')?.0.to_owned());
        let filters = drivers.iter().filter_map(|(key, _)| name(key)).collect();
        let mut own_files = Vec::new();
        for (key, name, in_repository) in
            [("core.excludesFile", "ignore", "exclude"), ("core.attributesFile", "attributes", "attributes")]
        {
            own_files.extend(git.own_rules(key, name).await?.map(|path| (key, path)));
            self.take_rules(in_repository)?;
        }
        Ok(Rules { settings, own_files, filters })
    }

    /// Untracked repositories inside the user's, which git would take for submodules.
    async fn untracked_repositories(&self, rules: &Rules) -> Result<Vec<Vec<u8>>, GitError> {
        let others = self.users_files(rules, "--others").await?;
        Ok(others.into_iter().filter_map(|path| path.strip_suffix(b"/").map(<[u8]>::to_vec)).collect())
    }

    /// Names the user's files of a kind, by the user's index. A repository has `/` at its end.
    async fn users_files(&self, rules: &Rules, kind: &str) -> Result<Vec<Vec<u8>>, GitError> {
        let git = self.at_work(rules).args(["ls-files", "-z", "--exclude-standard", kind]);
        Ok(paths(&git.run().await?))
    }

    /// Takes every change of the user's files into our index.
    async fn add(&self, rules: &Rules, left_out: &[Vec<u8>]) -> Result<(), GitError> {
        let mut pathspecs = b".\0".to_vec();
        for path in left_out {
            pathspecs.extend([b":(top,exclude,literal)", path.as_slice(), b"\0"].concat());
        }
        let add = ["add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"];
        let Err(error) = self.at_work(rules).args(add).input(pathspecs).run().await else { return Ok(()) };
        Err(self.unreadable(rules).await?.unwrap_or(error))
    }

    /// The file that cannot be read, if that is why the work could not be taken.
    async fn unreadable(&self, rules: &Rules) -> Result<Option<GitError>, GitError> {
        for (kind, advice) in [
            ("--modified", "it is tracked: make it readable (chmod u+r)"),
            ("--others", "make it readable (chmod u+r), or name it in .gitignore to leave it out"),
        ] {
            let denied = |path: &PathBuf| {
                let file = self.repo.top.join(path);
                let regular = fs::symlink_metadata(&file).is_ok_and(|found| found.is_file());
                regular
                    && fs::File::open(file)
                        .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            };
            let files = self.users_files(rules, kind).await?;
            let mut files = files.into_iter().map(|path| PathBuf::from(OsString::from_vec(path)));
            if let Some(path) = files.find(denied) {
                return Ok(Some(GitError::Unreadable { path, advice }));
            }
        }
        Ok(None)
    }

    /// The commit that holds what is in our index.
    async fn commit(&self) -> Result<String, GitError> {
        let head = &self.repo.head;
        let tree = self.git().args(["write-tree"]).line().await?;
        if tree == self.git().args(["rev-parse", &format!("{head}^{{tree}}")]).line().await? {
            return Ok(head.clone());
        }
        self.git().args(["commit-tree", &tree, "-p", head, "-m", UNCOMMITTED]).line().await
    }

    /// The paths of submodules. No more files are looked through than a workspace may have.
    async fn submodules(&self, commit: &str) -> Result<Vec<String>, GitError> {
        let (mut entries, mut count, mut paths) = (Entries::default(), 0, Vec::new());
        let list = self.git().args(["ls-tree", "-r", "-z", "--full-tree", commit]);
        let whole = list.read(|piece| {
            entries.take(piece, |entry| {
                count += 1;
                let entry = String::from_utf8_lossy(entry);
                let path = || Some(entry.strip_prefix("160000 ")?.split_once('\t')?.1.to_owned());
                paths.extend(path());
            });
            if count > ENTRIES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match whole.await? {
            true => Ok(paths),
            false => Err(GitError::TooManyFiles(commit.to_owned())),
        }
    }

    /// Checks that all objects are there that the commit's history names: a partial clone can lack some.
    async fn check_whole(&self, commit: &str) -> Result<(), GitError> {
        if self.repo.git.settings(&self.repo.git_dir, PARTIAL).await?.is_empty() {
            return Ok(());
        }
        let mut lines = Entries::default();
        let list = self.git().args(["rev-list", "--objects", "--missing=print", commit]);
        let whole = list.read(|piece| {
            let mut lacks = false;
            lines.take_until(b'\n', piece, |line| lacks |= line.starts_with(b"?"));
            if lacks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if whole.await? { Ok(()) } else { Err(GitError::Partial(self.repo.top.clone())) }
    }

    /// The user's index, so that unchanged files are known without reading them and sparse ones stay. Its time is
    /// kept: git looks into files that were written as late as their index.
    async fn take_index(&self) -> Result<(), GitError> {
        let ours = self.git_dir.join("index");
        let usable = match self.copy_users_index(&ours) {
            Ok(()) => {
                self.git().work_tree(&self.repo.top).args(["ls-files", "--", ":/nothing"]).run().await.is_ok()
            }
            Err(_) => false,
        };
        if !usable {
            // None yet, or of a kind that this git does not know: start from the commit.
            remove_if_there(&ours)?;
            self.git().args(["read-tree", &self.repo.head]).run().await?;
        }
        let users = self.users_index();
        copy_index(&ours, &users).map_err(GitError::file(&users))
    }

    /// An index can be split: then one file more, beside it, holds most of it.
    fn copy_users_index(&self, ours: &Path) -> io::Result<()> {
        copy_index(&self.repo.git_dir.join("index"), ours)?;
        for entry in fs::read_dir(&self.repo.git_dir)? {
            let name = entry?.file_name();
            if name.as_encoded_bytes().starts_with(b"sharedindex.") {
                copy_index(&self.repo.git_dir.join(&name), &self.git_dir.join(&name))?;
            }
        }
        Ok(())
    }

    /// The index as it was before anything was added.
    pub(crate) fn users_index(&self) -> PathBuf {
        self.git_dir.join("users-index")
    }

    /// The user's rules of this kind that are in no commit.
    fn take_rules(&self, name: &str) -> Result<(), GitError> {
        let info = self.git_dir.join("info");
        fs::create_dir_all(&info).map_err(GitError::file(&info))?;
        match fs::copy(self.repo.common_dir.join("info").join(name), info.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GitError::file(&info)(error)),
            _ => Ok(()),
        }
    }
}

/// Has the history in one git folder end where it ends in another.
pub(crate) fn copy_shallow(from: &Path, to: &Path) -> Result<(), GitError> {
    let (theirs, ours) = (from.join(SHALLOW), to.join(SHALLOW));
    match fs::copy(&theirs, &ours) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GitError::file(&theirs)(error)),
        _ => Ok(()),
    }
}

fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    // Looked at first: one that is written meanwhile counts as older than it is, and git looks into more files.
    let modified = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    fs::File::options().append(true).open(to)?.set_modified(modified)
}

/// What git lists with an end of `\0` each.
pub(crate) fn paths(listed: &[u8]) -> Vec<Vec<u8>> {
    match listed.strip_suffix(b"\0") {
        Some(listed) => listed.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect(),
        None => Vec::new(),
    }
}

fn texts(paths: &[Vec<u8>]) -> Vec<String> {
    paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

/// How the repository of a commit names its objects, by how many digits its own name has.
pub(crate) fn object_format(digits: usize) -> &'static str {
    if digits == 64 { "sha256" } else { "sha1" }
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
