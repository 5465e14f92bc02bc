//! The routes of both doors, a file per resource.
//!
//! A handler takes a request apart, makes one call and answers. Errors meet HTTP in `problem`.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use mayfly_engine::Engine;
use tokio_util::sync::CancellationToken;

use crate::listen::House;
pub(crate) use bearer::Opens;
pub(crate) use entry::Entry;
use problem::Problem;

mod admission;
mod bearer;
mod download;
mod entry;
mod events;
mod extract;
mod health;
mod problem;
mod results;
mod tasks;
mod uploads;
mod worker_link;
mod workspaces;

/// The longest JSON body: the longest prompt with every byte escaped, and what comes with it.
const JSON_BYTES_MAX: usize = 6 * mayfly_wire::api::PROMPT_BYTES_MAX + 64 * 1024;

/// What the owner's routes need.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) engine: Engine,
    pub(crate) workspaces: Arc<Path>,
    pub(crate) results: Arc<Path>,
    pub(crate) incoming: Arc<Path>,
    pub(crate) stopping: CancellationToken,
}

/// What the routes of one machine need.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) entry: Entry,
    pub(crate) results: Arc<Path>,
    pub(crate) incoming: Arc<Path>,
    /// Ends with the machine's door.
    pub(crate) house: House,
}

/// The owner's API.
pub(crate) fn owner(owner: Owner) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/v1/workspaces", post(workspaces::upload).layer(DefaultBodyLimit::disable()))
        .route("/v1/tasks", post(tasks::create).get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/retry", post(tasks::retry))
        .route("/v1/tasks/{id}/workspace", get(workspaces::download))
        .route("/v1/tasks/{id}/events", get(events::follow))
        .route("/v1/tasks/{id}/result/bundle", get(results::bundle))
        .route("/v1/tasks/{id}/result/transcript", get(results::transcript))
        .fallback(async || Problem::no_route())
        .method_not_allowed_fallback(async || Problem::no_route())
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .with_state(owner)
}

/// The owner's API where anybody of this machine can come.
pub(crate) fn guarded(owner: Router, opens: Opens) -> Router {
    owner.layer(axum::middleware::from_fn_with_state(opens, bearer::check))
}

/// All that a machine can reach; what is in no route here is refused by the gateway.
pub(crate) fn machine(machine: Machine, client: reqwest::Client) -> Router {
    let admission = Arc::new(admission::Tokens(machine.entry.clone()));
    let own = Router::new()
        .route("/v1/worker", get(worker_link::join))
        .route("/v1/worker/result/bundle", put(uploads::bundle))
        .route("/v1/worker/result/transcript", put(uploads::transcript))
        .method_not_allowed_fallback(async || Problem::no_route())
        .with_state(machine);
    mayfly_gateway::router(admission, client).merge(own)
}
