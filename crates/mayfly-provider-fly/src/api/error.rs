//! Why the Machines API did not do as asked.
//!
//! The status says little: Fly says that it has no room with 400, 403, 409, 412, 422 and 503 alike. So what is in the
//! body comes first, and the status only for what the body leaves open.

use std::fmt;
use std::time::Duration;

use mayfly_provider::BoxError;
use serde::Deserialize;

/// How much of what Fly said is kept, in characters.
const SAID_MAX: usize = 300;

/// One call that was not answered as it should be. With Fly's own name for the request, where it gave one.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ApiError {
    /// What was asked, as a verb and its object.
    pub(crate) call: &'static str,
    pub(crate) kind: Kind,
    pub(crate) status: Option<u16>,
    /// What Fly said; bounded, and without control characters.
    pub(crate) said: String,
    pub(crate) request_id: Option<String>,
    #[source]
    pub(crate) source: Option<BoxError>,
}

/// What an error is about, and so what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was never sent.
    Unsent,
    /// It was sent, and may have been done: no answer came, or none that can be read.
    Unanswered,
    /// The token is none, or none any more.
    Token,
    /// The token is good, and not for this.
    Forbidden,
    /// There is none.
    Absent,
    /// What was waited for has not come; what was to be made may come yet.
    Late,
    /// The name is taken, by the machine with this id if it says so.
    Exists(Option<String>),
    /// Another app has the name.
    Taken,
    /// No room, on one host or in a region.
    Capacity(Scope),
    /// The organisation has used up what it may have in the region.
    Quota,
    /// Not in this state.
    State,
    /// Asked too often; how long to wait, if it says so.
    Rate(Option<Duration>),
    /// The image is not in the registry.
    Image,
    /// There is no such region.
    Region,
    /// The request is not one that Fly takes.
    Invalid,
    /// Fly has trouble of its own; it may have been done.
    Server,
}

/// Where there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// On the host that was chosen; the next one may have some.
    Host,
    Region,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = self.call;
        match (self.status, &self.kind) {
            (Some(status), Kind::Unanswered) => {
                write!(f, "Fly's answer to `{call}` cannot be read ({status}, ")
            }
            (Some(status), _) => write!(f, "Fly answered `{call}` with {status} ("),
            (None, Kind::Unsent) => write!(f, "Fly cannot be reached for `{call}` ("),
            (None, _) => write!(f, "Fly did not answer `{call}` ("),
        }?;
        match &self.request_id {
            Some(id) => write!(f, "fly-request-id {id})")?,
            None => write!(f, "no fly-request-id)")?,
        }
        if self.said.is_empty() { Ok(()) } else { write!(f, ": {}", self.said) }
    }
}

/// Fly's words on an error. Which of the first two it uses depends on who answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    error: String,
    message: String,
    status: String,
}

/// What Fly said with a status that is no success.
pub(crate) struct Refusal<'a> {
    pub(crate) call: &'static str,
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl From<Refusal<'_>> for ApiError {
    fn from(refusal: Refusal<'_>) -> Self {
        let Refusal { call, status, body, request_id, retry_after } = refusal;
        let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
        let words = [&parsed.error, &parsed.message].into_iter().find(|words| !words.is_empty());
        let said = words.map_or_else(|| String::from_utf8_lossy(body).into_owned(), Clone::clone);
        let kind = match kind(status, &said.to_lowercase(), &parsed.status) {
            Kind::Exists(_) => Kind::Exists(machine_id(&said)),
            Kind::Rate(_) => Kind::Rate(retry_after),
            kind => kind,
        };
        Self { call, kind, status: Some(status), said: shown(&said), request_id, source: None }
    }
}

impl Kind {
    /// Whether the call may have been done all the same.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self, Self::Unanswered | Self::Late | Self::Server)
    }
}

fn kind(status: u16, said: &str, code: &str) -> Kind {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let is_error = matches!(status, 400 | 403 | 409 | 412 | 422 | 500..=599);
    if is_error && says(&["over the allowed quota", "quota exceeded", "exceeds the quota"]) {
        return Kind::Quota;
    }
    if is_error && says(&["could not reserve resource", "insufficient memory"]) {
        return Kind::Capacity(Scope::Host);
    }
    let is_capacity = matches!(code, "insufficient_capacity" | "volume_placement_capacity")
        || says(&["no capacity", "insufficient resources", "insufficient capacity", "insufficient_capacity"]);
    if is_error && is_capacity {
        return Kind::Capacity(Scope::Region);
    }
    if is_error && (code == "name_taken" || says(&["name has already been taken"])) {
        return Kind::Taken;
    }
    match status {
        401 => Kind::Token,
        403 => Kind::Forbidden,
        404 => Kind::Absent,
        408 => Kind::Late,
        409 if says(&["already_exists"]) => Kind::Exists(None),
        409 | 412 => Kind::State,
        429 => Kind::Rate(None),
        400 | 422 if says(&["manifest", "image not found", "could not resolve image"]) => Kind::Image,
        400 | 422 if says(&["region"]) => Kind::Region,
        500.. => Kind::Server,
        _ => Kind::Invalid,
    }
}

/// The id in `… machine ID 148e… …`.
fn machine_id(said: &str) -> Option<String> {
    let rest = &said[said.find("machine ID ")? + "machine ID ".len()..];
    let id: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    (!id.is_empty()).then_some(id)
}

/// As it may be shown.
fn shown(said: &str) -> String {
    let mut chars = said.trim().chars();
    let shown: String = chars.by_ref().take(SAID_MAX).flat_map(char::escape_debug).collect();
    let shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if chars.next().is_some() { shown + " …" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> ApiError {
        let request_id = Some("01JN-yyz".to_owned());
        Refusal { call: "create machine", status, body: body.as_bytes(), request_id, retry_after: None }
            .into()
    }

    fn of(status: u16, error: &str) -> Kind {
        refused(status, &serde_json::json!({ "error": error }).to_string()).kind
    }

    #[test]
    fn no_room_is_known_in_each_of_its_disguises() {
        let region = Kind::Capacity(Scope::Region);
        assert_eq!(of(400, "no capacity available in iad"), region);
        assert_eq!(of(412, "failed_precondition: insufficient resources to create new machine"), region);
        assert_eq!(of(422, "insufficient capacity for volume"), region);
        let coded = r#"{"error":"unavailable","status":"insufficient_capacity"}"#;
        assert_eq!(refused(503, coded).kind, region);
        let host = Kind::Capacity(Scope::Host);
        assert_eq!(of(409, "aborted: could not reserve resource for machine: insufficient memory"), host);
        assert_eq!(of(409, "insufficient memory available to fulfill request"), host);
        let quota = "you are over the allowed quota of memory in iad, please consider other regions";
        assert_eq!(of(403, quota), Kind::Quota);
    }

    #[test]
    fn each_answer_says_what_it_is_about() {
        assert_eq!(of(401, "Authenticate: token validation error"), Kind::Token);
        assert_eq!(of(403, "unauthorized"), Kind::Forbidden);
        assert_eq!(of(404, "app not found"), Kind::Absent);
        assert_eq!(of(408, "deadline_exceeded: machine failed to reach desired state"), Kind::Late);
        let exists =
            "already_exists: unique machine name violation, machine ID 148ed21a031189 already exists";
        assert_eq!(of(409, exists), Kind::Exists(Some("148ed21a031189".to_owned())));
        assert_eq!(of(409, "already_exists: it does"), Kind::Exists(None));
        assert_eq!(refused(422, r#"{"error":"x","status":"name_taken"}"#).kind, Kind::Taken);
        assert_eq!(of(409, "lease currently held"), Kind::State);
        assert_eq!(of(412, "failed_precondition: machine getting replaced"), Kind::State);
        assert_eq!(of(429, "resource_exhausted: rate limit exceeded"), Kind::Rate(None));
        assert_eq!(of(400, "invalid_argument: failed to get manifest registry.fly.io/x"), Kind::Image);
        assert_eq!(of(400, "invalid_argument: unknown region zzz"), Kind::Region);
        assert_eq!(of(400, "invalid_argument: guest"), Kind::Invalid);
        assert_eq!(of(500, "internal"), Kind::Server);
        assert_eq!(
            of(404, "no capacity"),
            Kind::Absent,
            "only an error about making something is about room"
        );
    }

    #[test]
    fn an_error_is_told_with_flys_words_and_its_name_for_the_request() {
        let error = refused(500, r#"{"error":"internal: x"}"#);
        let words = "Fly answered `create machine` with 500 (fly-request-id 01JN-yyz): internal: x";
        assert_eq!(error.to_string(), words);
        let error = refused(502, "<html>\u{1b}[31mBad Gateway</html>");
        assert_eq!(error.said, "<html>\\u{1b}[31mBad Gateway</html>");
        let error = refused(500, &"ä".repeat(100_000));
        assert_eq!(error.said.chars().count(), SAID_MAX + 2);
    }
}
