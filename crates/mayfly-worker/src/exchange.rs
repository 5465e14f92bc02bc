//! One request to the orchestrator, by a connection of its own, and its answer in memory.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Builder;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_link::{BackOff, Dial};
use mayfly_wire::Secret;
use tokio::time::sleep;

use crate::Random;
use crate::claude::interpret::shorten;

/// How often in a row an orchestrator may answer with trouble of its own: with the longest pauses, about a quarter of an
/// hour.
const TROUBLES_MAX: u32 = 240;

/// What a request failed with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The way to ask.
#[derive(Debug)]
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
    pub(crate) async fn until_answered<F: Future<Output = Result<Bytes, ExchangeError>>>(
        &self,
        name: &str,
        ask: impl Fn() -> F,
    ) -> Result<Bytes, ExchangeError> {
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
        let broken = |error: hyper::Error| ExchangeError::Broken(Box::new(error));
        let stream = self.way.connect().await.map_err(|error| ExchangeError::Broken(error.into()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        driver.abort();
        match (status.is_success(), body) {
            (true, Ok(body)) => Ok(body.to_bytes()),
            (true, Err(error)) if error.is::<LengthLimitError>() => {
                let answer = format!("its answer has more than {bytes_max} bytes");
                Err(ExchangeError::Refused { status, answer })
            }
            (true, Err(error)) => Err(ExchangeError::Broken(error)),
            (false, body) => {
                let words = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
                let answer = shorten(&words.unwrap_or_default());
                Err(match status.is_server_error() {
                    true => ExchangeError::Troubled { status, answer },
                    false => ExchangeError::Refused { status, answer },
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mayfly_link::{Endpoint, Route};

    use super::*;

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
