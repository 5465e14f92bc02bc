//! One worker's link: hello, then records up and orders down, until either side leaves.
//!
//! ```text
//! accept ──► hello (HELLO_MAX) ──► join ──► welcome ──► records ⇒ ack, orders ⇒ down
//!                                   └────► reject
//! ```
//!
//! An ack is sent only after the engine has stored the records. Whatever does not keep to the protocol ends
//! the link; a worker that is still wanted dials again. Bounds of frames and silence are the link's own.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use mayfly_core::causes;
use mayfly_engine::{IngestError, JoinError, Session};
use mayfly_link::{Accepting, Channel, Frame, LinkError, Receiver, Sender};
use mayfly_wire::worker::{self, BadFrame, BadHello, Down, Hello};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::problem::Problem;
use super::{Entry, Machine};
use crate::listen::Guest;

/// The time from the handshake to the hello.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// Why a link ended before its time.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("no hello came in time")]
    NoHello,
    #[error("the worker could not be let in now")]
    Join(#[source] JoinError),
    #[error("a text where only records may come")]
    Text,
    #[error("the records cannot be read")]
    Records(#[from] BadFrame),
    #[error("the records were not stored")]
    Ingest(#[from] IngestError),
    #[error("the link broke")]
    Link(#[from] LinkError),
}

/// `GET /v1/worker`: becomes a link, which has the connection's place until it ends.
pub(super) async fn join(
    State(app): State<Machine>,
    Extension(guest): Extension<Guest>,
    mut request: Request,
) -> Result<Response, Problem> {
    let (response, accepting) =
        mayfly_link::accept(&mut request).map_err(|error| Problem::bad_request(error.to_string()))?;
    let span = info_span!("link", attempt = %app.entry.attempt());
    let house = app.house.clone();
    let link = async move {
        let _guest = guest;
        if let Err(end) = hold(&app.entry, accepting, &app.house.stopping).await {
            tracing::info!(cause = %causes(&end), "a worker's link ended");
        }
    };
    house.running.spawn(link.instrument(span));
    Ok(response.map(|()| Body::empty()))
}

async fn hold(entry: &Entry, accepting: Accepting, stopping: &CancellationToken) -> Result<(), LinkEnd> {
    let mut channel = accepting.channel().await?;
    let hello = timeout(HELLO_MAX, hello(&mut channel)).await.map_err(|_| LinkEnd::NoHello)??;
    let (mut down, up) = channel.split();
    let joined = match hello {
        Ok(hello) => entry.join(hello).await,
        Err(bad) => Err(bad.into()),
    };
    match joined {
        Ok(session) => talk(session, down, up, stopping).await,
        // The worker is still wanted, and dials again.
        Err(error @ JoinError::Store(_)) => Err(LinkEnd::Join(error)),
        Err(denied) => {
            tell(&mut down, &Down::Reject { reason: denied.to_string() }).await?;
            Ok(down.close().await?)
        }
    }
}

async fn hello(channel: &mut Channel) -> Result<Result<Hello, BadHello>, LinkEnd> {
    match channel.recv().await.ok_or(LinkEnd::NoHello)?? {
        Frame::Text(text) => Ok(Hello::parse(&text)),
        Frame::Binary(_) => Ok(Err(BadHello::None)),
    }
}

/// What comes next on a link.
enum Turn {
    Heard(Option<Result<Frame, LinkError>>),
    Tell(Down),
    Leave,
}

async fn talk(
    mut session: Session,
    mut down: Sender,
    mut up: Receiver,
    stopping: &CancellationToken,
) -> Result<(), LinkEnd> {
    tell(&mut down, &session.welcome()).await?;
    loop {
        let turn = tokio::select! {
            heard = up.recv() => Turn::Heard(heard),
            order = session.next() => order.map_or(Turn::Leave, Turn::Tell),
            () = stopping.cancelled() => Turn::Leave,
        };
        match turn {
            Turn::Heard(Some(frame)) => {
                let stored = session.ingest(records(frame?)?).await?;
                tell(&mut down, &Down::Ack { stored }).await?;
            }
            Turn::Tell(order) => {
                tell(&mut down, &order).await?;
                if matches!(order, Down::Reject { .. }) {
                    return Ok(down.close().await?);
                }
            }
            Turn::Leave => return Ok(down.close().await?),
            Turn::Heard(None) => return Ok(()),
        }
    }
}

fn records(frame: Frame) -> Result<Vec<worker::Record>, LinkEnd> {
    match frame {
        Frame::Binary(bytes) => Ok(worker::decode(bytes)?),
        Frame::Text(_) => Err(LinkEnd::Text),
    }
}

async fn tell(down: &mut Sender, order: &Down) -> Result<(), LinkError> {
    let text = serde_json::to_string(order).expect("it has only what JSON has");
    down.send(Frame::Text(text)).await
}
