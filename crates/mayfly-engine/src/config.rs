//! What can be chosen about an engine.

use std::path::PathBuf;
use std::time::Duration;

use mayfly_core::Policy;
use mayfly_provider::Limits;

/// The rules and limits of one engine, and where its files are.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How many at once, and when an attempt is worth another try.
    pub policy: Policy,
    /// The model of tasks that name none.
    pub model: String,
    /// What one machine may use.
    pub limits: Limits,
    /// The version that `claude` must name in its first message; none accepts any.
    pub claude_version: Option<String>,
    /// From asking for a machine to its worker's hello.
    pub launch_max: Duration,
    /// The whole run of a task that names no limit.
    pub timeout: Duration,
    /// The longest silence of `claude` in a task that names no limit.
    pub idle_timeout: Duration,
    /// For bringing the work out.
    pub collect_max: Duration,
    /// Silence of a worker after which the owner is told.
    pub silent_after: Duration,
    /// How long a machine goes on without an orchestrator.
    pub orphan_after: Duration,
    /// Where uploaded bundles are: `<sha256>.bundle`.
    pub workspaces: PathBuf,
    /// Where results are: `<task>/bundle`, `<task>/transcript`.
    pub results: PathBuf,
    /// What tokens are made with.
    pub key: [u8; 32],
}
