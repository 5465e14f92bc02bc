//! The secrets of a task's servers: named in their `mayfly.toml`, kept in the pool, and handed over with the work order.

use std::collections::BTreeMap;

use mayfly_core::TaskId;
use mayfly_library::kinds::{What, own};
use mayfly_library::{Kind, Lock, Problem, Problems, Resolution};
use mayfly_store::StoreError;
use mayfly_wire::Secret;
use tokio::task::spawn_blocking;

use super::read_lock;
use crate::engine::Engine;
use crate::submit::SubmitError;

/// What a server needs of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// The file that says so.
    file: String,
    server: String,
    variable: String,
    /// The secret's name in the pool.
    name: String,
}

/// The secrets that servers need.
pub(super) fn needs(resolution: &Resolution) -> Vec<Need> {
    let mut needs = Vec::new();
    for resource in resolution.of(Kind::Mcp) {
        let What::Mcp(servers) = &resource.what else { continue };
        for server in servers {
            let bound = server.variables.iter().filter_map(|name| resource.own.secrets.get_key_value(name));
            needs.extend(bound.map(|(variable, name)| Need {
                file: format!("{}/{}", resource.id, own::FILE),
                server: server.name.clone(),
                variable: variable.clone(),
                name: name.clone(),
            }));
        }
    }
    needs
}

impl Engine {
    /// Checks that the pool has the secrets that servers need.
    pub(super) async fn check_needs(&self, needs: &[Need]) -> Result<(), SubmitError> {
        if needs.is_empty() {
            return Ok(());
        }
        let pool = self.0.store.pool().await.map_err(SubmitError::Store)?;
        let is_there = |need: &&Need| pool.iter().any(|pooled| pooled.name == need.name && !pooled.for_model);
        let absent = needs.iter().filter(|need| !is_there(need)).map(|Need { file, variable, name, .. }| {
            let words = format!(
                "${{{variable}}} is to be `{name}`, and the pool has no secret of this name: `mayfly credential add {name} \
                 --kind secret` adds it"
            );
            Problem::new(file, words)
        });
        let absent: Vec<Problem> = absent.collect();
        if absent.is_empty() { Ok(()) } else { Err(Problems(absent).into()) }
    }

    /// What a task's servers are given of the pool, as it is now. What is not there is for the worker to find missing;
    /// what is stays among the task's secrets, whatever becomes of the pool.
    pub(super) async fn ordered_secrets(
        &self,
        task: TaskId,
        lock: &str,
    ) -> Result<BTreeMap<String, BTreeMap<String, Secret>>, StoreError> {
        let mut ordered = BTreeMap::<_, BTreeMap<_, _>>::new();
        let Ok(mut lock) = serde_json::from_str::<Lock>(lock) else { return Ok(ordered) };
        lock.resources.retain(|locked| locked.id.kind == Kind::Mcp);
        if lock.resources.is_empty() {
            return Ok(ordered);
        }
        let config = self.0.config.library.clone();
        // An archive that is spoiled is told of by the worker, to which it comes as well.
        let reading = spawn_blocking(move || read_lock(&config, &lock).map(|resolution| needs(&resolution)));
        let needs = reading.await.ok().and_then(Result::ok).unwrap_or_default();
        if needs.is_empty() {
            return Ok(ordered);
        }
        let pool = self.pooled_secrets().await?;
        for Need { server, variable, name, .. } in needs {
            if let Some(secret) = pool.get(&name) {
                self.0.config.secrets.add(&task.to_string(), secret.expose());
                ordered.entry(server).or_default().insert(variable, secret.clone());
            }
        }
        Ok(ordered)
    }
}
