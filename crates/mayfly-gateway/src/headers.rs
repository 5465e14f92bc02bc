//! Which headers pass, and the swap of the credential.
//!
//! Whatever could be a credential is taken off in both directions, whoever put it there: only the owner's own
//! is put in, in the one header of its kind.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::{CredentialKind, PLACEHOLDER_HEADER, Upstream};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// What the API wants to see named when the credential is an OAuth token.
const OAUTH_BETA: &str = "oauth-2025-04-20";

/// Headers about one connection; RFC 9110, section 7.6.1, and the old names still met.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that carry credentials, by their whole name or its end.
const CREDENTIALS: [&str; 6] =
    ["authorization", "cookie", "proxy-authorization", "set-cookie", "set-cookie2", "x-api-key"];
const CREDENTIAL_ENDS: [&str; 4] = ["-token", "-secret", "-api-key", "-apikey"];

/// The placeholder of a request: in a header of our own, where the machine holds the credential itself; else what its
/// `Authorization: Bearer` holds, else its `x-api-key`.
pub(crate) fn placeholder(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(PLACEHOLDER_HEADER) {
        return value.to_str().ok().map(str::trim);
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token);
    bearer.or_else(|| headers.get(X_API_KEY)?.to_str().ok()).map(str::trim)
}

/// The headers of a request as they go out to `upstream`. `None`: its credential fits no header.
pub(crate) fn outgoing(came: &HeaderMap, upstream: &Upstream) -> Option<HeaderMap> {
    let mut out = passing(came);
    out.remove(header::HOST);
    set_oauth_beta(&mut out, upstream.kind == CredentialKind::OauthToken);
    let (name, text) = match upstream.kind {
        CredentialKind::ApiKey => (X_API_KEY, upstream.secret.clone()),
        CredentialKind::OauthToken | CredentialKind::Bearer => {
            (header::AUTHORIZATION, SecretString::from(format!("Bearer {}", upstream.secret.expose_secret())))
        }
    };
    let mut value = HeaderValue::from_str(text.expose_secret()).ok()?;
    value.set_sensitive(true);
    out.insert(name, value);
    Some(out)
}

/// The headers of an answer as the machine gets them: none that shows the credential itself.
pub(crate) fn incoming(came: &HeaderMap, secret: &SecretString) -> HeaderMap {
    let mut headers = passing(came);
    let secret = secret.expose_secret().as_bytes();
    let shows =
        |value: &HeaderValue| value.as_bytes().windows(secret.len().max(1)).any(|part| part == secret);
    let showing: Vec<_> =
        headers.iter().filter(|(_, value)| shows(value)).map(|(name, _)| name.clone()).collect();
    for name in showing {
        headers.remove(name);
    }
    headers
}

/// All but credentials and what is about the connection.
fn passing(came: &HeaderMap) -> HeaderMap {
    let passes =
        |name: &str| !CREDENTIALS.contains(&name) && !CREDENTIAL_ENDS.iter().any(|end| name.ends_with(end));
    only(&end_to_end(came), passes)
}

/// All but what is about the connection, by its `Connection` header too.
pub(crate) fn end_to_end(came: &HeaderMap) -> HeaderMap {
    let named = came.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let proxy = header::PROXY_AUTHORIZATION.as_str();
    only(came, |name| {
        !HOP_BY_HOP.contains(&name) && name != proxy && !named.iter().any(|named| named == name)
    })
}

fn only(came: &HeaderMap, passes: impl Fn(&str) -> bool) -> HeaderMap {
    let pairs = came.iter().filter(|(name, _)| passes(name.as_str()));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The CLI names its betas by the kind of its placeholder; the API is told those of the real credential.
fn set_oauth_beta(headers: &mut HeaderMap, wanted: bool) {
    let lines = headers.get_all(ANTHROPIC_BETA).iter().filter_map(|value| value.to_str().ok());
    let betas = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|&beta| beta != OAUTH_BETA);
    let betas: Vec<&str> =
        betas.chain(wanted.then_some(OAUTH_BETA)).filter(|beta| !beta.is_empty()).collect();
    let line = HeaderValue::from_str(&betas.join(",")).ok().filter(|line| !line.is_empty());
    headers.remove(ANTHROPIC_BETA);
    if let Some(line) = line {
        headers.insert(ANTHROPIC_BETA, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(kind: CredentialKind) -> Upstream {
        Upstream { base_url: "http://api.invalid".to_owned(), kind, secret: "canary".to_owned().into() }
    }

    fn headers<const N: usize>(pairs: [(&'static str, &'static str); N]) -> HeaderMap {
        pairs
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn betas(kind: CredentialKind, came: &'static str) -> Option<String> {
        let out = outgoing(&headers([("anthropic-beta", came)]), &upstream(kind)).expect("a good credential");
        out.get(ANTHROPIC_BETA).map(|value| value.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn the_oauth_beta_is_named_for_an_oauth_token_and_for_nothing_else() {
        assert_eq!(betas(CredentialKind::OauthToken, "a, b").as_deref(), Some("a,b,oauth-2025-04-20"));
        assert_eq!(
            betas(CredentialKind::OauthToken, "oauth-2025-04-20,b").as_deref(),
            Some("b,oauth-2025-04-20")
        );
        assert_eq!(betas(CredentialKind::ApiKey, "a,oauth-2025-04-20").as_deref(), Some("a"));
        assert_eq!(betas(CredentialKind::Bearer, "oauth-2025-04-20"), None);
    }

    #[test]
    fn what_the_connection_header_names_stays_with_the_connection() {
        let came =
            headers([("connection", "X-Hop, close"), ("x-hop", "1"), ("te", "trailers"), ("x-end", "2")]);
        let out = passing(&came);
        assert_eq!(out, headers([("x-end", "2")]));
    }

    #[test]
    fn a_count_of_tokens_is_no_credential() {
        let came = headers([("anthropic-ratelimit-tokens-remaining", "5"), ("x-amz-security-token", "t")]);
        assert_eq!(passing(&came), headers([("anthropic-ratelimit-tokens-remaining", "5")]));
    }

    #[test]
    fn an_answer_that_shows_the_credential_loses_that_header() {
        let came = headers([("x-echo", "Bearer canary"), ("request-id", "r1")]);
        assert_eq!(incoming(&came, &"canary".to_owned().into()), headers([("request-id", "r1")]));
    }

    #[test]
    fn a_credential_that_fits_no_header_goes_nowhere() {
        let mut broken = upstream(CredentialKind::ApiKey);
        broken.secret = "two\nlines".to_owned().into();
        assert!(outgoing(&HeaderMap::new(), &broken).is_none());
    }
}
