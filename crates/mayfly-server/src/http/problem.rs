//! What a caller is told when something is not done: `application/problem+json`, with a stable type.
//!
//! The public half of an error answers; its cause is logged here, and nowhere else. No text holds a value
//! that the caller sent where a secret could be.

use std::error::Error;
use std::io;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use mayfly_core::{AttemptId, TaskId, causes};
use mayfly_engine::{AllowError, EditError, KeepError, LogError, PoolError, SubmitError};
use mayfly_git::GitError;
use mayfly_library::artifacts::BadArtifacts;
use mayfly_store::StoreError;
use mayfly_wire::api::{self, PROMPT_BYTES_MAX};

use crate::incoming::IncomingError;
use crate::tokens::TokenError;

macro_rules! kinds {
    ($($kind:ident: $word:literal,)+) => {
        /// What a problem is, for programs: these words are kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)+
        }

        impl Kind {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$kind),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)+
                }
            }
        }
    };
}

kinds! {
    NoSuchRoute: "no-such-route",
    NoSuchMethod: "no-such-method",
    NoSuchTask: "no-such-task",
    NoSuchResult: "no-such-result",
    NoSuchWorkspace: "no-such-workspace",
    NoSuchToken: "no-such-token",
    NoSuchCredential: "no-such-credential",
    NoCredential: "no-credential",
    NoModel: "no-model",
    OtherKey: "other-key",
    AmbiguousTask: "ambiguous-task",
    NotOver: "not-over",
    NotResumable: "not-resumable",
    Gone: "gone",
    Denied: "denied",
    Page: "page",
    UnknownHost: "unknown-host",
    Busy: "busy",
    BadRequest: "bad-request",
    TooLarge: "too-large",
    InvalidTask: "invalid-task",
    InvalidLibrary: "invalid-library",
    NoSuchLock: "no-such-lock",
    NoSuchResource: "no-such-resource",
    ResourceTaken: "resource-taken",
    InvalidResource: "invalid-resource",
    InvalidLock: "invalid-lock",
    InvalidHost: "invalid-host",
    TooManyHosts: "too-many-hosts",
    Over: "over",
    InvalidWorkspace: "invalid-workspace",
    LessArrived: "less-arrived",
    InvalidName: "invalid-name",
    KeyConflict: "key-conflict",
    NameTaken: "name-taken",
    TooManyTokens: "too-many-tokens",
    InvalidCredential: "invalid-credential",
    TooManyCredentials: "too-many-credentials",
    UnfitResult: "unfit-result",
    SecretInResult: "secret-in-result",
    UnsearchedResult: "unsearched-result",
    DiskFull: "disk-full",
    DamagedDatabase: "damaged-database",
    Internal: "internal",
}

/// An error on its way to a caller.
#[derive(Debug)]
pub(crate) struct Problem(api::Problem);

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: Kind, detail: impl Into<String>) -> Self {
        Self(api::Problem {
            kind: kind.word().to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            first: None,
        })
    }

    /// The same, where something else follows from it.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status.as_u16();
        self
    }

    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchRoute, "there is no such route here")
    }

    pub(crate) fn no_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Kind::NoSuchMethod, "this route has no such method")
    }

    /// One answer, whether the id names nothing or is none.
    pub(crate) fn no_task() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Kind::NoSuchTask,
            "no task has this id, or an id that ends so: see `GET /v1/tasks`",
        )
    }

    pub(crate) fn several_tasks(ids: &[TaskId]) -> Self {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let detail = format!("the ids of several tasks end so: give more digits ({})", ids.join(", "));
        Self::new(StatusCode::CONFLICT, Kind::AmbiguousTask, detail)
    }

    pub(crate) fn not_over(short: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            Kind::NotOver,
            format!("task {short} is not over yet: follow its events"),
        )
    }

    pub(crate) fn less_arrived() -> Self {
        let detail = "there is less of this bundle here than `from` says: see `GET /v1/workspaces/{sha256}`";
        Self::new(StatusCode::CONFLICT, Kind::LessArrived, detail)
    }

    pub(crate) fn no_result() -> Self {
        let detail = "no task has this id, or it brought out no such file: its `result` tells";
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchResult, detail)
    }

    /// It was there once.
    pub(crate) fn pruned(short: &str) -> Self {
        let detail = format!("what came out of task {short} is not kept any more: it was over too long ago");
        Self::new(StatusCode::GONE, Kind::Gone, detail)
    }

    pub(crate) fn no_workspace() -> Self {
        let detail = "this task started from no code, or the code is not kept any more";
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchWorkspace, detail)
    }

    pub(crate) fn no_lock() -> Self {
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchLock, "this task runs with nothing of the library")
    }

    /// Of a task that had one.
    pub(crate) fn forgotten_lock(sha256: &str) -> Self {
        let detail = format!(
            "what this task had of the library is not kept any more, since the task was over long ago; its lock was \
             {sha256}: submit a new task, which gets what the library has now, as `GET /v1/library` shows"
        );
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchLock, detail)
    }

    pub(crate) fn unknown_lock() -> Self {
        let detail =
            "no lock of this SHA-256 is kept here: name a task, or hand the lock over with `POST /v1/locks`";
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchLock, detail)
    }

    pub(crate) fn no_resource() -> Self {
        let detail = "this resource is not kept any more";
        Self::new(StatusCode::NOT_FOUND, Kind::NoSuchResource, detail)
    }

    /// One answer, whether the token is missing, wrong, of another route, or of an attempt that is over.
    pub(crate) fn denied() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Kind::Denied, "the token of this request opens nothing here")
    }

    pub(crate) fn busy() -> Self {
        let detail = "this attempt has as many connections as it may have: try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Busy, detail)
    }

    pub(crate) fn overtaken() -> Self {
        let detail = "a later file of this machine took the place of this one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Busy, detail)
    }

    pub(crate) fn no_token() -> Self {
        let detail = "send `Authorization: Bearer` with a token that is good: `mayfly token add NAME` makes one, and on \
                      this machine there is one in the file `token` of the data folder";
        Self::new(StatusCode::UNAUTHORIZED, Kind::Denied, detail)
    }

    pub(crate) fn page() -> Self {
        let detail = "a web page asks (`Origin`), and pages have no business here";
        Self::new(StatusCode::FORBIDDEN, Kind::Page, detail)
    }

    pub(crate) fn no_model(detail: String) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, Kind::NoModel, detail)
    }

    pub(crate) fn unknown_host() -> Self {
        let detail = "this orchestrator is not called what `Host` says: use its address or `localhost`, or list the name \
                      with `mayfly serve --host-names NAME`";
        Self::new(StatusCode::FORBIDDEN, Kind::UnknownHost, detail)
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Kind::BadRequest, detail)
    }

    /// Our own trouble; the caller can only try again, or look at the log.
    pub(crate) fn internal(what: &'static str, error: &(dyn Error + 'static)) -> Self {
        tracing::error!(cause = %causes(error), "{what}");
        let detail = format!("{what}: the orchestrator's log tells why; try again");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Internal, detail)
    }

    /// What came out of a machine is the machine's: it may be unfit.
    #[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
    pub(crate) fn git(error: GitError) -> Self {
        if error.is_refusal() || matches!(error, GitError::TooMuchText) {
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::UnfitResult, causes(&error));
        }
        Self::internal("the patch could not be made", &error)
    }

    /// Of work that was handed over.
    pub(crate) fn secret_in_work(attempt: AttemptId) -> Self {
        let detail = format!(
            "the work has a configured secret in it, and is not given out: it is kept in the orchestrator's data folder as \
             `results/{}/{}/bundle.withheld`, for whoever makes that secret worthless or takes it out",
            attempt.task, attempt.attempt.0
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::SecretInResult, detail)
    }

    pub(crate) fn unsearched_work(attempt: AttemptId, why: &str) -> Self {
        let detail = format!(
            "the work could not be searched for secrets, and is not given out: {why}; it is kept in the orchestrator's data \
             folder as `results/{}/{}/bundle.withheld`, for whoever looks through it",
            attempt.task, attempt.attempt.0
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::UnsearchedResult, detail)
    }

    pub(crate) fn work_not_searched_yet(attempt: AttemptId, why: &str) -> Self {
        let detail = format!(
            "the work could not be searched for secrets yet, and is not given out: {why}; it is searched once more when its \
             machine is gone, and if it is not given out then, it is kept in the orchestrator's data folder as \
             `results/{}/{}/bundle.withheld`, for whoever looks through it",
            attempt.task, attempt.attempt.0
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::UnsearchedResult, detail)
    }

    pub(crate) fn secret_in_checkpoint() -> Self {
        let detail = "the work has a configured secret in it, and no checkpoint is made of it as it is";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::SecretInResult, detail)
    }

    pub(crate) fn unsearched_checkpoint(why: &str) -> Self {
        let detail =
            format!("the work could not be searched for secrets, and no checkpoint is made of it: {why}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::UnsearchedResult, detail)
    }

    pub(crate) fn checkpoint_waits(why: &str) -> Self {
        let detail = format!("the work was not searched for secrets yet: {why}: send it again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Busy, detail)
    }

    pub(crate) fn secret_in_artifacts(attempt: AttemptId) -> Self {
        let detail = format!(
            "the artifacts have a configured secret in them, and are not given out: they are kept in the orchestrator's data \
             folder as `results/{}/{}/artifacts.withheld`",
            attempt.task, attempt.attempt.0
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::SecretInResult, detail)
    }

    pub(crate) fn unsearched_artifacts(attempt: AttemptId, why: &str) -> Self {
        let detail = format!(
            "the artifacts could not be searched for secrets, and are not given out: {why}; they are kept in the \
             orchestrator's data folder as `results/{}/{}/artifacts.withheld`",
            attempt.task, attempt.attempt.0
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::UnsearchedResult, detail)
    }

    pub(crate) fn bad_artifacts(error: &BadArtifacts) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidResource, causes(error))
    }

    fn disk_full() -> Self {
        let detail =
            "the orchestrator's disk is full: make room in its data folder, or end what fills it by force";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, Kind::DiskFull, detail)
    }

    pub(crate) fn disk(error: &io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::disk_full();
        }
        Self::internal("a file could not be stored or read", error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).expect("it was made from one");
        let mut response = (status, Json(self.0)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::disk_full(),
            StoreError::Broken(_) => {
                tracing::error!(cause = %causes(&error), "the database is damaged");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::DamagedDatabase, error.to_string())
            }
            error => Self::internal("the database did not answer", &error),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error.into(),
            LogError::Gone { first } => {
                let mut problem = Self::new(StatusCode::GONE, Kind::Gone, error.to_string());
                problem.0.first = Some(first);
                problem
            }
        }
    }
}

impl From<KeepError> for Problem {
    fn from(error: KeepError) -> Self {
        let unfit = |kind| Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, causes(&error));
        match error {
            KeepError::Archive(_) => unfit(Kind::InvalidResource),
            KeepError::Lock(_) => unfit(Kind::InvalidLock),
            KeepError::NoRoom(error) => error.into(),
            KeepError::Write(error) => Self::disk(&error),
            KeepError::Store(error) => error.into(),
        }
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        let (status, kind) = match error {
            EditError::NoRoom(error) => return error.into(),
            EditError::Write(error) => return Self::disk(&error),
            EditError::Unknown(_) => (StatusCode::NOT_FOUND, Kind::NoSuchResource),
            EditError::Taken(_) => (StatusCode::CONFLICT, Kind::ResourceTaken),
            EditError::Wrong(_) => (StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidLibrary),
            EditError::Archive(_) => (StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidResource),
            EditError::Refused(_) => (StatusCode::CONFLICT, Kind::InvalidLibrary),
        };
        Self::new(status, kind, causes(&error))
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Store(error) => error.into(),
            SubmitError::Invalid { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidTask, error.to_string())
            }
            SubmitError::Library(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidLibrary, error.to_string())
            }
            SubmitError::Archives(error) => Self::disk(&error),
            SubmitError::DiskFull { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, Kind::DiskFull, error.to_string())
            }
            SubmitError::NoCredential(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::NoCredential, error.to_string())
            }
            SubmitError::NoResume(..) => {
                Self::new(StatusCode::CONFLICT, Kind::NotResumable, error.to_string())
            }
            SubmitError::NotOver(_) => Self::new(StatusCode::CONFLICT, Kind::NotOver, error.to_string()),
            SubmitError::KeyConflict => Self::new(StatusCode::CONFLICT, Kind::KeyConflict, error.to_string()),
        }
    }
}

impl From<AllowError> for Problem {
    fn from(error: AllowError) -> Self {
        match error {
            AllowError::NoTask => Self::no_task(),
            AllowError::Store(error) => error.into(),
            AllowError::Invalid(error) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidHost, error.to_string())
            }
            AllowError::TooMany => Self::new(StatusCode::CONFLICT, Kind::TooManyHosts, error.to_string()),
            AllowError::Over(_) => Self::new(StatusCode::CONFLICT, Kind::Over, error.to_string()),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let (status, kind) = match error {
            TokenError::Store(error) => return error.into(),
            TokenError::Data(_) | TokenError::Random(_) => {
                return Self::internal("the token could not be made", &error);
            }
            TokenError::Name => (StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidName),
            TokenError::Taken => (StatusCode::CONFLICT, Kind::NameTaken),
            TokenError::TooMany => (StatusCode::CONFLICT, Kind::TooManyTokens),
            TokenError::Unknown | TokenError::Given => (StatusCode::NOT_FOUND, Kind::NoSuchToken),
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<PoolError> for Problem {
    fn from(error: PoolError) -> Self {
        let (status, kind) = match error {
            PoolError::Store(error) => return error.into(),
            PoolError::Name => (StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidName),
            PoolError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidCredential),
            PoolError::Taken => (StatusCode::CONFLICT, Kind::NameTaken),
            PoolError::TooMany => (StatusCode::CONFLICT, Kind::TooManyCredentials),
            PoolError::Unknown => (StatusCode::NOT_FOUND, Kind::NoSuchCredential),
            PoolError::OtherKey(_) => (StatusCode::CONFLICT, Kind::OtherKey),
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<IncomingError> for Problem {
    fn from(error: IncomingError) -> Self {
        match error {
            IncomingError::TooLong { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge, error.to_string())
            }
            IncomingError::BrokeOff => Self::bad_request(error.to_string()),
            IncomingError::Disk(error) => Self::disk(&error),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let (most, prompt) = (super::JSON_BYTES_MAX, PROMPT_BYTES_MAX);
                let detail =
                    format!("the request is longer than {most} bytes; a prompt may have {prompt} at most");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::TooLarge, detail)
            }
            status => Self::new(status, Kind::BadRequest, without_values(&rejection.body_text())),
        }
    }
}

impl Problem {
    /// A body that is JSON, and not what it should be.
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        let words = without_values(&error.to_string());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::BadRequest, format!("the body: {words}"))
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let (_, text) = text.split_once("query string: ").unwrap_or(("", &text));
        Self::bad_request(match text.split_once(": ") {
            Some((field, said)) if said.contains("`true` or `false`") => {
                format!("`{field}` in the query must be true or false")
            }
            // The parser's words are about digits.
            Some((field, _)) => {
                format!("`{field}` in the query must be a whole number that is not too great")
            }
            None => format!("the query: {}", without_values(text)),
        })
    }
}

/// The parser repeats the value that it did not expect, which may be a credential in the wrong place.
fn without_values(text: &str) -> String {
    [("\"", "\""), ("unknown variant `", "`, expected")].iter().fold(
        text.to_owned(),
        |text, (before, after)| {
            let value = text.find(before).map(|at| at + before.len()).zip(text.rfind(after));
            match value {
                Some((from, to)) if from <= to => format!("{}…{}", &text[..from], &text[to..]),
                _ => text,
            }
        },
    )
}

#[cfg(test)]
mod tests;
