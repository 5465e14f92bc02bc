//! One git command, hardened: its environment is built from nothing, and its configuration is ours.
//!
//! Bounds: [`GIT_MAX`] for its time, [`FETCH_MAX`] where it reaches others; [`MEMORY_BYTES_MAX`] for the memory of each process of it, where it reads what a
//! machine made or another's repository holds. macOS keeps no process to that: there it bounds each piece of memory alone,
//! which git itself looks to.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use mayfly_core::unfold::{ENTRIES_MAX, TooMuch, Unfolding};
use mayfly_wire::worker::CUTS_MAX;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

/// What git is told before anything else: no program may come from a repository's configuration.
const HARDENED: [&str; 11] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.alternateRefsCommand=",
    "diff.ignoreSubmodules=dirty",
    "submodule.recurse=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "safe.directory=*",
];

/// The longest that one git command may take.
const GIT_MAX: Duration = Duration::from_secs(10 * 60);

/// The longest that a repository elsewhere may take to come here.
const FETCH_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// What is kept of what git says while it tells how it goes.
const TAIL_BYTES_MAX: usize = 16 * 1024;

/// The most memory of a process that reads what a machine made: a small pack can hold an object of any length.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// The most of a difference as text. Whoever applies one has it in memory several times.
pub(crate) const PATCH_BYTES_MAX: u64 = MEMORY_BYTES_MAX / 4;

/// What has git keep to that with honest work: one object at a time, and a large file in pieces.
const FRUGAL: [&str; 2] = ["pack.threads=1", "core.bigFileThreshold=64m"];

/// What git says of trouble of the host's own, in the words of the system.
const HOST_WORDS: [&str; 7] = [
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Input/output error",
    "Too many open files",
    "Resource temporarily unavailable",
    "Permission denied",
];

/// What is read of a command's output at once.
const READ_BYTES: usize = 64 * 1024;

/// Where git is found, and whose ignore rules count.
#[derive(Debug, Clone)]
pub struct Git {
    path: OsString,
    home: Option<PathBuf>,
    config_home: Option<PathBuf>,
}

impl Git {
    /// Git as found on `path` (a `PATH`), for the user with this home and `XDG_CONFIG_HOME`.
    pub fn new(path: OsString, home: Option<PathBuf>, config_home: Option<PathBuf>) -> Self {
        Self { path, home, config_home }
    }

    /// The file of the user's own rules that hold in every repository of theirs: `name` is `excludes` or
    /// `attributes`, and git has it elsewhere only if `key` says so.
    pub(crate) async fn own_rules(&self, key: &str, name: &str) -> Result<Option<PathBuf>, GitError> {
        let args = ["config", "--global", "--type=path", "--get", key];
        if let Some(path) = self.as_user(self.bare_command(), &args).await? {
            return Ok(Some(PathBuf::from(line(path)?)));
        }
        let config_home = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")));
        Ok(config_home.map(|home| home.join("git").join(name)))
    }

    /// What the user's git has of the settings whose names match `pattern`, in that repository: names and values,
    /// of which the last counts.
    pub(crate) async fn settings(
        &self,
        git_dir: &Path,
        pattern: &str,
    ) -> Result<Vec<(String, String)>, GitError> {
        let mut command = self.bare_command();
        command.env("GIT_DIR", git_dir).env_remove("GIT_CONFIG_NOSYSTEM");
        let args = ["config", "--null", "--get-regexp", pattern];
        let found = self.as_user(command, &args).await?.unwrap_or_default();
        let found = String::from_utf8_lossy(&found).into_owned();
        // A name alone means `true`.
        let pair = |entry: &str| {
            let (name, value) = entry.split_once('\n').unwrap_or((entry, "true"));
            (name.to_owned(), value.to_owned())
        };
        Ok(found.split_terminator('\0').map(pair).collect())
    }

    /// What the user's git has of a setting that can differ by URL, for this one.
    pub(crate) async fn setting_for(&self, url: &str, key: &str) -> Result<Option<OsString>, GitError> {
        let mut command = self.bare_command();
        command.env_remove("GIT_CONFIG_NOSYSTEM");
        let found = self.as_user(command, &["config", "--null", "--get-urlmatch", key, url]).await?;
        let text = |mut value: Vec<u8>| {
            value.truncate(value.iter().position(|&byte| byte == 0).unwrap_or(value.len()));
            OsString::from_vec(value)
        };
        Ok(found.map(text))
    }

    /// A path of the user's configuration, which may begin with their home.
    pub(crate) fn in_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(below), Some(home)) => home.join(below),
            _ => PathBuf::from(path),
        }
    }

    /// Asks with the user's own configuration in force; for `git config` alone, which starts no program.
    async fn as_user(&self, mut command: Command, args: &[&str]) -> Result<Option<Vec<u8>>, GitError> {
        command.env_remove("GIT_CONFIG_GLOBAL");
        command.envs(self.home.iter().map(|home| ("HOME", home)));
        command.envs(self.config_home.iter().map(|home| ("XDG_CONFIG_HOME", home)));
        command.args(args).current_dir("/");
        let output = output("config", command, Some(Vec::new()), GIT_MAX).await?;
        Ok(output.status.success().then_some(output.stdout))
    }

    /// Starts a command in the repository whose git directory is `git_dir`.
    pub(crate) fn within(&self, git_dir: &Path) -> GitCommand {
        let mut command = self.bare_command();
        for setting in HARDENED {
            command.args(["-c", setting]);
        }
        command.env("GIT_DIR", git_dir).current_dir("/");
        GitCommand {
            command,
            what: String::new(),
            input: Some(Vec::new()),
            bounded: false,
            hidden: 0,
            time: GIT_MAX,
        }
    }

    fn bare_command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", &self.path).env("LC_ALL", "C").env("HOME", "/nonexistent");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_NO_LAZY_FETCH", "1").env("GIT_ATTR_NOSYSTEM", "1");
        let identity = [("NAME", "mayfly"), ("EMAIL", "mayfly@localhost")];
        for (key, value) in identity {
            command.env(format!("GIT_AUTHOR_{key}"), value).env(format!("GIT_COMMITTER_{key}"), value);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// A git command being put together.
#[derive(Debug)]
pub(crate) struct GitCommand {
    command: Command,
    what: String,
    input: Option<Vec<u8>>,
    /// Whether its memory is.
    bounded: bool,
    /// How many settings are in its environment.
    hidden: usize,
    /// The longest that it may take.
    time: Duration,
}

impl GitCommand {
    /// For what a machine or another made: with no more memory than [`MEMORY_BYTES_MAX`]. Before the arguments.
    #[expect(unsafe_code, reason = "what a child does before its program begins is for a call in it")]
    pub(crate) fn bounded(mut self) -> Self {
        for setting in FRUGAL {
            self.command.args(["-c", setting]);
        }
        self.command.env("GIT_ALLOC_LIMIT", MEMORY_BYTES_MAX.to_string());
        let bound = || {
            let most = Some(MEMORY_BYTES_MAX);
            setrlimit(Resource::Data, Rlimit { current: most, maximum: most }).map_err(io::Error::from)
        };
        // SAFETY: one system call, which takes no lock and no memory.
        unsafe { self.command.pre_exec(bound) };
        self.bounded = true;
        self
    }

    /// The user's files, which the command may read.
    pub(crate) fn work_tree(mut self, top: &Path) -> Self {
        self.command.env("GIT_WORK_TREE", top).current_dir(top);
        self
    }

    /// More variables of the user's.
    pub(crate) fn passing<'a>(mut self, variables: impl IntoIterator<Item = (&'a str, &'a OsStr)>) -> Self {
        self.command.envs(variables);
        self
    }

    /// The user's home, where their credential helpers look.
    pub(crate) fn with_home(mut self, git: &Git) -> Self {
        self.command.envs(git.home.iter().map(|home| ("HOME", home)));
        self.command.envs(git.config_home.iter().map(|home| ("XDG_CONFIG_HOME", home)));
        self
    }

    /// One more setting.
    pub(crate) fn config(mut self, key: &str, value: &OsStr) -> Self {
        let mut setting = OsString::from(format!("{key}="));
        setting.push(value);
        self.command.arg("-c").arg(setting);
        self
    }

    /// One more setting, which may hold what only this user may read: not among the arguments, which everybody on the host
    /// can.
    pub(crate) fn hidden_config(mut self, key: &str, value: &OsStr) -> Self {
        self.command.env(format!("GIT_CONFIG_KEY_{}", self.hidden), key);
        self.command.env(format!("GIT_CONFIG_VALUE_{}", self.hidden), value);
        self.hidden += 1;
        self.command.env("GIT_CONFIG_COUNT", self.hidden.to_string());
        self
    }

    #[cfg(test)]
    pub(crate) fn arguments(&self) -> String {
        let args = self.command.as_std().get_args();
        args.map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// The subcommand and its arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            if self.what.is_empty() {
                self.what = arg.as_ref().to_string_lossy().into_owned();
            }
            self.command.arg(arg);
        }
        self
    }

    /// Another index than the repository's.
    pub(crate) fn index(mut self, index: &Path) -> Self {
        self.command.env("GIT_INDEX_FILE", index);
        self
    }

    /// What it reads from its standard input.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// The file that it reads from its standard input.
    pub(crate) fn input_from(self, path: &Path) -> Result<Self, GitError> {
        self.input_from_within(path, 0)
    }

    /// The same, from a place within the file on.
    pub(crate) fn input_from_within(mut self, path: &Path, at: u64) -> Result<Self, GitError> {
        let mut file = File::open(path).map_err(GitError::file(path))?;
        file.seek(SeekFrom::Start(at)).map_err(GitError::file(path))?;
        self.command.stdin(file);
        self.input = None;
        Ok(self)
    }

    /// The file that takes what it prints, instead of memory.
    pub(crate) fn output_to(mut self, path: &Path) -> Result<Self, GitError> {
        self.command.stdout(File::create(path).map_err(GitError::file(path))?);
        Ok(self)
    }

    /// More time than a command has that reaches nobody.
    pub(crate) fn for_long(mut self) -> Self {
        self.time = FETCH_MAX;
        self
    }

    /// Runs it, and gives each line of its progress to `each`, without what a terminal would obey.
    pub(crate) async fn run_telling(self, mut each: impl FnMut(&str)) -> Result<(), GitError> {
        let (what, bounded, time) = (self.what, self.bounded, self.time);
        let mut command = self.command;
        command.stdin(Stdio::null());
        let mut child = command.spawn().map_err(GitError::Missing)?;
        let mut stderr = child.stderr.take().expect("it is a pipe");
        let (mut tail, mut piece) = (Vec::new(), vec![0; READ_BYTES]);
        let reading = async {
            loop {
                let read = stderr.read(&mut piece).await?;
                if read == 0 {
                    return child.wait().await;
                }
                tail.extend_from_slice(&piece[..read]);
                if let Some(line) = last_line(&tail) {
                    each(&line);
                }
                tail.drain(..tail.len().saturating_sub(TAIL_BYTES_MAX));
            }
        };
        let status = timeout(time, reading).await.map_err(|_| GitError::too_long(&what, time))?;
        match status.map_err(GitError::Missing)?.success() {
            true => Ok(()),
            false => Err(failed(what, bounded, said(&tail))),
        }
    }

    /// Runs it; an exit other than 0 is an error with what git said.
    pub(crate) async fn run(self) -> Result<Vec<u8>, GitError> {
        let (what, bounded) = (self.what, self.bounded);
        let output = output(&what, self.command, self.input, self.time).await?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(failed(what, bounded, said(&output.stderr))),
        }
    }

    /// Runs it, and gives what it prints to `each` in pieces until that has enough. Whether it came to its end.
    pub(crate) async fn read(
        mut self,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<bool, GitError> {
        let mut child = self.command.spawn().map_err(GitError::Missing)?;
        let mut stdout = child.stdout.take().expect("it is a pipe");
        // Beside, so that neither waits for the other; it ends with the command.
        let saying = tokio::spawn(tail(child.stderr.take().expect("it is a pipe")));
        let mut piece = vec![0; READ_BYTES];
        let reading = async {
            loop {
                match stdout.read(&mut piece).await? {
                    0 => return Ok::<_, io::Error>(true),
                    read if each(&piece[..read]).is_break() => return Ok(false),
                    _ => {}
                }
            }
        };
        let read = timeout(GIT_MAX, reading).await.map_err(|_| GitError::too_long(&self.what, GIT_MAX))?;
        let whole = read.map_err(GitError::Missing)?;
        // Dropped before its end, it is killed.
        if whole && !child.wait().await.map_err(GitError::Missing)?.success() {
            let said = said(&saying.await.expect("reading does not panic"));
            return Err(failed(self.what, self.bounded, said));
        }
        Ok(whole)
    }

    /// Runs it, and counts what it lists of a commit; what is passed breaks it off.
    pub(crate) async fn unfold(self, bytes_max: u64) -> Result<Result<u64, TooMuch>, GitError> {
        let mut unfolding = Unfolding::within(bytes_max);
        self.read(|piece| unfolding.take(piece)).await?;
        Ok(unfolding.bytes())
    }

    /// Runs it, and writes what it prints to a file, up to `bytes_max`. Whether that is all.
    pub(crate) async fn write_at_most(self, to: &Path, bytes_max: u64) -> Result<bool, GitError> {
        use std::io::Write as _;
        let mut file = File::create(to).map_err(GitError::file(to))?;
        let (mut left, mut written) = (bytes_max, Ok(()));
        let whole = self.read(|piece| {
            let Some(less) = left.checked_sub(piece.len() as u64) else { return ControlFlow::Break(()) };
            left = less;
            written = file.write_all(piece);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let whole = whole.await?;
        written.map_err(GitError::file(to)).map(|()| whole)
    }

    /// Runs it; its one line of output.
    pub(crate) async fn line(self) -> Result<String, GitError> {
        line(self.run().await?)
    }
}

/// Runs a command to its end, or kills it when its time is over. Without `input`, its standard input is what
/// the command has been given.
async fn output(
    what: &str,
    mut command: Command,
    input: Option<Vec<u8>>,
    time: Duration,
) -> Result<Output, GitError> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(GitError::Missing)?;
    let stdin = child.stdin.take();
    let write = async move {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command that does not read all of its input says why by its exit.
            let _ = stdin.write_all(&input).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = timeout(time, both).await.map_err(|_| GitError::too_long(what, time))?;
    output.map_err(GitError::Missing)
}

fn line(output: Vec<u8>) -> Result<String, GitError> {
    let text = String::from_utf8(output).map_err(|_| GitError::Failed {
        what: "output".to_owned(),
        said: "a name that is not UTF-8".to_owned(),
    })?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// The last line that has its end, as git writes its progress: with a carriage return.
fn last_line(text: &[u8]) -> Option<String> {
    const CHARS_MAX: usize = 100;
    let whole = &text[..=text.iter().rposition(|byte| matches!(byte, b'\r' | b'\n'))?];
    let mut lines = whole.rsplit(|byte| matches!(byte, b'\r' | b'\n'));
    let line = String::from_utf8_lossy(lines.find(|line| !line.is_empty())?).into_owned();
    Some(line.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect())
}

/// What a command that came to no good end said.
fn failed(what: String, bounded: bool, said: String) -> GitError {
    match bounded && is_about_memory(&said) {
        true => GitError::TooMuchMemory(what),
        false => GitError::Failed { what, said },
    }
}

/// Reads to the end, and keeps the last of it.
async fn tail(mut from: ChildStderr) -> Vec<u8> {
    let (mut tail, mut piece) = (Vec::new(), vec![0; READ_BYTES]);
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        tail.extend_from_slice(&piece[..read]);
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES_MAX));
    }
    tail
}

/// Whether git got no memory from the system, or gave itself none.
fn is_about_memory(said: &str) -> bool {
    let said = said.to_lowercase();
    said.contains("out of memory") || said.contains("attempting to allocate")
}

/// The last lines of what git said, bounded and with nothing that a terminal would obey.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.split(['\r', '\n']).filter(|line| !line.is_empty());
    let last: Vec<&str> = lines.rev().take(4).collect();
    let joined = last.into_iter().rev().collect::<Vec<_>>().join("; ");
    joined.chars().filter(|c| !c.is_control()).take(600).collect()
}

/// Why something could not be done with git. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git cannot be started.
    #[error("cannot run `git`: install it (Debian: apt-get install git) or put it on PATH")]
    Missing(#[source] io::Error),
    /// The path is in no repository.
    #[error("`{0}` is not in a git repository: name one with --repo, or run `git init` and commit first")]
    NoRepository(PathBuf),
    /// The repository has no files of its own.
    #[error("`{0}` is a bare git repository: name a checkout of it with --repo")]
    Bare(PathBuf),
    /// There is nothing to start from.
    #[error("the git repository `{0}` has no commit yet: make a first one, then try again")]
    NoCommit(PathBuf),
    /// There is no such commit.
    #[error(
        "`{place}` has no branch, tag or commit `{revision}`: name one that is there after the `#`, or leave it out"
    )]
    NoRevision {
        /// The repository.
        place: String,
        /// What was asked for.
        revision: String,
    },
    /// It lacks a part of its objects.
    #[error(
        "`{0}` is a partial clone, and does not have all of its history: complete it with `git fetch --refetch --no-filter`, \
         then try again"
    )]
    Partial(PathBuf),
    /// It is too much for a workspace.
    #[error(
        "the commit {0} has more than {ENTRIES_MAX} files, the most that a workspace may have: hand over a part of the \
         repository"
    )]
    TooManyFiles(String),
    /// It is too long for a patch.
    #[error("what was changed is more than {most} MiB as text, and was not written further", most = PATCH_BYTES_MAX >> 20)]
    TooMuchText,
    /// What came back is not what was announced.
    #[error("the bundle holds `{found}` where `{announced}` was announced: nothing was taken from it")]
    WrongHead {
        /// What is in the bundle.
        found: String,
        /// What the worker said.
        announced: String,
    },
    /// What came back has a name that no branch of ours may have, or too many of them.
    #[error("the bundle holds `{0}`, which no worker of this version puts there: nothing was taken from it")]
    BadName(String),
    /// Its history is cut off at more places than can be told of.
    #[error(
        "its history is cut off at {0} places, and {CUTS_MAX} are the most: choose another `depth`, or complete a clone \
         with `git fetch --unshallow`"
    )]
    TooManyCuts(usize),
    /// Work on what has a part of its history, which does not begin in what this repository has.
    #[error("`{repo}` does not have the commit {commit}, with which the task began: `git fetch` there first")]
    CutOff {
        /// The repository.
        repo: PathBuf,
        /// The commit.
        commit: String,
    },
    /// Work of another repository.
    #[error(
        "the task did not start from the repository `{0}`: they share no commit. Name the right one with --repo"
    )]
    Unrelated(PathBuf),
    /// A name that no branch can have.
    #[error("`{0}` cannot be the name of a branch: choose another one")]
    BadBranch(String),
    /// A branch of this name is there already.
    #[error(
        "the branch `{0}` is there already, and may hold this very work: choose another name with --branch NAME"
    )]
    Exists(String),
    /// A branch that rules the name out is there already.
    #[error(
        "the branch `{there}` is there already, and git allows no `{wanted}` beside it: choose another name with \
         --branch NAME"
    )]
    Taken {
        /// What is there.
        there: String,
        /// What was to be.
        wanted: String,
    },
    /// The files are not such that the work fits on top of them.
    #[error("the work does not fit the files in `{top}`, and nothing was changed: {said}")]
    NoFit {
        /// The top folder.
        top: PathBuf,
        /// What git said.
        said: String,
    },
    /// What came back is not fit for a repository.
    #[error("git's check of the objects in it failed: {0}")]
    BadObject(String),
    /// A file of the work cannot be read.
    #[error("cannot read `{path}`: {advice}")]
    Unreadable {
        /// Which, below the top folder.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// It did not come to an end, and was killed.
    #[error(
        "git {what} was not done after {minutes} minutes, and was killed: is the disk, or the way, slow?"
    )]
    TooLong {
        /// The subcommand.
        what: String,
        /// How long it had.
        minutes: u64,
    },
    /// What a machine made is not as small as it seems.
    #[error(
        "git {0} needed more than {most} MiB of memory, and was not given more: nothing was taken from what it read",
        most = MEMORY_BYTES_MAX >> 20
    )]
    TooMuchMemory(String),
    /// git said no.
    #[error("git {what}: {said}")]
    Failed {
        /// The subcommand.
        what: String,
        /// The end of what it printed.
        said: String,
    },
    /// A file could not be read or written.
    #[error("cannot use `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl GitError {
    /// Whether what came back was looked at and refused, so that nobody should take it by hand either.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::WrongHead { .. } | Self::BadObject(_) | Self::TooMuchMemory(_))
    }

    /// Whether it says something of the host, such as a full disk, and nothing of what git was to read: later the same may
    /// be done.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Missing(_) | Self::TooLong { .. } | Self::File { .. } => true,
            Self::Failed { said, .. } => HOST_WORDS.iter().any(|words| said.contains(words)),
            _ => false,
        }
    }

    fn too_long(what: &str, time: Duration) -> Self {
        Self::TooLong { what: what.to_owned(), minutes: time.as_secs() / 60 }
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
