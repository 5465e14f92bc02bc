//! What a task gets of the library: chosen when it is accepted, kept by content, and handed to its machines alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_core::host::Rule;
use mayfly_core::{AttemptId, TaskId};
use mayfly_library::kinds::What;
use mayfly_library::pack::BadArchive;
use mayfly_library::tool::{self, Download, Tool};
use mayfly_library::{
    HookOf, Kind, Library, Lock, Locked, Merged, Name, Overridden, Problem, Problems, Reference, Resolution,
    Resource, Wishes, merged, pack, resolve,
};
use mayfly_provider::ToolSpec;
use mayfly_store::{NewLock, StoreError};
use mayfly_wire::api;
use mayfly_wire::api::{CreateTask, LibraryResource, MERGED_MAX, RESOURCES_MAX, STRAYS_MAX, Wanted};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::OrderedLibrary;
use tokio::task::spawn_blocking;

pub use self::edit::{EditError, begin_library, content_of, differences_of};
use self::needs::{Need, needs};
use self::stock::Stock;
pub(crate) use self::stock::archive_at;
use crate::engine::Engine;
use crate::submit::{SubmitError, invalid};

mod bounds;
mod edit;
mod needs;
mod stock;

/// The most characters of a setting's key, or a hook's matcher, that are told.
const MERGED_CHARS_MAX: usize = 200;
/// The most files and folders that do not count of which a task's owner is told.
const STRAYS_TOLD_MAX: usize = 5;

/// Where the library is, and what is kept of it.
#[derive(Debug, Clone)]
pub struct LibraryConfig {
    /// The library; it is read whenever a task is accepted.
    pub folder: PathBuf,
    /// Whether somebody said that it is there: without it no task is accepted then.
    pub required: bool,
    /// Where what tasks run with is kept: `<sha256>.tar`.
    pub archives: PathBuf,
    /// Where what servers run is kept: `<sha256>/`.
    pub tools: PathBuf,
    /// The project of a repository that is not called as its project is.
    pub projects: BTreeMap<String, Name>,
}

/// What a new task gets.
#[derive(Default)]
pub(crate) struct Chosen {
    /// What it runs with. `None`: nothing.
    pub(crate) lock: Option<NewLock>,
    /// What is told of that in its log.
    pub(crate) told: Vec<MayflyEvent>,
    /// Where its resources' owner lets machines go.
    pub(crate) rules: Vec<Rule>,
    /// The credential that they name.
    pub(crate) credential: Option<String>,
    /// The secrets that servers need.
    needs: Vec<Need>,
}

/// Reads what a task asks of a library.
///
/// # Errors
/// [`SubmitError::Invalid`], which names the field.
pub(crate) fn read_wishes(task: &CreateTask) -> Result<Wishes, SubmitError> {
    let wishes = read_wanted(&Wanted {
        project: task.project.clone(),
        agent: task.agent.clone(),
        resources: task.resources.clone(),
        without: task.without.clone(),
    })?;
    if task.lock.is_some() && wishes != Wishes::default() {
        return Err(invalid(
            "lock",
            "says all that the task gets: leave out project, agent, resources and without",
        ));
    }
    Ok(wishes)
}

/// Reads what is wanted of a library.
///
/// # Errors
/// [`SubmitError::Invalid`], which names the field.
fn read_wanted(wanted: &Wanted) -> Result<Wishes, SubmitError> {
    let Wanted { project, agent, resources, without } = wanted;
    let bad =
        |field, error: mayfly_library::id::BadName| invalid(field, &format!("is no such name: {error}"));
    let project = project.as_deref().map(str::parse).transpose().map_err(|error| bad("project", error))?;
    let agent = agent.as_deref().map(str::parse).transpose().map_err(|error| bad("agent", error))?;
    let (add, without) = (references("resources", resources)?, references("without", without)?);
    Ok(Wishes { project, agent, add, without })
}

fn references(field: &'static str, texts: &[String]) -> Result<Vec<(Kind, Reference)>, SubmitError> {
    if texts.len() > RESOURCES_MAX {
        return Err(invalid(field, &format!("has {} names, and {RESOURCES_MAX} are the most", texts.len())));
    }
    let read = |text: &String| {
        let (kind, named) = text.split_once('/').ok_or(mayfly_library::id::BadName::Kind)?;
        Ok((kind.parse()?, named.parse()?))
    };
    let bad = |(at, error): (usize, mayfly_library::id::BadName)| {
        invalid(
            field,
            &format!("has a bad name, number {}, which is to be KIND/[NAMESPACE/]NAME: {error}", at + 1),
        )
    };
    let read = |(at, text)| read(text).map_err(|error| bad((at, error)));
    texts.iter().enumerate().map(read).collect()
}

/// Why something of a library elsewhere is not kept here.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is no archive of a resource, or another one.
    #[error(transparent)]
    Archive(#[from] BadArchive),
    /// The lock is none that a task could run with.
    #[error("the lock {0}")]
    Lock(String),
    /// There is no room for a task that would name it.
    #[error(transparent)]
    NoRoom(SubmitError),
    /// There is no room for it.
    #[error("what is handed over of a library cannot be kept")]
    Write(#[source] io::Error),
    /// The store failed.
    #[error("the lock could not be stored")]
    Store(#[from] StoreError),
}

/// What a task with these wishes would get of a library, as others are told of it.
///
/// # Errors
/// What is wrong with it, if something is that the task would get.
pub fn library_of(library: &Library, wishes: &Wishes, archives: &Path) -> Result<api::Library, Problems> {
    let resolution = library.resolve(wishes, &|content| archive_of(archives, content))?;
    let lock = resolution.lock();
    Ok(api::Library {
        project: lock.project.as_ref().map(ToString::to_string),
        agent: lock.agent.as_ref().map(ToString::to_string),
        lock: lock.sha256(),
        resources: lock.resources.iter().map(told).collect(),
        shadowed: resolution.shadowed.iter().map(ToString::to_string).collect(),
        projects: library.projects()?.iter().map(ToString::to_string).collect(),
        merged: merged_of(&resolution),
        more_strays: resolution.strays.len().saturating_sub(STRAYS_MAX),
        strays: resolution.strays.into_iter().take(STRAYS_MAX).map(problem_of).collect(),
    })
}

/// Something wrong, as others are told of it.
pub fn problem_of(problem: Problem) -> api::LibraryProblem {
    let Problem { file, line, column, words } = problem;
    api::LibraryProblem { file, line, column, words }
}

/// What settings and hooks come to, as others are told of it.
fn merged_of(resolution: &Resolution) -> api::Merged {
    let Merged { settings, hooks } = merged(resolution);
    let short = |text: String| text.chars().take(MERGED_CHARS_MAX).collect();
    let setting = |one: Overridden| api::Overridden {
        key: short(one.key),
        by: one.by.to_string(),
        over: one.over.to_string(),
    };
    let hook = |one: HookOf| api::HookOf {
        event: short(one.event),
        matcher: one.matcher.map(short),
        of: one.of.to_string(),
    };
    api::Merged {
        more_settings: settings.len().saturating_sub(MERGED_MAX),
        more_hooks: hooks.len().saturating_sub(MERGED_MAX),
        settings: settings.into_iter().take(MERGED_MAX).map(setting).collect(),
        hooks: hooks.into_iter().take(MERGED_MAX).map(hook).collect(),
    }
}

/// A resource of a lock, as others are told of it.
fn told(locked: &Locked) -> LibraryResource {
    LibraryResource {
        id: locked.id.to_string(),
        from: locked.from.to_string(),
        sha256: locked.sha256.clone(),
        bytes: locked.bytes,
    }
}

/// All that is wrong in a library: in one of its resources, or for the tasks of one of its projects.
pub fn check_library(library: &Library) -> Vec<Problem> {
    let trees = library.folder().join(tool::FOLDER);
    library.check(&|resource| [unbound(resource), absent(resource, &[&trees])].concat())
}

/// What a task asks for; without a project, the one that its repository's name means.
///
/// # Errors
/// As [`read_wishes`] has them.
pub fn wishes_in(
    task: &CreateTask,
    repository: Option<&str>,
    projects: &BTreeMap<String, Name>,
) -> Result<Wishes, SubmitError> {
    let wishes = read_wishes(task)?;
    let meant = || {
        let name = repository?;
        projects.get(name).cloned().or_else(|| name.parse().ok())
    };
    let project = wishes.project.clone().or_else(meant);
    Ok(Wishes { project, ..wishes })
}

/// Whether there is a library. One that cannot be read is not as good as none: what it denies would be allowed.
fn has_library(config: &LibraryConfig) -> Result<bool, SubmitError> {
    match fs::read_dir(&config.folder) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !config.required => Ok(false),
        Err(error) => {
            let words =
                format!("the library cannot be read: {error}: put it back, or name another in [library]");
            Err(SubmitError::Library(Problem::new(config.folder.display().to_string(), words).into()))
        }
    }
}

impl Engine {
    /// Keeps a resource of a library elsewhere by the SHA-256 of its archive, so that a lock can name it.
    pub async fn keep_resource(&self, sha256: String, archive: Vec<u8>) -> Result<(), KeepError> {
        self.check_disk().map_err(KeepError::NoRoom)?;
        let stock = self.stock();
        let keeping = spawn_blocking(move || {
            pack::unpack(&archive, &sha256)?;
            if stock.has(&sha256) {
                return Ok(());
            }
            stock.put(&sha256, &archive).map_err(KeepError::Write)
        });
        keeping.await.unwrap_or_else(|error| Err(KeepError::Write(io::Error::other(error))))
    }

    /// Whether a resource is kept here by the SHA-256 of its archive. It is, for as long as if it had been handed over now.
    pub async fn has_resource(&self, sha256: String) -> bool {
        let stock = self.stock();
        let looking = spawn_blocking(move || pack::is_sha256(&sha256) && stock.has(&sha256));
        looking.await.unwrap_or(false)
    }

    fn stock(&self) -> Stock {
        let (config, kept) = (self.0.config.library.clone(), self.0.kept.clone());
        Stock { config, kept, now: self.0.clock.now() }
    }

    /// Keeps a lock of a library elsewhere, whose resources are kept here, so that tasks can name it. Its name.
    pub async fn keep_lock(&self, lock: Lock) -> Result<String, KeepError> {
        self.check_disk().map_err(KeepError::NoRoom)?;
        let stock = self.stock();
        let (sha256, json) = (lock.sha256(), lock.to_json());
        let checking = spawn_blocking(move || check_lock(&stock, &lock));
        checking.await.unwrap_or_else(|error| Err(KeepError::Write(io::Error::other(error))))?;
        self.0.store.keep_lock(sha256.clone(), json).await?;
        Ok(sha256)
    }

    /// What a task would get of the library as it is now.
    pub async fn library(&self, wanted: &Wanted) -> Result<api::Library, SubmitError> {
        self.look(wanted, |config, wishes| library_of(&Library::at(&config.folder), wishes, &config.archives))
            .await
    }

    /// The lock that a task would run with, if all that its servers run was fetched.
    pub async fn library_lock(&self, wanted: &Wanted) -> Result<Lock, SubmitError> {
        self.look(wanted, |config, wishes| {
            let kept = |content: &str| archive_of(&config.archives, content);
            let resolution = Library::at(&config.folder).resolve(wishes, &kept)?;
            let trees = config.folder.join(tool::FOLDER);
            let unfetched = resolution.resources.iter().flat_map(|(resource, _)| {
                [unfetched(resource), absent(resource, &[&trees, &config.tools])].concat()
            });
            let unfetched: Vec<Problem> = unfetched.collect();
            if unfetched.is_empty() { Ok(resolution.lock()) } else { Err(Problems(unfetched)) }
        })
        .await
    }

    /// Looks at the library for what is wanted of it.
    async fn look<T: Send + 'static>(
        &self,
        wanted: &Wanted,
        work: impl FnOnce(&LibraryConfig, &Wishes) -> Result<T, Problems> + Send + 'static,
    ) -> Result<T, SubmitError> {
        let wishes = read_wanted(wanted)?;
        let config = self.0.config.library.clone();
        has_library(&config)?;
        let looking = spawn_blocking(move || work(&config, &wishes));
        let found = looking.await.map_err(|error| SubmitError::Archives(io::Error::other(error)))?;
        Ok(found?)
    }

    /// What a task gets of the library as it is now, or of the lock that it names.
    pub(crate) async fn choose_resources(&self, task: &CreateTask) -> Result<Chosen, SubmitError> {
        let config = self.0.config.library.clone();
        let repository = task.workspace.as_ref().map(|workspace| workspace.name.as_str());
        let wishes = wishes_in(task, repository, &config.projects)?;
        let lock = match &task.lock {
            Some(sha256) => Some(self.lock_called(sha256).await?),
            None if !has_library(&config)? && wishes.agent.is_none() && wishes.add.is_empty() => {
                return Ok(Chosen::default());
            }
            None => None,
        };
        let stock = self.stock();
        let choosing = spawn_blocking(move || {
            let kept = |content: &str| archive_of(&config.archives, content);
            let resolution = match lock {
                Some(lock) => read_lock(&config, &lock)?,
                None => Library::at(&config.folder).resolve(&wishes, &kept)?,
            };
            chosen(&stock, &resolution)
        });
        let chosen =
            choosing.await.unwrap_or_else(|error| Err(SubmitError::Archives(io::Error::other(error))))?;
        self.check_needs(&chosen.needs).await?;
        Ok(chosen)
    }

    async fn lock_called(&self, sha256: &str) -> Result<Lock, SubmitError> {
        let json = self.0.store.lock(sha256.to_owned()).await.map_err(SubmitError::Store)?;
        let lock = json.and_then(|json| serde_json::from_str(&json).ok());
        lock.ok_or_else(|| {
            invalid(
                "lock",
                "names no lock that is kept here: `POST /v1/locks` keeps one, once its resources are (`PUT \
                 /v1/resources/{sha256}`), and `GET /v1/tasks/{id}/lock` shows a task's",
            )
        })
    }

    /// The lock of this SHA-256, as JSON.
    pub async fn lock(&self, sha256: String) -> Result<Option<String>, StoreError> {
        self.0.store.lock(sha256).await
    }

    /// The lock of a task, as JSON.
    pub async fn lock_of(&self, task: TaskId) -> Result<Option<String>, StoreError> {
        self.0.store.lock_of(task).await
    }

    /// The name of the lock that a task had and that is not kept any more. `None`: it is kept, or the task had none.
    pub async fn forgotten_lock(&self, task: TaskId) -> Result<Option<String>, StoreError> {
        let Some(lock) = self.0.store.task(task).await?.and_then(|row| row.lock) else { return Ok(None) };
        Ok(self.lock(lock.clone()).await?.is_none().then_some(lock))
    }

    async fn read_lock_of(&self, task: TaskId) -> Result<Option<Lock>, StoreError> {
        let lock = self.lock_of(task).await?;
        Ok(lock.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// What a machine is told of its task's resources.
    pub(crate) async fn ordered_library(
        &self,
        attempt: AttemptId,
        spec: &CreateTask,
    ) -> Result<Option<OrderedLibrary>, StoreError> {
        let Some(lock) = self.0.store.lock_of(attempt.task).await? else { return Ok(None) };
        let secrets = self.ordered_secrets(attempt.task, &lock).await?;
        Ok(Some(OrderedLibrary { lock, model_is_default: spec.model.is_none(), secrets }))
    }

    /// What the servers of a task's machine run.
    pub(crate) async fn tools(&self, task: TaskId) -> Result<Vec<ToolSpec>, StoreError> {
        let lock = self.read_lock_of(task).await?;
        let ids = lock.into_iter().flat_map(|lock| lock.resources).flat_map(|locked| locked.tools);
        let spec = |sha256: String| ToolSpec {
            folder: self.0.config.library.tools.join(&sha256),
            inside: tool::place(&sha256),
        };
        Ok(ids.collect::<BTreeSet<_>>().into_iter().map(spec).collect())
    }

    /// The archive of a resource that an attempt's task runs with. `None`: it has none of this content.
    pub async fn resource(&self, attempt: AttemptId, sha256: &str) -> Result<Option<PathBuf>, StoreError> {
        let lock = self.read_lock_of(attempt.task).await?;
        let mut resources = lock.iter().flat_map(|lock| &lock.resources);
        let is_there = resources.any(|locked| locked.sha256 == sha256);
        Ok(is_there.then(|| archive_at(&self.0.config.library.archives, sha256)))
    }
}

/// Keeps what a task runs with, and reads what its owner has said beside it.
fn chosen(stock: &Stock, resolution: &Resolution) -> Result<Chosen, SubmitError> {
    let problems: Vec<Problem> =
        resolution.resources.iter().flat_map(|(resource, _)| unbound(resource)).collect();
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    for (resource, _) in &resolution.resources {
        stock.keep(resource).map_err(SubmitError::Archives)?;
        resource.tools().try_for_each(|tool| stock.keep_tool(&resource.id, tool))?;
    }
    let warnings = strays_told(&resolution.strays).map(|text| MayflyEvent::Warning { text });
    let mut told: Vec<MayflyEvent> = warnings.collect();
    if resolution.resources.is_empty() && resolution.agent.is_none() {
        return Ok(Chosen { told, ..Chosen::default() });
    }
    let lock = resolution.lock();
    let locked = MayflyEvent::Locked {
        lock: lock.sha256(),
        resources: lock.resources.len(),
        shadowed: resolution.shadowed.iter().map(ToString::to_string).collect(),
        merged: merged_of(resolution),
    };
    told.insert(0, locked);
    let own = || counting(resolution).map(|resource| &resource.own);
    let rules = own().flat_map(|own| &own.allow).filter_map(|rule| rule.parse().ok()).collect();
    let credential = own().filter_map(|own| own.credential.clone()).last();
    let needs = needs(resolution);
    let lock = Some(NewLock { sha256: lock.sha256(), json: lock.to_json() });
    Ok(Chosen { lock, told, rules, credential, needs })
}

/// What a task's owner is told of what does not count, a line each.
pub fn strays_told(strays: &[Problem]) -> impl Iterator<Item = String> {
    let first = strays.iter().take(STRAYS_TOLD_MAX).map(|stray| format!("in the library, {stray}"));
    let more = strays.len().saturating_sub(STRAYS_TOLD_MAX);
    let words = || format!("in the library, {more} more do not count: `mayfly library check` names all");
    first.chain((more > 0).then(words))
}

/// The resources whose owner's words count for the whole task, those that come first least: an agent's words are those
/// of the one that the task is run by.
fn counting(resolution: &Resolution) -> impl Iterator<Item = &Resource> {
    let settings = resolution.of(Kind::Settings).chain(resolution.of(Kind::Mcp));
    settings.chain(resolution.main_agent())
}

/// What a server needs and its owner has not bound, or not let into a machine.
fn unbound(resource: &Resource) -> Vec<Problem> {
    let What::Mcp(servers) = &resource.what else { return Vec::new() };
    let file = format!("{}/mayfly.toml", resource.id);
    let variables = servers.iter().flat_map(|server| &server.variables);
    let unbound = variables.filter(|name| !resource.own.secrets.contains_key(*name)).map(|name| {
        Problem::new(&file, format!("says nothing of ${{{name}}}: write secrets = {{ {name} = \"NAME\" }}, as `mayfly credential add NAME --kind secret` keeps it"))
    });
    let mut problems: Vec<Problem> = unbound.collect();
    problems.extend(unfetched(resource));
    if !resource.own.secrets.is_empty() && !resource.own.allow_secret_in_machine {
        let words = "a secret of a server goes into the machine, where the agent can read it, and only if you write \
                     allow-secret-in-machine = true";
        problems.push(Problem::new(&file, words));
    }
    problems
}

/// What its servers would download, and was not fetched.
fn unfetched(resource: &Resource) -> Vec<Problem> {
    let What::Mcp(servers) = &resource.what else { return Vec::new() };
    let unfetched = servers.iter().filter_map(|server| {
        let Download { runner, package, .. } = server.unlocked()?;
        let words = format!(
            "`{runner} {package}` would download in the machine: `mayfly library lock` fetches it once, on the machine that has the library"
        );
        Some(Problem::new(format!("{}/mcp.json", resource.id), words))
    });
    unfetched.collect()
}

/// What its servers run, and is in none of these folders.
fn absent(resource: &Resource, folders: &[&Path]) -> Vec<Problem> {
    let is_absent = |tool: &&Tool| !folders.iter().any(|folder| folder.join(&tool.sha256).is_dir());
    let absent = resource.tools().filter(is_absent).map(|tool| {
        let words =
            format!("{} is not in {}: `mayfly library lock` fetches it again", tool.resolved, tool::FOLDER);
        Problem::new(format!("{}/{}", resource.id, tool::FILE), words)
    });
    absent.collect()
}

/// The archive that is kept whose content begins so, if there is just one.
pub fn archive_of(archives: &Path, content: &str) -> Option<Vec<u8>> {
    let names = fs::read_dir(archives).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found = names.filter(|name| name.starts_with(content));
    match (found.next(), found.next()) {
        (Some(name), None) => {
            let archive = fs::read(archives.join(name)).ok()?;
            pack::sha256(&archive).starts_with(content).then_some(archive)
        }
        _ => None,
    }
}

/// Whether a lock that somebody wrote is one that could have been written here.
fn check_lock(stock: &Stock, lock: &Lock) -> Result<(), KeepError> {
    let wrong = |words: &str| Err(KeepError::Lock(words.to_owned()));
    if lock.resources.len() > resolve::RESOURCES_MAX {
        return wrong(&format!("has more than {} resources", resolve::RESOURCES_MAX));
    }
    let mut bytes = 0_u64;
    for Locked { id, sha256, bytes: of_one, .. } in &lock.resources {
        if !pack::is_sha256(sha256) || !stock.has(sha256) {
            return wrong(&format!("names {id}, which is not here: hand it over first"));
        }
        bytes = bytes.saturating_add(*of_one);
    }
    if bytes > resolve::BYTES_MAX as u64 {
        return wrong(&format!("has {bytes} bytes, and {} are the most", resolve::BYTES_MAX));
    }
    let read = match read_lock(&stock.config, lock) {
        Ok(read) => read,
        Err(SubmitError::Archives(error)) => return Err(KeepError::Write(error)),
        Err(error) => return wrong(&format!("has something wrong in it: {error}")),
    };
    if let Some(twice) = read.servers_twice().first() {
        return wrong(&format!("has something wrong in it: {twice}"));
    }
    let in_order = lock.resources.windows(2).all(|pair| {
        let [one, other] = [&pair[0].id, &pair[1].id];
        (one.kind, &one.name) < (other.kind, &other.name)
    });
    if in_order && read.lock() == *lock { Ok(()) } else { wrong("is not as `mayfly library lock` writes it") }
}

/// The resources of a lock, as they were.
fn read_lock(config: &LibraryConfig, lock: &Lock) -> Result<Resolution, SubmitError> {
    let read = |locked: &Locked| {
        let archive =
            fs::read(archive_at(&config.archives, &locked.sha256)).map_err(SubmitError::Archives)?;
        let files = pack::unpack(&archive, &locked.sha256)
            .map_err(|error| SubmitError::Archives(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok((Resource::read(locked.id.clone(), files)?, locked.from))
    };
    let resources: Result<Vec<_>, SubmitError> = lock.resources.iter().map(read).collect();
    Ok(Resolution {
        project: lock.project.clone(),
        agent: lock.agent.clone(),
        resources: resources?,
        shadowed: Vec::new(),
        strays: Vec::new(),
    })
}
