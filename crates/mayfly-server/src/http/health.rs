//! How the orchestrator is: `/healthz`, the process answers; `/readyz`, it would take a task; `/metrics`, in numbers.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::Owner;
use super::problem::Problem;

/// What Prometheus knows this text by.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /healthz`
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 200, description = "The process answers", body = String),
    ),
)]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "A task would be accepted", body = String),
        (status = 503, description = "Why none would be", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn ready(State(app): State<Owner>) -> Result<&'static str, Problem> {
    let ready = app.engine.ready().await.map_err(Problem::from);
    ready.map(|()| "ok\n").map_err(|problem| problem.with_status(StatusCode::SERVICE_UNAVAILABLE))
}

/// `GET /metrics`
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "Counts, for Prometheus", body = String, content_type = "application/openmetrics-text"),
    ),
)]
pub(super) async fn metrics(State(app): State<Owner>) -> Result<Response, Problem> {
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], app.engine.metrics().await?).into_response())
}
