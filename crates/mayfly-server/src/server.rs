//! The orchestrator put together: data folder, store, engine, doors.
//!
//! The order of [`Server::start`] is what makes it safe: nothing is touched before the folder is known to be
//! ours, nothing is made before the provider has shown that it can make machines, and nobody is let in before
//! the engine runs. What fails leaves nothing running.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mayfly_engine::{Clock, Engine};
use mayfly_provider::{Provider, ProviderError};
use mayfly_store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::ServerConfig;
use crate::data::{DataError, DataFolder};
use crate::http::{self, Machines, Owner};
use crate::listen::{Door, House, SOCKET_PATH_BYTES_MAX};

/// How long [`Server::stop`] waits for exchanges that are under way.
pub const STOP_MAX: Duration = Duration::from_secs(3);

/// Why an orchestrator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A socket in the data folder would have too long a path.
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
    /// No client for the model API could be made.
    #[error("TLS cannot be used here")]
    Tls(#[source] reqwest::Error),
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
        let (socket, way_out_socket) = (config.socket(), config.way_out_socket());
        if let Some(path) = [&socket, &way_out_socket].into_iter().find(|path| !Door::fits(path)) {
            return Err(StartError::LongPath { path: path.clone() });
        }
        let data = DataFolder::open(&config.data)?;
        let key = data.key()?;
        provider.probe().await.map_err(StartError::Provider)?;
        let store = open_store(&data.store())?;
        let client = mayfly_gateway::upstream_client().map_err(StartError::Tls)?;
        let (owner_door, machine_door) = (open_door(socket, 0o600)?, open_door(way_out_socket, 0o666)?);
        let engine_config = config.engine(&data.workspaces(), &data.results(), key);
        let engine = Engine::start(engine_config, store, provider, clock.clone()).await;
        let engine = engine.map_err(StartError::Engine)?;

        let house = House { stopping: CancellationToken::new(), running: TaskTracker::new() };
        let (workspaces, results, incoming) = (data.workspaces(), data.results(), data.incoming());
        let owner = Owner {
            engine: engine.clone(),
            workspaces: workspaces.into(),
            results: results.clone().into(),
            incoming: incoming.clone().into(),
            stopping: house.stopping.clone(),
        };
        let machines = Machines {
            engine: engine.clone(),
            results: results.into(),
            incoming: incoming.into(),
            house: house.clone(),
        };
        let (owner_count, owners) = watch::channel(0);
        house.serve(owner_door, http::owner(owner), owner_count);
        house.serve(machine_door, http::machine(machines, client), watch::channel(0).0);
        let stop = house.stopping.clone().drop_guard();
        Ok(Self { config, engine, clock, owners, house, _stop: stop, _data: data })
    }

    /// The owner's socket.
    pub fn socket(&self) -> PathBuf {
        self.config.socket()
    }

    /// The folder with the machines' socket.
    pub fn way_out(&self) -> PathBuf {
        self.config.way_out()
    }

    /// Returns once there has been no unfinished task and no connection of an owner for `span`.
    pub async fn idle_for(&self, span: Duration) {
        idle_for(span, &*self.clock, self.engine.unfinished(), self.owners.clone()).await;
    }

    /// Ends all exchanges and the engine's loops. Machines live on, and their workers dial again.
    pub async fn stop(self) {
        self.house.stopping.cancel();
        self.engine.stop().await;
        self.house.running.close();
        // Each exchange has a bound of its own, STOP_MAX; this one is for what may hang beside it.
        let _ = timeout(STOP_MAX * 2, self.house.running.wait()).await;
    }
}

fn open_store(path: &Path) -> Result<Store, StartError> {
    Store::open(path).map_err(|source| StartError::Store { path: path.to_owned(), source })
}

fn open_door(path: PathBuf, mode: u32) -> Result<Door, StartError> {
    Door::open(path.clone(), mode).map_err(|source| StartError::Listen { path, source })
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
