//! What handlers take out of a request, with our own errors where it is not there.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use mayfly_core::{AttemptId, TaskId};
use mayfly_engine::{Found, check_shape};
use mayfly_wire::api::CreateTask;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::problem::Problem;
use super::{Machine, Owner};

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = Json::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// The task in a body.
pub(super) struct NewTask(pub(super) CreateTask);

impl<S: Send + Sync> FromRequest<S> for NewTask {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(raw) = Json::<Box<RawValue>>::from_request(request, state).await?;
        match serde_json::from_str(raw.get()) {
            Ok(task) => Ok(Self(task)),
            Err(error) => {
                check_shape(raw.get())?;
                Err(Problem::unreadable(&error))
            }
        }
    }
}

/// The query.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// What the document says of a path that names a task.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is described, and read as [`Task`]")]
pub(super) struct TaskPath {
    /// The id of a task, or any end of it with at least 4 hex digits
    id: String,
}

/// The task that the path names, by its id or the end of it.
pub(super) struct Task(pub(super) TaskId);

impl FromRequestParts<Owner> for Task {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Owner) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|_| Problem::no_task())?;
        task_called(state, &name).await.map(Self)
    }
}

/// The task with this id, or with one that ends so.
pub(super) async fn task_called(state: &Owner, name: &str) -> Result<TaskId, Problem> {
    match state.engine.find(name).await? {
        Found::One(id) => Ok(id),
        Found::None => Err(Problem::no_task()),
        Found::Several(ids) => Err(Problem::several_tasks(&ids)),
    }
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whose token it is. Asked again right before a file has its name, in its turn: once the machine is gone and its result
/// is settled, which takes the turn too, nothing of it changes any more.
pub(super) async fn admit(app: &Machine, headers: &HeaderMap) -> Result<AttemptId, Problem> {
    let token = bearer(headers).ok_or_else(Problem::denied)?;
    app.entry.admit_result(token).await.map_err(|_| Problem::denied())
}
