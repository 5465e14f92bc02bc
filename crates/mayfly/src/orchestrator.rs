//! Puts the parts of an orchestrator together: the sandbox provider and the server, on one data folder.

use std::sync::Arc;

use anyhow::Context as _;
use mayfly_engine::SystemClock;
use mayfly_provider::Provider;
use mayfly_provider_sandbox::{Sandbox, SandboxConfig};
use mayfly_server::{Server, ServerConfig};

use crate::claude::Claude;
use crate::exit::Stop;

/// An orchestrator in this process.
#[derive(Debug)]
pub(crate) struct Orchestrator {
    /// What clients talk to.
    pub(crate) server: Server,
    /// What makes the machines.
    pub(crate) provider: Arc<dyn Provider>,
}

impl Orchestrator {
    /// Starts one. What cannot work here is refused now, and not at the first task.
    pub(crate) async fn start(mut config: ServerConfig, claude: Claude) -> Result<Self, Stop> {
        Sandbox::step_aside();
        config.rules.claude_version = claude.version.map(str::to_owned);
        let mayfly = std::env::current_exe().context("cannot tell where this program is")?;
        let provider: Arc<dyn Provider> = Arc::new(Sandbox::new(SandboxConfig {
            machines: config.data.join("machines"),
            bases: config.data.join("bases"),
            claude: claude.path,
            mayfly,
        }));
        let server = Server::start(config, Arc::clone(&provider), Arc::new(SystemClock)).await?;
        Ok(Self { server, provider })
    }
}
