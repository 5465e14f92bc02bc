//! Typed calls to an orchestrator, and its resumable event stream.
//!
//! A [`Client`] speaks HTTP over the owner's unix socket; every call is one request, and waits only for its
//! answer. [`EventStream`] is the exception: it follows a task to its end, over as many connections as that
//! takes. Nothing here needs Linux.
//!
//! Bounds: [`ANSWER_MAX`] for the head of an answer, but to an upload, and of a file or a log; [`ANSWER_BYTES_MAX`] for a JSON answer, [`LINE_BYTES_MAX`] for an event, [`RECONNECTS_MAX`] in a
//! row. What an event means, and where files go, is the caller's business.

use std::fmt::Display;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use mayfly_failpoint::failpoint;
use mayfly_wire::api::{
    AddCredential, Allowed, Arrived, Begun, Cancel, Commits, CreateTask, CreateToken, CredentialTest, Egress,
    KeptLock, Known, Library, LibraryContent, LibraryDifferences, LibraryProblem, NewToken, OwnerToken,
    PooledCredential, Problem, Resume, Retry, Task, TaskResult, Wanted, WholeBundle, Workspace,
};
use mayfly_wire::tunnel::{STATUS_PATH, Status};
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

mod bundle;
mod error;
mod events;
mod lines;

pub use bundle::Bundle;
pub use error::ClientError;
pub use events::{EventStream, RECONNECTS_MAX};
pub use lines::{EventLines, LINE_BYTES_MAX};

/// The longest JSON answer.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long the head of an answer may take where nothing long is handed over.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The status of what is not there.
const NOT_FOUND: u16 = 404;
/// The status of what was there once.
const GONE: u16 = 410;
/// How long an unused connection is kept: no longer than it could make an orchestrator look busy.
const IDLE_CONNECTION: Duration = Duration::from_secs(5);
/// What is read of a file at once.
const READ_BYTES: usize = 64 * 1024;

/// An orchestrator, as its owner sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// For the orchestrator behind `socket`. Nothing is dialled yet.
    pub fn new(socket: &Path) -> Self {
        // There is no TLS on a unix socket, but the client is built with it: it wants somebody's cryptography.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .tls_certs_only([])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(IDLE_CONNECTION)
            .build()
            .expect("it reads nothing from the system, and each option is a good one");
        Self { http, socket: socket.to_owned() }
    }

    /// Whether the orchestrator answers.
    pub async fn healthy(&self) -> Result<(), ClientError> {
        self.soon(self.request(Method::GET, &["healthz"])).await.map(drop)
    }

    /// Whether it would accept a task now; refused, it says why not.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.soon(self.request(Method::GET, &["readyz"])).await.map(drop)
    }

    /// The first of `commits` that the orchestrator has with its whole history.
    pub async fn known_code(&self, commits: Vec<String>) -> Result<Option<WholeBundle>, ClientError> {
        let request = self.request(Method::POST, &["v1", "workspaces", "known"]).json(&Commits { commits });
        Ok(self.json::<Known>(request).await?.whole)
    }

    /// Hands over a git bundle as the folder `name`, after what of it is there already. The answer is what a task is to
    /// name. Whatever breaks off is gone on with by the next call; what is there and is not the beginning of it goes, and
    /// all of it is sent.
    pub async fn upload_workspace(&self, name: &str, bundle: &Bundle) -> Result<Workspace, ClientError> {
        let from = self.arrived(bundle).await?;
        let uploaded = self.upload_from(from, name, bundle).await;
        let is_refused = matches!(uploaded, Err(ClientError::Refused(_)));
        match is_refused && from > 0 && self.arrived(bundle).await? == 0 {
            true => self.upload_from(0, name, bundle).await,
            false => uploaded,
        }
    }

    /// How much of a bundle is there.
    async fn arrived(&self, bundle: &Bundle) -> Result<u64, ClientError> {
        let Arrived { bytes } =
            self.json(self.request(Method::GET, &["v1", "workspaces", &bundle.sha256])).await?;
        Ok(bytes.min(bundle.bytes))
    }

    async fn upload_from(&self, from: u64, name: &str, bundle: &Bundle) -> Result<Workspace, ClientError> {
        let mut rest = File::open(&bundle.file).await.map_err(ClientError::file(&bundle.file))?;
        rest.seek(SeekFrom::Start(from)).await.map_err(ClientError::file(&bundle.file))?;
        bundle.sent.store(from, Ordering::Relaxed);
        let sent = Arc::clone(&bundle.sent);
        let body = ReaderStream::with_capacity(rest, READ_BYTES).inspect_ok(move |piece| {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            failpoint("code-sending");
        });
        let request = self.request(Method::PUT, &["v1", "workspaces", &bundle.sha256]);
        let request = request.query(&[("name", name), ("from", &from.to_string())]);
        let on: Vec<_> = bundle.on.iter().map(|on| ("on", on)).collect();
        let request = request.query(&on).header("content-length", bundle.bytes - from);
        let response = self.send(request.body(Body::wrap_stream(body))).await?;
        self.parsed(response).await
    }

    /// Submits a task. With the same key and body it is the same task, however often it is sent.
    pub async fn submit(&self, task: &CreateTask, idempotency_key: &str) -> Result<Task, ClientError> {
        let request = self.request(Method::POST, &["v1", "tasks"]).json(task);
        self.json(request.header("idempotency-key", idempotency_key)).await
    }

    /// A task as it stands.
    pub async fn task(&self, id: impl Display) -> Result<Task, ClientError> {
        self.json(self.about(Method::GET, id, &[])).await
    }

    /// A page of tasks, newest first: of all, or of those in `state`; those older than the task `cursor`.
    pub async fn tasks(&self, state: Option<&str>, cursor: Option<&str>) -> Result<Vec<Task>, ClientError> {
        let query =
            [("state", state), ("cursor", cursor)].map(|(name, value)| value.map(|value| (name, value)));
        let query: Vec<(&str, &str)> = query.into_iter().flatten().collect();
        self.json(self.request(Method::GET, &["v1", "tasks"]).query(&query)).await
    }

    /// Asks once more for what a task that is over asked for. The same key is the same new task.
    pub async fn retry(
        &self,
        id: impl Display,
        retry: &Retry,
        idempotency_key: &str,
    ) -> Result<Task, ClientError> {
        let request = self.about(Method::POST, id, &["retry"]).json(retry);
        self.json(request.header("idempotency-key", idempotency_key)).await
    }

    /// Asks for a task that goes on where one that is over ended. The same key is the same new task.
    pub async fn resume(
        &self,
        id: impl Display,
        resume: &Resume,
        idempotency_key: &str,
    ) -> Result<Task, ClientError> {
        let request = self.about(Method::POST, id, &["resume"]).json(resume);
        self.json(request.header("idempotency-key", idempotency_key)).await
    }

    /// Asks for a task's end; `force` does not wait for its work.
    pub async fn cancel(&self, id: impl Display, force: bool) -> Result<Task, ClientError> {
        self.json(self.about(Method::POST, id, &["cancel"]).json(&Cancel { force })).await
    }

    /// The lock of what a task has of the library, as it is written.
    pub async fn lock(&self, id: impl Display) -> Result<String, ClientError> {
        self.text(self.soon(self.about(Method::GET, id, &["lock"])).await?).await
    }

    /// What a task would get of the orchestrator's library.
    pub async fn library(&self, wanted: &Wanted) -> Result<Library, ClientError> {
        self.json(self.request(Method::GET, &["v1", "library"]).query(&query_of(wanted))).await
    }

    /// The lock that a task would run with, as it is written.
    pub async fn library_lock(&self, wanted: &Wanted) -> Result<String, ClientError> {
        let request = self.request(Method::GET, &["v1", "library", "lock"]).query(&query_of(wanted));
        self.text(self.soon(request).await?).await
    }

    /// What a resource of the orchestrator's library has in it.
    pub async fn library_resource(&self, id: &str) -> Result<LibraryContent, ClientError> {
        self.json(self.in_library(Method::GET, id, &[])).await
    }

    /// All of a resource of the orchestrator's library, as its archive.
    pub async fn library_archive(&self, id: &str) -> Result<Vec<u8>, ClientError> {
        let response = self.soon(self.in_library(Method::GET, id, &["archive"])).await?;
        self.body(response).await
    }

    /// Puts a resource, as its archive, into the orchestrator's library.
    pub async fn add_to_library(
        &self,
        id: &str,
        archive: &[u8],
        replace: bool,
    ) -> Result<LibraryContent, ClientError> {
        let request = self.in_library(Method::PUT, id, &[]).query(&[("replace", replace)]);
        let response = self.send(request.body(archive.to_vec())).await?;
        self.parsed(response).await
    }

    /// Takes a resource out of the orchestrator's library.
    pub async fn remove_from_library(&self, id: &str) -> Result<(), ClientError> {
        self.soon(self.in_library(Method::DELETE, id, &[])).await.map(drop)
    }

    /// All that is wrong in the orchestrator's library, by mayfly.
    pub async fn check_library(&self) -> Result<Vec<LibraryProblem>, ClientError> {
        self.json(self.request(Method::GET, &["v1", "library", "check"])).await
    }

    /// Puts a small library there to start from.
    pub async fn begin_library(&self) -> Result<Vec<Begun>, ClientError> {
        self.json(self.request(Method::POST, &["v1", "library", "init"])).await
    }

    /// What two locks differ in, each named by a task or by its SHA-256.
    pub async fn library_diff(&self, before: &str, after: &str) -> Result<LibraryDifferences, ClientError> {
        let request = self.request(Method::GET, &["v1", "library", "diff"]);
        self.json(request.query(&[("before", before), ("after", after)])).await
    }

    /// Whether the orchestrator has a resource already, by the SHA-256 of its archive.
    pub async fn has_resource(&self, sha256: &str) -> Result<bool, ClientError> {
        match self.soon(self.request(Method::HEAD, &["v1", "resources", sha256])).await {
            Err(ClientError::Status { status: NOT_FOUND }) => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    /// Hands over a resource of a library elsewhere: its archive, by the SHA-256 of that.
    pub async fn keep_resource(&self, sha256: &str, archive: &[u8]) -> Result<(), ClientError> {
        let request = self.request(Method::PUT, &["v1", "resources", sha256]).body(archive.to_vec());
        self.send(request).await.map(drop)
    }

    /// Hands over a lock, as it is written, whose resources were handed over. The answer is what a task is to name.
    pub async fn keep_lock(&self, lock: &str) -> Result<KeptLock, ClientError> {
        let request = self.request(Method::POST, &["v1", "locks"]);
        self.json(request.header("content-type", "application/json").body(lock.to_owned())).await
    }

    /// Where the machines of a task may go besides the model.
    pub async fn allowed(&self, id: impl Display) -> Result<Allowed, ClientError> {
        self.json(self.about(Method::GET, id, &["allow"])).await
    }

    /// Lets the machines of a task go to more places. The answer is all that is allowed.
    pub async fn allow(&self, id: impl Display, more: &Allowed) -> Result<Allowed, ClientError> {
        self.json(self.about(Method::POST, id, &["allow"]).json(more)).await
    }

    /// Where the machines of a task asked to go.
    pub async fn egress(&self, id: impl Display) -> Result<Egress, ClientError> {
        self.json(self.about(Method::GET, id, &["egress"])).await
    }

    /// How the tunnel stands that answers here. An orchestrator has none, and refuses with 404.
    pub async fn tunnel_status(&self) -> Result<Status, ClientError> {
        let path: Vec<&str> = STATUS_PATH.split('/').skip(1).collect();
        self.json(self.request(Method::GET, &path)).await
    }

    /// Makes a token that opens the API on a port. It is shown this once.
    pub async fn add_token(&self, name: &str) -> Result<NewToken, ClientError> {
        let token = CreateToken { name: name.to_owned() };
        self.json(self.request(Method::POST, &["v1", "tokens"]).json(&token)).await
    }

    /// The tokens that are good, without the tokens themselves.
    pub async fn tokens(&self) -> Result<Vec<OwnerToken>, ClientError> {
        self.json(self.request(Method::GET, &["v1", "tokens"])).await
    }

    /// Ends a token, and with it whatever came in with it.
    pub async fn revoke_token(&self, name: &str) -> Result<(), ClientError> {
        self.soon(self.request(Method::DELETE, &["v1", "tokens", name])).await.map(drop)
    }

    /// Puts a credential into the pool.
    pub async fn add_credential(&self, add: &AddCredential) -> Result<PooledCredential, ClientError> {
        self.json(self.request(Method::POST, &["v1", "credentials"]).json(add)).await
    }

    /// The credentials in the pool, without the secrets.
    pub async fn credentials(&self) -> Result<Vec<PooledCredential>, ClientError> {
        self.json(self.request(Method::GET, &["v1", "credentials"])).await
    }

    /// Takes a credential out of the pool.
    pub async fn remove_credential(&self, name: &str) -> Result<(), ClientError> {
        self.soon(self.request(Method::DELETE, &["v1", "credentials", name])).await.map(drop)
    }

    /// Has the model API asked whether a credential of the pool is good.
    pub async fn test_credential(&self, name: &str) -> Result<CredentialTest, ClientError> {
        self.json(self.request(Method::POST, &["v1", "credentials", name, "test"])).await
    }

    /// Follows a task's log from the event after `after` (0 is everything) to the task's end.
    pub fn events(&self, id: impl Display, after: u64) -> EventStream {
        EventStream::new(self.clone(), id.to_string(), after, true)
    }

    /// What a task's log has by now after the event `after`.
    pub fn events_so_far(&self, id: impl Display, after: u64) -> EventStream {
        EventStream::new(self.clone(), id.to_string(), after, false)
    }

    /// Writes the git bundle that a task started from to `to`.
    pub async fn workspace(&self, id: impl Display, to: &Path) -> Result<(), ClientError> {
        self.save(self.about(Method::GET, id, &["workspace"]), to).await
    }

    /// Writes the git bundle that came out of a task's machine to `to`: of one attempt, or of the last of which anything came out.
    pub async fn bundle(&self, id: impl Display, attempt: Option<u32>, to: &Path) -> Result<(), ClientError> {
        self.save(self.left(id, attempt, &["result", "bundle"]), to).await
    }

    /// Writes the archive of a task's artifacts to `to`: of one attempt, or of the last of which anything came out.
    pub async fn artifacts(
        &self,
        id: impl Display,
        attempt: Option<u32>,
        to: &Path,
    ) -> Result<(), ClientError> {
        self.save(self.left(id, attempt, &["result", "artifacts.tar"]), to).await
    }

    /// Writes the CLI's session file of a task to `to`: of one attempt, or of the last of which anything came out.
    pub async fn transcript(
        &self,
        id: impl Display,
        attempt: Option<u32>,
        to: &Path,
    ) -> Result<(), ClientError> {
        self.save(self.left(id, attempt, &["result", "transcript"]), to).await
    }

    /// How a task ended and what came out of it: of one attempt, or of the last of which anything did.
    pub async fn result(&self, id: impl Display, attempt: Option<u32>) -> Result<TaskResult, ClientError> {
        self.json(self.left(id, attempt, &["result"])).await
    }

    fn left(&self, id: impl Display, attempt: Option<u32>, of_it: &[&str]) -> RequestBuilder {
        let query: Vec<_> = attempt.iter().map(|attempt| ("attempt", attempt)).collect();
        self.about(Method::GET, id, of_it).query(&query)
    }

    fn about(&self, method: Method, id: impl Display, of_it: &[&str]) -> RequestBuilder {
        let id = id.to_string();
        self.request(method, &[&["v1", "tasks", &id], of_it].concat())
    }

    fn in_library(&self, method: Method, id: &str, of_it: &[&str]) -> RequestBuilder {
        let parts: Vec<&str> = ["v1", "library", "resources"].into_iter().chain(id.split('/')).collect();
        self.request(method, &[&parts, of_it].concat())
    }

    /// The host is a word: the socket is where the request goes.
    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = Url::parse("http://mayfly").expect("a good URL");
        url.path_segments_mut().expect("it has a path").extend(path);
        self.http.request(method, url)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.transport(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Option<Problem> = serde_json::from_slice(&self.body(response).await?).ok();
        Err(match problem {
            None => ClientError::Status { status: status.as_u16() },
            Some(Problem { status: GONE, first: Some(first @ 1..), .. }) => ClientError::Gone { first },
            Some(problem) => ClientError::Refused(problem),
        })
    }

    /// Sends a request that is answered at once.
    async fn soon(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = timeout(ANSWER_MAX, self.send(request)).await;
        answer.unwrap_or_else(|_| {
            Err(ClientError::Silent { socket: self.socket.clone(), waited: ANSWER_MAX.as_secs() })
        })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.soon(request).await?;
        self.parsed(response).await
    }

    async fn parsed<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body(response).await?).map_err(ClientError::Protocol)
    }

    async fn text(&self, response: Response) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.body(response).await?).into_owned())
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLong { bytes_max: ANSWER_BYTES_MAX });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What arrives whole becomes the file; else nothing is left of it, also if this is given up half-way.
    async fn save(&self, request: RequestBuilder, to: &Path) -> Result<(), ClientError> {
        let mut response = self.send(request).await?;
        let unfinished = NamedTempFile::new_in(to.parent().unwrap_or(Path::new(".")));
        let (file, unfinished) = unfinished.map_err(ClientError::file(to))?.into_parts();
        let mut file = File::from_std(file);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(error))? {
            file.write_all(&chunk).await.map_err(ClientError::file(to))?;
        }
        file.flush().await.map_err(ClientError::file(to))?;
        unfinished.persist(to).map_err(|error| ClientError::file(to)(error.error))
    }

    fn transport(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable { socket: self.socket.clone(), source }
    }
}

/// A query that asks for it.
fn query_of(wanted: &Wanted) -> Vec<(&'static str, &str)> {
    let Wanted { project, agent, resources, without } = wanted;
    let one = [("project", project), ("agent", agent)];
    let one = one.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let all = [("resources", resources), ("without", without)];
    let all =
        all.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value.as_str())));
    one.chain(all).collect()
}
