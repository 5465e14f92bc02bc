//! What can be chosen about an engine.

use std::path::PathBuf;
use std::time::Duration;

use mayfly_core::{Policy, Prices, Secrets};
use mayfly_provider::Limits;

use crate::library::LibraryConfig;

/// The rules of one engine. Each has a default.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How many attempts at once, and when one is worth another try. Default: [`Policy::default`].
    pub policy: Policy,
    /// The model of tasks that name none. Default: `sonnet`.
    pub model: String,
    /// What one machine may use. Default: [`Limits::default`].
    pub limits: Limits,
    /// What models cost, where `claude` does not say it. Default: nobody knows.
    pub prices: Option<Prices>,
    /// The version that `claude` must name in its first message; none accepts any. Default: none.
    pub claude_version: Option<String>,
    /// From asking for a machine to its worker's hello. Default: 60 s.
    pub launch_max: Duration,
    /// The whole run of a task that names no limit. Default: 30 min.
    pub timeout: Duration,
    /// The longest silence of `claude` in a task that names no limit. Default: 10 min.
    pub idle_timeout: Duration,
    /// For bringing the work out. Default: 2 min.
    pub collect_max: Duration,
    /// Silence of a worker after which the owner is told. Default: 30 s.
    pub silent_after: Duration,
    /// How long a machine goes on without an orchestrator. Default: 1 h.
    pub orphan_after: Duration,
    /// How long the log and the result of a task that is over are kept. Default: 30 days.
    pub keep_finished: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            model: "sonnet".to_owned(),
            limits: Limits::default(),
            prices: None,
            claude_version: None,
            launch_max: Duration::from_secs(60),
            timeout: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(10 * 60),
            collect_max: Duration::from_secs(2 * 60),
            silent_after: Duration::from_secs(30),
            orphan_after: Duration::from_secs(60 * 60),
            keep_finished: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// An engine's rules, and where its files are.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Its rules.
    pub rules: Rules,
    /// Where uploaded bundles are: `<sha256>.bundle`.
    pub workspaces: PathBuf,
    /// Where results are: `<task>/<attempt>/bundle`, `<task>/<attempt>/transcript`.
    pub results: PathBuf,
    /// What tasks get besides what they bring.
    pub library: LibraryConfig,
    /// What tokens are made with.
    pub key: [u8; 32],
    /// What must not be in anything that is stored or shown. The engine adds the credentials of the tasks that run.
    pub secrets: Secrets,
}
