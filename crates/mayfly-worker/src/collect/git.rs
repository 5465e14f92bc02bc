//! Git, run so that nothing of the agent's making runs with it.
//!
//! The git folder is a new one of our own, so its configuration is ours: no hooks, filters, helpers, file
//! monitors or aliases of anybody else. The objects of the base and of the agent's repository are only read.
//! System and user configuration are off, no protocol is allowed, nobody is asked anything.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::time::{Instant, timeout_at};

use crate::claude::command::{GIT_EMAIL, GIT_NAME, PATH};
use crate::reaper::{Output, Reaper};

/// What is kept of git's output.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What is kept of a list of paths.
const LIST_BYTES_MAX: usize = 128 * 1024 * 1024;
/// What is told of its complaints.
const COMPLAINT_BYTES_MAX: usize = 400;

const SETTINGS: [(&str, &str); 13] = [
    // Memory that is free is used again: git takes and gives back a piece for each file.
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("PATH", PATH),
];

/// The flag for a new repository that is to hold this commit: by SHA-256 it is named with 64 digits.
pub(crate) fn object_format(commit: &str) -> &'static str {
    if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" }
}

const FLAGS: [&str; 20] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.untrackedCache=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "-c",
    "advice.addEmbeddedRepo=false",
    // Nothing of it outlives the machine.
    "-c",
    "core.fsync=none",
    // Time is short, and the way is too: nothing is gained by packing tightly. Large files are not held in memory.
    "-c",
    "pack.compression=1",
    "-c",
    "pack.window=0",
    "-c",
    "core.bigFileThreshold=16m",
];

/// How files that git takes in are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    /// Each for itself.
    Loose,
    /// All of them in one pack: thousands of files would take longer to make than to write.
    Packed,
    /// As they are, without a try to make them shorter.
    Stored,
}

impl Feed {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Loose => &[],
            // What is long goes into a pack.
            Self::Packed => &["-c", "core.bigFileThreshold=1"],
            Self::Stored => &["-c", "core.compression=0", "-c", "pack.compression=0"],
        }
    }
}

/// Runs git on one git folder and one working tree.
#[derive(Debug)]
pub(crate) struct Git<'a> {
    pub(crate) reaper: &'a Reaper,
    pub(crate) folder: &'a Path,
    pub(crate) work_tree: &'a Path,
}

impl Git<'_> {
    /// Runs it to its end, and gives its output without the last newline.
    pub(crate) async fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        deadline: Instant,
    ) -> Result<String, GitError> {
        let output = self.output(arguments, Stdio::null(), OUTPUT_BYTES_MAX, deadline).await?;
        Ok(String::from_utf8_lossy(&output).trim_end_matches('\n').to_owned())
    }

    /// Runs it to its end with these paths on its input.
    pub(crate) async fn feed(
        &self,
        arguments: &[&str],
        paths: impl IntoIterator<Item = &PathBuf>,
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), GitError> {
        self.feed_lines(arguments, &lines(paths), feed, deadline).await
    }

    /// Runs it to its end with this on its input.
    pub(crate) async fn feed_lines(
        &self,
        arguments: &[&str],
        input: &[u8],
        feed: Feed,
        deadline: Instant,
    ) -> Result<(), GitError> {
        let input = self.input(arguments, input)?;
        let mut command = self.command(feed.flags().iter().chain(arguments), input);
        let verb = arguments.first().copied().unwrap_or_default().to_owned();
        self.finish(verb, self.reaper.output(&mut command, OUTPUT_BYTES_MAX), deadline).await.map(drop)
    }

    /// Runs it to its end, with what it prints going elsewhere.
    pub(crate) async fn print(
        &self,
        arguments: &[&str],
        to: impl Into<Stdio>,
        deadline: Instant,
    ) -> Result<(), GitError> {
        self.put(arguments, Stdio::null(), to, deadline).await
    }

    /// The same with this text on its input.
    pub(crate) async fn print_of(
        &self,
        arguments: &[&str],
        input: impl AsRef<[u8]>,
        to: impl Into<Stdio>,
        deadline: Instant,
    ) -> Result<(), GitError> {
        self.put(arguments, self.input(arguments, input.as_ref())?, to, deadline).await
    }

    async fn put(
        &self,
        arguments: &[&str],
        input: Stdio,
        to: impl Into<Stdio>,
        deadline: Instant,
    ) -> Result<(), GitError> {
        let mut command = self.command(arguments, input);
        command.stdout(to);
        let verb = command_verb(&command);
        self.finish(verb, self.reaper.finish(&mut command, OUTPUT_BYTES_MAX), deadline).await.map(drop)
    }

    fn input(&self, arguments: &[&str], input: &[u8]) -> Result<Stdio, GitError> {
        let file = self.folder.join("mayfly-input");
        let opened = fs::write(&file, input).and_then(|()| fs::File::open(&file));
        let verb = || arguments.first().copied().unwrap_or_default().to_owned();
        opened.map(Stdio::from).map_err(|source| GitError::NotRun { verb: verb(), source })
    }

    /// Runs it to its end, and gives the entries of its output, which end with a zero byte each.
    pub(crate) async fn list(&self, arguments: &[&str], deadline: Instant) -> Result<List, GitError> {
        self.list_from(arguments, Stdio::null(), deadline).await
    }

    /// The same with these paths on its input.
    pub(crate) async fn list_of(
        &self,
        arguments: &[&str],
        paths: impl IntoIterator<Item = &PathBuf>,
        deadline: Instant,
    ) -> Result<List, GitError> {
        let input = self.input(arguments, &lines(paths))?;
        self.list_from(arguments, input, deadline).await
    }

    async fn list_from(&self, arguments: &[&str], input: Stdio, deadline: Instant) -> Result<List, GitError> {
        let output = self.output(arguments, input, LIST_BYTES_MAX, deadline).await?;
        let mut entries: Vec<_> =
            output.split(|&byte| byte == 0).map(|entry| OsString::from_vec(entry.to_vec())).collect();
        let rest = entries.pop();
        Ok(List { entries, whole: rest.is_none_or(|rest| rest.is_empty()) && output.len() < LIST_BYTES_MAX })
    }

    /// After a git that was killed: it has left its lock.
    pub(crate) fn unlock_index(&self) {
        // If there is none, all is well; if it cannot be removed, the next git says so.
        let _ = fs::remove_file(self.folder.join("index.lock"));
    }

    async fn output<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: Stdio,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Vec<u8>, GitError> {
        let mut command = self.command(arguments, input);
        let verb = command_verb(&command);
        self.finish(verb, self.reaper.output(&mut command, bytes_max), deadline).await
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: Stdio) -> Command {
        let mut command = Command::new("git");
        command.env_clear().envs(SETTINGS).args(FLAGS).current_dir(self.work_tree);
        command.env("GIT_DIR", self.folder).env("GIT_WORK_TREE", self.work_tree);
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), GIT_NAME).env(format!("GIT_{role}_EMAIL"), GIT_EMAIL);
        }
        command.args(arguments).stdin(input);
        command
    }

    async fn finish(
        &self,
        verb: String,
        running: impl Future<Output = io::Result<Output>>,
        deadline: Instant,
    ) -> Result<Vec<u8>, GitError> {
        let output = timeout_at(deadline, running).await;
        let output = output.map_err(|_| GitError::Late { verb: verb.clone() })?;
        let output = output.map_err(|source| GitError::NotRun { verb: verb.clone(), source })?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(GitError::Failed { verb, complaint: complaint(&output.stderr) }),
        }
    }
}

/// Paths as git reads them, with a zero byte after each.
fn lines<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<u8> {
    let mut lines = Vec::new();
    for path in paths {
        lines.extend_from_slice(path.as_os_str().as_encoded_bytes());
        lines.push(0);
    }
    lines
}

/// What git listed.
#[derive(Debug)]
pub(crate) struct List {
    /// The entries, byte for byte.
    pub(crate) entries: Vec<OsString>,
    /// Whether it is all of them.
    pub(crate) whole: bool,
}

/// Tells of trouble with files of what git was to do.
pub(crate) fn not_run(verb: &str) -> impl FnOnce(io::Error) -> GitError {
    move |source| GitError::NotRun { verb: verb.to_owned(), source }
}

/// The first argument after the flags.
fn command_verb(command: &Command) -> String {
    let verb = command.get_args().nth(FLAGS.len()).unwrap_or_default();
    verb.to_string_lossy().into_owned()
}

/// The first of its complaints: what follows is mostly advice.
fn complaint(stderr: &[u8]) -> String {
    let kept = &stderr[..stderr.len().min(COMPLAINT_BYTES_MAX)];
    String::from_utf8_lossy(kept).trim().replace('\n', "; ")
}

/// Git did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// There is none, or it cannot be run.
    #[error("git {verb} cannot be run")]
    NotRun {
        /// What it was to do.
        verb: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("git {verb} failed: {complaint}")]
    Failed {
        /// What it was to do.
        verb: String,
        /// What it said.
        complaint: String,
    },
    /// It was killed because its time was over.
    #[error("git {verb} took too long")]
    Late {
        /// What it was to do.
        verb: String,
    },
}
