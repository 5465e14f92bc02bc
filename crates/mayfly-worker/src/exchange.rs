//! One request to the orchestrator, by a connection of its own, and its answer in memory or in a file.

use std::path::Path;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Builder;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_link::{BackOff, Dial};
use mayfly_wire::Secret;
use mayfly_wire::api::Problem;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::Random;
use crate::claude::interpret::shorten;

/// How often in a row an orchestrator may answer with trouble of its own: with the longest pauses, about a quarter of an
/// hour.
const TROUBLES_MAX: u32 = 240;
/// What is read of the words of a refusal.
const WORDS_BYTES_MAX: usize = 8 * 1024;

/// What a request failed with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The way to ask.
#[derive(Debug, Clone)]
pub(crate) struct Exchange<'a> {
    pub(crate) way: &'a dyn Dial,
    pub(crate) token: &'a Secret,
    pub(crate) random: Random,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// What was to be sent cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// What came cannot be written.
    #[error("it cannot be written")]
    Unwritable(#[source] std::io::Error),
    /// The orchestrator does not want it; asking again will not help.
    #[error("the orchestrator refused it with {status}: {answer}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        answer: String,
    },
    /// The orchestrator has trouble of its own; later may be better, for a while.
    #[error(
        "the orchestrator had trouble of its own, {TROUBLES_MAX} times in a row, at last {status}: {answer}"
    )]
    Troubled {
        /// Its status.
        status: StatusCode,
        /// Its words.
        answer: String,
    },
    /// It did not get through; later may be better.
    #[error("it did not get through")]
    Broken(#[source] BoxError),
}

impl Exchange<'_> {
    /// The head of a request.
    pub(crate) fn head(&self, method: http::Method, path: &str) -> Builder {
        let request = Request::builder().method(method).uri(path).header(HOST, self.way.host());
        request.header(AUTHORIZATION, format!("Bearer {}", self.token.expose()))
    }

    /// Asks, and asks again while the orchestrator is away, as long as the caller waits, or in trouble of its own, as long
    /// as that may last.
    pub(crate) async fn until_answered<T, F: Future<Output = Result<T, ExchangeError>>>(
        &self,
        name: &str,
        ask: impl Fn() -> F,
    ) -> Result<T, ExchangeError> {
        let mut back_off = BackOff::new(self.random);
        let mut troubles = 0;
        loop {
            match ask().await {
                Err(ExchangeError::Broken(error)) => {
                    tracing::debug!(%error, name, "not through yet");
                    troubles = 0;
                }
                Err(ExchangeError::Troubled { status, .. }) if troubles + 1 < TROUBLES_MAX => {
                    tracing::debug!(%status, name, "not taken yet");
                    troubles += 1;
                }
                done => return done,
            }
            sleep(back_off.wait()).await;
        }
    }

    /// Asks once. The answer has at most `bytes_max` bytes.
    pub(crate) async fn once<B>(&self, request: Request<B>, bytes_max: usize) -> Result<Bytes, ExchangeError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (body, _connection) = self.answer(request, bytes_max).await?;
        let body = body.collect().await.map_err(|error| unread(error, bytes_max as u64))?;
        Ok(body.to_bytes())
    }

    /// Asks for a file, and again until it is there: it is written to `to`, and has at most `bytes_max` bytes.
    pub(crate) async fn fetch(&self, path: &str, to: &Path, bytes_max: u64) -> Result<(), ExchangeError> {
        self.until_answered(path, || self.fetch_once(path, to, bytes_max)).await
    }

    async fn fetch_once(&self, path: &str, to: &Path, bytes_max: u64) -> Result<(), ExchangeError> {
        let request = self.head(Method::GET, path).body(Empty::<Bytes>::new()).expect("a plain path");
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let (mut body, _connection) = self.answer(request, limit).await?;
        let mut file = File::create(to).await.map_err(ExchangeError::Unwritable)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unread(error, bytes_max))?;
            if let Some(piece) = frame.data_ref() {
                file.write_all(piece).await.map_err(ExchangeError::Unwritable)?;
            }
        }
        file.flush().await.map_err(ExchangeError::Unwritable)
    }

    /// The body of a good answer, and its connection, which is to be kept until it is read.
    async fn answer<B>(
        &self,
        request: Request<B>,
        bytes_max: usize,
    ) -> Result<(Limited<Incoming>, impl Sized + use<B>), ExchangeError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let broken = |error: hyper::Error| ExchangeError::Broken(Box::new(error));
        let stream = self.way.connect().await.map_err(|error| ExchangeError::Broken(error.into()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok((Limited::new(answer.into_body(), bytes_max), driver));
        }
        let words = Limited::new(answer.into_body(), WORDS_BYTES_MAX).collect().await;
        let answer = words.map(|words| said(&words.to_bytes())).unwrap_or_default();
        Err(match status.is_server_error() {
            true => ExchangeError::Troubled { status, answer },
            false => ExchangeError::Refused { status, answer },
        })
    }
}

/// What an answer that is not good says to people.
fn said(words: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(words) {
        Ok(problem) => shorten(&problem.detail),
        Err(_) => shorten(&String::from_utf8_lossy(words)),
    }
}

/// Why the body of a good answer was not read to its end.
fn unread(error: BoxError, bytes_max: u64) -> ExchangeError {
    if error.is::<LengthLimitError>() {
        let answer = format!("its answer has more than {bytes_max} bytes");
        return ExchangeError::Refused { status: StatusCode::OK, answer };
    }
    ExchangeError::Broken(error)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mayfly_link::{Endpoint, Route};

    use super::*;

    #[test]
    fn of_a_problem_its_words_are_told() {
        let problem = br#"{"type":"secret-in-result","status":422,"detail":"it has a secret in it"}"#;
        assert_eq!(said(problem), "it has a secret in it");
        assert_eq!(said(b"<html>\n"), shorten("<html>\n"));
    }

    /// Asks of an orchestrator that answers so, with time that passes by itself: what came out, and how often it was asked.
    async fn asked(
        answer: impl Fn(u32) -> Result<Bytes, ExchangeError>,
    ) -> (Result<Bytes, ExchangeError>, u32) {
        let (way, token) = (Route::from(Endpoint::Unix("/nonexistent".into())), Secret::from("t".to_owned()));
        let exchange = Exchange { way: &way, token: &token, random: || 0 };
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            std::future::ready(answer(asked.get()))
        };
        let done = exchange.until_answered("x", ask).await;
        (done, asked.get())
    }

    fn troubled() -> Result<Bytes, ExchangeError> {
        Err(ExchangeError::Troubled { status: StatusCode::INSUFFICIENT_STORAGE, answer: "full".to_owned() })
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_stays_ends_the_asking_and_says_so() {
        let (done, times) = asked(|_| troubled()).await;
        let said = done.expect_err("it never went well").to_string();
        assert_eq!((times, said.contains("240 times in a row, at last 507")), (TROUBLES_MAX, true), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_orchestrator_that_is_away_in_between_may_be_in_trouble_as_long_again() {
        let (done, times) = asked(|time| match time {
            TROUBLES_MAX => Err(ExchangeError::Broken("away".into())),
            time if time < 2 * TROUBLES_MAX => troubled(),
            _ => Ok(Bytes::new()),
        })
        .await;
        assert_eq!((done.is_ok(), times), (true, 2 * TROUBLES_MAX));
    }
}
