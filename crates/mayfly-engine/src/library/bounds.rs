//! How long the model's answers to a task's agents may be: read once from what it runs with, and held by the gateway.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

use mayfly_core::{AnswerBounds, TaskId, causes};
use mayfly_library::kinds::What;
use mayfly_library::{Kind, Lock, Resolution, Resource};
use tokio::task::spawn_blocking;

use super::read_lock;
use crate::engine::Engine;
use crate::submit::SubmitError;

/// Of how many tasks is known how long answers may be, before all of it is read anew.
const BOUNDS_KEPT_MAX: usize = 1000;

/// What agents say of their answers.
fn bounds(resolution: &Resolution) -> AnswerBounds {
    let agent = |resource: &Resource| match &resource.what {
        What::Agent(agent) => Some((agent.prompt.clone(), agent.max_tokens)),
        _ => None,
    };
    AnswerBounds {
        main: resolution.main_agent().and_then(agent).and_then(|(_, tokens)| tokens),
        agents: resolution.of(Kind::Agent).filter_map(agent).collect(),
    }
}

impl Engine {
    /// How long answers to the agents of a task may be. `None`: what says so cannot be read, and nothing would bound them.
    pub(crate) async fn answer_bounds(&self, task: TaskId) -> Option<Arc<AnswerBounds>> {
        if let Some(bounds) = self.bounds().get(&task) {
            return Some(Arc::clone(bounds));
        }
        let lock = self.0.store.lock_of(task).await.ok()?;
        let bounds = match lock {
            Some(lock) => self.read_bounds(&lock).await.inspect_err(|error| {
                tracing::error!(%task, error = causes(error), "what bounds the answers to agents cannot be read");
            }),
            None => Ok(AnswerBounds::default()),
        };
        let bounds = Arc::new(bounds.ok()?);
        let mut known = self.bounds();
        if known.len() >= BOUNDS_KEPT_MAX {
            known.clear();
        }
        known.insert(task, Arc::clone(&bounds));
        Some(bounds)
    }

    async fn read_bounds(&self, lock: &str) -> Result<AnswerBounds, SubmitError> {
        let not_ours = |error: serde_json::Error| SubmitError::Archives(error.into());
        let mut lock: Lock = serde_json::from_str(lock).map_err(not_ours)?;
        lock.resources.retain(|locked| locked.id.kind == Kind::Agent);
        if lock.resources.is_empty() {
            return Ok(AnswerBounds::default());
        }
        let config = self.0.config.library.clone();
        let reading = spawn_blocking(move || read_lock(&config, &lock).map(|resolution| bounds(&resolution)));
        reading.await.unwrap_or_else(|error| Err(SubmitError::Archives(io::Error::other(error))))
    }

    pub(crate) fn forget_bounds(&self, task: TaskId) {
        self.bounds().remove(&task);
    }

    fn bounds(&self) -> MutexGuard<'_, HashMap<TaskId, Arc<AnswerBounds>>> {
        self.0.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
