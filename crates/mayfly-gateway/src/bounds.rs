//! Answers that are to be no longer than the agent may have them: `max_tokens` of a request is lowered on its way out.
//!
//! Only where a task has such bounds is a body read before it goes on, and then every other byte of it stays, but for a
//! budget of thinking that would not fit any more. What cannot be read is refused, since nothing would bound it.
//!
//! Which agent asks is what `claude` says of itself, by a header and by its prompt. Both come from the machine: one that
//! was turned against its owner can say that it is another agent, or the main one, and has that one's bound.
//!
//! Bound: [`HELD_MAX`] bodies of one attempt at a time, each within [`REQUEST_BYTES_MAX`](crate::REQUEST_BYTES_MAX), until
//! they have gone out. Of what is read in one, nothing is kept but a text at a time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::iter;
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
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, TooLong};
use crate::forward::bounded;

/// The most bodies of one attempt that are in memory.
const HELD_MAX: usize = 4;
/// The least that the API takes as a budget of thinking, which has to be below `max_tokens`.
const BUDGET_MIN: u32 = 1024;

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

/// A body with its place, which it keeps until its last byte has gone out.
struct InPlace(
    Bytes,
    #[expect(dead_code, reason = "it is given back when this is dropped")] OwnedSemaphorePermit,
);

impl AsRef<[u8]> for InPlace {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The request with its answer bounded.
pub(crate) async fn lower(
    came: Request,
    bounds: &AnswerBounds,
    (held, attempt, is_main): (&Held, AttemptId, bool),
) -> Result<Request, ApiError> {
    let place = held.place(attempt).await;
    let (mut parts, body) = came.into_parts();
    let body = whole(body).await?;
    let body = lowered(&body, bounds, is_main)?.map_or(body, Bytes::from);
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    Ok(Request::from_parts(parts, Body::from(Bytes::from_owner(InPlace(body, place)))))
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
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
}

/// The body with a lower `max_tokens`. `None`: it is as it is to be.
fn lowered(body: &[u8], bounds: &AnswerBounds, is_main: bool) -> Result<Option<Vec<u8>>, ApiError> {
    let asked: Asked<'_> = serde_json::from_slice(body).map_err(|_| ApiError::Unread)?;
    let bound = match is_main {
        true => bounds.of_main(),
        false => of_agent(bounds, asked.system)?,
    };
    let Some((bound, said)) = bound.zip(asked.max_tokens) else { return Ok(None) };
    if serde_json::from_str::<u32>(said.get()).is_ok_and(|tokens| tokens <= bound) {
        return Ok(None);
    }
    let thinking = asked.thinking.and_then(|thinking| fitting(thinking, bound));
    let mut parts: Vec<_> = thinking.into_iter().chain([(said.get(), bound.to_string())]).collect();
    parts.sort_by_key(|(part, _)| part.as_ptr());
    Ok(Some(replaced(body, &parts)))
}

/// The bound of the agent that is told this before all else.
fn of_agent(bounds: &AnswerBounds, system: Option<&RawValue>) -> Result<Option<u32>, ApiError> {
    let Some(system) = system else { return Ok(bounds.of_main()) };
    let mut system = serde_json::Deserializer::from_str(system.get());
    system.deserialize_any(Told(bounds)).map_err(|_| ApiError::Unread)
}

/// Reads what an agent is told: a text, or blocks of which some have one.
struct Told<'a>(&'a AnswerBounds);

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

impl<'de> Visitor<'de> for Told<'_> {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or blocks")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.of_agent([text]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut blocks: A) -> Result<Self::Value, A::Error> {
        let mut failed = None;
        let each = iter::from_fn(|| blocks.next_element::<Block<'_>>().transpose());
        let read = each.map_while(|block| block.map_err(|error| failed = Some(error)).ok());
        let bound = self.0.of_agent(read.filter_map(|block| block.text));
        failed.map_or(Ok(bound), Err)
    }
}

#[derive(Deserialize)]
struct Thinking<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    budget_tokens: &'a RawValue,
}

/// What of the thinking has to be replaced, and by what, so that it stays below `bound`.
fn fitting(thinking: &RawValue, bound: u32) -> Option<(&str, String)> {
    let Thinking { kind, budget_tokens } = serde_json::from_str(thinking.get()).ok()?;
    let fits = serde_json::from_str::<u32>(budget_tokens.get()).is_ok_and(|budget| budget < bound);
    if kind != "enabled" || fits {
        return None;
    }
    Some(match bound.checked_sub(1).filter(|&budget| budget >= BUDGET_MIN) {
        Some(budget) => (budget_tokens.get(), budget.to_string()),
        None => (thinking.get(), r#"{"type":"disabled"}"#.to_owned()),
    })
}

/// The body with others in the place of these parts of it, which are in their order.
fn replaced(body: &[u8], parts: &[(&str, String)]) -> Vec<u8> {
    let (mut whole, mut from) = (Vec::with_capacity(body.len()), 0);
    for (part, new) in parts {
        let Range { start, end } = range_of(part, body);
        whole.extend_from_slice(&body[from..start]);
        whole.extend_from_slice(new.as_bytes());
        from = end;
    }
    whole.extend_from_slice(&body[from..]);
    whole
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
        let bounds = AnswerBounds { main, agents: vec![("Review.".to_owned(), Some(300))] };
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

    /// A block that has no text is none that an agent is known by, and what is neither text nor blocks is not sent.
    #[test]
    fn blocks_are_read_one_by_one() {
        let blocks = r#"{"system":[{},{"text":null,"a":[1]},{"text":"R\u0065view."}],"max_tokens":900}"#;
        assert_eq!(lower(blocks, None, false), Ok(Some(blocks.replace("900", "300"))));
        for unread in ["5", "[0,0]", "{}", r#"[{"text":5}]"#, r#"[{"text":"a","text":"Review."}]"#] {
            let body = format!(r#"{{"system":{unread},"max_tokens":900}}"#);
            assert!(lower(&body, Some(700), false).is_err(), "{unread}");
            assert!(lower(&body, Some(700), true).is_ok(), "the main agent's is not looked at: {unread}");
        }
    }

    /// The API takes no budget of thinking that is not below `max_tokens`, and none below its least.
    #[test]
    fn thinking_fits_what_is_left() {
        let ask = |thinking: &str| format!(r#"{{"thinking": {thinking},"max_tokens":64000,"a":1}}"#);
        let budget = |tokens: &str| format!(r#"{{"type":"enabled", "budget_tokens": {tokens}}}"#);
        let off = r#"{"type":"disabled"}"#.to_owned();
        let adaptive = r#"{"type":"adaptive","budget_tokens":63999}"#.to_owned();
        for (bound, before, after) in [
            (2000, budget("63999"), budget("1999")),
            (2000, budget("2000"), budget("1999")),
            (2000, budget("1999"), budget("1999")),
            (2000, budget("6e4"), budget("1999")),
            (1025, budget("63999"), budget("1024")),
            (1024, budget("63999"), off.clone()),
            (0, budget("63999"), off.clone()),
            (700, adaptive.clone(), adaptive),
            (700, off.clone(), off),
        ] {
            let sent = ask(&after).replace("64000", &bound.to_string());
            assert_eq!(lower(&ask(&before), Some(bound), true), Ok(Some(sent)), "{bound}: {before}");
        }
        assert_eq!(lower(&ask(&budget("63999")), Some(64_000), true), Ok(None), "as it was asked for");
        let behind = r#"{"max_tokens":64000,"thinking":{"budget_tokens":63999,"type":"enabled"}}"#;
        let sent = behind.replace("64000", "2000").replace("63999", "1999");
        assert_eq!(lower(behind, Some(2000), true), Ok(Some(sent)));
    }
}
