//! The orchestrator's own library, looked at and changed by others than who has its folder.
//!
//! The same as `mayfly library` does on the folder itself. A change counts for the tasks that are accepted after it.

use std::io;
use std::sync::PoisonError;

use mayfly_library::kinds::What;
use mayfly_library::lock::{Changed, Difference, differences};
use mayfly_library::pack::BadArchive;
use mayfly_library::{Library, Lock, Locked, Problem, Problems, Resource, ResourceId, pack, starter};
use mayfly_wire::api;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::check_library;
use crate::engine::Engine;
use crate::submit::SubmitError;

/// Why a library is not shown or not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It has no such resource.
    #[error("{0} is not in the library: see `GET /v1/library`")]
    Unknown(ResourceId),
    /// It has one of this name already.
    #[error("{0} is in the library already: ask with `replace=true` to put this one in its place")]
    Taken(ResourceId),
    /// What it has, or would have then, is wrong.
    #[error(transparent)]
    Wrong(#[from] Problems),
    /// What was handed over is no archive of a resource.
    #[error(transparent)]
    Archive(#[from] BadArchive),
    /// The library is not to be changed so: a link leads elsewhere, or a checkout would be lost.
    #[error("{0}")]
    Refused(String),
    /// It cannot be written.
    #[error("the library cannot be written")]
    Write(#[source] io::Error),
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(SubmitError),
}

impl From<io::Error> for EditError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput => Self::Refused(error.to_string()),
            _ => Self::Write(error),
        }
    }
}

impl Engine {
    /// A resource of the library.
    pub async fn library_resource(&self, id: ResourceId) -> Result<Resource, EditError> {
        self.with_library(move |library| match library.has(&id) {
            true => Ok(library.read(&id)?),
            false => Err(EditError::Unknown(id)),
        })
        .await
    }

    /// All that is wrong in the library.
    pub async fn check_library(&self) -> Result<Vec<Problem>, EditError> {
        self.with_library(|library| Ok(check_library(library))).await
    }

    /// Puts a resource into the library, from its archive; another that is there is only replaced if that is asked for.
    /// Who has no answer can ask again: what is there already, just so, is well there.
    pub async fn add_to_library(
        &self,
        id: ResourceId,
        archive: Vec<u8>,
        replace: bool,
    ) -> Result<Resource, EditError> {
        self.check_disk().map_err(EditError::NoRoom)?;
        self.edit_library(move |library| {
            let resource = Resource::read(id, pack::files(&archive)?)?;
            if replace {
                library.put(&resource)?;
                return Ok(resource);
            }
            match library.add(&resource) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let there = library.read(&resource.id);
                    let is_same = there.is_ok_and(|there| there.sha256 == resource.sha256);
                    if is_same { Ok(resource) } else { Err(EditError::Taken(resource.id)) }
                }
                added => Ok(added.map(|()| resource)?),
            }
        })
        .await
    }

    /// Takes a resource out of the library; tasks that have it keep it.
    pub async fn remove_from_library(&self, id: ResourceId) -> Result<(), EditError> {
        self.edit_library(move |library| match library.remove(&id)? {
            true => Ok(()),
            false => Err(EditError::Unknown(id)),
        })
        .await
    }

    /// Puts a small library there to start from: each of its resources, and whether it was not there yet.
    pub async fn begin_library(&self) -> Result<Vec<(ResourceId, bool)>, EditError> {
        self.check_disk().map_err(EditError::NoRoom)?;
        self.edit_library(begin_library).await
    }

    /// One edit after the other: each looks first, and then changes what it saw.
    async fn edit_library<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library) -> Result<T, EditError> + Send + 'static,
    ) -> Result<T, EditError> {
        let engine = self.clone();
        self.with_library(move |library| {
            let _held = engine.0.editing.lock().unwrap_or_else(PoisonError::into_inner);
            work(library)
        })
        .await
    }

    async fn with_library<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library) -> Result<T, EditError> + Send + 'static,
    ) -> Result<T, EditError> {
        let library = Library::at(&self.0.config.library.folder);
        let working = spawn_blocking(move || work(&library));
        working.await.unwrap_or_else(|error| Err(EditError::Write(io::Error::other(error))))
    }
}

/// Puts a small library there to start from; what is there stays as it is.
///
/// # Errors
/// [`EditError::Write`].
pub fn begin_library(library: &Library) -> Result<Vec<(ResourceId, bool)>, EditError> {
    let begin = |resource: Resource| match library.add(&resource) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((resource.id, false)),
        added => Ok(added.map(|()| (resource.id, true))?),
    };
    starter::resources()?.into_iter().map(begin).collect()
}

/// What two locks differ in, as others are told of it.
pub fn differences_of(before: &Lock, after: &Lock) -> api::LibraryDifferences {
    let told = |locked: Option<Locked>| locked.as_ref().map(super::told);
    let told =
        |Difference { before, after }| api::LibraryDifference { before: told(before), after: told(after) };
    let changed = |Changed { before, after }: Changed| api::LibraryChanged {
        before: before.as_ref().map(ToString::to_string),
        after: after.as_ref().map(ToString::to_string),
    };
    let found = differences(before, after);
    api::LibraryDifferences {
        project: found.project.map(changed),
        agent: found.agent.map(changed),
        resources: found.resources.into_iter().map(told).collect(),
    }
}

/// A resource as others are told of it.
pub fn content_of(resource: &Resource) -> api::LibraryContent {
    let file = |file: &mayfly_library::File| api::LibraryFile {
        path: file.path.clone(),
        bytes: file.bytes.len() as u64,
        executable: file.executable,
    };
    let own = &resource.own;
    api::LibraryContent {
        id: resource.id.to_string(),
        sha256: resource.sha256.clone(),
        bytes: resource.bytes() as u64,
        files: resource.files.iter().map(file).collect(),
        what: what_of(&resource.what),
        own: json!({
            "allow": own.allow,
            "credential": own.credential,
            "required": own.required,
            "secrets": own.secrets,
            "allow-secret-in-machine": own.allow_secret_in_machine,
        }),
    }
}

fn what_of(what: &What) -> Value {
    match what {
        What::Skill { .. } | What::Rules => json!({}),
        What::Agent(agent) => {
            let mut told = agent.for_cli(false);
            if let Some(tokens) = agent.max_tokens {
                told["max_tokens"] = tokens.into();
            }
            told
        }
        What::Mcp(servers) => {
            let told = |server: &mayfly_library::kinds::mcp::Server| {
                let told = json!({"spec": server.spec, "variables": server.variables});
                (server.name.clone(), told)
            };
            servers.iter().map(told).collect::<Map<_, _>>().into()
        }
        What::Hooks(table) | What::Settings(table) => table.clone().into(),
    }
}
