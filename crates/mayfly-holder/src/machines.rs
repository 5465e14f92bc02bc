//! What a provider does with machines that holders keep, whatever these are made of.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mayfly_core::{Attempt, AttemptId, TaskId};
use mayfly_provider::{Limits, Machine, MachineSpec, ProviderError};
use uuid::Uuid;

use crate::failure::{Failure, Step};
use crate::folder::Folder;
use crate::lock::Lock;
use crate::places::Places;

/// What a machine is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For a worker.
    Work,
    /// To see whether machines can be made here.
    Probe,
}

/// What its machines are made of, and how they end.
pub trait Kind: fmt::Debug + Send + Sync + 'static {
    /// The provider's name.
    const NAME: &'static str;

    /// Where they are.
    fn places(&self) -> Places;

    /// What the owner of one should know about it.
    fn notes(folder: &Folder) -> Vec<String>;

    /// Makes one where there is nothing of it, and returns when it is up, with its notes.
    fn make(
        &self,
        spec: &MachineSpec,
        purpose: Purpose,
        folder: &Folder,
        lock: &Lock,
    ) -> Result<Vec<String>, Failure>;

    /// Ends its processes and removes everything. The caller holds the lock of the making.
    fn clear(folder: &Folder) -> Result<(), Failure>;
}

/// The machines of one kind. Every verb is a row of short system calls, some of which wait: none of it belongs on the
/// runtime's threads. A verb whose caller goes away is finished all the same.
#[derive(Debug)]
pub struct Machines<K>(Arc<K>);

impl<K: Kind> Machines<K> {
    /// Nothing is made or tried until a verb is called.
    pub fn new(kind: K) -> Self {
        Self(Arc::new(kind))
    }

    /// Does what waits, on a thread of its own.
    pub async fn blocking<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce(&K) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let kind = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&kind))
            .await
            .unwrap_or_else(|error| Err(ProviderError::Unclear { call, source: error.into() }))
    }

    /// [`Provider::probe`](mayfly_provider::Provider::probe).
    pub async fn probe(&self) -> Result<(), ProviderError> {
        // Of no task, and another one each time: two orchestrators may probe the same host at once. One that is
        // left behind is nobody's, and the reaper's. It has no way out.
        let attempt = TaskId::new(Uuid::now_v7()).attempt(Attempt(0));
        let ticket = String::new().into();
        let (way_out, limits) = (PathBuf::new(), Limits::default());
        let spec = MachineSpec { tools: Vec::new(), attempt, ticket, workspace: None, way_out, limits };
        self.blocking("probe", move |kind| {
            let tried = create(kind, &spec, Purpose::Probe);
            destroy(kind, attempt)?;
            tried.map(drop)
        })
        .await
    }

    /// [`Provider::create`](mayfly_provider::Provider::create).
    pub async fn create(&self, spec: &MachineSpec) -> Result<Machine, ProviderError> {
        let spec = spec.clone();
        self.blocking("create", move |kind| create(kind, &spec, Purpose::Work)).await
    }

    /// [`Provider::destroy`](mayfly_provider::Provider::destroy).
    pub async fn destroy(&self, attempt: AttemptId) -> Result<(), ProviderError> {
        self.blocking("destroy", move |kind| destroy(kind, attempt)).await
    }

    /// [`Provider::list`](mayfly_provider::Provider::list).
    pub async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.blocking("list", list).await
    }
}

fn create<K: Kind>(kind: &K, spec: &MachineSpec, purpose: Purpose) -> Result<Machine, ProviderError> {
    let unclear = |failure: Failure| failure.unclear("create");
    let places = kind.places();
    let lock = places.lock(spec.attempt).map_err(unclear)?;
    let folder = places.of(spec.attempt);
    let alive = folder.is_alive().step(format!("see whether {} lives", folder.path().display()));
    if alive.map_err(unclear)? {
        return Ok(Machine { attempt: spec.attempt, alive: true, notes: K::notes(&folder) });
    }
    // What a maker that died has left.
    K::clear(&folder).map_err(unclear)?;
    match kind.make(spec, purpose, &folder, &lock) {
        Ok(notes) => Ok(Machine { attempt: spec.attempt, alive: true, notes }),
        Err(failure) => {
            K::clear(&folder).map_err(unclear)?;
            lock.remove().step("let go of the machine's lock").map_err(unclear)?;
            Err(failure.answer(K::NAME))
        }
    }
}

fn destroy<K: Kind>(kind: &K, attempt: AttemptId) -> Result<(), ProviderError> {
    let places = kind.places();
    let destroy = || {
        let lock = places.lock(attempt)?;
        K::clear(&places.of(attempt))?;
        lock.remove().step("let go of the machine's lock")
    };
    destroy().map_err(|failure: Failure| failure.unclear("destroy"))
}

fn list<K: Kind>(kind: &K) -> Result<Vec<Machine>, ProviderError> {
    let places = kind.places();
    let attempts = places.attempts();
    attempts
        .and_then(|attempts| attempts.into_iter().map(|attempt| machine::<K>(&places, attempt)).collect())
        .step(format!("list the machines in {}", places.folder().display()))
        .map_err(|failure| failure.unclear("list"))
}

/// One that is being made is alive: whoever makes it will say if it was not.
pub fn machine<K: Kind>(places: &Places, attempt: AttemptId) -> io::Result<Machine> {
    let folder = places.of(attempt);
    let alive = places.is_being_made(attempt)? || folder.is_alive()?;
    Ok(Machine { attempt, alive, notes: K::notes(&folder) })
}
