//! The pool of credentials: what goes in, what is in it, and whether it is good. No secret ever comes out.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use mayfly_engine::PoolError;
use mayfly_gateway::{Trial, try_credential};
use mayfly_wire::api::{AddCredential, CredentialTest, PooledCredential};

use super::extract::Body;
use super::problem::Problem;
use super::{Owner, admission};

/// `POST /v1/credentials`
#[utoipa::path(
    post,
    path = "/v1/credentials",
    request_body = AddCredential,
    responses(
        (status = 201, description = "It is in the pool", body = PooledCredential),
        (status = 409, description = "The name is taken, or there are too many", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Something about it cannot be", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn add(
    State(app): State<Owner>,
    Body(add): Body<AddCredential>,
) -> Result<(StatusCode, Json<PooledCredential>), Problem> {
    Ok((StatusCode::CREATED, Json(app.engine.add_credential(add).await?)))
}

/// `GET /v1/credentials`
#[utoipa::path(
    get,
    path = "/v1/credentials",
    responses(
        (status = 200, description = "All in the pool, by name, without the secrets", body = [PooledCredential]),
    ),
)]
pub(super) async fn list(State(app): State<Owner>) -> Result<Json<Vec<PooledCredential>>, Problem> {
    Ok(Json(app.engine.credentials().await?))
}

/// `DELETE /v1/credentials/{name}`: tasks that use it are told so at their next request.
#[utoipa::path(
    delete,
    path = "/v1/credentials/{name}",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No credential has this name", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn remove(
    State(app): State<Owner>,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name.map_err(|_| PoolError::Unknown)?;
    app.engine.remove_credential(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/credentials/{name}/test`: asks the model API with one request that costs nothing.
#[utoipa::path(
    post,
    path = "/v1/credentials/{name}/test",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "What the model API said", body = CredentialTest),
        (status = 404, description = "No credential has this name", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was sealed with another key", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 502, description = "The model API could not be asked", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn test(
    State(app): State<Owner>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<CredentialTest>, Problem> {
    let Path(name) = name.map_err(|_| PoolError::Unknown)?;
    let credential = app.engine.pooled_credential(&name).await?;
    let Some(upstream) = admission::upstream(credential) else {
        let detail =
            "this is a secret of the library's servers, and no model API is ever asked about it".to_owned();
        return Ok(Json(CredentialTest { accepted: false, detail }));
    };
    match try_credential(&app.upstream, &upstream).await {
        Trial::Accepted => {
            Ok(Json(CredentialTest { accepted: true, detail: "the model API takes it".to_owned() }))
        }
        Trial::Refused(detail) => Ok(Json(CredentialTest { accepted: false, detail })),
        Trial::Unknown(detail) => Err(Problem::no_model(detail)),
    }
}
