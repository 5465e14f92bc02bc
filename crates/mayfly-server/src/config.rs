//! What can be chosen about an orchestrator: its data folder, and the engine's rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mayfly_core::Secrets;
use mayfly_engine::{EngineConfig, LibraryConfig, Rules};
use mayfly_gateway::egress::Network;
use mayfly_git::Git;
use mayfly_library::Name;
use mayfly_wire::Secret;

use crate::data::{RESOURCES, STORE, TOKEN};
use crate::fly_src::FlySrc;
use crate::server::StartError;
use crate::tls::Tls;

/// The name of the owner's socket in the data folder.
pub(crate) const OWNER_SOCKET: &str = "api.sock";

/// The name of the library in the data folder.
pub const LIBRARY: &str = "library";

/// What one orchestrator is like.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The data folder; one orchestrator at a time has it. It is made if it is not there.
    pub data: PathBuf,
    /// An address where the owner's API is served too, to those who have a token. Port 0 is any.
    pub listen: Option<SocketAddr>,
    /// What it shows of itself there. Default: no TLS.
    pub tls: Option<Tls>,
    /// Whether an address that others can reach may be one without TLS, where a token can be read on its way.
    pub listen_without_tls: bool,
    /// What it is called there, besides `localhost` and by its address.
    pub host_names: Vec<String>,
    /// A token that opens it besides those that were made: whoever started the orchestrator has it.
    pub owner_token: Option<Secret>,
    /// Whether machines can come there too, each with its own tokens. Default: no.
    pub machines_by_port: bool,
    /// What must be so of one of those that comes by Fly's proxy.
    pub fly_src: Option<FlySrc>,
    /// Where machines can go, if their tasks allow it. Default: wherever this host can, but for private networks.
    pub network: Network,
    /// git, which makes patches of results. Default: the one in the usual places.
    pub git: Git,
    /// The library. Default: `library` in the data folder.
    pub library: PathBuf,
    /// The projects of repositories that are not called as their projects are.
    pub projects: BTreeMap<String, Name>,
    /// What holds for its tasks.
    pub rules: Rules,
    /// What must not be in anything that is stored or shown, by who knows it: `secrets.set("pool", all_of_them)`. The
    /// orchestrator adds its owners' tokens and the credentials of the tasks that run.
    pub secrets: Secrets,
}

impl ServerConfig {
    /// The default rules, in the data folder `data`.
    pub fn in_dir(data: impl Into<PathBuf>) -> Self {
        let git = Git::new("/usr/local/bin:/usr/bin:/bin".into(), None, None);
        let data = data.into();
        Self {
            library: data.join(LIBRARY),
            projects: BTreeMap::new(),
            data,
            listen: None,
            tls: None,
            listen_without_tls: false,
            host_names: Vec::new(),
            owner_token: None,
            machines_by_port: false,
            fly_src: None,
            network: Network::of_host(Vec::new()),
            git,
            rules: Rules::default(),
            secrets: Secrets::default(),
        }
    }

    /// The owner's socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join(OWNER_SOCKET)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.data.join(STORE)
    }

    /// The folder of what tasks had of the library, by content.
    pub fn archives(&self) -> PathBuf {
        self.data.join(RESOURCES)
    }

    /// The file of the token that opens the API on a port for programs of this machine.
    pub fn token_file(&self) -> PathBuf {
        self.data.join(TOKEN)
    }

    /// Whether the address to listen on may be one: where others can come, a token must not be readable on its way.
    ///
    /// # Errors
    /// [`StartError::Exposed`].
    pub fn check_listen(&self) -> Result<(), StartError> {
        match self.listen {
            Some(address)
                if !address.ip().is_loopback() && self.tls.is_none() && !self.listen_without_tls =>
            {
                Err(StartError::Exposed(address))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn engine(
        &self,
        (workspaces, results, archives): (&Path, &Path, &Path),
        key: [u8; 32],
    ) -> EngineConfig {
        EngineConfig {
            rules: self.rules.clone(),
            library: LibraryConfig {
                folder: self.library.clone(),
                required: self.library != self.data.join(LIBRARY),
                archives: archives.to_owned(),
                tools: archives.with_file_name("tools"),
                projects: self.projects.clone(),
            },
            workspaces: workspaces.to_owned(),
            results: results.to_owned(),
            key,
            secrets: self.secrets.clone(),
        }
    }
}
