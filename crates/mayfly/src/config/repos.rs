//! `[repo."NAME"]`: what holds for one repository, by its name.
//!
//! These keys are in no table of values, since there may be any number of each; everything else about them is as for the
//! other keys. They are read where tasks are submitted, and go with the tasks.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use mayfly_wire::api::{Setup, setup_timeout_ms};
use serde::Deserialize;

use super::Given;
use super::kind::Time;

/// The section that has one for each repository.
pub(super) const SECTION: &str = "repo";
/// What stands for the name of one.
pub(super) const NAME: &str = "NAME";
/// The keys, and the sections that they are in.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("repo.NAME", "depth"),
    ("repo.NAME", "setup"),
    ("repo.NAME.setup", "commands"),
    ("repo.NAME.setup", "lock_files"),
    ("repo.NAME.setup", "keep"),
    ("repo.NAME.setup", "timeout"),
];

/// The page about them, in the reference.
#[cfg(test)]
pub(super) const PAGE: &str = "

# What holds for the repository that is called `app`, by its folder or its URL.
#[repo.\"app\"]
# How many commits of its history are fetched from its URL. A machine has as many, unless the orchestrator has them all
# already, and so has what mayfly makes of it where you have no clone.
# Default: all of them.
#depth = 50

# What makes it ready, in each machine before `claude` is started in it.
#[repo.\"app\".setup]
# What is run by `sh` in the workspace, as the agent, with the hosts that the task may reach; one after another, and the
# first that fails ends the task. What they print is in the log, as lines of the standard error.
#commands = [\"npm ci\"]

# Files of the repository: as long as these, the commands and the version of the CLI are the same, what was kept is taken
# instead of running the commands.
# Default: none.
#lock_files = [\"package-lock.json\"]

# Folders that the commands make, to be kept for later tasks on the same repository, by its URL or its path; none of them
# may be in the repository itself. Whatever of the repository the commands run has a say in what is kept.
# Default: none, the commands are run for each task.
#keep = [\"node_modules\"]

# The time for all of the commands.
#timeout = \"10m\"
";

/// What holds for one repository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section with keys of its own")]
pub(super) struct Repo {
    depth: Option<NonZeroU32>,
    setup: Option<SetupSection>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section with keys of its own")]
struct SetupSection {
    commands: Vec<String>,
    lock_files: Vec<String>,
    keep: Vec<String>,
    timeout: Option<Given<Time>>,
}

/// How many commits of the history of the repository that is called `name` are fetched; none are all.
pub(super) fn depth(repos: &BTreeMap<String, Repo>, name: &str) -> Option<NonZeroU32> {
    repos.get(name)?.depth
}

/// The set-up of the repository that is called `name`.
pub(super) fn setup(repos: &BTreeMap<String, Repo>, name: &str) -> Option<Setup> {
    let SetupSection { commands, lock_files, keep, timeout } = repos.get(name)?.setup.clone()?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let timeout_ms = timeout.map_or_else(setup_timeout_ms, |given| milliseconds(given.value));
    Some(Setup { commands, lock_files, keep, repository: None, timeout_ms })
}
