//! Where the machines of a task may go besides the model, and where they asked to go.

use axum::Json;
use axum::extract::State;
use mayfly_wire::api::{Allowed, Egress};

use super::Owner;
use super::extract::{Body, Task, TaskPath};
use super::problem::Problem;

/// `GET /v1/tasks/{id}/allow`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/allow",
    params(TaskPath),
    responses(
        (status = 200, description = "Where its machines may go besides the model", body = Allowed),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(State(app): State<Owner>, Task(id): Task) -> Result<Json<Allowed>, Problem> {
    app.engine.allowed(id).await?.map(Json).ok_or_else(Problem::no_task)
}

/// `POST /v1/tasks/{id}/allow`: holds for what is asked for once this has answered.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/allow",
    params(TaskPath),
    request_body = Allowed,
    responses(
        (status = 200, description = "All that is allowed now", body = Allowed),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The task is over, there would be too many hosts, or the ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "One of them is no host", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn add(
    State(app): State<Owner>,
    Task(id): Task,
    Body(more): Body<Allowed>,
) -> Result<Json<Allowed>, Problem> {
    Ok(Json(app.engine.allow(id, &more).await?))
}

/// `GET /v1/tasks/{id}/egress`
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/egress",
    params(TaskPath),
    responses(
        (status = 200, description = "Where its machines asked to go, and what was decided", body = Egress),
        (status = 404, description = "No task has this id, or an end of one", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The ids of more than one task end so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn record(State(app): State<Owner>, Task(id): Task) -> Result<Json<Egress>, Problem> {
    app.engine.egress(id).await?.map(Json).ok_or_else(Problem::no_task)
}
