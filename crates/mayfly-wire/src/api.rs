//! The bodies of the HTTP API that the owner's side speaks, under `/v1`.
//!
//! ```text
//! POST /v1/workspaces?name=REPO      a git bundle            -> 201 Workspace
//! POST /v1/workspaces/known          Commits                 -> 200 Known
//! GET  /v1/workspaces/SHA256                                 -> 200 Arrived
//! PUT  /v1/workspaces/SHA256?name=REPO&from=BYTES&on=SHA256  the rest of a git bundle -> 201 Workspace
//! POST /v1/tasks                     CreateTask              -> 202 Task      (Idempotency-Key: 1 to 100 ASCII characters)
//! GET  /v1/tasks?state=S&cursor=ID&limit=N                   -> 200 [Task]    newest first, older than ID
//! GET  /v1/tasks/{id}                                        -> 200 Task
//! GET  /v1/tasks/{id}/workspace                              -> 200 the git bundle that it started from
//! POST /v1/tasks/{id}/cancel         Cancel                  -> 202 Task
//! POST /v1/tasks/{id}/retry          Retry                   -> 202 Task      a new one (Idempotency-Key)
//! POST /v1/tasks/{id}/resume         Resume                  -> 202 Task      a new one that goes on (Idempotency-Key)
//! GET  /v1/tasks/{id}/allow                                  -> 200 Allowed   where its machines may go
//! POST /v1/tasks/{id}/allow          Allowed                 -> 200 Allowed   more places, from now on
//! GET  /v1/tasks/{id}/egress                                 -> 200 Egress    where its machines asked to go
//! GET  /v1/tasks/{id}/events?after=N&follow=true             -> 200 NDJSON of `event::Event`
//! GET  /v1/tasks/{id}/result                                 -> 200 TaskResult
//! GET  /v1/tasks/{id}/result/patch                           -> 200 what was changed, for `git apply`
//! GET  /v1/tasks/{id}/result/bundle                          -> 200 a git bundle
//! GET  /v1/tasks/{id}/result/transcript                      -> 200 the CLI's session file
//! GET  /v1/tasks/{id}/result/artifacts                       -> 200 [Artifact]
//! GET  /v1/tasks/{id}/result/artifacts.tar                   -> 200 all of them
//! GET  /v1/tasks/{id}/result/artifacts/{name}                -> 200 one of them (`/` in its name as `%2F`)
//! GET  /v1/tasks/{id}/result…?attempt=N                      -> 200 the same of another attempt
//! GET  /v1/tasks/{id}/lock                                   -> 200 the resources of the library that it runs with
//! PUT  /v1/resources/{sha256}        an archive              -> 204           a resource of a library elsewhere
//! POST /v1/locks                     a lock                  -> 201 KeptLock  for a task's `lock`
//! HEAD /v1/resources/{sha256}                                -> 204           it is kept already
//! GET  /v1/library?project=&agent=&resources=&without=       -> 200 Library   what a task would get now ([`Wanted`])
//! GET  /v1/library/lock?                                     -> 200 the lock that it would run with
//! GET  /v1/library/resources/{kind}/{namespace}/{name}       -> 200 LibraryContent
//! PUT  /v1/library/resources/…?replace=   an archive         -> 200 LibraryContent
//! DELETE /v1/library/resources/…                             -> 204
//! GET  /v1/library/resources/…/archive                       -> 200 an archive
//! GET  /v1/library/check                                     -> 200 [LibraryProblem]
//! POST /v1/library/init                                      -> 200 [Begun]
//! GET  /v1/library/diff?before=&after=                       -> 200 LibraryDifferences    of two tasks or locks
//! POST /v1/credentials               AddCredential           -> 201 PooledCredential
//! GET  /v1/credentials                                       -> 200 [PooledCredential]   by name, never the secrets
//! DELETE /v1/credentials/{name}                              -> 204
//! POST /v1/credentials/{name}/test                           -> 200 CredentialTest
//! ```
//!
//! `{id}` is a task's id or any end of it that has at least 4 hex digits and names one task.
//! Errors are `application/problem+json`: a [`Problem`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The longest prompt, in bytes.
pub const PROMPT_BYTES_MAX: usize = 1024 * 1024;

/// The most settings, and the most hooks, that are told of what a task gets; each name of theirs has at most 200 characters.
pub const MERGED_MAX: usize = 200;

/// The most files and folders that are told of what does not count in the library.
pub const STRAYS_MAX: usize = 20;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 100;

/// The longest name of a token, in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 50;

/// The longest time that a run or a silence may be allowed, in milliseconds: 168 hours.
pub const TIMEOUT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

/// The most retries.
pub const RETRIES_MAX: u32 = 10;

/// The most places where the machines of one task may go.
pub const ALLOWED_MAX: usize = 10_000;

/// The most patterns of artifacts of one task.
pub const ARTIFACTS_MAX: usize = 100;

/// The most resources that one task can ask for, or ask to be without, by name.
pub const RESOURCES_MAX: usize = 500;

/// The highest priority, and the lowest below 0.
pub const PRIORITY_MAX: i32 = 1000;

/// Asks for a task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateTask {
    /// What `claude` is asked to do: 1 byte to [`PROMPT_BYTES_MAX`], no NUL.
    pub prompt: String,
    /// The code to work on; none is an empty workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// What is run in the machine before `claude` is started; for a task with a workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// Where its machines are to be made: `sandbox`, `microvm` or `fly`. Default: where the orchestrator makes them; one
    /// that makes them elsewhere does not accept the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model, passed on as it is. Default: the orchestrator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The time allowed for the whole run, in milliseconds, at most 168 hours. Default: 30 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The longest silence of `claude`, in milliseconds, at most 168 hours. Default: 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// The most turns of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// The most money to spend, in US dollars, as the CLI counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<f64>,
    /// Whether the repository's own settings count, and what it names runs: its hooks, MCP servers, helpers. Default:
    /// no, its words alone do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trust_repo: bool,
    /// Who comes first: higher before lower, and of equals who came first. Default: 0; -1000 to 1000.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// How often an attempt that failed in a way that may pass is followed by another, after `claude` had started
    /// in it. Default: 0, never; at most [`RETRIES_MAX`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub retries: u32,
    /// The namespace of the library that the repository has besides `_global`. Default: the one of the workspace's name,
    /// if the library has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The agent that the task is run by, as `[NAMESPACE/]NAME[@SHA256]`: the library's, else one of the repository's.
    /// Default: none, the CLI's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// More resources of the library, as `KIND/[NAMESPACE/]NAME[@SHA256]`; at most [`RESOURCES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Resources that it is not to have, as `KIND/[NAMESPACE/]NAME`; at most [`RESOURCES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The lock to run with, by its SHA-256, instead of what the library has now: one that a task here had, or that was
    /// handed over. Nothing of the four above may stand beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Where its machines may go besides the model, as `HOST[:PORT]`, where a host can begin with `*.`; without a port,
    /// 443 and 80 are meant. Default: nowhere; at most [`ALLOWED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What it leaves besides its work, such as what it built: patterns for files below the workspace, in which `*` and `?`
    /// stand for a part of a name and `**` for any folders; ignored files too. Default: none; at most [`ARTIFACTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// The credential for the model API, for this task alone; it is sealed at rest, and deleted at the task's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The credential in the orchestrator's pool to use instead. Default: the one called `default`, else the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_no_more(count: &usize) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(it_is: &bool) -> bool {
    !*it_is
}

/// What makes a repository ready for its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What is run in the workspace by `sh`, one after another; the first that fails ends the task. At most
    /// [`SETUP_PARTS_MAX`].
    pub commands: Vec<String>,
    /// Files of the repository: as long as these, the commands and the CLI's version are the same, what was kept is taken
    /// instead of running the commands. At most [`SETUP_PARTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lock_files: Vec<String>,
    /// Folders that the commands make, to be kept for later tasks on the repository. Default: none, the commands are run
    /// in each machine. At most [`SETUP_PARTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Which repository it is, such as its URL or its whole path: what is kept is for tasks alone that say the same. 1 to
    /// [`REPOSITORY_BYTES_MAX`] bytes; not needed where nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The time for all of the commands, in milliseconds. Default: 10 minutes.
    #[serde(default = "setup_timeout_ms")]
    pub timeout_ms: u64,
}

/// The most commands, and files, and folders of a [`Setup`].
pub const SETUP_PARTS_MAX: usize = 32;

/// The most bytes of what a [`Setup`] says of which repository it is.
pub const REPOSITORY_BYTES_MAX: usize = 8 * 1024;

/// The time for a [`Setup`] that says nothing else.
pub const fn setup_timeout_ms() -> u64 {
    10 * 60 * 1000
}

/// A repository that was handed over, and the commit to start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The SHA-256 of the bundle, in hex: the name under which it was stored.
    pub id: String,
    /// The folder's name under `/workspace`: 1 to 100 of `A-Z a-z 0-9 . _ -`, not beginning with `.` or `-`.
    pub name: String,
    /// The commit to start from, in hex; the bundle's only ref points to it.
    pub base: String,
    /// What the bundle is on top of. Default: nothing, it holds all of its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<WholeBundle>,
    /// The URL of the repository that it was fetched from, which is the `origin` of a clone that is made of it; no machine is
    /// told. 1 to [`REPOSITORY_BYTES_MAX`] bytes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A bundle that holds all of its commit, its whole history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WholeBundle {
    /// The SHA-256 of the bundle, in hex.
    pub id: String,
    /// Its commit, in hex.
    pub base: String,
}

/// The most commits that can be asked about at once.
pub const COMMITS_MAX: usize = 1000;

/// `POST /v1/workspaces/known`: commits that work can be sent on top of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Commits {
    /// In hex, the best one first; at most 1000.
    pub commits: Vec<String>,
}

/// What the orchestrator has of [`Commits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Known {
    /// The bundle of the first of them that is here whole; none is.
    pub whole: Option<WholeBundle>,
}

/// How much of a bundle the orchestrator has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Arrived {
    /// Its first bytes that are here.
    pub bytes: u64,
}

/// The owner's credential for a model API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Which header it goes into.
    pub kind: CredentialKind,
    /// The credential itself.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub secret: Secret,
    /// The model API's base URL. Default: Anthropic's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// What a machine gets of it. Default: nothing.
    #[serde(default, skip_serializing_if = "CredentialMode::is_broker")]
    pub mode: CredentialMode,
}

impl Credential {
    /// One that stays outside of machines.
    pub fn new(kind: CredentialKind, secret: Secret, base_url: Option<String>) -> Self {
        Self { kind, secret, base_url, mode: CredentialMode::Broker }
    }
}

/// What a machine gets of a credential. In every mode its requests go out by the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CredentialMode {
    /// Nothing: the gateway puts it into the requests.
    #[default]
    Broker,
    /// All of it, in the environment of `claude`: whatever runs in the machine can read it, and hand it on.
    Inject,
    /// The same, by a file descriptor: it is in no environment, but in the memory of `claude`.
    InjectDescriptor,
}

impl CredentialMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_broker(&self) -> bool {
        *self == Self::Broker
    }
}

/// The kinds of credential: three that a model API takes, and one that it never gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// From `claude setup-token`: `Authorization: Bearer`, with the CLI's OAuth beta header.
    OauthToken,
    /// A key of the API: `x-api-key`.
    ApiKey,
    /// A gateway's own token: `Authorization: Bearer`.
    Bearer,
    /// None for the model, and in the pool alone: a secret of an MCP server of the library's.
    Secret,
}

/// Asks for a task's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Cancel {
    /// Do not wait for the work: destroy the machine now.
    pub force: bool,
}

/// A task as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Task {
    /// The whole id.
    pub id: String,
    /// Its last eight digits, which every command takes.
    pub short: String,
    /// The first line of the prompt, shortened.
    pub title: String,
    /// `queued`, `launching`, `running`, `collecting`, `releasing` or `finished`.
    pub state: String,
    /// The current or last attempt, from 1; 0 if there was none.
    pub attempt: u32,
    /// The number of the last event in the log; 0 is none.
    pub last_seq: u64,
    /// When it was accepted.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
    /// The code that it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What came out of its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Collected>,
    /// The attempt that the result came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_attempt: Option<u32>,
    /// What it has used of the model API so far, over all attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Whether its log and its result were old, and are not kept any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pruned: bool,
    /// The credential in the pool that it uses, if it brought none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
    /// The SHA-256 of its lock: the resources of the library that it runs with; none is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The task whose work and conversation it goes on with, by its whole id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<String>,
    /// Its place in the queue: higher first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Before when its next attempt is not begun, while it waits to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub due_at: Option<Timestamp>,
    /// What bounds it, until it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When its machine last said something, while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub heard_at: Option<Timestamp>,
    /// When the time for the whole run is over, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub deadline_at: Option<Timestamp>,
}

/// What was used of a model API. Tokens are counted as its answers pass through the gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Usage {
    /// The requests for an answer of a model, answered or not.
    pub requests: u64,
    /// The tokens that were sent and were in no cache.
    pub input_tokens: u64,
    /// The tokens of the answers.
    pub output_tokens: u64,
    /// The tokens that were read from a cache.
    pub cache_read_tokens: u64,
    /// The tokens that were written to a cache.
    pub cache_write_tokens: u64,
    /// What it cost, in US dollars; none if nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Who says so: `claude`, or `prices of <date>`; without a cost, why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_by: Option<String>,
}

/// What bounds a task: what it asked for, and the orchestrator's settings. A machine keeps those of the time when it was
/// made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Limits {
    /// The time for the whole run of an attempt, in milliseconds.
    pub timeout_ms: u64,
    /// The longest silence of `claude`, in milliseconds.
    pub idle_timeout_ms: u64,
    /// The most turns of the agent; none is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// The most money to spend, in US dollars, as the CLI counts it; none is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<f64>,
    /// The memory of its machine.
    pub memory_bytes: u64,
    /// The processes and threads in its machine.
    pub processes: u32,
    /// The processors of its machine.
    pub cpus: f64,
    /// What its machine's files may take on the disk.
    pub disk_bytes: u64,
}

/// Asks for a task like one that is over.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The credential for the model API; that which the earlier task brought is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The credential in the pool to use. Default: that of the earlier task, if it used one of the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
}

/// Asks for a task that goes on where one that is over ended: with its work, its lock and its conversation, in a new
/// machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// What `claude` is asked next: 1 byte to [`PROMPT_BYTES_MAX`], no NUL.
    pub prompt: String,
    /// As for a [`Retry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// As for a [`Retry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
}

/// What a task wants of the library, as a [`CreateTask`] says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "schema", into_params(parameter_in = Query))]
pub struct Wanted {
    /// The namespace besides `_global`. Default: none.
    pub project: Option<String>,
    /// The agent that the task is run by, as `[NAMESPACE/]NAME[@SHA256]`. Default: none.
    pub agent: Option<String>,
    /// One more resource, as `KIND/[NAMESPACE/]NAME[@SHA256]`; it can be there again, at most [`RESOURCES_MAX`] times.
    #[cfg_attr(feature = "schema", param(required = false))]
    pub resources: Vec<String>,
    /// A resource that it is not to have, as `KIND/[NAMESPACE/]NAME`; it can be there again, at most [`RESOURCES_MAX`] times.
    #[cfg_attr(feature = "schema", param(required = false))]
    pub without: Vec<String>,
}

/// What a task would get of the library, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Library {
    /// The namespace that it would have besides `_global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The agent that it would be run by. Without one of its name among the resources, the repository's is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The name of the lock that it would run with: the SHA-256 of that.
    pub lock: String,
    /// Its resources, by kind and name.
    pub resources: Vec<LibraryResource>,
    /// What it would have if another of the same kind and name did not stand before it, as `KIND/NAMESPACE/NAME`.
    pub shadowed: Vec<String>,
    /// The namespaces that there are, without `_global`.
    pub projects: Vec<String>,
    /// What its settings and hooks come to.
    #[serde(default, skip_serializing_if = "Merged::is_empty")]
    pub merged: Merged,
    /// What does not count, though it looks as if it were for the task, such as a link; at most [`STRAYS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<LibraryProblem>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_no_more")]
    pub more_strays: usize,
}

/// What the settings and hooks of a task's resources come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Merged {
    /// Settings that two resources say differently, at most [`MERGED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Overridden>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "is_no_more")]
    pub more_settings: usize,
    /// Hooks in the order in which the CLI has them, at most [`MERGED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookOf>,
    /// How many more of them there are.
    #[serde(default, skip_serializing_if = "is_no_more")]
    pub more_hooks: usize,
}

impl Merged {
    /// Whether there are no hooks, and nobody stands before another.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.hooks.is_empty()
    }
}

/// A setting that two resources say differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Overridden {
    /// Its key, with a dot between those of tables.
    pub key: String,
    /// The resource whose word counts.
    pub by: String,
    /// The one whose word does not.
    pub over: String,
}

/// The hooks of one matcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HookOf {
    /// When they run, such as `PostToolUse`.
    pub event: String,
    /// For what; none is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matcher: Option<String>,
    /// The resource whose they are.
    pub of: String,
}

/// A lock that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeptLock {
    /// Its name: what a task's `lock` is to be.
    pub lock: String,
}

/// A resource of the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryResource {
    /// Which it is: `KIND/NAMESPACE/NAME`.
    pub id: String,
    /// Why a task would have it: `global`, `project` or `task`.
    pub from: String,
    /// Its content: the SHA-256 of its archive, in hex.
    pub sha256: String,
    /// The bytes of its files.
    pub bytes: u64,
}

/// A resource of the library, with what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryContent {
    /// Which it is: `KIND/NAMESPACE/NAME`.
    pub id: String,
    /// Its content: the SHA-256 of its archive, in hex.
    pub sha256: String,
    /// The bytes of its files.
    pub bytes: u64,
    /// Its files, by path.
    pub files: Vec<LibraryFile>,
    /// What they make of it, by its kind: an agent, servers by name, hooks by event, settings.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub what: serde_json::Value,
    /// What `mayfly.toml` says beside it.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub own: serde_json::Value,
}

/// A file of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryFile {
    /// Its path in the resource.
    pub path: String,
    /// How long it is.
    pub bytes: u64,
    /// Whether it can be run.
    pub executable: bool,
}

/// Something that is wrong in the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryProblem {
    /// The file or folder, from the top of the library.
    pub file: String,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong, and what to do.
    pub words: String,
}

/// What two locks differ in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryDifferences {
    /// The namespace beside `_global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<LibraryChanged>,
    /// The agent that the task is run by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<LibraryChanged>,
    /// The resources, by kind and name.
    pub resources: Vec<LibraryDifference>,
}

/// A name that two locks differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryChanged {
    /// What the first lock has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What the second has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A resource that two locks differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LibraryDifference {
    /// What the first lock has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<LibraryResource>,
    /// What the second has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LibraryResource>,
}

/// A resource of the small library to start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Begun {
    /// Which it is: `KIND/NAMESPACE/NAME`.
    pub id: String,
    /// Whether it was not there yet.
    pub added: bool,
}

/// Where the machines of a task may go besides the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// `HOST[:PORT]`, where a host can begin with `*.`; without a port, 443 and 80 are meant.
    pub hosts: Vec<String>,
}

/// Where the machines of a task asked to go besides the model, in the order in which it was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Egress {
    /// Each decision.
    pub entries: Vec<EgressEntry>,
    /// How many more there were: of one attempt, a bounded number is kept of each kind.
    pub dropped: u64,
}

/// One decision about a connection, or about a request of plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EgressEntry {
    /// Which attempt's machine asked.
    pub attempt: u32,
    /// When.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// What it asked for: a host's name, or whatever it had in its place.
    pub host: String,
    /// The port; 0 if none can be read.
    pub port: u16,
    /// `allowed`, `denied`, or `failed` for what was allowed and could not be reached.
    pub decision: String,
    /// Why not, such as `not-listed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The bytes that went out, once the connection is over.
    pub sent: u64,
    /// The bytes that came back, once it is over.
    pub received: u64,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Outcome {
    /// `succeeded`, `cancelled`, or the failure's name, such as `usage-limit`.
    pub name: String,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How a task ended and what came out of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskResult {
    /// How it ended.
    pub outcome: Outcome,
    /// What the task has used of the model API, over all attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The attempt that the work came from, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What came out of its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<Collected>,
    /// The other attempts that left work, which `?attempt=` asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_attempts: Vec<u32>,
}

/// What a worker brought out of its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Collected {
    /// The last commit, in hex, if the work differs from the base; it is in the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Whether the bundle holds it.
    pub bundle: bool,
    /// The names of what else the bundle holds, as `refs/heads/other/<name>`: commits on other branches of the
    /// agent's, stashed, or left behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// How the agent left its repository, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The artifacts that are there, if any were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// Whether the CLI's session file is there.
    pub transcript: bool,
    /// The work that could not be saved, and why; a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsaved: Vec<String>,
    /// What else is worth knowing, such as a session file that is not there; a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How many artifacts there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Artifacts {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A file that a task left besides its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// Its path below the workspace.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
}

/// How an agent left its repository: what its files do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Repository {
    /// The commit that `HEAD` named, in hex; none if its branch had no commit yet. What the result's `head` has more was
    /// not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch that it was on; none is a commit of no branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its other branches, and its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<Ref>,
    /// The commits of its stash, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stash: Vec<String>,
    /// A commit whose files are those of its index; none: they are those of `commit`, or it could not be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

/// A name for a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ref {
    /// Without `refs/`: `heads/feature`, `tags/v1`.
    pub name: String,
    /// The commit, in hex.
    pub commit: String,
}

/// Asks for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What to call it; see [`check_token_name`].
    pub name: String,
}

/// A token of an owner, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OwnerToken {
    /// What its owner calls it; `local` is the one in the file of the data folder.
    pub name: String,
    /// When it was made.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
}

/// A new token, which is shown this once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// What its owner calls it.
    pub name: String,
    /// When it was made.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// What opens the API on a port.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub token: Secret,
}

/// Puts a credential into the orchestrator's pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddCredential {
    /// What to call it, by the rule of [`check_token_name`].
    pub name: String,
    /// The credential; it is sealed at rest, and never shown again.
    pub credential: Credential,
    /// Whether it takes the place of one of this name; tasks that run use it from their next request on.
    #[serde(default)]
    pub replace: bool,
}

/// A credential in the pool, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PooledCredential {
    /// What its owner calls it.
    pub name: String,
    /// When it was added or replaced.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// What is known of it; none if it was sealed with another key, and has to be added again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<AboutCredential>,
}

/// What may be shown of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AboutCredential {
    /// Which header it goes into.
    pub kind: CredentialKind,
    /// The model API's base URL, if it is not Anthropic's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// What a machine gets of it.
    pub mode: CredentialMode,
}

/// What a model API said to a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CredentialTest {
    /// Whether it was accepted.
    pub accepted: bool,
    /// What happened, in words.
    pub detail: String,
}

/// Whether a token can have this name: 1 to [`TOKEN_NAME_BYTES_MAX`] ASCII letters, digits, `.`, `_` and `-`, of
/// which the first is a letter or a digit.
pub fn check_token_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= TOKEN_NAME_BYTES_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// An error, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable word for programs, such as `invalid-task`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to what, and what to do next.
    pub detail: String,
    /// Of a log whose beginning is `gone`: its first event that is kept; the one after the last if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
}
