//! Whether a request may come in, and whether it names the version of the API that it speaks.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::Accepted;
use crate::problem::Problem;

/// The beta that a request with an OAuth token has to name.
pub(crate) const OAUTH_BETA: &str = "oauth-2025-04-20";

/// Refuses a request without the accepted credential, or with more than that.
pub(crate) fn check(headers: &HeaderMap, accepted: &Accepted) -> Result<(), Problem> {
    let key = one(headers, "x-api-key")?;
    let authorization = one(headers, AUTHORIZATION.as_str())?;
    let (sent, wanted) = match (key, authorization, accepted) {
        (Some(_), Some(_), _) => {
            return Err(Problem::unauthenticated("send x-api-key or Authorization, not both"));
        }
        (None, None, _) => {
            return Err(Problem::unauthenticated("x-api-key or Authorization header is required"));
        }
        (Some(key), None, Accepted::ApiKey(wanted)) => (key, wanted),
        (Some(_), None, _) => return Err(Problem::unauthenticated("invalid x-api-key")),
        (None, Some(_), Accepted::ApiKey(_)) => return Err(Problem::unauthenticated("invalid bearer token")),
        (None, Some(value), Accepted::Oauth(wanted) | Accepted::Bearer(wanted)) => (bearer(value)?, wanted),
    };
    if sent != wanted {
        return Err(Problem::unauthenticated("this credential is not known here"));
    }
    if matches!(accepted, Accepted::Oauth(_)) && !names_beta(headers, OAUTH_BETA) {
        return Err(Problem::unauthenticated(format!("an OAuth token needs the beta header {OAUTH_BETA}")));
    }
    Ok(())
}

/// Refuses a request that does not say which version of the API it speaks.
pub(crate) fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    match one(headers, "anthropic-version")? {
        Some("2023-06-01") => Ok(()),
        Some(other) => {
            Err(Problem::invalid(format!("anthropic-version: {other} is not a version of this API")))
        }
        None => Err(Problem::invalid("anthropic-version: header is required")),
    }
}

fn bearer(value: &str) -> Result<&str, Problem> {
    value
        .strip_prefix("Bearer ")
        .ok_or_else(|| Problem::unauthenticated("Authorization is to be `Bearer TOKEN`"))
}

fn names_beta(headers: &HeaderMap, beta: &str) -> bool {
    let named = headers.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|name| name.trim() == beta)
}

/// The only value of a header. A header sent twice is refused: two readers could take different ones.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(format!("{name}: header is sent more than once")));
    }
    first.to_str().map(Some).map_err(|_| Problem::invalid(format!("{name}: header is not ASCII")))
}
