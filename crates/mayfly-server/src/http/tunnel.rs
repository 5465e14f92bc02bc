//! One tunnel: hello, then every event of every task from the position that it names on.
//!
//! ```text
//! accept ──► hello (HELLO_MAX) ──► welcome ──► chunks, as they become durable
//!                 └──────────────► reject
//! ```
//!
//! A tunnel that takes nothing holds nobody up: what it does not take stays in the store, and its link is cut
//! after the link's own bound. It goes on from its position then.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use mayfly_core::causes;
use mayfly_engine::{Ahead, Engine, FeedChunk, FeedReader};
use mayfly_link::{Accepting, Channel, Frame, LinkError, Receiver, Sender};
use mayfly_store::StoreError;
use mayfly_wire::tunnel::{Answer, Chunk, Hello, PROTOCOL, Run, Welcome};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::Owner;
use super::problem::Problem;
use crate::guest::Guest;

/// The time from the handshake to the hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// The version that a welcome names.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a tunnel's link ended before its time.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("no hello came in time")]
    NoHello,
    #[error("a tunnel was turned away: {0}")]
    TurnedAway(String),
    #[error("a message where none may come")]
    Message,
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    #[error("the link broke")]
    Link(#[from] LinkError),
}

/// `GET /v1/tunnel`: becomes a link, which has the connection's place until it ends, and ends with its token.
#[utoipa::path(
    get,
    path = "/v1/tunnel",
    responses(
        (status = 101, description = "A WebSocket: every event of every task, from a position on"),
        (status = 400, description = "Not a request for a WebSocket", body = mayfly_wire::api::Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn join(
    State(app): State<Owner>,
    Extension(guest): Extension<Guest>,
    mut request: Request,
) -> Result<Response, Problem> {
    let (response, accepting) =
        mayfly_link::accept(&mut request).map_err(|error| Problem::bad_request(error.to_string()))?;
    let Owner { engine, house, .. } = app;
    let stopping = house.stopping.clone();
    let link = async move {
        let held = tokio::select! {
            held = hold(engine, accepting, &stopping) => held,
            () = guest.must_leave() => Ok(()),
        };
        if let Err(end @ LinkEnd::TurnedAway(_)) = &held {
            tracing::warn!("{end}");
        } else if let Err(end) = held {
            tracing::info!(cause = %causes(&end), "a tunnel's link ended");
        }
    };
    house.running.spawn(link.instrument(info_span!("tunnel")));
    Ok(response.map(|()| Body::empty()))
}

async fn hold(engine: Engine, accepting: Accepting, stopping: &CancellationToken) -> Result<(), LinkEnd> {
    let mut channel = accepting.channel().await?;
    let hello = timeout(HELLO_MAX, hello(&mut channel)).await.map_err(|_| LinkEnd::NoHello)??;
    let (mut down, up) = channel.split();
    match hello.and_then(|hello| welcome(&engine, &hello)) {
        Ok((welcome, feed)) => {
            answer(&mut down, Answer::Welcome(welcome)).await?;
            talk(feed, down, up, stopping).await
        }
        Err(reason) => {
            answer(&mut down, Answer::Reject { reason: reason.clone() }).await?;
            down.close().await?;
            Err(LinkEnd::TurnedAway(reason))
        }
    }
}

/// All that every version's hello has.
#[derive(Debug, Deserialize)]
struct Version {
    protocol: u32,
}

/// The hello, or why it is none that we understand.
async fn hello(channel: &mut Channel) -> Result<Result<Hello, String>, LinkEnd> {
    let frame = channel.recv().await.ok_or(LinkEnd::NoHello)??;
    let text = match &frame {
        Frame::Text(text) => text.as_bytes(),
        Frame::Binary(bytes) => bytes,
    };
    Ok(understood(text))
}

/// Another version's hello may be another message: its version is looked at first.
fn understood(text: &[u8]) -> Result<Hello, String> {
    let theirs = match serde_json::from_slice(text) {
        Ok(Version { protocol: PROTOCOL }) => {
            return serde_json::from_slice(text).map_err(|_| not_ours("another hello"));
        }
        Ok(Version { protocol }) => format!("version {protocol}"),
        Err(_) => "something else".to_owned(),
    };
    Err(not_ours(&theirs))
}

fn not_ours(theirs: &str) -> String {
    format!(
        "this orchestrator ({VERSION}) speaks version {PROTOCOL} of the tunnel, and the tunnel {theirs}: bring both to the \
         same version of mayfly"
    )
}

/// Where a tunnel goes on, or why it does not.
fn welcome(engine: &Engine, hello: &Hello) -> Result<(Welcome, FeedReader), String> {
    let store = hex::encode(engine.store_id());
    // A position in another database means nothing here.
    let after = if hello.store.as_ref() == Some(&store) { hello.after } else { 0 };
    let feed = engine.feed(after).map_err(|ahead: Ahead| {
        format!(
            "{ahead}: the orchestrator's database is an older copy of itself; move the tunnel's folder `{store}` away, \
             and all comes again"
        )
    })?;
    Ok((Welcome { store, after, head: engine.head(), version: VERSION.to_owned() }, feed))
}

async fn talk(
    mut feed: FeedReader,
    mut down: Sender,
    mut up: Receiver,
    stopping: &CancellationToken,
) -> Result<(), LinkEnd> {
    loop {
        let chunk = tokio::select! {
            chunk = feed.next() => chunk?,
            heard = up.recv() => return match heard {
                None => Ok(()),
                Some(Ok(_)) => Err(LinkEnd::Message),
                Some(Err(error)) => Err(error.into()),
            },
            () = stopping.cancelled() => return Ok(down.close().await?),
        };
        down.send(Frame::Binary(wired(chunk).encode())).await?;
    }
}

fn wired(chunk: FeedChunk) -> Chunk {
    let FeedChunk { runs, skipped, position, head } = chunk;
    let run = |run: mayfly_engine::Run| Run {
        task: run.task,
        first: run.first_seq,
        last: run.last_seq,
        lines: run.lines,
    };
    Chunk { position, head, skipped, runs: runs.into_iter().map(run).collect() }
}

async fn answer(down: &mut Sender, answer: Answer) -> Result<(), LinkError> {
    let text = serde_json::to_string(&answer).expect("it has only what JSON has");
    down.send(Frame::Text(text)).await
}
