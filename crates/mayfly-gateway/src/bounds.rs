//! Answers that are to be no longer than the agent may have them: `max_tokens` of a request is lowered on its way out.
//!
//! Only where a task has such bounds is a body read before it goes on, and then every other byte of it stays. What cannot
//! be read is refused, since nothing would bound it.
//!
//! Bound: [`HELD_MAX`] bodies of one attempt at a time, each within [`REQUEST_BYTES_MAX`](crate::REQUEST_BYTES_MAX).

use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::CONTENT_LENGTH;
use mayfly_core::{AnswerBounds, AttemptId};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, TooLong};
use crate::forward::bounded;

/// The most bodies of one attempt that are in memory.
const HELD_MAX: usize = 4;

/// Whose bodies are in memory.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<AttemptId, Arc<Semaphore>>>);

impl Held {
    /// A place for one more body, as soon as there is one.
    async fn place(&self, attempt: AttemptId) -> OwnedSemaphorePermit {
        let places = {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|id, places| *id == attempt || Arc::strong_count(places) > 1);
            Arc::clone(held.entry(attempt).or_insert_with(|| Arc::new(Semaphore::new(HELD_MAX))))
        };
        places.acquire_owned().await.expect("it is never closed")
    }
}

/// The request with its answer bounded, and its place among those that are held: to be kept until it has gone out.
pub(crate) async fn lower(
    came: Request,
    bounds: &AnswerBounds,
    (held, attempt, is_main): (&Held, AttemptId, bool),
) -> Result<(Request, OwnedSemaphorePermit), ApiError> {
    let place = held.place(attempt).await;
    let (mut parts, body) = came.into_parts();
    let body = whole(body).await?;
    let body = lowered(&body, bounds, is_main)?.map_or(body, Bytes::from);
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    Ok((Request::from_parts(parts, Body::from(body)), place))
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    let mut chunks = pin!(bounded(body));
    while let Some(chunk) = chunks.next().await {
        let sorted = |error: Box<dyn std::error::Error + Send + Sync>| match error.is::<TooLong>() {
            true => ApiError::TooLong,
            false => ApiError::Request,
        };
        whole.extend_from_slice(&chunk.map_err(sorted)?);
    }
    Ok(whole.freeze())
}

/// What is read of a request. A key that is there twice is an error.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    system: Option<Value>,
}

/// The body with a lower `max_tokens`. `None`: it is as it is to be.
fn lowered(body: &[u8], bounds: &AnswerBounds, is_main: bool) -> Result<Option<Vec<u8>>, ApiError> {
    let asked: Asked<'_> = serde_json::from_slice(body).map_err(|_| ApiError::Unread)?;
    let bound = match is_main {
        true => bounds.of_main(),
        false => bounds.of_agent(texts(asked.system.as_ref())),
    };
    let Some((bound, said)) = bound.zip(asked.max_tokens) else { return Ok(None) };
    let is_within = serde_json::from_str::<u32>(said.get()).is_ok_and(|tokens| tokens <= bound);
    Ok((!is_within).then(|| {
        let Range { start, end } = range_of(said.get(), body);
        [&body[..start], bound.to_string().as_bytes(), &body[end..]].concat()
    }))
}

/// The texts of which the model is told before all others.
fn texts(system: Option<&Value>) -> Vec<&str> {
    match system {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(blocks)) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Where a part of a body, which was read out of it, is in it.
fn range_of(part: &str, body: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - body.as_ptr() as usize;
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(body: &str, main: Option<u32>, is_main: bool) -> Result<Option<String>, String> {
        let bounds = AnswerBounds { main, agents: vec![("Review.".to_owned(), 300)] };
        let lowered = lowered(body.as_bytes(), &bounds, is_main).map_err(|error| error.to_string())?;
        Ok(lowered.map(|body| String::from_utf8(body).expect("text")))
    }

    #[test]
    fn every_other_byte_stays() {
        let agent = r#"{ "messages":[{"max_tokens": 1}], "max_tokens" : 128000 ,"system":[{"type":"text","text":"b"},{"text":"Review.\n\nM"}]}"#;
        assert_eq!(lower(agent, None, false), Ok(Some(agent.replace("128000", "300"))));
        assert_eq!(lower(agent, None, true), Ok(None), "it is not the main agent's bound");
        assert_eq!(lower(agent, Some(700), true), Ok(Some(agent.replace("128000", "700"))));
        let low = agent.replace("128000", "299");
        assert_eq!(lower(&low, None, false), Ok(None));
        let other = agent.replace("Review", "Other");
        assert_eq!(lower(&other, None, false), Ok(None));
        assert_eq!(lower(&other, Some(700), false), Ok(Some(other.replace("128000", "700"))));
        let text = r#"{"system":"Review.","max_tokens":301}"#;
        assert_eq!(lower(text, None, false), Ok(Some(text.replace("301", "300"))));
    }

    /// Whatever the API might take for more is put as the bound, and what could be read in two ways is not sent.
    #[test]
    fn no_way_of_writing_it_leads_around_the_bound() {
        for odd in ["1e5", "128000.0", "99999999999", "\"128000\"", "-1", "null"] {
            let body = format!(r#"{{"system":"Review.","max_tokens":{odd}}}"#);
            let said = lower(&body, None, false).expect("it reads");
            assert!(said.is_none_or(|said| said.ends_with("\"max_tokens\":300}")), "{odd}");
        }
        let escaped = r#"{"system":"Review.","max\u005ftokens":900}"#;
        assert_eq!(lower(escaped, None, false), Ok(Some(escaped.replace("900", "300"))));
        for unread in [r#"{"max_tokens":1,"max_tokens":900}"#, "[]", "", "{\"max_tokens\":1", "\u{1f}\u{8b}"]
        {
            assert!(lower(unread, None, false).is_err(), "{unread}");
        }
    }
}
