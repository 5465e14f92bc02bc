//! The boundary to the places that make machines.
//!
//! A [`Provider`] makes and unmakes machines and lists those that it has; it never hears from the worker
//! inside, which dials the orchestrator itself. All verbs are idempotent and keyed by the attempt, so that
//! the engine can perform an effect again after any failure, its own death included.
//!
//! [`conformance`] is what every provider must pass.

use std::fmt;
use std::path::PathBuf;

use mayfly_core::AttemptId;
use secrecy::SecretString;

pub mod clock;
pub mod conformance;

/// A place that can run machines.
#[async_trait::async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Short and stable: stored with each machine, shown in logs.
    fn name(&self) -> &'static str;

    /// Tries whether a machine can be made here at all, with a throw-away one. A missing part is
    /// [`ProviderError::Refused`] with its cause and what to do about it.
    async fn probe(&self) -> Result<(), ProviderError>;

    /// Makes the machine for `spec.attempt`, or finds the one already made.
    /// Returns once the machine is allocated, not once its worker is heard.
    async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError>;

    /// Unmakes a machine, and returns once nothing of it is left: no process, mount, cgroup or file.
    /// One that is already gone, or never was, is a success.
    async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError>;

    /// Every attempt that has something left here (a live machine, or the remains of a dead one), for the
    /// reaper to compare with the store.
    async fn list(&self) -> Result<Vec<Machine>, ProviderError>;

    /// Looks whether the attempt's machine can still run. A place whose list may lack what is there, or that knows
    /// why a machine ended, looks by itself; elsewhere the list says it.
    async fn look(&self, attempt: AttemptId) -> Result<Sight, ProviderError> {
        let machines = self.list().await?;
        let alive = machines.iter().any(|machine| machine.attempt == attempt && machine.alive);
        Ok(if alive { Sight::Alive } else { Sight::Ended(None) })
    }

    /// Whether what calls itself so there can be the attempt's machine, as far as is known without asking. A place
    /// whose machines have no such names knows none that cannot.
    fn can_be_machine_of(&self, _attempt: AttemptId, _name: &str) -> bool {
        true
    }
}

/// What a machine is made from.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Whose machine it is.
    pub attempt: AttemptId,
    /// What its worker proves itself with, once. It reaches the worker alone and is in no environment; where a machine
    /// has no standard input of ours it is in a file of root's that goes before anything of the agent's runs.
    pub ticket: SecretString,
    /// The code that is to be at `/workspace/<name>`; none is an empty workspace.
    pub workspace: Option<WorkspaceSpec>,
    /// What else it sees, read-only.
    pub tools: Vec<ToolSpec>,
    /// The folder of this host that it sees at `/run/mayfly`, read-only: its own way to the orchestrator, which
    /// no other machine sees.
    pub way_out: PathBuf,
    /// What it may use.
    pub limits: Limits,
}

/// The code of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSpec {
    /// The folder's name under `/workspace`; one plain name.
    pub name: String,
    /// What to check out.
    pub code: CodeSpec,
    /// What the bundle of that is on top of; none is nothing.
    pub on: Option<CodeSpec>,
}

/// A commit in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSpec {
    /// The bundle's SHA-256 in hex: two machines with the same one can share what is never written.
    pub id: String,
    /// The commit, in hex.
    pub base: String,
    /// The git bundle on this host.
    pub bundle: PathBuf,
}

/// Programs that a machine can run, besides its system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSpec {
    /// Where the machine sees the tree: a whole path, which nothing else is at or in.
    pub inside: String,
    /// The tree, on this host; nobody writes to it any more.
    pub folder: PathBuf,
}

/// What a machine may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory in bytes. Default: 4 GiB.
    pub memory_bytes_max: u64,
    /// Processes and threads. Default: 1024.
    pub pids_max: u32,
    /// Processors. Default: 2.
    pub cpus_max: f64,
    /// What its files may take of the disk, in bytes. Default: 20 GiB.
    pub disk_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes_max: 4 << 30, pids_max: 1024, cpus_max: 2.0, disk_bytes_max: 20 << 30 }
    }
}

/// A machine that was made, or what is left of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Whose machine it is.
    pub attempt: AttemptId,
    /// Whether it can still run; one that cannot is only to be destroyed.
    pub alive: bool,
    /// What the owner should know about it, such as a limit that cannot be had here; a sentence each.
    pub notes: Vec<String>,
}

/// What is known of an attempt's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It can still run, or nothing is sure to say that it cannot.
    Alive,
    /// It cannot run any more; with what became of it, in words, where the place tells.
    Ended(Option<String>),
}

/// Why a provider did not do as asked, sorted by what the caller should do next.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Nothing was made, and asking again will not help.
    #[error("the {provider} provider cannot make this machine: {reason}")]
    Refused {
        /// Which provider.
        provider: &'static str,
        /// What is missing or wrong, and what to do about it.
        reason: String,
        /// What the system said, if it did.
        #[source]
        source: Option<BoxError>,
    },
    /// A machine may exist. Ask again: every call is idempotent.
    #[error("no clear answer to `{call}`")]
    Unclear {
        /// What was asked.
        call: &'static str,
        /// What the system said.
        #[source]
        source: BoxError,
    },
}

/// Any error, kept as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
