//! The pool: credentials of owners under names, for tasks that bring none of their own.
//!
//! A task keeps the name that it was submitted with, and each of its requests uses what the pool has under that name
//! then: an edit counts from the next request on, and nothing is held in memory that would have to be renewed. A
//! secret goes in and never comes out again but to the gateway, and to machines where its mode says so.
//!
//! Bound: [`POOL_MAX`].

use std::collections::{BTreeMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use mayfly_core::{AttemptId, TaskId};
use mayfly_store::{Pooled, Sealed, StoreError};
use mayfly_wire::Secret;
use mayfly_wire::api::{
    AboutCredential, AddCredential, Credential, CredentialKind, PooledCredential, TOKEN_NAME_BYTES_MAX,
    check_token_name,
};
use mayfly_wire::event::MayflyEvent;

use crate::engine::Engine;
use crate::submit::{SubmitError, check_pooled};

/// The most credentials in the pool.
const POOL_MAX: usize = 100;

/// Why the pool did not do as asked. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// It cannot be called so.
    #[error(
        "a credential's name is 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, and begins with a letter \
         or digit"
    )]
    Name,
    /// Something about it cannot be.
    #[error(transparent)]
    Invalid(SubmitError),
    /// There is one of this name.
    #[error(
        "there is a credential of this name already: choose another name, or say that it is to be replaced"
    )]
    Taken,
    /// The pool is full.
    #[error("there are {POOL_MAX} credentials already: remove one that nobody needs")]
    TooMany,
    /// There is none of this name.
    #[error("no credential has this name: `mayfly credential ls` lists them")]
    Unknown,
    /// It was sealed with a key that is not the data folder's any more.
    #[error(
        "the credential `{0}` was sealed with another key than the data folder has now: put the file `key` back, or add \
         the credential again with `mayfly credential add {0} --replace`"
    )]
    OtherKey(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a task has no credential now. The words go to its log and to `claude`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCredential {
    /// It was taken out of the pool.
    #[error(
        "the credential `{0}` is not in the pool any more: add it again with `mayfly credential add {0}`, then retry \
         the task"
    )]
    Removed(String),
    /// It was sealed with another key.
    #[error(
        "the credential `{0}` was sealed with another key than the data folder has now: add it again with `mayfly \
         credential add {0} --replace`, then retry the task"
    )]
    OtherKey(String),
    /// What has its name now is a secret of the library's servers.
    #[error(
        "the credential `{0}` is a secret of the library's servers now, and none for the model: choose another for the task, \
         and retry it"
    )]
    Secret(String),
    /// That which came with the task cannot be read.
    #[error("the credential that came with the task cannot be read: retry the task with a new one")]
    Own,
}

/// What seals of the pool are bound to: no task's id has a slash.
fn place(name: &str) -> String {
    format!("pool/{name}")
}

impl Engine {
    /// Every credential in the pool, by name, without the secrets.
    pub async fn credentials(&self) -> Result<Vec<PooledCredential>, StoreError> {
        let pool = self.0.store.pool().await?;
        Ok(pool.into_iter().map(|pooled| self.about(pooled)).collect())
    }

    fn about(&self, Pooled { name, sealed, created, .. }: Pooled) -> PooledCredential {
        let opened = self.0.seal.open(&place(&name), &sealed);
        let about =
            opened.map(|Credential { kind, base_url, mode, .. }| AboutCredential { kind, base_url, mode });
        PooledCredential { name, created_at: created, about }
    }

    /// Puts a credential into the pool.
    pub async fn add_credential(&self, add: AddCredential) -> Result<PooledCredential, PoolError> {
        let AddCredential { name, credential, replace } = add;
        if !check_token_name(&name) {
            return Err(PoolError::Name);
        }
        check_pooled(&credential).map_err(PoolError::Invalid)?;
        let known = self.0.store.pool().await?;
        if known.len() >= POOL_MAX && !known.iter().any(|pooled| pooled.name == name) {
            return Err(PoolError::TooMany);
        }
        let sealed = self.0.seal.close(&place(&name), &credential);
        let for_model = credential.kind != CredentialKind::Secret;
        let pooled = Pooled { name, sealed, created: self.0.clock.now(), for_model };
        if !self.0.store.put_into_pool(pooled.clone(), replace).await? {
            return Err(PoolError::Taken);
        }
        self.know_pool().await?;
        tracing::info!(name = pooled.name, replace, "a credential was put into the pool");
        Ok(self.about(pooled))
    }

    /// Takes a credential out of the pool. Tasks that use it are told so at their next request.
    pub async fn remove_credential(&self, name: &str) -> Result<(), PoolError> {
        if !self.0.store.remove_from_pool(name.to_owned()).await? {
            return Err(PoolError::Unknown);
        }
        self.know_pool().await?;
        tracing::info!(name, "a credential was taken out of the pool");
        Ok(())
    }

    /// Has all of the pool among the secrets, also those that no task uses; as it is now or later, whoever else changes
    /// it at the same time.
    pub(crate) async fn know_pool(&self) -> Result<(), StoreError> {
        let _knowing = self.0.knowing.lock().await;
        let pool = self.0.store.pool().await?;
        let opened =
            pool.iter().filter_map(|Pooled { name, sealed, .. }| self.0.seal.open(&place(name), sealed));
        let secrets: Vec<String> = opened.map(|credential| credential.secret.expose().to_owned()).collect();
        self.0.config.secrets.set("pool", secrets);
        Ok(())
    }

    /// The secrets of the library's servers in the pool, by name. Before anybody has one, it is among the secrets.
    pub(crate) async fn pooled_secrets(&self) -> Result<BTreeMap<String, Secret>, StoreError> {
        self.know_pool().await?;
        let pool = self.0.store.pool().await?.into_iter().filter(|pooled| !pooled.for_model);
        let opened = pool.filter_map(|Pooled { name, sealed, .. }| {
            let credential = self.0.seal.open(&place(&name), &sealed)?;
            Some((name, credential.secret))
        });
        Ok(opened.collect())
    }

    /// A credential of the pool, to try it.
    pub async fn pooled_credential(&self, name: &str) -> Result<Credential, PoolError> {
        let pool = self.0.store.pool().await?;
        let pooled = pool.into_iter().find(|pooled| pooled.name == name).ok_or(PoolError::Unknown)?;
        self.0.seal.open(&place(name), &pooled.sealed).ok_or_else(|| PoolError::OtherKey(name.to_owned()))
    }

    /// The credential of a task that is not over, as it is now. Before anybody has it, it is among the secrets.
    pub(crate) async fn credential(
        &self,
        task: TaskId,
    ) -> Result<Result<Credential, NoCredential>, StoreError> {
        let seal = &self.0.seal;
        let opened = match self.0.store.credential(task).await? {
            Some(Sealed::Own(sealed)) => seal.open(&task.to_string(), &sealed).ok_or(NoCredential::Own),
            Some(Sealed::Pooled { name, sealed: Some(sealed) }) => match seal.open(&place(&name), &sealed) {
                Some(Credential { kind: CredentialKind::Secret, .. }) => Err(NoCredential::Secret(name)),
                opened => opened.ok_or(NoCredential::OtherKey(name)),
            },
            Some(Sealed::Pooled { name, sealed: None }) => Err(NoCredential::Removed(name)),
            None => Err(NoCredential::Own),
        };
        Ok(opened.inspect(|credential| {
            self.0.config.secrets.add(&task.to_string(), credential.secret.expose());
        }))
    }

    /// Tells the owner, once for each attempt, that the model API refused the credential: no other trouble of the API's
    /// is in the owner's hands alone.
    pub async fn credential_refused(&self, attempt: AttemptId) -> Result<(), StoreError> {
        let task = self.0.store.task(attempt.task).await?;
        let Some(task) = task.filter(|task| task.state.machine() == Some(attempt.attempt)) else {
            return Ok(());
        };
        if !self.refused().insert(attempt) {
            return Ok(());
        }
        let text = match task.pooled {
            Some(name) => format!(
                "the model API refused the credential `{name}` (401): replace it with `mayfly credential add {name} \
                 --replace`, which counts from the task's next request on"
            ),
            None => "the model API refused the credential that came with the task (401): it is wrong, or no longer good"
                .to_owned(),
        };
        self.tell(attempt, MayflyEvent::Warning { text }).await
    }

    pub(crate) fn forget_refused(&self, task: TaskId) {
        self.refused().retain(|attempt| attempt.task != task);
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<AttemptId>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
