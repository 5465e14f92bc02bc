//! The token of the Machines API, and how it is sent.

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

/// What tokens of today begin with; they are sent by a scheme of Fly's own.
const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];
/// What `fly tokens create` and others put before a token.
const SCHEMES: [&str; 2] = ["FlyV1", "Bearer"];

/// A token, ready to be sent.
#[derive(Clone)]
pub(crate) struct Token(HeaderValue);

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadToken {
    Empty,
    /// It has characters that no header has.
    Unsendable,
}

impl Token {
    /// With or without the scheme that it is printed with.
    pub(crate) fn new(text: &SecretString) -> Result<Self, BadToken> {
        let bare = bare(text.expose_secret());
        if bare.is_empty() {
            return Err(BadToken::Empty);
        }
        let scheme = if MACAROONS.iter().any(|mark| bare.starts_with(mark)) { "FlyV1" } else { "Bearer" };
        let mut header =
            HeaderValue::try_from(format!("{scheme} {bare}")).map_err(|_| BadToken::Unsendable)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// A token without the scheme that it is printed with, as the registry takes it for a password.
pub fn bare_token(text: &SecretString) -> SecretString {
    bare(text.expose_secret()).to_owned().into()
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    let scheme = text.split_whitespace().next().unwrap_or_default();
    match SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        true => text[scheme.len()..].trim_start(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> Result<String, BadToken> {
        let token = Token::new(&SecretString::from(text.to_owned()))?;
        assert!(token.header().is_sensitive());
        Ok(token.header().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_token_goes_by_the_scheme_of_its_kind_whatever_it_was_printed_with() {
        for printed in ["fm2_a,fm2_b", "FlyV1 fm2_a,fm2_b", "Bearer fm2_a,fm2_b", " flyv1  fm2_a,fm2_b\n"] {
            assert_eq!(sent(printed).unwrap(), "FlyV1 fm2_a,fm2_b", "{printed:?}");
        }
        assert_eq!(sent("fm1r_x").unwrap(), "FlyV1 fm1r_x");
        assert_eq!(sent("fm1a_x").unwrap(), "FlyV1 fm1a_x");
        assert_eq!(sent("FlyV1 old").unwrap(), "Bearer old");
        assert_eq!(sent("old").unwrap(), "Bearer old");
    }

    #[test]
    fn what_is_no_token_is_not_sent() {
        for empty in ["", "  ", "Bearer", "FlyV1 \n"] {
            assert_eq!(sent(empty), Err(BadToken::Empty), "{empty:?}");
        }
        assert_eq!(sent("fm2_a\nx: y"), Err(BadToken::Unsendable));
    }
}
