//! Who may do what, and how often.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use mayfly_provider::clock::{after, before};

/// A token that the API takes.
#[derive(Debug, Clone)]
pub struct Token {
    /// Without a scheme.
    pub text: String,
    /// Whose it is.
    pub organisation: String,
    /// The one app that it is for; none is all of the organisation.
    pub app: Option<String>,
    /// Whether it may look, and do nothing.
    pub is_readonly: bool,
    /// When it ends.
    pub until: Option<Timestamp>,
}

impl Token {
    /// A deploy token of `app`, which does not end.
    pub fn deploy(text: &str, organisation: &str, app: &str) -> Self {
        let app = Some(app.to_owned());
        let (text, organisation) = (text.to_owned(), organisation.to_owned());
        Self { text, organisation, app, is_readonly: false, until: None }
    }

    /// Whether this is its text, and it is good now.
    pub(crate) fn is_good(&self, text: &str, now: Timestamp) -> bool {
        self.text == text && self.until.is_none_or(|until| now < until)
    }
}

/// The token that a header names, if it is sent by the scheme of its kind and is good now.
pub(crate) fn token<'a>(tokens: &'a [Token], header: Option<&str>, now: Timestamp) -> Option<&'a Token> {
    let (scheme, text) = header?.split_once(' ')?;
    let is_macaroon = ["fm1r_", "fm1a_", "fm2_"].iter().any(|mark| text.starts_with(mark));
    let expected = if is_macaroon { "FlyV1" } else { "Bearer" };
    tokens.iter().find(|token| token.is_good(text, now)).filter(|_| scheme == expected)
}

/// One request a second for each action on each app or machine, three at once; looking at a machine is faster.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    full_at: HashMap<(crate::On, String), Timestamp>,
}

impl Rates {
    /// Whether it may be done now. It is counted if so.
    pub(crate) fn allow(&mut self, on: crate::On, of: &str, now: Timestamp) -> bool {
        let (each, burst) = match on {
            crate::On::Get => (Duration::from_millis(200), 10),
            _ => (Duration::from_secs(1), 3),
        };
        let full = self.full_at.entry((on, of.to_owned())).or_insert(now);
        let is_allowed = before((*full).max(now), each * (burst - 1)) <= now;
        if is_allowed {
            *full = after((*full).max(now), each);
        }
        is_allowed
    }
}
