//! The routes of both doors, a file per resource.
//!
//! A handler takes a request apart, makes one call and answers. Errors meet HTTP in `problem`.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{get, put};
use axum::{Json, Router};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use mayfly_engine::Engine;
use mayfly_gateway::egress::Network;
use mayfly_git::Git;
use mayfly_wire::worker::{CHECKPOINT_PATH, EGRESS_PATH, RESUMED_PATH, WORKSPACE_PATH};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::checkpoints::Checkpoints;
use crate::listen::House;
use crate::tokens::{Keys, OwnerTokens};
pub(crate) use entry::Entry;
pub(crate) use hosts::Hosts;
pub(crate) use parts::Parts;
use problem::Problem;
pub(crate) use uploads::{Turns, UNSEARCHED, search_bundle};

mod admission;
mod allow;
mod bearer;
mod checkpoints;
mod credentials;
mod download;
mod egress;
mod entry;
mod events;
mod extract;
mod health;
mod hosts;
mod library;
mod openapi;
mod parts;
mod problem;
mod resources;
mod results;
mod setups;
mod tasks;
mod tokens;
mod tunnel;
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
    pub(crate) parts: Parts,
    pub(crate) results: Arc<Path>,
    pub(crate) incoming: Arc<Path>,
    pub(crate) git: Git,
    pub(crate) tokens: OwnerTokens,
    /// The way to model APIs.
    pub(crate) upstream: reqwest::Client,
    pub(crate) house: House,
}

/// What the routes of one machine need.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) entry: Entry,
    pub(crate) workspaces: Arc<Path>,
    pub(crate) results: Arc<Path>,
    pub(crate) incoming: Arc<Path>,
    pub(crate) network: Network,
    pub(crate) git: Git,
    pub(crate) turns: Turns,
    pub(crate) checkpoints: Checkpoints,
    /// Ends with the machine's door.
    pub(crate) house: House,
}

/// The owner's API.
pub(crate) fn owner(owner: Owner) -> Router {
    let (routes, document) = routes().split_for_parts();
    routes
        .route("/v1/openapi.json", get(move || ready(Json(document))))
        .fallback(async || Problem::no_route())
        .method_not_allowed_fallback(async || Problem::no_method())
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .with_state(owner)
}

/// The routes, with what is said of each in the `OpenAPI` document.
fn routes() -> OpenApiRouter<Owner> {
    let upload = OpenApiRouter::new()
        .routes(routes!(workspaces::upload))
        .routes(routes!(parts::arrived, parts::go_on))
        .layer(DefaultBodyLimit::disable());
    let resource = OpenApiRouter::new()
        .routes(routes!(resources::keep, resources::is_kept))
        .routes(routes!(library::show, library::add, library::remove))
        .layer(DefaultBodyLimit::max(mayfly_library::pack::ARCHIVE_BYTES_MAX));
    OpenApiRouter::with_openapi(openapi::about())
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .merge(upload)
        .routes(routes!(workspaces::download))
        .routes(routes!(workspaces::known))
        .routes(routes!(tasks::create, tasks::list))
        .routes(routes!(tasks::show))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(tasks::resume))
        .routes(routes!(allow::show, allow::add))
        .routes(routes!(allow::record))
        .routes(routes!(resources::lock))
        .routes(routes!(library::list))
        .routes(routes!(library::wanted_lock))
        .routes(routes!(library::archive))
        .routes(routes!(library::check))
        .routes(routes!(library::init))
        .routes(routes!(library::diff))
        .merge(resource)
        .routes(routes!(resources::keep_lock))
        .routes(routes!(events::follow))
        .routes(routes!(results::summary))
        .routes(routes!(results::patch))
        .routes(routes!(results::bundle))
        .routes(routes!(results::transcript))
        .routes(routes!(results::artifacts))
        .routes(routes!(results::artifacts_archive))
        .routes(routes!(results::artifact))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(credentials::add, credentials::list))
        .routes(routes!(credentials::remove))
        .routes(routes!(credentials::test))
        .routes(routes!(tunnel::join))
}

/// The owner's API where only its owner can come.
pub(crate) fn private(owner: Router) -> Router {
    owner.layer(from_fn(hosts::no_page))
}

/// The owner's API where anybody can come.
pub(crate) fn guarded<K: Keys>(owner: Router, keys: K) -> Router {
    owner.layer(from_fn_with_state(keys, bearer::check::<K>))
}

/// What machines elsewhere can reach; all else is the owner's.
pub(crate) fn machines(machine: Machine, client: reqwest::Client, owner: Router) -> Router {
    let seat = from_fn_with_state(machine.entry.clone(), entry::seat);
    self::machine(machine, client).layer(seat).fallback_service(owner)
}

/// All that a port leads to. The last layer is the first to be asked.
pub(crate) fn port(routes: Router, hosts: Hosts) -> Router {
    routes.layer(from_fn_with_state(hosts, hosts::known)).layer(from_fn(hosts::no_page))
}

/// All that a machine can reach; what is in no route here is refused by the gateway.
pub(crate) fn machine(machine: Machine, client: reqwest::Client) -> Router {
    let admission = Arc::new(admission::Tokens(machine.entry.clone()));
    let own = Router::new()
        .route("/v1/worker", get(worker_link::join))
        .route(EGRESS_PATH, get(egress::join))
        .route("/v1/worker/resources/{sha256}", get(resources::fetch))
        .route(WORKSPACE_PATH, get(workspaces::fetch))
        .route(&format!("{RESUMED_PATH}{{name}}"), get(results::resumed))
        .route("/v1/worker/setup/{key}", get(setups::fetch).put(setups::keep))
        .route("/v1/worker/result/bundle", put(uploads::bundle))
        .route("/v1/worker/result/artifacts", put(uploads::artifacts))
        .route("/v1/worker/result/transcript", put(uploads::transcript))
        .route(&format!("{CHECKPOINT_PATH}{{number}}"), put(checkpoints::keep))
        .route(&format!("{CHECKPOINT_PATH}transcript"), put(checkpoints::transcript))
        .method_not_allowed_fallback(async || Problem::no_route())
        .with_state(machine);
    mayfly_gateway::router(admission, client).merge(own).layer(map_response(end_connection))
}

/// Each connection of a machine ends with its first answer: an open one is then an exchange that is under way.
async fn end_connection(mut answer: Response) -> Response {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other programs are written against.
    #[test]
    fn the_api_is_described_as_it_is() {
        insta::assert_json_snapshot!("openapi", routes().split_for_parts().1);
    }
}
