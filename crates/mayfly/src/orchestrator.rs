//! Puts the parts of an orchestrator together: the sandbox provider and the server, on one data folder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use mayfly_engine::SystemClock;
use mayfly_provider::Provider;
use mayfly_provider_sandbox::{Sandbox, SandboxConfig};
use mayfly_server::{Server, ServerConfig, StartError};

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
        make_private(&config.data)?;
        config.rules.claude_version = claude.version.map(str::to_owned);
        let mayfly = std::env::current_exe().context("cannot tell where this program is")?;
        let provider: Arc<dyn Provider> = Arc::new(Sandbox::new(SandboxConfig {
            machines: config.data.join("machines"),
            bases: config.data.join("bases"),
            claude: claude.path,
            mayfly,
        }));
        let server = Server::start(config, Arc::clone(&provider), Arc::new(SystemClock)).await;
        let server = server.map_err(|error| match error {
            StartError::Certificate(_) => Stop::usage(error),
            error => error.into(),
        })?;
        Ok(Self { server, provider })
    }
}

/// Makes a folder that only this user can enter, if it is not there.
pub(crate) fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder `{}`", folder.display()))
}
