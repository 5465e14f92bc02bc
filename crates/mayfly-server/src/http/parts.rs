//! Bundles that come in parts: whatever breaks off is gone on with.
//!
//! ```text
//! workspaces/<sha256>.part     the first bytes of it; once they are all, and are what their name says, a bundle
//! ```
//!
//! Two that send the same bundle at once write the same bytes to the same places. They take turns piece by piece, so
//! neither waits for one who is gone and does not know; and one of them finishes it, after which the other, who has it open,
//! writes no more. What was finished goes on to its name though its sender be gone, and only what is not what its name says
//! is removed: parts that nobody goes on with go as old bundles do.
//!
//! Bound: [`WORKSPACE_BYTES_MAX`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::Json;
use axum::body::Body;
use axum::extract::{self, State};
use futures_util::StreamExt as _;
use http::StatusCode;
use mayfly_core::sha256_of;
use mayfly_engine::bundle_of;
use mayfly_failpoint::failpoint;
use mayfly_library::pack::is_sha256;
use mayfly_wire::api::{Arrived, Workspace};
use mayfly_wire::worker::WORKSPACE_BYTES_MAX;
use serde::Deserialize;
use tokio::sync::OwnedMutexGuard;

use super::Owner;
use super::extract::Asked;
use super::problem::Problem;
use super::workspaces::{brought, invalid, read};
use crate::incoming::{IncomingError, keep_arrived};

/// How often the file of a part was given its name, or removed, while somebody had it open.
type Turn = tokio::sync::Mutex<u64>;

/// Who writes and finishes which part: one at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts(Arc<Mutex<HashMap<String, Weak<Turn>>>>);

impl Parts {
    fn turn(&self, sha256: &str) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let there = turns.get(sha256).and_then(Weak::upgrade);
        let turn = there.unwrap_or_default();
        turns.insert(sha256.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

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
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The rest of a git bundle of one commit, after what is here"),
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
    let turn = app.parts.turn(&sha256);
    let about = About { sha256, name, on };
    let Some(opened) = Opened::after(&app, &about.sha256, turn, from).await? else {
        return about.kept(&app).await;
    };
    let Some((opened, length)) = opened.write(from, body).await? else {
        return about.finished_by_another(&app).await;
    };
    // Whoever sent all of it may be gone before it is looked through.
    tokio::spawn(opened.finish(app, about, length)).await.expect("it does not panic")
}

type Answer = Result<(StatusCode, Json<Workspace>), Problem>;

/// What is said of a bundle.
struct About {
    sha256: String,
    name: String,
    on: Option<String>,
}

impl About {
    async fn kept(self, app: &Owner) -> Answer {
        let kept = bundle_of(&app.workspaces, &self.sha256);
        let workspace = brought(app, &kept, &self.sha256, self.name, self.on.as_deref()).await?;
        Ok((StatusCode::CREATED, Json(workspace)))
    }

    /// What was open is the bundle, or was not what its name says and is gone.
    async fn finished_by_another(self, app: &Owner) -> Answer {
        match app.engine.has_bundle(&self.sha256) {
            true => self.kept(app).await,
            false => Err(Problem::less_arrived()),
        }
    }
}

/// A part that is open.
struct Opened {
    turn: Arc<Turn>,
    /// The turn's number when it was opened: with another one, the file is no part any more.
    number: u64,
    file: Arc<File>,
    part: PathBuf,
}

impl Opened {
    /// `None`: the bundle is here whole.
    async fn after(app: &Owner, sha256: &str, turn: Arc<Turn>, from: u64) -> Result<Option<Self>, Problem> {
        let number = Arc::clone(&turn).lock_owned().await;
        if app.engine.has_bundle(sha256) {
            return Ok(None);
        }
        let part = app.workspaces.join(format!("{sha256}.part"));
        let path = part.clone();
        let opened = blocking(move || {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
            failpoint("part-opened");
            Ok((file.metadata()?.len(), *number, file))
        });
        let (length, number, file) = opened.await?;
        if length < from {
            return Err(Problem::less_arrived());
        }
        Ok(Some(Self { turn, number, file: Arc::new(file), part }))
    }

    /// Writes what comes after the first bytes; what comes stays, also if it breaks off. Its length by then. `None`:
    /// another has finished it.
    async fn write(self, from: u64, body: Body) -> Result<Option<(Self, u64)>, Problem> {
        let (mut at, mut body) = (from, body.into_data_stream());
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| IncomingError::BrokeOff)?;
            let length = at + chunk.len() as u64;
            if length > WORKSPACE_BYTES_MAX {
                return Err(IncomingError::TooLong { bytes_max: WORKSPACE_BYTES_MAX }.into());
            }
            let Some(turn) = self.own_turn().await else { return Ok(None) };
            let file = Arc::clone(&self.file);
            blocking(move || {
                // To its end, also if nobody waits for it.
                let _turn = turn;
                file.write_all_at(&chunk, at)?;
                failpoint("part-written");
                Ok(())
            })
            .await?;
            at = length;
        }
        Ok(Some((self, at)))
    }

    /// Gives it its name if it is a bundle and what that says, and removes it if it is not.
    async fn finish(self, app: Owner, about: About, length: u64) -> Answer {
        let Some(mut turn) = self.own_turn().await else { return about.finished_by_another(&app).await };
        let (file, part) = (self.file, self.part);
        let reading = blocking({
            let part = part.clone();
            move || {
                file.set_len(length)?;
                file.sync_all()?;
                failpoint("part-whole");
                sha256_of(File::open(part)?)
            }
        });
        let unfit = match reading.await? == about.sha256 {
            true => read(&part).await?.err(),
            false => Some("is not what its SHA-256 says: send it again from its beginning"),
        };
        if let Some(reason) = unfit {
            *turn += 1;
            blocking(move || std::fs::remove_file(part)).await?;
            return Err(invalid(reason));
        }
        let About { sha256, name, on } = about;
        let workspace = brought(&app, &part, &sha256, name, on.as_deref()).await?;
        *turn += 1;
        let kept = keep_arrived(&part, &bundle_of(&app.workspaces, &sha256)).await;
        kept.map_err(|error| Problem::disk(&error))?;
        Ok((StatusCode::CREATED, Json(workspace)))
    }

    async fn own_turn(&self) -> Option<OwnedMutexGuard<u64>> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        (*turn == self.number).then_some(turn)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await.expect("it does not panic");
    done.map_err(|error| Problem::disk(&error))
}

fn check(sha256: &str) -> Result<(), Problem> {
    if is_sha256(sha256) {
        Ok(())
    } else {
        Err(invalid("is to be named by its SHA-256, in 64 lower-case hex digits"))
    }
}
