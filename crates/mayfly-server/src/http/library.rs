//! The orchestrator's own library: looked at, checked and changed, as `mayfly library` does it on the folder itself.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use mayfly_engine::{Found, SubmitError, content_of, differences_of, problem_of};
use mayfly_library::{Lock, ResourceId, pack};
use mayfly_wire::api::{Begun, Library, LibraryContent, LibraryDifferences, LibraryProblem, Wanted};
use serde::Deserialize;

use super::Owner;
use super::extract::Asked;
use super::problem::{Kind, Problem};
use super::resources::{lock_of, too_large};

/// What the document says of a path that names a resource.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is described, and read as [`Named`]")]
pub(super) struct ResourcePath {
    /// `skill`, `agent`, `mcp`, `hooks`, `rules` or `settings`
    kind: String,
    /// `_global`, or a project's
    namespace: String,
    /// Its name
    name: String,
}

/// The resource that the path names.
pub(super) struct Named(ResourceId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<[String; 3]>::from_request_parts(parts, state).await;
        let Path(parts) = path.map_err(|_| Problem::no_route())?;
        let id = parts.join("/").parse();
        id.map(Self).map_err(|error| Problem::bad_request(format!("this names no resource: {error}")))
    }
}

/// What the query wants of the library.
pub(super) struct Wants(Wanted);

impl<S: Send + Sync> FromRequestParts<S> for Wants {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Asked(query) = Asked::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let mut wanted = Wanted::default();
        for (name, value) in query {
            match (name.as_str(), &mut wanted) {
                ("project", Wanted { project: project @ None, .. }) => *project = Some(value),
                ("agent", Wanted { agent: agent @ None, .. }) => *agent = Some(value),
                ("resources", Wanted { resources, .. }) => resources.push(value),
                ("without", Wanted { without, .. }) => without.push(value),
                ("project" | "agent", _) => {
                    return Err(Problem::bad_request(format!("`{name}` is there more than once")));
                }
                _ => {
                    let words = "is none of `project`, `agent`, `resources` and `without`";
                    return Err(Problem::bad_request(format!("`{name}` {words}")));
                }
            }
        }
        Ok(Self(wanted))
    }
}

/// Why there is no answer to a query: what cannot be wanted is the query's fault.
fn unanswered(error: SubmitError) -> Problem {
    match error {
        SubmitError::Invalid { .. } => Problem::bad_request(error.to_string()),
        error => error.into(),
    }
}

/// `GET /v1/library`: what a task would get now.
#[utoipa::path(
    get,
    path = "/v1/library",
    params(Wanted),
    responses(
        (status = 200, description = "What a task that wants this would get, as the library is now", body = Library),
        (status = 400, description = "There is something else in the query, or something in it is no name", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something is wrong in the library that the task would get, or is not there: a line each, with file, line and column", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(State(app): State<Owner>, Wants(wanted): Wants) -> Result<Json<Library>, Problem> {
    app.engine.library(&wanted).await.map(Json).map_err(unanswered)
}

/// `GET /v1/library/lock`: the lock that a task would run with.
#[utoipa::path(
    get,
    path = "/v1/library/lock",
    params(Wanted),
    responses(
        (status = 200, description = "The lock; the SHA-256 of these bytes is its name, by which a task may name it once another had it, or it was handed over: its resources with `PUT /v1/resources/{sha256}`, then itself with `POST /v1/locks`", body = String, content_type = "application/json"),
        (status = 400, description = "There is something else in the query, or something in it is no name", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something is wrong in the library that the task would get, or is not there, or was not fetched: a line each, with file, line and column", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn wanted_lock(State(app): State<Owner>, Wants(wanted): Wants) -> Result<Response, Problem> {
    let lock = app.engine.library_lock(&wanted).await.map_err(unanswered)?;
    Ok(([(CONTENT_TYPE, "application/json")], lock.to_json()).into_response())
}

/// `GET /v1/library/resources/{kind}/{namespace}/{name}`: what a resource has in it.
#[utoipa::path(
    get,
    path = "/v1/library/resources/{kind}/{namespace}/{name}",
    params(ResourcePath),
    responses(
        (status = 200, description = "As it is now", body = LibraryContent),
        (status = 400, description = "This names no resource", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 404, description = "It is not in the library", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something is wrong with it: a line each, with file, line and column", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    State(app): State<Owner>,
    Named(id): Named,
) -> Result<Json<LibraryContent>, Problem> {
    Ok(Json(content_of(&app.engine.library_resource(id).await?)))
}

/// `GET /v1/library/resources/{kind}/{namespace}/{name}/archive`: all of a resource.
#[utoipa::path(
    get,
    path = "/v1/library/resources/{kind}/{namespace}/{name}/archive",
    params(ResourcePath),
    responses(
        (status = 200, description = "Its archive, whose SHA-256 is its content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, description = "This names no resource", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 404, description = "It is not in the library", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something is wrong with it: a line each, with file, line and column", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn archive(State(app): State<Owner>, Named(id): Named) -> Result<Response, Problem> {
    let archive = app.engine.library_resource(id).await?.archive();
    Ok(([(CONTENT_TYPE, "application/octet-stream")], archive).into_response())
}

/// The query of what is added.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct How {
    /// Whether it may take the place of one of its name. Default: false.
    replace: bool,
}

/// `PUT /v1/library/resources/{kind}/{namespace}/{name}`: puts a resource into the library.
#[utoipa::path(
    put,
    path = "/v1/library/resources/{kind}/{namespace}/{name}",
    params(ResourcePath, How),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Its archive: a tar of plain files by path, without owners, times and folders"),
    responses(
        (status = 200, description = "It is in the library", body = LibraryContent),
        (status = 400, description = "This names no resource", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "One of this name is there", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "No archive of a resource, or something is wrong with that: the library stays as it is", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn add(
    State(app): State<Owner>,
    Named(id): Named,
    Asked(How { replace }): Asked<How>,
    archive: Result<Bytes, BytesRejection>,
) -> Result<Json<LibraryContent>, Problem> {
    let archive = archive.map_err(|error| too_large(&error))?;
    Ok(Json(content_of(&app.engine.add_to_library(id, archive.into(), replace).await?)))
}

/// `DELETE /v1/library/resources/{kind}/{namespace}/{name}`: takes a resource out of the library.
#[utoipa::path(
    delete,
    path = "/v1/library/resources/{kind}/{namespace}/{name}",
    params(ResourcePath),
    responses(
        (status = 204, description = "It is not there any more; tasks that have it keep it"),
        (status = 400, description = "This names no resource", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 404, description = "It is not in the library", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn remove(State(app): State<Owner>, Named(id): Named) -> Result<StatusCode, Problem> {
    app.engine.remove_from_library(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/library/check`: all that is wrong in the library, by mayfly; the CLI's own validator is not asked here.
#[utoipa::path(
    get,
    path = "/v1/library/check",
    responses((status = 200, description = "All that is wrong, by file; the CLI's own validator was not asked", body = [LibraryProblem])),
)]
pub(super) async fn check(State(app): State<Owner>) -> Result<Json<Vec<LibraryProblem>>, Problem> {
    Ok(Json(app.engine.check_library().await?.into_iter().map(problem_of).collect()))
}

/// `POST /v1/library/init`: puts a small library there to start from.
#[utoipa::path(
    post,
    path = "/v1/library/init",
    responses(
        (status = 200, description = "Its resources; what was there stayed as it was", body = [Begun]),
        (status = 507, description = "The disk is full", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn init(State(app): State<Owner>) -> Result<Json<Vec<Begun>>, Problem> {
    let begun = app.engine.begin_library().await?.into_iter();
    Ok(Json(begun.map(|(id, added)| Begun { id: id.to_string(), added }).collect()))
}

/// The query of a comparison.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Both {
    /// A task, by its id or an end of it, or a lock, by its SHA-256.
    before: String,
    /// Another one.
    after: String,
}

/// `GET /v1/library/diff?before=&after=`: what two locks differ in.
#[utoipa::path(
    get,
    path = "/v1/library/diff",
    params(Both),
    responses(
        (status = 200, description = "The project, the agent and the resources that differ", body = LibraryDifferences),
        (status = 400, description = "There is something else in the query", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such task or lock, or the task has no resources, or what it had is not kept any more", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn diff(
    State(app): State<Owner>,
    Asked(Both { before, after }): Asked<Both>,
) -> Result<Json<LibraryDifferences>, Problem> {
    let (before, after) = (lock(&app, &before).await?, lock(&app, &after).await?);
    Ok(Json(differences_of(&before, &after)))
}

/// The lock of this name, or of this task.
async fn lock(app: &Owner, name: &str) -> Result<Lock, Problem> {
    let json = match pack::is_sha256(name) {
        true => app.engine.lock(name.to_owned()).await?.ok_or_else(Problem::unknown_lock)?,
        false => match app.engine.find(name).await? {
            Found::One(id) => lock_of(app, id).await?,
            Found::None => return Err(Problem::no_task()),
            Found::Several(ids) => return Err(Problem::several_tasks(&ids)),
        },
    };
    serde_json::from_str(&json).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidLock, format!("this is no lock: {error}"))
    })
}
