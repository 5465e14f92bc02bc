//! The orchestrator put together: data folder, store, engine, doors.
//!
//! The order of [`Server::start`] is what makes it safe: nothing is touched before the folder is known to be
//! ours, nothing is made before the provider has shown that it can make machines, and nobody is let in before
//! the engine runs: who dials earlier waits. What fails leaves nothing running.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mayfly_core::causes;
use mayfly_engine::{Clock, Engine};
use mayfly_gateway::egress::Network;
use mayfly_git::Git;
use mayfly_provider::{Provider, ProviderError};
use mayfly_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::check::{self, check_socket};
use crate::checkpoints::Checkpoints;
use crate::config::{OWNER_SOCKET, ServerConfig};
use crate::data::{DataError, DataFolder};
use crate::doors::{Doors, Opened};
use crate::files;
use crate::http::{self, Entry, Machine, Owner, Parts, Turns};
use crate::listen::{Door, House, SOCKET_PATH_BYTES_MAX};
use crate::port::Port;
use crate::street::Street;
use crate::tls::TlsError;
use crate::tokens::{OwnerTokens, TokenError};

/// How long [`Server::stop`] waits for exchanges that are under way.
pub const STOP_MAX: Duration = Duration::from_secs(3);

/// Why an orchestrator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The owner's socket would have too long a path.
    #[error(
        "the path of the socket {} is longer than {SOCKET_PATH_BYTES_MAX} bytes: choose a shorter data folder",
        path.display()
    )]
    LongPath {
        /// The socket's path.
        path: PathBuf,
    },
    /// No machine can be made here.
    #[error("no machine can be made here")]
    Provider(#[source] ProviderError),
    /// The database cannot be used.
    #[error("the database {} cannot be used", path.display())]
    Store {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// The engine did not start.
    #[error("the queue could not be taken up again")]
    Engine(#[source] mayfly_engine::StartError),
    /// The tokens of owners cannot be read.
    #[error("the tokens of owners cannot be read")]
    Tokens(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No client for the model API could be made.
    #[error("TLS cannot be used here")]
    Tls(#[source] reqwest::Error),
    /// The address is one that others can reach, and there is no TLS.
    #[error(
        "others can reach {0}, and without TLS a token that is sent there can be read on its way: say --tls self-signed, \
         or --tls-cert and --tls-key, or listen on 127.0.0.1; where something else encrypts, such as a VPN or a proxy, \
         say --listen-without-tls"
    )]
    Exposed(SocketAddr),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// A port cannot be had.
    #[error("cannot listen on {address}: choose another with --listen")]
    Port {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A running orchestrator. Dropped without [`Server::stop`], it ends without waiting for anyone.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    engine: Engine,
    clock: Arc<dyn Clock>,
    owners: watch::Receiver<usize>,
    listening: Option<(SocketAddr, Option<String>)>,
    house: House,
    _stop: DropGuard,
    _data: DataFolder,
}

impl Server {
    /// Starts an orchestrator in its data folder, with machines from `provider`.
    pub async fn start(
        config: ServerConfig,
        provider: Arc<dyn Provider>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        Self::start_at(config, provider, clock, None).await
    }

    /// The same in memory, for a simulation: its doors are in `street`, and no thread has a part in the database.
    pub async fn simulate(
        config: ServerConfig,
        provider: Arc<dyn Provider>,
        clock: Arc<dyn Clock>,
        street: Street,
    ) -> Result<Self, StartError> {
        Self::start_at(config, provider, clock, Some(street)).await
    }

    async fn start_at(
        config: ServerConfig,
        provider: Arc<dyn Provider>,
        clock: Arc<dyn Clock>,
        street: Option<Street>,
    ) -> Result<Self, StartError> {
        check_socket(&config)?;
        config.check_listen()?;
        let folder = config.data.clone();
        let data = spawn_blocking(move || DataFolder::open(&folder)).await.expect("it does not panic")?;
        try_machines(&*provider).await?;
        let open_store = if street.is_some() { Store::open_in_place } else { Store::open };
        let store = open_store(&data.store()).map_err(check::unusable(&data.store()))?;
        let unfinished = store.unfinished().await.map_err(check::unusable(&data.store()))?;
        let key = data.key(unfinished)?;
        let client = mayfly_gateway::upstream_client().map_err(StartError::Tls)?;
        let door = match &street {
            Some(street) => Door::on(street, config.socket(), files::owner_connections()),
            None => open_socket(&config)?,
        };
        let tokens = open_tokens(&store, &data, &clock, &config).await?;
        let port = Port::open(&config, &data)?;
        let house = House { stopping: CancellationToken::new(), running: TaskTracker::new() };
        let (doors, opened) = Doors::new(data.way_out(), house.clone(), street);
        let doors = Arc::new(doors);
        let engine_config = config.engine((&data.workspaces(), &data.results(), &data.resources()), key);
        let turns = Turns::default();
        let places = (data.results(), data.workspaces(), data.incoming());
        let checkpoints = Checkpoints::new(places, config.git.clone(), config.secrets.clone(), turns.clone());
        let kept = Arc::new(checkpoints.clone());
        let engine = Engine::start(engine_config, store, provider, doors.clone(), kept, clock.clone()).await;
        let engine = engine.map_err(StartError::Engine)?;

        let (owner_count, owners) = watch::channel(0);
        let listening = port.as_ref().map(|port| (port.address, port.fingerprint.clone()));
        let api = http::owner(owner(&engine, &data, &house, &config.git, &tokens, &client));
        let machines = Machines {
            engine: engine.clone(),
            client,
            network: config.network.clone(),
            workspaces: data.workspaces().into(),
            results: data.results().into(),
            incoming: data.incoming().into(),
            git: config.git.clone(),
            turns,
            checkpoints,
        };
        if let Some(Port { door, hosts, .. }) = port {
            let mut routes = http::guarded(api.clone(), tokens);
            if config.machines_by_port {
                let machine = machines
                    .machine(Entry::by_port(engine.clone(), doors, config.fly_src.clone()), house.clone());
                routes = http::machines(machine, machines.client.clone(), routes);
            }
            house.serve(door, http::port(routes, hosts), owner_count.clone());
        }
        house.serve(door, http::private(api), owner_count);
        let stopping = house.stopping.clone();
        house.running.spawn(async move { stopping.run_until_cancelled(machines.let_in(opened)).await });
        let stop = house.stopping.clone().drop_guard();
        Ok(Self { config, engine, clock, owners, listening, house, _stop: stop, _data: data })
    }

    /// The owner's socket.
    pub fn socket(&self) -> PathBuf {
        self.config.socket()
    }

    /// The address on which the API is served too, with the port that it got.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|(address, _)| *address)
    }

    /// Whether it is served there with TLS.
    pub fn tls(&self) -> bool {
        self.config.tls.is_some()
    }

    /// By what others know that address to be this orchestrator's, if its certificate signed itself: `sha256:` and
    /// the hash of the certificate in hex.
    pub fn fingerprint(&self) -> Option<&str> {
        self.listening.as_ref().and_then(|(_, fingerprint)| fingerprint.as_deref())
    }

    /// The file of the token that opens it there.
    pub fn token_file(&self) -> PathBuf {
        self.config.token_file()
    }

    /// Returns once there has been no unfinished task and no connection of an owner for `span`.
    pub async fn idle_for(&self, span: Duration) {
        idle_for(span, &*self.clock, self.engine.unfinished(), self.owners.clone()).await;
    }

    /// From here on no task is begun. Gives how many have a machine: they go on.
    pub async fn drain(&self) -> Result<usize, StoreError> {
        self.engine.drain().await;
        self.engine.alive().await
    }

    /// How many tasks are not over.
    pub fn unfinished(&self) -> usize {
        *self.engine.unfinished().borrow()
    }

    /// How many tasks have a machine.
    pub async fn alive(&self) -> Result<usize, StoreError> {
        self.engine.alive().await
    }

    /// Returns once no task has a machine.
    pub async fn drained(&self) -> Result<(), StoreError> {
        self.engine.drained().await
    }

    /// Ends all exchanges and the engine's loops. Machines live on, and their workers dial again.
    pub async fn stop(self) {
        self.house.stopping.cancel();
        self.engine.stop().await;
        self.house.end().await;
    }
}

async fn open_tokens(
    store: &Store,
    data: &DataFolder,
    clock: &Arc<dyn Clock>,
    config: &ServerConfig,
) -> Result<OwnerTokens, StartError> {
    let (given, secrets) = (config.owner_token.as_ref(), config.secrets.clone());
    let opened = OwnerTokens::open(store.clone(), data, given, clock.clone(), secrets).await;
    opened.map_err(|error| match error {
        TokenError::Data(error) => error.into(),
        other => StartError::Tokens(Box::new(other)),
    })
}

/// The owner's socket.
pub(crate) fn open_socket(config: &ServerConfig) -> Result<Door, StartError> {
    let path = config.socket();
    check_socket(config)?;
    let door = Door::open(&config.data, OWNER_SOCKET, 0o600, files::owner_connections());
    door.map_err(|source| StartError::Listen { path, source })
}

/// A host that can make no machine is told so now, and not at the first task. What it lacks for the moment alone,
/// such as room on its disk, is no reason: there may be machines to end, and with them the want.
async fn try_machines(provider: &dyn Provider) -> Result<(), StartError> {
    match provider.probe().await {
        Err(error @ ProviderError::Refused { .. }) => Err(StartError::Provider(error)),
        Err(error) => {
            tracing::warn!(cause = %causes(&error), "no machine can be made at the moment");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn owner(
    engine: &Engine,
    data: &DataFolder,
    house: &House,
    git: &Git,
    tokens: &OwnerTokens,
    client: &reqwest::Client,
) -> Owner {
    Owner {
        engine: engine.clone(),
        workspaces: data.workspaces().into(),
        parts: Parts::default(),
        results: data.results().into(),
        incoming: data.incoming().into(),
        git: git.clone(),
        tokens: tokens.clone(),
        upstream: client.clone(),
        house: house.clone(),
    }
}

/// What the routes of machines need.
struct Machines {
    engine: Engine,
    client: reqwest::Client,
    network: Network,
    workspaces: Arc<Path>,
    results: Arc<Path>,
    incoming: Arc<Path>,
    git: Git,
    turns: Turns,
    checkpoints: Checkpoints,
}

impl Machines {
    fn machine(&self, entry: Entry, house: House) -> Machine {
        let (workspaces, results, incoming) = (&self.workspaces, &self.results, &self.incoming);
        let (workspaces, results, incoming) = (workspaces.clone(), results.clone(), incoming.clone());
        let (git, network, turns) = (self.git.clone(), self.network.clone(), self.turns.clone());
        let checkpoints = self.checkpoints.clone();
        Machine { entry, workspaces, results, incoming, network, git, turns, checkpoints, house }
    }

    /// Lets machines in by each door that was opened, for its attempt alone.
    async fn let_in(self, mut opened: mpsc::UnboundedReceiver<Opened>) {
        while let Some(Opened { attempt, door, house }) = opened.recv().await {
            let machine = self.machine(Entry::by_door(self.engine.clone(), attempt), house.clone());
            house.serve(door, http::machine(machine, self.client.clone()), watch::channel(0).0);
        }
    }
}

/// Any change of a count starts the wait anew, even one that came and went.
async fn idle_for(
    span: Duration,
    clock: &dyn Clock,
    mut tasks: watch::Receiver<usize>,
    mut owners: watch::Receiver<usize>,
) {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    loop {
        let busy = *tasks.borrow_and_update() + *owners.borrow_and_update() > 0;
        let deadline = clock.now().checked_add(span).unwrap_or(jiff::Timestamp::MAX);
        let changed = tokio::select! {
            changed = tasks.changed() => changed,
            changed = owners.changed() => changed,
            () = clock.sleep_until(deadline), if !busy => return,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_util::FutureExt;
    use jiff::Timestamp;

    use super::*;

    /// A clock that stands still until it is told the time.
    #[derive(Debug, Clone)]
    struct Told(watch::Sender<Timestamp>);

    #[async_trait]
    impl Clock for Told {
        fn now(&self) -> Timestamp {
            *self.0.borrow()
        }

        async fn sleep_until(&self, deadline: Timestamp) {
            let _ = self.0.subscribe().wait_for(|&now| now >= deadline).await;
        }
    }

    impl Told {
        fn advance(&self, seconds: u64) {
            self.0.send_modify(|now| *now += Duration::from_secs(seconds));
        }
    }

    /// A task, a connection, or one that came and went: each starts the wait anew.
    #[test]
    fn an_orchestrator_is_idle_only_after_a_whole_span_without_change() {
        let clock = Told(watch::channel(Timestamp::UNIX_EPOCH).0);
        let (tasks, owners) = (watch::Sender::new(1_usize), watch::Sender::new(0_usize));
        let span = Duration::from_secs(60);
        let mut idle = Box::pin(idle_for(span, &clock, tasks.subscribe(), owners.subscribe()));
        clock.advance(100);
        assert!((&mut idle).now_or_never().is_none(), "a task runs");
        tasks.send_replace(0);
        assert!((&mut idle).now_or_never().is_none());
        clock.advance(59);
        owners.send_replace(1);
        owners.send_replace(0);
        assert!((&mut idle).now_or_never().is_none(), "an owner was there");
        clock.advance(59);
        assert!((&mut idle).now_or_never().is_none(), "not long enough");
        clock.advance(1);
        assert!((&mut idle).now_or_never().is_some());
    }
}
