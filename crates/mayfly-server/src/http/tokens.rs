//! The tokens of owners. Whoever is let in may manage them: there is one kind of owner.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use mayfly_wire::api::{CreateToken, NewToken, OwnerToken};

use super::Owner;
use super::extract::Body;
use super::problem::Problem;
use crate::tokens::TokenError;

/// `POST /v1/tokens`
#[utoipa::path(
    post,
    path = "/v1/tokens",
    request_body = CreateToken,
    responses(
        (status = 201, description = "The token, which is shown this once", body = NewToken),
        (status = 409, description = "The name is taken, or there are too many", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "It cannot be called so", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create(
    State(app): State<Owner>,
    Body(CreateToken { name }): Body<CreateToken>,
) -> Result<(StatusCode, Json<NewToken>), Problem> {
    Ok((StatusCode::CREATED, Json(app.tokens.add(name).await?)))
}

/// `GET /v1/tokens`
#[utoipa::path(
    get,
    path = "/v1/tokens",
    responses(
        (status = 200, description = "All that are good, by name", body = [OwnerToken]),
    ),
)]
pub(super) async fn list(State(app): State<Owner>) -> Json<Vec<OwnerToken>> {
    Json(app.tokens.list())
}

/// `DELETE /v1/tokens/{name}`: what came in with it ends within a second.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{name}",
    params(("name" = String, Path, description = "Its name; for `local`, the file in the data folder gets a new one")),
    responses(
        (status = 204, description = "It opens nothing any more"),
        (status = 404, description = "No token has this name", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn revoke(
    State(app): State<Owner>,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name.map_err(|_| TokenError::Unknown)?;
    app.tokens.revoke(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
