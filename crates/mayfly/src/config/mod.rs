//! What is in force, and where each value came from: a flag, else `mayfly.toml`, else the default.
//!
//! ```text
//! --config PATH, else $XDG_CONFIG_HOME/mayfly/mayfly.toml, else ~/.config/mayfly/mayfly.toml
//! ```
//!
//! A file that is named must be there. Nothing unknown in it is passed over: a wrong key or value is refused with
//! its place ([`problem`]). The keys are in [`keys`], the [`reference`] is made from them. The environment holds
//! secrets, which have no key.
//!
//! Bound: [`FILE_BYTES_MAX`].

mod keys;
mod kind;
mod problem;
#[cfg(test)]
mod reference;
mod repos;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_engine::Rules;
use mayfly_server::{Network, ServerConfig};
use mayfly_wire::api::Setup;
use serde::{Deserialize, Deserializer};

pub(crate) use keys::{Flags, Values};
use kind::{Kind, Raw, toml};
pub(crate) use problem::BadConfig;
use repos::Repo;

use crate::environment::Environment;
use crate::values::ProviderName;

/// The longest file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Opening does not wait for whoever writes.
#[expect(clippy::cast_possible_wrap, reason = "the flags of the system's call are an int")]
const NO_WAIT: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;
/// The bit of a mode that lets everybody write.
const ANYBODY_WRITES: u32 = 0o002;

/// A value, and who said so.
pub(crate) struct Given<K: Kind> {
    /// What was said.
    pub(crate) value: K::Value,
    /// By whom.
    pub(crate) from: Source,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The command line.
    Flag,
    /// The file, at this byte.
    File(usize),
    /// Nobody said anything.
    Default,
}

/// A key and its value, to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// With its section, such as `serve.parallel`.
    pub(crate) key: String,
    /// As TOML has it; none if nobody said anything and there is no default.
    pub(crate) value: Option<String>,
    /// What happens without a value.
    pub(crate) instead: String,
    from: Source,
}

/// What is in force.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// By key.
    pub(crate) values: Values,
    repos: BTreeMap<String, Repo>,
    file: Option<Read>,
}

/// A file that was read.
#[derive(Debug, Clone)]
struct Read {
    path: PathBuf,
    text: String,
}

impl Settings {
    /// Reads the file, `named` or in its usual place, and puts `flags` before it.
    pub(crate) fn load(
        named: Option<&Path>,
        flags: Flags,
        environment: &Environment,
    ) -> Result<Self, BadConfig> {
        let usual = || environment.config_folder().map(|folder| folder.join("mayfly.toml"));
        let Some(path) = named.map(Path::to_owned).or_else(usual) else { return Ok(Self::of(flags)) };
        match read(&path) {
            Ok(text) => Self::read(flags, &path, text),
            Err(BadConfig::Missing { .. }) if named.is_none() => Ok(Self::of(flags)),
            Err(error) => Err(error),
        }
    }

    /// Without a file.
    pub(crate) fn of(flags: Flags) -> Self {
        Self { values: Values::settle(flags, keys::File::default()), repos: BTreeMap::new(), file: None }
    }

    fn read(flags: Flags, path: &Path, text: String) -> Result<Self, BadConfig> {
        let mut file: keys::File =
            toml::from_str(&text).map_err(|error| problem::placed(&error, path, &text))?;
        let repos = std::mem::take(&mut file.repo);
        // Whoever is told the path may work elsewhere.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { values: Values::settle(flags, file), repos, file: Some(Read { path, text }) })
    }

    /// The file that was read, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// The CLI that was named.
    pub(crate) fn claude(&self) -> Option<PathBuf> {
        self.values.claude.as_ref().map(|given| given.value.clone())
    }

    /// Where machines are made.
    pub(crate) fn provider(&self) -> ProviderName {
        self.values.provider.value
    }

    /// The data folder that was named.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.values.data.as_ref().map(|given| given.value.as_path())
    }

    /// The library that was named.
    pub(crate) fn library(&self) -> Option<&Path> {
        self.values.folder.as_ref().map(|given| given.value.as_path())
    }

    /// The suite of images.
    pub(crate) fn suite(&self) -> Option<String> {
        self.values.suite.as_ref().map(|given| given.value.clone())
    }

    /// What images have besides what is in each.
    pub(crate) fn packages(&self) -> Vec<String> {
        self.values.packages.as_ref().map(|given| given.value.0.clone()).unwrap_or_default()
    }

    /// What makes the repository ready that is called `name`.
    pub(crate) fn setup(&self, name: &str) -> Option<Setup> {
        repos::setup(&self.repos, name)
    }

    /// How many commits of the history of the repository that is called `name` are fetched; none are all.
    pub(crate) fn depth(&self, name: &str) -> Option<NonZeroU32> {
        repos::depth(&self.repos, name)
    }

    /// Sets where an orchestrator finds what tasks share.
    pub(crate) fn lend(&self, config: &mut ServerConfig) {
        if let Some(folder) = self.library() {
            folder.clone_into(&mut config.library);
        }
        let projects = self.values.projects.as_ref().map(|given| given.value.0.clone());
        config.projects = projects.unwrap_or_default();
    }

    /// How long a signal to stop waits for the tasks that run.
    pub(crate) fn drain(&self) -> Duration {
        self.values.drain.value
    }

    /// When an orchestrator with nothing to do is to exit.
    pub(crate) fn idle_exit(&self) -> Option<Duration> {
        self.values.idle_exit.as_ref().map(|given| given.value)
    }

    /// Where machines can go, for tasks that may.
    pub(crate) fn network(&self) -> Network {
        let private = self.values.allow_private.as_ref().map(|given| given.value.0.clone());
        Network::of_host(private.unwrap_or_default())
    }

    /// Every key with its value.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.values.rows()
    }

    /// All that has a value, as a file that gives the same.
    pub(crate) fn written(&self) -> String {
        let mut text = String::new();
        let mut within = String::new();
        for Row { key, value, .. } in self.rows() {
            let (section, name) = key.split_once('.').unwrap_or(("", &key));
            if section != within {
                let _ = writeln!(text, "[{section}]");
                section.clone_into(&mut within);
            }
            if let Some(value) = value {
                let _ = writeln!(text, "{name} = {value}");
            }
        }
        text
    }

    /// Where the value of `row` came from, in words.
    pub(crate) fn origin(&self, row: &Row) -> String {
        match (row.from, &self.file) {
            (Source::File(at), Some(file)) => {
                format!("{}:{}", file.path.display(), problem::line_of(&file.text, at))
            }
            (Source::Flag, _) => "flag".to_owned(),
            _ => "default".to_owned(),
        }
    }

    /// Sets how many machines there may be, what each may use, and how long it may be out of reach.
    pub(crate) fn bound_machines(&self, rules: &mut Rules) {
        rules.silent_after = self.values.silent_after.value;
        rules.orphan_after = self.values.orphan_after.value;
        rules.policy.machines_max = self.values.parallel.value;
        rules.limits.memory_bytes_max = self.values.memory.value;
        rules.limits.pids_max = self.values.processes.value;
        rules.limits.cpus_max = self.values.cpus.value;
        rules.limits.disk_bytes_max = self.values.disk.value;
    }

    /// Sets what holds for tasks that do not say otherwise, and how long they are kept.
    pub(crate) fn bound_tasks(&self, rules: &mut Rules) {
        rules.model.clone_from(&self.values.model.value);
        rules.timeout = self.values.timeout.value;
        rules.idle_timeout = self.values.idle_timeout.value;
        rules.keep_finished = self.values.keep_finished.value;
        rules.prices = self.values.per_million.as_ref().map(|given| given.value.clone());
    }
}

impl<K: Kind> Given<K> {
    fn flag(value: Option<K::Value>) -> Option<Self> {
        value.map(|value| Self { value, from: Source::Flag })
    }
}

impl<K: Kind> Clone for Given<K> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), from: self.from }
    }
}

impl<K: Kind> fmt::Debug for Given<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("value", &self.value).field("from", &self.from).finish()
    }
}

impl<'de, K: Kind> Deserialize<'de> for Given<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = ::toml::Spanned::<Raw<K>>::deserialize(deserializer)?;
        let from = Source::File(raw.span().start);
        Ok(Self { value: raw.into_inner().0, from })
    }
}

impl Row {
    fn of<K: Kind>(section: &str, key: &str, given: Option<&Given<K>>, instead: &str) -> Self {
        Self {
            key: if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") },
            value: given.map(|given| toml::<K>(&given.value)),
            instead: instead.to_owned(),
            from: given.map_or(Source::Default, |given| given.from),
        }
    }
}

fn read(path: &Path) -> Result<String, BadConfig> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => BadConfig::Missing { path: path.to_owned() },
        _ => BadConfig::Unreadable { path: path.to_owned(), source },
    };
    // A pipe would be waited for.
    let file = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(path).map_err(failed)?;
    let is = file.metadata().map_err(failed)?;
    if !is.is_file() {
        return Err(BadConfig::NoFile { path: path.to_owned() });
    }
    // It names a program that is run.
    if is.permissions().mode() & ANYBODY_WRITES != 0 {
        return Err(BadConfig::Open { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(BadConfig::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| BadConfig::NotText { path: path.to_owned() })
}

#[cfg(test)]
mod tests;
