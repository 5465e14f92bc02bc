//! `/healthz`: the process answers. `/readyz`: so does its database.

use axum::extract::State;
use mayfly_core::TaskId;

use super::Owner;
use super::problem::Problem;

/// A task that never was.
const NOBODY: TaskId = TaskId::new(uuid::Uuid::nil());

/// `GET /healthz`
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`
pub(super) async fn ready(State(app): State<Owner>) -> Result<&'static str, Problem> {
    app.engine.task(NOBODY).await?;
    Ok("ok\n")
}
