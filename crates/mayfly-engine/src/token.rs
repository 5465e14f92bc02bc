//! Tokens that a machine proves itself with.
//!
//! A token names its route and its attempt and carries a code that only the key can make:
//! `mayfly-<route>-<task>.<number>-<64 hex digits>`. Nothing is stored for it: whether the attempt is live
//! decides whether the token still opens anything, and so it dies with the attempt.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use mayfly_core::AttemptId;
use mayfly_wire::Secret;
use sha2::{Digest as _, Sha256};

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The worker link.
    Ticket,
    /// The model API.
    Model,
    /// Handing over results.
    Result,
    /// Asking to go elsewhere.
    Egress,
}

impl Route {
    const fn name(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Model => "model",
            Self::Result => "result",
            Self::Egress => "egress",
        }
    }
}

/// Makes and checks tokens.
pub(crate) struct Tokens(Hmac<Sha256>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"))
    }

    /// The token of an attempt for a route.
    pub(crate) fn mint(&self, route: Route, attempt: AttemptId) -> Secret {
        let code = self.code(route, attempt).finalize().into_bytes();
        Secret::from(format!("mayfly-{}-{attempt}-{}", route.name(), hex::encode(code)))
    }

    /// The attempt that `token` is for, if it is a token for this route.
    pub(crate) fn check(&self, route: Route, token: &str) -> Option<AttemptId> {
        let rest = token.strip_prefix("mayfly-")?.strip_prefix(route.name())?.strip_prefix('-')?;
        let (attempt, code) = rest.rsplit_once('-')?;
        let attempt: AttemptId = attempt.parse().ok()?;
        // Compared in constant time.
        self.code(route, attempt).verify_slice(&hex::decode(code).ok()?).ok()?;
        Some(attempt)
    }

    fn code(&self, route: Route, attempt: AttemptId) -> Hmac<Sha256> {
        let mut code = self.0.clone();
        code.update(format!("{}/{attempt}", route.name()).as_bytes());
        code
    }
}

/// The SHA-256 of a secret that a worker made up.
pub(crate) fn hash(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: &str = "0193b2c4-0000-7000-8000-0123456789ab.1";

    /// S27, S40: a token opens its own route, for its own attempt, with its own key.
    #[test]
    fn a_token_opens_one_route_of_one_attempt() {
        let (tokens, others) = (Tokens::new([1; 32]), Tokens::new([2; 32]));
        let attempt: AttemptId = ATTEMPT.parse().expect("an id");
        let token = tokens.mint(Route::Model, attempt);
        assert_eq!(tokens.check(Route::Model, token.expose()), Some(attempt));
        assert_eq!(tokens.check(Route::Result, token.expose()), None);
        assert_eq!(others.check(Route::Model, token.expose()), None);
        let other_attempt = token.expose().replace(".1-", ".2-");
        assert_eq!(tokens.check(Route::Model, &other_attempt), None);
        let other_route = token.expose().replace("model", "result");
        assert_eq!(tokens.check(Route::Result, &other_route), None);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let tokens = Tokens::new([1; 32]);
        for text in
            ["", "mayfly-model-", "mayfly-model--", &format!("mayfly-model-{ATTEMPT}-é{}", "0".repeat(62))]
        {
            assert_eq!(tokens.check(Route::Model, text), None, "{text}");
        }
    }
}
