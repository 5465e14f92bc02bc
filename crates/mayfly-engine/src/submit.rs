//! What a task must look like.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_core::TaskId;
use mayfly_core::host::Rule;
use mayfly_core::redact::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use mayfly_failpoint::failpoint;
use mayfly_library::Problems;
use mayfly_library::artifacts::Pattern;
use mayfly_library::pack::is_sha256;
use mayfly_store::{NewTask, Resumed, StoreError, Submitted, TaskRow, Whose};
use mayfly_wire::api::{
    ALLOWED_MAX, ARTIFACTS_MAX, CreateTask, Credential, CredentialKind, CredentialMode,
    IDEMPOTENCY_KEY_BYTES_MAX, PRIORITY_MAX, PROMPT_BYTES_MAX, REPOSITORY_BYTES_MAX, RETRIES_MAX, Retry,
    TIMEOUT_MS_MAX, Task, Workspace, check_token_name,
};
use mayfly_wire::event::MayflyEvent;
use mayfly_wire::worker::is_commit;
use uuid::Uuid;

use crate::egress::read_rules;
use crate::engine::Engine;
use crate::library::{Chosen, read_wishes};
use crate::setup::{check_kept, check_setup};

/// The longest name of a workspace's folder or a model.
const NAME_BYTES_MAX: usize = 100;

/// What must be free on the disk for one more task to be accepted.
const DISK_FREE_MIN: u64 = 64 * 1024 * 1024;

/// Why a task was not accepted. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Something about it cannot be.
    #[error("`{field}` {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is hardly any room left where the queue and the results are kept.
    #[error(
        "the disk that holds `{}` has {free} bytes free, and {DISK_FREE_MIN} are needed to start a task: free some \
         space",
        folder.display()
    )]
    DiskFull {
        /// The folder.
        folder: PathBuf,
        /// What is free.
        free: u64,
    },
    /// A task that still goes on.
    #[error("task {0} is not over yet: wait for its end, or cancel it first")]
    NotOver(String),
    /// A task that cannot be gone on with, and why.
    #[error("task {0} cannot be resumed: {1}; `mayfly retry {0}` begins it anew")]
    NoResume(String, String),
    /// Neither it nor the pool has a credential for it.
    #[error("{0}")]
    NoCredential(String),
    /// Something in the library is wrong that the task would get.
    #[error("{0}")]
    Library(#[from] Problems),
    /// What the task gets of the library cannot be kept, or is not there any more.
    #[error("what the task gets of the library cannot be kept")]
    Archives(#[source] io::Error),
    /// The idempotency key was used for another task.
    #[error("this idempotency key was used for another task: choose a new one")]
    KeyConflict,
    /// The store failed.
    #[error("the task could not be stored")]
    Store(#[source] StoreError),
}

/// What is to be accepted.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) task: CreateTask,
    pub(crate) idempotency_key: Option<String>,
    /// Whether it gets anything of the library.
    pub(crate) with_library: bool,
    /// What it goes on with.
    pub(crate) resumes: Option<Resumed>,
    /// What is told of that.
    pub(crate) told: Vec<MayflyEvent>,
}

impl Asked {
    /// The same with other words for the agent.
    pub(crate) fn asking(self, prompt: String) -> Self {
        Self { task: CreateTask { prompt, ..self.task }, ..self }
    }
}

impl Engine {
    /// Accepts a task; once this returns, it is durable. The same idempotency key with the same task gives the
    /// task that is there already.
    pub async fn submit(
        &self,
        task: CreateTask,
        idempotency_key: Option<String>,
    ) -> Result<Task, SubmitError> {
        self.accept(Asked { task, idempotency_key, with_library: true, ..Asked::default() }).await
    }

    pub(crate) async fn accept(&self, asked: Asked) -> Result<Task, SubmitError> {
        let Asked { mut task, idempotency_key, with_library, resumes, mut told } = asked;
        self.check(&task, idempotency_key.as_deref())?;
        self.check_disk()?;
        let own = task.credential.take();
        // Before the library is looked at, which may have changed since then.
        if let Some(key) = &idempotency_key
            && let Some(known) = self.store_known(key, &task, resumes.as_ref(), own.as_ref()).await?
        {
            return self.accepted(known).await;
        }
        let chosen = if with_library { self.choose_resources(&task).await? } else { Chosen::default() };
        let id = TaskId::new(Uuid::now_v7());
        let named = || chosen.credential.clone();
        let credential = match &own {
            Some(own) => Whose::Own(self.0.seal.close(&id.to_string(), own)),
            None => Whose::Pool(task.credential_name.clone().or_else(named)),
        };
        let rules = all_rules(&task, &chosen.rules)?;
        let (Chosen { lock, told: of_library, .. }, at) = (chosen, self.0.clock.now());
        told.extend(of_library);
        let new = NewTask { id, spec: task, credential, rules, lock, told, resumes, idempotency_key, at };
        let engine = self.clone();
        let id = self.whole(async move { engine.store_task(new, own).await }).await?;
        self.accepted(id).await
    }

    async fn accepted(&self, id: TaskId) -> Result<Task, SubmitError> {
        let task = self.task(id).await.map_err(SubmitError::Store)?;
        task.ok_or(SubmitError::Store(StoreError::Closed))
    }

    /// Accepts once more what was asked for in a task that is over; unless `retry` says otherwise, with the same
    /// credential of the pool. `None`: there is no such task.
    pub async fn retry(
        &self,
        id: TaskId,
        retry: Retry,
        idempotency_key: Option<String>,
    ) -> Result<Option<Task>, SubmitError> {
        let Some(row) = self.0.store.task(id).await.map_err(SubmitError::Store)? else { return Ok(None) };
        if row.state.outcome().is_none() {
            return Err(SubmitError::NotOver(id.short()));
        }
        let resumes = row.resumes.clone();
        let asked = self.again(row, retry).await?;
        self.accept(Asked { idempotency_key, resumes, ..asked }).await.map(Some)
    }

    /// What a task asked for, once more.
    pub(crate) async fn again(&self, row: TaskRow, retry: Retry) -> Result<Asked, SubmitError> {
        // With what was allowed while it ran; where that is gone with its log, with what was asked for.
        let allowed = self.0.store.allowed(row.id).await.map_err(SubmitError::Store)?;
        let allow = if allowed.is_empty() { row.spec.allow.clone() } else { allowed };
        let Retry { credential, credential_name } = retry;
        let kept = row.pooled.filter(|_| credential.is_none());
        let credential_name = credential_name.or(kept);
        let mut task = CreateTask { credential, credential_name, allow, ..row.spec };
        // What the library had then, and not what it has now, also where it had nothing.
        let with_library = row.lock.is_some();
        if with_library {
            if self.forgotten_lock(row.id).await.map_err(SubmitError::Store)?.is_some() {
                let words = "of that task is not kept any more, since it was over long ago: submit a new task, which gets what \
                             the library has now";
                return Err(invalid("lock", words));
            }
            task = CreateTask { lock: row.lock, project: None, agent: None, ..task };
            (task.resources, task.without) = (Vec::new(), Vec::new());
        }
        Ok(Asked { task, with_library, ..Asked::default() })
    }

    /// Whether a task would be accepted now, as far as the disk and the database go.
    pub async fn ready(&self) -> Result<(), SubmitError> {
        self.check_disk()?;
        self.0.store.settled().await.map_err(SubmitError::Store)?;
        // Something is read as well.
        self.0.store.counts().await.map(drop).map_err(SubmitError::Store)
    }

    async fn store_known(
        &self,
        key: &str,
        task: &CreateTask,
        resumes: Option<&Resumed>,
        own: Option<&Credential>,
    ) -> Result<Option<TaskId>, SubmitError> {
        let resumes = resumes.map(|resumed| resumed.task);
        match self.0.store.submitted(key.to_owned(), task, resumes).await {
            Ok(Some(id)) => self.keep_newer(id, own).await.map(|()| Some(id)),
            Ok(None) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    /// Whoever asks again may bring a newer credential.
    async fn keep_newer(&self, id: TaskId, own: Option<&Credential>) -> Result<(), SubmitError> {
        let Some(own) = own else { return Ok(()) };
        let sealed = self.0.seal.close(&id.to_string(), own);
        self.0.store.keep_credential(id, sealed).await.map_err(SubmitError::Store)
    }

    async fn store_task(&self, new: NewTask, credential: Option<Credential>) -> Result<TaskId, SubmitError> {
        self.expect();
        let stored = self.0.store.submit(new).await;
        failpoint("submit-committed");
        if !matches!(stored, Ok(Submitted::New(_))) {
            self.forget();
        }
        self.0.slots.send_replace(());
        match stored {
            Ok(Submitted::New(id)) => Ok(id),
            Ok(Submitted::Known(id)) => self.keep_newer(id, credential.as_ref()).await.map(|()| id),
            Err(error) => Err(refused(error)),
        }
    }

    /// A task that the disk has no room for would stop half-way, and with it all others.
    pub(crate) fn check_disk(&self) -> Result<(), SubmitError> {
        let folder = &self.0.config.results;
        match rustix::fs::statvfs(folder) {
            Ok(disk) if disk.f_bavail * disk.f_frsize < DISK_FREE_MIN => {
                Err(SubmitError::DiskFull { folder: folder.clone(), free: disk.f_bavail * disk.f_frsize })
            }
            // A disk that cannot say how full it is shows it when it is written.
            _ => Ok(()),
        }
    }

    fn check(&self, task: &CreateTask, idempotency_key: Option<&str>) -> Result<(), SubmitError> {
        check_task(task)?;
        if let Some(wanted) = &task.provider {
            let has = self.0.provider.name();
            let words = format!(
                "is {wanted:?}, and this orchestrator's machines are of `{has}`: leave it out, or have another orchestrator \
                 (`mayfly serve --provider`, or --data for one beside this one)"
            );
            require(wanted == has, "provider", &words)?;
        }
        if let Some(workspace) = &task.workspace {
            let reason = "names no bundle that is kept here: upload it first";
            require(self.has_bundle(&workspace.id), "workspace.id", reason)?;
            let on = workspace.on.as_ref().is_none_or(|on| self.has_bundle(&on.id));
            require(on, "workspace.on", reason)?;
        }
        let for_code = task.setup.is_none() || task.workspace.is_some();
        require(for_code, "setup", "is for a task with a workspace: leave it out")?;
        task.setup.as_ref().map_or(Ok(()), check_kept)?;
        let key = idempotency_key.is_none_or(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
        require(key, "Idempotency-Key", "must have 1 to 100 bytes")
    }
}

impl Engine {
    /// Whether that bundle is kept here; if so, it is for as long as it may take to name it in a task.
    pub fn has_bundle(&self, id: &str) -> bool {
        self.0.kept.ask_for(&bundle_of(&self.0.config.workspaces, id), self.0.clock.now())
    }
}

/// Where a bundle of code is kept.
pub fn bundle_of(workspaces: &Path, id: &str) -> PathBuf {
    workspaces.join(format!("{id}.bundle"))
}

fn refused(error: StoreError) -> SubmitError {
    match error {
        StoreError::KeyConflict => SubmitError::KeyConflict,
        error @ StoreError::NoCredential(_) => SubmitError::NoCredential(error.to_string()),
        StoreError::Pruned(short) => SubmitError::NoResume(
            short,
            "what came out of it has just been taken away, since it was old".to_owned(),
        ),
        error => SubmitError::Store(error),
    }
}

/// Where a task's machines may go: where it says, and where the library does.
fn all_rules(task: &CreateTask, of_library: &[Rule]) -> Result<Vec<Rule>, SubmitError> {
    let mut seen = HashSet::new();
    let both = read_rules(&task.allow)?.into_iter().chain(of_library.iter().cloned());
    let rules: Vec<Rule> = both.filter(|rule| seen.insert(rule.clone())).collect();
    let words = format!(
        "has {} hosts with those that the task's resources allow, and {ALLOWED_MAX} are the most",
        rules.len()
    );
    require(rules.len() <= ALLOWED_MAX, "allow", &words)?;
    Ok(rules)
}

/// Checks what can be known of a task before it is handed to an orchestrator: all but whether its workspace is there.
pub fn check_task(task: &CreateTask) -> Result<(), SubmitError> {
    check_prompt(&task.prompt)?;
    task.workspace.as_ref().map_or(Ok(()), check_workspace)?;
    task.setup.as_ref().map_or(Ok(()), check_setup)?;
    if let Some(model) = &task.model {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@[]-".contains(c);
        let good = !model.is_empty() && !model.starts_with('-') && model.chars().all(plain);
        require(good && model.len() <= NAME_BYTES_MAX, "model", "is not the name of a model")?;
    }
    check_time(task.timeout_ms, "timeout_ms")?;
    check_time(task.idle_timeout_ms, "idle_timeout_ms")?;
    let priorities = -PRIORITY_MAX..=PRIORITY_MAX;
    require(priorities.contains(&task.priority), "priority", "must be between -1000 and 1000")?;
    require(task.retries <= RETRIES_MAX, "retries", "must be at most 10")?;
    require(task.max_turns != Some(0), "max_turns", "must be more than 0")?;
    read_rules(&task.allow)?;
    read_wishes(task)?;
    check_artifacts(&task.artifacts)?;
    task.credential.as_ref().map_or(Ok(()), check_credential)?;
    let name = task.credential_name.as_deref();
    require(name.is_none_or(check_token_name), "credential_name", "is not the name of a credential")?;
    let one = task.credential.is_none() || name.is_none();
    require(one, "credential_name", "cannot stand beside `credential`: leave one of them out")?;
    let budget = task.max_budget_usd.is_none_or(|usd| usd.is_finite() && usd > 0.0);
    require(budget, "max_budget_usd", "must be more than 0")
}

fn check_artifacts(patterns: &[String]) -> Result<(), SubmitError> {
    let words = format!("has {} patterns, and {ARTIFACTS_MAX} are the most", patterns.len());
    require(patterns.len() <= ARTIFACTS_MAX, "artifacts", &words)?;
    let bad = patterns.iter().find_map(|pattern| pattern.parse::<Pattern>().err());
    bad.map_or(Ok(()), |why| Err(invalid("artifacts", &why)))
}

fn check_time(ms: Option<u64>, field: &'static str) -> Result<(), SubmitError> {
    require(ms != Some(0), field, "must be more than 0")?;
    let words = format!("must be at most {TIMEOUT_MS_MAX}, which is 168h");
    require(ms.is_none_or(|ms| ms <= TIMEOUT_MS_MAX), field, &words)
}

fn check_prompt(prompt: &str) -> Result<(), SubmitError> {
    require(!prompt.trim().is_empty(), "prompt", "is empty: say what is to be done")?;
    require(!prompt.contains('\0'), "prompt", "contains a NUL byte: remove it")?;
    let words = format!("has {} bytes, and {PROMPT_BYTES_MAX} are the most", prompt.len());
    require(prompt.len() <= PROMPT_BYTES_MAX, "prompt", &words)
}

/// The credential of a task goes to the model API.
fn check_credential(credential: &Credential) -> Result<(), SubmitError> {
    let words = "cannot be secret: the model API does not take it";
    require(credential.kind != CredentialKind::Secret, "credential.kind", words)?;
    check_pooled(credential)
}

/// It goes into a header, and its URL is where requests are sent. A secret of the library's servers goes nowhere else.
pub(crate) fn check_pooled(credential: &Credential) -> Result<(), SubmitError> {
    if credential.kind == CredentialKind::Secret {
        require(
            credential.base_url.is_none(),
            "credential.base_url",
            "says nothing of a secret: leave it out",
        )?;
        let words =
            "must be broker for a secret: `allow-secret-in-machine` of its server says where it may be";
        require(credential.mode == CredentialMode::Broker, "credential.mode", words)?;
    }
    let secret = credential.secret.expose();
    let plain = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
    require(plain, "credential.secret", "must be visible ASCII, without spaces or line ends")?;
    let lengths = SECRET_BYTES_MIN..=SECRET_BYTES_MAX;
    let words = format!(
        "must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes: a shorter one could not be masked"
    );
    require(lengths.contains(&secret.len()), "credential.secret", &words)?;
    let web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
    require(credential.base_url.as_ref().is_none_or(web), "credential.base_url", "must be an http(s) URL")?;
    let descriptor = credential.mode == CredentialMode::InjectDescriptor;
    let words = "cannot be inject-descriptor for a gateway's own token: `claude` takes that from its environment alone";
    require(!descriptor || credential.kind != CredentialKind::Bearer, "credential.mode", words)
}

fn check_workspace(workspace: &Workspace) -> Result<(), SubmitError> {
    let Workspace { id, name, base, on, origin } = workspace;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(plain);
    require(good && name.len() <= NAME_BYTES_MAX, "workspace.name", "must be 1 to 100 of A-Z a-z 0-9 . _ -")?;
    require(is_sha256(id), "workspace.id", "must be 64 lower-case hex digits")?;
    require(is_commit(base), "workspace.base", "must be a whole commit id, in lower-case hex")?;
    let whole = on.as_ref().is_none_or(|on| is_sha256(&on.id) && is_commit(&on.base));
    require(whole, "workspace.on", "must name a bundle and its commit, in lower-case hex")?;
    let plain = |url: &String| {
        let user =
            url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next()?.rsplit_once('@'));
        (1..=REPOSITORY_BYTES_MAX).contains(&url.len())
            && !url.contains(|c: char| c.is_control() || c == ' ')
            && user.is_none_or(|(user, _)| !user.contains(':'))
    };
    let words = format!(
        "must be a URL of 1 to {REPOSITORY_BYTES_MAX} bytes, without a password, spaces and control characters"
    );
    require(origin.as_ref().is_none_or(plain), "workspace.origin", &words)
}

pub(crate) fn require(holds: bool, field: &'static str, reason: &str) -> Result<(), SubmitError> {
    if holds { Ok(()) } else { Err(invalid(field, reason)) }
}

pub(crate) fn invalid(field: &'static str, reason: &str) -> SubmitError {
    SubmitError::Invalid { field, reason: reason.to_owned() }
}
