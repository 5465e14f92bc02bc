//! Puts the parts of an orchestrator together: the provider and the server, on one data folder.

use std::sync::Arc;

use mayfly_engine::SystemClock;
use mayfly_provider::Provider;
use mayfly_server::{Server, ServerConfig, StartError};

use crate::claude::{Claude, pin};
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
    /// Starts one; `claude` is what it gives its machines, if they do not have it. What cannot work here is refused now,
    /// and not at the first task.
    pub(crate) async fn start(
        mut config: ServerConfig,
        claude: Option<&Claude>,
        provider: Arc<dyn Provider>,
    ) -> Result<Self, Stop> {
        let version = claude.map_or(Some(pin::VERSION), |claude| claude.version);
        config.rules.claude_version = version.map(str::to_owned);
        let server = Server::start(config, Arc::clone(&provider), Arc::new(SystemClock)).await;
        let server = server.map_err(|error| match error {
            StartError::Certificate(_) => Stop::usage(error),
            error => error.into(),
        })?;
        Ok(Self { server, provider })
    }
}
