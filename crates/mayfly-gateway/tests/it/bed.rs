//! A gateway with a model API behind it that does as the test says.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use mayfly_core::{AnswerBounds, Attempt, AttemptId, Redactor, TaskId};
use mayfly_gateway::{Admission, Admitted, CredentialKind, Denied, Gate, Refusal, Upstream, Used};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// The owner's credential: it must be seen by the model API alone.
pub(crate) const CANARY: &str = "sk-canary-5d1f";
/// What the machine holds.
pub(crate) const PLACEHOLDER: &str = "placeholder-of-attempt-1";
/// The placeholder of a task whose agents may not have long answers.
pub(crate) const BOUNDED: &str = "placeholder-of-attempt-2";

/// Where a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Closed,
    Open,
    Over,
}

/// What the model API answers, made anew for each request.
pub(crate) type Answer = Arc<dyn Fn() -> Response + Send + Sync>;

pub(crate) struct Bed {
    /// The gateway's address.
    pub(crate) url: String,
    /// Where requests go.
    pub(crate) upstream: Upstream,
    /// The machine's client: it decompresses nothing and follows nothing.
    pub(crate) machine: reqwest::Client,
    /// The requests that reached the model API, whole.
    pub(crate) reached: mpsc::UnboundedReceiver<(Parts, Bytes)>,
    /// What the gate is; opening it is the test's.
    pub(crate) door: watch::Sender<Door>,
    /// One for each answer that has come to the gate.
    pub(crate) at_the_gate: mpsc::UnboundedReceiver<()>,
    /// One for each time that the credential was refused.
    pub(crate) refused: mpsc::UnboundedReceiver<()>,
    /// One for each request that is over.
    pub(crate) counted: mpsc::UnboundedReceiver<Used>,
}

impl Bed {
    /// With a model API that answers `{}`, and an open gate.
    pub(crate) async fn new(kind: CredentialKind) -> Self {
        Self::answering(kind, || "{}".into_response()).await
    }

    pub(crate) async fn answering(
        kind: CredentialKind,
        answer: impl Fn() -> Response + Send + Sync + 'static,
    ) -> Self {
        let (reach, reached) = mpsc::unbounded_channel();
        let answer: Answer = Arc::new(answer);
        let api = Router::new().fallback(record).with_state((reach, answer));
        let base_url = serve(api).await;
        Self::before(base_url, kind, reached).await
    }

    /// With whatever is at `base_url` as the model API.
    pub(crate) async fn before(
        base_url: String,
        kind: CredentialKind,
        reached: mpsc::UnboundedReceiver<(Parts, Bytes)>,
    ) -> Self {
        let (door, _) = watch::channel(Door::Open);
        let (arrive, at_the_gate) = mpsc::unbounded_channel();
        let upstream = Upstream { base_url, kind, secret: CANARY.to_owned().into() };
        let (refuse, refused) = mpsc::unbounded_channel();
        let (count, counted) = mpsc::unbounded_channel();
        let (door_of, reaching) = (door.clone(), upstream.clone());
        let admission =
            Arc::new(OnePlaceholder { upstream: reaching, door: door_of, arrive, refused: refuse, count });
        let client = mayfly_gateway::upstream_client().unwrap();
        let url = serve(mayfly_gateway::router(admission, client)).await;
        let machine = mayfly_gateway::upstream_client().unwrap();
        Self { url, upstream, machine, reached, door, at_the_gate, refused, counted }
    }

    /// A request for an answer of the model, with the placeholder.
    pub(crate) fn ask(&self) -> reqwest::RequestBuilder {
        self.machine.post(format!("{}/v1/messages?beta=true", self.url)).bearer_auth(PLACEHOLDER).body("{}")
    }
}

/// The message of an error answer, after checking its form.
pub(crate) async fn message(answer: reqwest::Response) -> String {
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["type"], "error", "{body}");
    assert!(body["error"]["type"].is_string(), "{body}");
    let message = body["error"]["message"].as_str().unwrap().to_owned();
    assert!(!message.contains(CANARY) && !message.contains(PLACEHOLDER), "{message}");
    message
}

pub(crate) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

type Api = (mpsc::UnboundedSender<(Parts, Bytes)>, Answer);

async fn record(State((reach, answer)): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(body) => {
            reach.send((parts, body)).unwrap();
            answer()
        }
        Err(_) => Response::new(Body::empty()),
    }
}

struct OnePlaceholder {
    upstream: Upstream,
    door: watch::Sender<Door>,
    arrive: mpsc::UnboundedSender<()>,
    refused: mpsc::UnboundedSender<()>,
    count: mpsc::UnboundedSender<Used>,
}

impl fmt::Debug for OnePlaceholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnePlaceholder").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

#[async_trait]
impl Admission for OnePlaceholder {
    async fn admit(&self, token: &str) -> Result<Admitted, Refusal> {
        let bounds = match token {
            PLACEHOLDER => AnswerBounds::default(),
            BOUNDED => AnswerBounds { main: Some(700), agents: vec![("Review.".to_owned(), Some(300))] },
            _ => return Err(Denied.into()),
        };
        let attempt: AttemptId =
            "0193b2c4-0000-7000-8000-0123456789ab".parse::<TaskId>().unwrap().attempt(Attempt(1));
        let gate = Box::new(WatchedDoor(self.door.subscribe(), self.arrive.clone()));
        let redactor = Redactor::new([CANARY]);
        Ok(Admitted { attempt, upstream: self.upstream.clone(), redactor, bounds: Arc::new(bounds), gate })
    }

    fn count(&self, _: AttemptId, used: Used) {
        // Nobody may be left to hear it.
        let _ = self.count.send(used);
    }

    async fn refused(&self, _: AttemptId) {
        self.refused.send(()).unwrap();
    }
}

#[derive(Debug)]
struct WatchedDoor(watch::Receiver<Door>, mpsc::UnboundedSender<()>);

#[async_trait]
impl Gate for WatchedDoor {
    async fn opened(&mut self) -> Result<(), Denied> {
        self.1.send(()).unwrap();
        let door = *self.0.wait_for(|&door| door != Door::Closed).await.unwrap();
        if door == Door::Open { Ok(()) } else { Err(Denied) }
    }

    async fn over(&mut self) {
        self.0.wait_for(|&door| door == Door::Over).await.unwrap();
    }
}
