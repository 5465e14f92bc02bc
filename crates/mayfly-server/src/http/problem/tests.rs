//! What callers are told, and what they are not.

use std::path::PathBuf;

use axum::extract::{FromRequest, Query};
use http::HeaderMap;
use mayfly_test_needs::one_of_each;

use super::super::extract::NewTask;
use super::super::{events, tasks, workspaces};
use super::*;
use crate::data::DataError;
use crate::told::{store_errors, variant};

async fn refused(body: &str) -> api::Problem {
    refused_as("application/json", body).await.0
}

async fn refused_as(content_type: &str, body: &str) -> Problem {
    let request = http::Request::post("/").header(CONTENT_TYPE, content_type);
    let request = request.body(axum::body::Body::from(body.to_owned())).expect("a request");
    NewTask::from_request(request, &()).await.map(drop).expect_err("bad")
}

#[tokio::test]
async fn an_unknown_field_is_named() {
    let problem = refused(r#"{"prompt":"p","colour":"red"}"#).await;
    assert_eq!((problem.status, problem.kind.as_str()), (422, "bad-request"));
    assert!(problem.detail.contains("`colour`"), "{}", problem.detail);
}

/// S30: a credential in the wrong place is not repeated.
#[tokio::test]
async fn a_value_is_not_repeated() {
    for body in [
        r#"{"prompt":"p","credential":"canary"}"#,
        r#"{"prompt":"p","credential":{"kind":"canary \" x","secret":"s"}}"#,
        r#"{"prompt":"p","timeout_ms":"canary"}"#,
        r#"{"prompt":"p","credential":{"kind":"api-key","secret":"canary"},"max_turns":-1}"#,
    ] {
        let problem = refused(body).await;
        assert!(!problem.detail.contains("canary"), "{}", problem.detail);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_trouble() {
    let full = Problem::disk(&io::ErrorKind::StorageFull.into()).0;
    assert_eq!((full.status, full.kind.as_str()), (507, "disk-full"));
    let other = Problem::disk(&io::ErrorKind::PermissionDenied.into()).0;
    assert_eq!((other.status, other.kind.as_str()), (500, "internal"));
    assert!(!other.detail.contains("permission"), "the cause is for the log");
}

#[tokio::test]
async fn a_problem_is_problem_json() {
    let response = Problem::no_task().into_response();
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn git_errors() -> Vec<GitError> {
    let (path, text) = (|| PathBuf::from("/repo"), || "x".to_owned());
    one_of_each![GitError:
        GitError::Missing(_) => GitError::Missing(io::ErrorKind::NotFound.into()),
        GitError::NoRepository(_) => GitError::NoRepository(path()),
        GitError::Bare(_) => GitError::Bare(path()),
        GitError::NoCommit(_) => GitError::NoCommit(path()),
        GitError::NoRevision { .. } => GitError::NoRevision { place: text(), revision: text() },
        GitError::Partial(_) => GitError::Partial(path()),
        GitError::TooManyFiles(_) => GitError::TooManyFiles("0".repeat(40)),
        GitError::TooMuchText => GitError::TooMuchText,
        GitError::WrongHead { .. } => GitError::WrongHead { found: text(), announced: text() },
        GitError::BadName(_) => GitError::BadName(text()),
        GitError::Unrelated(_) => GitError::Unrelated(path()),
        GitError::TooManyCuts(_) => GitError::TooManyCuts(401),
        GitError::CutOff { .. } => GitError::CutOff { repo: path(), commit: "0".repeat(40) },
        GitError::BadBranch(_) => GitError::BadBranch(text()),
        GitError::Exists(_) => GitError::Exists(text()),
        GitError::Taken { .. } => GitError::Taken { there: text(), wanted: text() },
        GitError::NoFit { .. } => GitError::NoFit { top: path(), said: text() },
        GitError::BadObject(_) => GitError::BadObject(text()),
        GitError::Unreadable { .. } => GitError::Unreadable { path: path(), advice: "x" },
        GitError::TooLong { .. } => GitError::TooLong { what: text(), minutes: 10 },
        GitError::TooMuchMemory(_) => GitError::TooMuchMemory(text()),
        GitError::Failed { .. } => GitError::Failed { what: text(), said: text() },
        GitError::File { .. } => GitError::File { path: path(), source: full() },
    ]
}

fn submit_errors() -> Vec<SubmitError> {
    one_of_each![SubmitError:
        SubmitError::Invalid { .. } => {
            SubmitError::Invalid { field: "prompt", reason: "is empty".to_owned() }
        },
        SubmitError::Library(_) => SubmitError::Library(bad_library()),
        SubmitError::Archives(_) => SubmitError::Archives(io::ErrorKind::StorageFull.into()),
        SubmitError::DiskFull { .. } => SubmitError::DiskFull { folder: "/data".into(), free: 1000 },
        SubmitError::NoCredential(_) => {
            SubmitError::NoCredential(StoreError::NoCredential(Some("work".to_owned())).to_string())
        },
        SubmitError::NoResume(..) => {
            SubmitError::NoResume("1a2b3c4d".to_owned(), "no session file of `claude` came out of its machine".to_owned())
        },
        SubmitError::NotOver(_) => SubmitError::NotOver("1a2b3c4d".to_owned()),
        SubmitError::KeyConflict => SubmitError::KeyConflict,
        SubmitError::Store(_) => SubmitError::Store(StoreError::Closed),
    ]
}

fn bad_library() -> mayfly_library::Problems {
    mayfly_library::Problem::at("mcp/_global/db/mcp.json", 2, 3, "key must be a string").into()
}

fn keep_errors() -> Vec<KeepError> {
    one_of_each![KeepError:
        KeepError::Archive(_) => KeepError::Archive(mayfly_library::pack::BadArchive::Foreign(
            "it does not end where its files do".to_owned()
        )),
        KeepError::Lock(_) => KeepError::Lock("has more than 500 resources".to_owned()),
        KeepError::NoRoom(_) => KeepError::NoRoom(SubmitError::DiskFull { folder: "/data".into(), free: 1000 }),
        KeepError::Write(_) => KeepError::Write(full()),
        KeepError::Store(_) => KeepError::Store(StoreError::Closed),
    ]
}

fn edit_errors() -> Vec<EditError> {
    let id = || "rules/_global/style".parse().expect("an id");
    one_of_each![EditError:
        EditError::Unknown(_) => EditError::Unknown(id()),
        EditError::Taken(_) => EditError::Taken(id()),
        EditError::Wrong(_) => EditError::Wrong(bad_library()),
        EditError::Archive(_) => EditError::Archive(mayfly_library::pack::BadArchive::Foreign("it does not end where its files do".to_owned())),
        EditError::Refused(_) => EditError::Refused("`skill/x` is a link".to_owned()),
        EditError::Write(_) => EditError::Write(full()),
        EditError::NoRoom(_) => EditError::NoRoom(SubmitError::KeyConflict),
    ]
}

fn log_errors() -> Vec<LogError> {
    one_of_each![LogError:
        LogError::Gone { .. } => LogError::Gone { first: 42 },
        LogError::Store(_) => LogError::Store(StoreError::Closed),
    ]
}

fn token_errors() -> Vec<TokenError> {
    one_of_each![TokenError:
        TokenError::Name => TokenError::Name,
        TokenError::Taken => TokenError::Taken,
        TokenError::TooMany => TokenError::TooMany,
        TokenError::Unknown => TokenError::Unknown,
        TokenError::Given => TokenError::Given,
        TokenError::Store(_) => TokenError::Store(StoreError::Closed),
        TokenError::Data(_) => TokenError::Data(DataError::NoFolder { path: "/data".into() }),
        TokenError::Random(_) => TokenError::Random(io::ErrorKind::NotFound.into()),
    ]
}

fn allow_errors() -> Vec<AllowError> {
    let bad = mayfly_engine::read_rules(&["10.0.0.1".to_owned()]).expect_err("an address");
    one_of_each![AllowError:
        AllowError::Invalid(_) => AllowError::Invalid(bad),
        AllowError::NoTask => AllowError::NoTask,
        AllowError::Over(_) => AllowError::Over("1a2b3c4d".to_owned()),
        AllowError::TooMany => AllowError::TooMany,
        AllowError::Store(_) => AllowError::Store(StoreError::Closed),
    ]
}

fn pool_errors() -> Vec<PoolError> {
    one_of_each![PoolError:
        PoolError::Name => PoolError::Name,
        PoolError::Invalid(_) => {
            PoolError::Invalid(SubmitError::Invalid { field: "credential.secret", reason: "is empty".to_owned() })
        },
        PoolError::Taken => PoolError::Taken,
        PoolError::TooMany => PoolError::TooMany,
        PoolError::Unknown => PoolError::Unknown,
        PoolError::OtherKey(_) => PoolError::OtherKey("work".to_owned()),
        PoolError::Store(_) => PoolError::Store(StoreError::Closed),
    ]
}

fn incoming_errors() -> Vec<IncomingError> {
    one_of_each![IncomingError:
        IncomingError::TooLong { .. } => IncomingError::TooLong { bytes_max: 1000 },
        IncomingError::BrokeOff => IncomingError::BrokeOff,
        IncomingError::Disk(_) => IncomingError::Disk(full()),
    ]
}

/// A query that is not one.
fn refused_query() -> Problem {
    let uri = "/?after=canary".parse().expect("a URI");
    Query::<events::From>::try_from_uri(&uri).map(drop).expect_err("no number").into()
}

/// The requests that are no good by themselves.
async fn bad_requests() -> Vec<Problem> {
    let mut no_key = HeaderMap::new();
    no_key.insert("idempotency-key", HeaderValue::from_static(""));
    vec![
        refused_as("application/json", r#"{"prompt":"p","colour":"red"}"#).await,
        refused_as("application/json", "{").await,
        refused_as("application/json", r#"{"prompt":"p","workspace":"canary"}"#).await,
        refused_as("application/json", r#"{"prompt":"p","retries":-1}"#).await,
        refused_as("text/plain", "{}").await,
        // Longer than any body may be that has no bound of its own.
        refused_as("application/json", &" ".repeat(3 << 20)).await,
        refused_query(),
        tasks::cursor_id("x").map(drop).expect_err("no id"),
        tasks::state_name("flying").map(drop).expect_err("no state"),
        tasks::idempotency_key(&no_key).map(drop).expect_err("no key"),
        workspaces::invalid(crate::bundle::read(b"").expect_err("no bundle")),
    ]
}

fn fixed() -> Vec<Problem> {
    let ids = ["00000000-0000-7000-8000-00000000abcd", "00000000-0000-7000-8000-00000001abcd"];
    vec![
        Problem::no_route(),
        Problem::no_method(),
        Problem::no_task(),
        Problem::several_tasks(&ids.map(|id| id.parse().expect("an id"))),
        Problem::not_over("1a2b3c4d"),
        Problem::no_result(),
        Problem::secret_in_work(ids[0].parse::<TaskId>().expect("an id").attempt(mayfly_core::Attempt(1))),
        Problem::unsearched_work(
            ids[0].parse::<TaskId>().expect("an id").attempt(mayfly_core::Attempt(1)),
            "it holds too much",
        ),
        Problem::work_not_searched_yet(
            ids[0].parse::<TaskId>().expect("an id").attempt(mayfly_core::Attempt(1)),
            "others kept it waiting",
        ),
        Problem::no_workspace(),
        Problem::no_lock(),
        Problem::forgotten_lock(&"0".repeat(64)),
        Problem::unknown_lock(),
        Problem::no_resource(),
        Problem::denied(),
        Problem::busy(),
        Problem::less_arrived(),
        Problem::overtaken(),
        Problem::no_token(),
        Problem::page(),
        Problem::unknown_host(),
        Problem::no_model("the model API at api.example answers 500: try again later".to_owned()),
        Problem::disk(&io::ErrorKind::PermissionDenied.into()),
    ]
}

/// Each error by the name of its variant, and what becomes of it.
fn told<E: Error>(errors: Vec<E>, tell: impl Fn(E) -> Problem) -> Vec<(String, Problem)> {
    errors.into_iter().map(|error| (variant(&error), tell(error))).collect()
}

/// In the order of each list; a new variant of an error, or a new kind, has to find its place here.
#[tokio::test]
async fn each_problem_is_told_in_these_words() {
    let nameless =
        |problems: Vec<Problem>| problems.into_iter().map(|problem| ("-".to_owned(), problem)).collect();
    let (mut kinds, mut lines) = (Vec::new(), Vec::new());
    for (heading, problems) in [
        ("by itself", nameless(fixed())),
        ("what was asked", nameless(bad_requests().await)),
        ("SubmitError", told(submit_errors(), Problem::from)),
        ("KeepError", told(keep_errors(), Problem::from)),
        ("EditError", told(edit_errors(), Problem::from)),
        ("LogError", told(log_errors(), Problem::from)),
        ("TokenError", told(token_errors(), Problem::from)),
        ("AllowError", told(allow_errors(), Problem::from)),
        ("PoolError", told(pool_errors(), Problem::from)),
        ("IncomingError", told(incoming_errors(), Problem::from)),
        ("StoreError", told(store_errors(), Problem::from)),
        ("GitError", told(git_errors(), Problem::git)),
    ] {
        lines.push(format!("# {heading}"));
        for (name, Problem(api::Problem { kind, status, detail, first })) in problems {
            let first = first.map(|first| format!(" (first: {first})")).unwrap_or_default();
            lines.push(format!("{name} => {status} {kind}: {detail}{first}"));
            kinds.push(kind);
        }
    }
    for kind in Kind::ALL {
        assert!(kinds.iter().any(|told| told == kind.word()), "{kind:?} is nowhere in the table");
    }
    insta::assert_snapshot!(lines.join("\n"));
}
