//! Bundles that come in parts: whatever breaks off is gone on with.
//!
//! ```text
//! workspaces/<sha256>.part     the first bytes of it; once they are all, and are what their name says, a bundle
//! ```
//!
//! Two that send the same bundle at once write the same bytes to the same places, so neither waits for the other, nor
//! for one who is gone and does not know. Parts that nobody goes on with are removed as old bundles are.
//!
//! Bound: [`WORKSPACE_BYTES_MAX`].

use std::io::{self, SeekFrom};
use std::path::Path;

use axum::Json;
use axum::body::Body;
use axum::extract::{self, State};
use futures_util::StreamExt as _;
use http::StatusCode;
use mayfly_engine::bundle_of;
use mayfly_wire::api::{Arrived, Workspace};
use mayfly_wire::worker::WORKSPACE_BYTES_MAX;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::Owner;
use super::extract::Asked;
use super::problem::Problem;
use super::workspaces::{brought, invalid};
use crate::incoming::{Incoming, IncomingError};

/// The query of a part.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The folder's name under `/workspace`; it is checked when a task asks for it.
    name: String,
    /// How many bytes come before; as many must be here.
    from: u64,
    /// The SHA-256 of the whole bundle that it is on top of. Default: none.
    on: Option<String>,
}

/// `GET /v1/workspaces/{sha256}`: how much of a bundle is here.
#[utoipa::path(
    get,
    path = "/v1/workspaces/{sha256}",
    params(("sha256" = String, Path, description = "The SHA-256 of the bundle, in hex")),
    responses(
        (status = 200, description = "How much of it is here", body = Arrived),
        (status = 422, description = "Not a SHA-256 in hex", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn arrived(
    State(app): State<Owner>,
    extract::Path(sha256): extract::Path<String>,
) -> Result<Json<Arrived>, Problem> {
    check(&sha256)?;
    let place = match app.engine.has_bundle(&sha256) {
        true => bundle_of(&app.workspaces, &sha256),
        false => app.workspaces.join(format!("{sha256}.part")),
    };
    match tokio::fs::metadata(place).await {
        Ok(found) => Ok(Json(Arrived { bytes: found.len() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Json(Arrived { bytes: 0 })),
        Err(error) => Err(Problem::disk(&error)),
    }
}

/// `PUT /v1/workspaces/{sha256}?name=REPO&from=BYTES`: stores the rest of a bundle, and answers with what a task is to
/// name.
#[utoipa::path(
    put,
    path = "/v1/workspaces/{sha256}",
    params(("sha256" = String, Path, description = "The SHA-256 of the bundle, in hex"), Part),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The rest of a git bundle with one ref, after what is here"),
    responses(
        (status = 201, description = "What a task is to name", body = Workspace),
        (status = 409, description = "There is less of it here than `from` says", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not such a bundle", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn go_on(
    State(app): State<Owner>,
    extract::Path(sha256): extract::Path<String>,
    Asked(Part { name, from, on }): Asked<Part>,
    body: Body,
) -> Result<(StatusCode, Json<Workspace>), Problem> {
    check(&sha256)?;
    let (kept, part) = (bundle_of(&app.workspaces, &sha256), app.workspaces.join(format!("{sha256}.part")));
    if app.engine.has_bundle(&sha256) {
        return Ok((StatusCode::CREATED, Json(brought(&app, &kept, &sha256, name, on.as_deref()).await?)));
    }
    write_after(&part, from, body).await?;
    let incoming = Incoming::taken(&part).await.map_err(|error| Problem::disk(&error))?;
    if incoming.sha256 != sha256 {
        return Err(invalid("is not what its SHA-256 says: send it again from its beginning"));
    }
    let workspace = brought(&app, incoming.path(), &sha256, name, on.as_deref()).await?;
    incoming.keep(&kept).await.map_err(|error| Problem::disk(&error))?;
    Ok((StatusCode::CREATED, Json(workspace)))
}

/// Writes what comes after the first bytes; what comes stays, also if it breaks off.
async fn write_after(part: &Path, from: u64, body: Body) -> Result<(), Problem> {
    let disk = |error: io::Error| Problem::disk(&error);
    let options = File::options().create(true).truncate(false).write(true).open(part).await;
    let mut file = options.map_err(disk)?;
    if file.metadata().await.map_err(disk)?.len() < from {
        return Err(Problem::less_arrived());
    }
    file.seek(SeekFrom::Start(from)).await.map_err(disk)?;
    let (mut at, mut body) = (from, body.into_data_stream());
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            file.flush().await.map_err(disk)?;
            return Err(IncomingError::BrokeOff.into());
        };
        at += chunk.len() as u64;
        if at > WORKSPACE_BYTES_MAX {
            return Err(IncomingError::TooLong { bytes_max: WORKSPACE_BYTES_MAX }.into());
        }
        file.write_all(&chunk).await.map_err(disk)?;
    }
    file.flush().await.map_err(disk)?;
    file.set_len(at).await.map_err(disk)?;
    file.sync_all().await.map_err(disk)
}

fn check(sha256: &str) -> Result<(), Problem> {
    let plain = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain { Ok(()) } else { Err(invalid("has 64 lower-case hex digits for a name")) }
}
