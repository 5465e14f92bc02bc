//! One worker's link: hello, then records up and orders down, until either side leaves.
//!
//! ```text
//! accept ──► hello (HELLO_MAX) ──► join ──► welcome ──► records ⇒ ack, orders ⇒ down
//!                                   └────► reject
//! ```
//!
//! An ack is sent only after the engine has stored the records. Whatever does not keep to the protocol ends
//! the link; a worker that is still wanted dials again. Bounds of frames and silence are the link's own.

use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use http::HeaderMap;
use mayfly_core::{AttemptId, causes};
use mayfly_engine::{IngestError, JoinError, Session};
use mayfly_link::{Accepting, Channel, Frame, LinkError, Receiver, Sender};
use mayfly_wire::worker::{self, BadFrame, BadHello, Down, Hello};
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field, info_span};

use super::Machine;
use super::problem::Problem;
use crate::doors::NoEntry;
use crate::guest::Guest;

/// The frames that may be on their way to the disk, and the memory that their records take, beyond which one frame is:
/// the next ones are read while some are written, and are one commit.
const FRAMES_MAX: usize = 32;
const FRAMES_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The time from the handshake to the hello.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// Why a link ended before its time.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("no hello came in time")]
    NoHello,
    #[error("its attempt has as many connections as it may have")]
    Full,
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
    let span = info_span!("link", attempt = field::Empty);
    let house = app.house.clone();
    let headers = request.headers().clone();
    let link = async move {
        if let Err(end) = hold(&app, accepting, (&guest, &headers)).await {
            tracing::info!(cause = %causes(&end), "a worker's link ended");
        }
    };
    house.running.spawn(link.instrument(span));
    Ok(response.map(|()| Body::empty()))
}

async fn hold(
    app: &Machine,
    accepting: Accepting,
    (guest, headers): (&Guest, &HeaderMap),
) -> Result<(), LinkEnd> {
    let mut channel = accepting.channel().await?;
    let hello = timeout(HELLO_MAX, hello(&mut channel)).await.map_err(|_| LinkEnd::NoHello)??;
    let (mut down, up) = channel.split();
    match admit(app, hello, (guest, headers)).await? {
        Ok(session) => talk(session, down, up, leave(app, guest)).await,
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

/// Gives the link a place, and lets its worker in.
async fn admit(
    app: &Machine,
    hello: Result<Hello, BadHello>,
    (guest, headers): (&Guest, &HeaderMap),
) -> Result<Result<Session, JoinError>, LinkEnd> {
    let hello = match hello {
        Ok(hello) => hello,
        Err(bad) => return Ok(Err(bad.into())),
    };
    if let Ok(attempt) = hello.attempt.parse::<AttemptId>() {
        Span::current().record("attempt", field::display(attempt));
    }
    // An attempt that is over has no places: to that the engine says no, and so the worker is told.
    match app.entry.seat(hello.ticket.expose(), guest, headers) {
        Err(NoEntry::Full) => Err(LinkEnd::Full),
        Err(NoEntry::Elsewhere) => Ok(Err(JoinError::Ticket)),
        Ok(()) | Err(NoEntry::Closed) => Ok(app.entry.join(hello).await),
    }
}

/// Returns once the link has to end.
async fn leave(app: &Machine, guest: &Guest) {
    tokio::select! {
        () = app.house.stopping.cancelled() => {}
        () = guest.must_leave() => {}
    }
}

/// What comes next on a link.
enum Turn {
    Stored(Result<u64, IngestError>),
    Heard(Option<Result<Frame, LinkError>>),
    Tell(Down),
    Leave,
}

async fn talk(
    mut session: Session,
    mut down: Sender,
    mut up: Receiver,
    leave: impl Future<Output = ()>,
) -> Result<(), LinkEnd> {
    let mut leave = pin!(leave);
    tell(&mut down, &session.welcome()).await?;
    let (mut storing, mut bytes) = (FuturesOrdered::new(), 0);
    loop {
        let turn = tokio::select! {
            Some((stored, of)) = storing.next() => {
                bytes -= of;
                Turn::Stored(stored)
            }
            heard = up.recv(), if storing.len() < FRAMES_MAX && bytes < FRAMES_BYTES_MAX => Turn::Heard(heard),
            order = session.next() => order.map_or(Turn::Leave, Turn::Tell),
            () = &mut leave => Turn::Leave,
        };
        match turn {
            Turn::Heard(Some(frame)) => {
                let frame = binary(frame?)?;
                let framed = frame.len();
                let records = worker::decode(frame)?;
                let of = framed + size_of_val(&records[..]);
                bytes += of;
                let stored = session.ingest(records);
                storing.push_back(async move { (stored.await, of) });
            }
            Turn::Stored(stored) => tell(&mut down, &Down::Ack { stored: stored? }).await?,
            Turn::Tell(order) => {
                // What it follows from may be stored and not acknowledged yet.
                while let Some((stored, of)) = storing.next().await {
                    bytes -= of;
                    tell(&mut down, &Down::Ack { stored: stored? }).await?;
                }
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

fn binary(frame: Frame) -> Result<Bytes, LinkEnd> {
    match frame {
        Frame::Binary(bytes) => Ok(bytes),
        Frame::Text(_) => Err(LinkEnd::Text),
    }
}

async fn tell(down: &mut Sender, order: &Down) -> Result<(), LinkError> {
    let text = serde_json::to_string(order).expect("it has only what JSON has");
    down.send(Frame::Text(text)).await
}
