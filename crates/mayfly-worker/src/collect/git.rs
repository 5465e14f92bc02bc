//! Git, run so that nothing of the agent's making runs with it.
//!
//! The git folder is a new one of our own, so its configuration is ours: no hooks, filters, helpers, file
//! monitors or aliases of anybody else. The objects of the base and of the agent's repository are only read.
//! System and user configuration are off, no protocol is allowed, nobody is asked anything.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

use tokio::time::{Instant, timeout_at};

use crate::claude::command::{GIT_EMAIL, GIT_NAME, PATH};
use crate::reaper::Reaper;

/// What is kept of git's output.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What is told of its complaints.
const COMPLAINT_BYTES_MAX: usize = 400;

const SETTINGS: [(&str, &str); 11] = [
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

const FLAGS: [&str; 12] = [
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
];

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
        let mut command = Command::new("git");
        command.env_clear().envs(SETTINGS).args(FLAGS).current_dir(self.work_tree);
        command.env("GIT_DIR", self.folder).env("GIT_WORK_TREE", self.work_tree);
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), GIT_NAME).env(format!("GIT_{role}_EMAIL"), GIT_EMAIL);
        }
        command.args(arguments);
        let verb = command_verb(&command);
        let output = timeout_at(deadline, self.reaper.output(&mut command, OUTPUT_BYTES_MAX)).await;
        let output = output.map_err(|_| GitError::Late { verb: verb.clone() })?;
        let output = output.map_err(|source| GitError::NotRun { verb: verb.clone(), source })?;
        if !output.status.success() {
            return Err(GitError::Failed { verb, complaint: complaint(&output.stderr) });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }
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
