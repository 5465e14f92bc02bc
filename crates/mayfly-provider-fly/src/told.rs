//! What Fly's errors mean for the engine, in words that say what to do.

use mayfly_provider::ProviderError;

use crate::api::{ApiError, Kind};
use crate::{NAME, TOKEN};

/// As the answer to `call` about the app `app`: what only its owner can change is refused, all else is asked for again.
pub(crate) fn told(app: &str, call: &'static str, error: ApiError) -> ProviderError {
    match advice(app, &error) {
        Some(reason) => ProviderError::Refused { provider: NAME, reason, source: Some(error.into()) },
        None => ProviderError::Unclear { call, source: error.into() },
    }
}

/// What its owner should do; none where it may pass by itself.
fn advice(app: &str, error: &ApiError) -> Option<String> {
    Some(match error.kind {
        Kind::Token => format!(
            "Fly does not take the token: it has expired or was revoked; make another with \
             `fly tokens create deploy -a {app} -x 720h`, and set it as {TOKEN}"
        ),
        Kind::Forbidden => format!(
            "the token is not for the app `{app}`: it is another app's or organisation's; make one with \
             `fly tokens create deploy -a {app} -x 720h`"
        ),
        Kind::Absent => format!(
            "there is no app `{app}` that this token can see: make it with `fly apps create {app}`, or name another"
        ),
        Kind::Image => {
            "the image is not in the registry: push it, and name it by the digest that was pushed \
                        (right after a push, Fly may need a minute)"
                .to_owned()
        }
        Kind::Region => {
            "Fly does not know the region: `fly platform regions` lists those that there are".to_owned()
        }
        Kind::Invalid => "Fly does not take the request".to_owned(),
        Kind::Unsent
        | Kind::Unanswered
        | Kind::Late
        | Kind::Exists(_)
        | Kind::Taken
        | Kind::Capacity(_)
        | Kind::Quota
        | Kind::State
        | Kind::Rate(_)
        | Kind::Server => return None,
    })
}

/// No region has room now.
#[derive(Debug, thiserror::Error)]
#[error("Fly has no room for a machine in {}: name more regions, or a smaller size; it is asked again", .regions.join(", "))]
pub(crate) struct NoRoom {
    pub(crate) regions: Vec<String>,
    /// What Fly said last, if this was heard just now.
    #[source]
    pub(crate) said: Option<ApiError>,
}

/// The organisation may have no more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the organisation has used up its quota in {}: end other machines, name more regions, or ask Fly for more \
     (billing@fly.io, or the dashboard's support page); it is asked again",
    .regions.join(", ")
)]
pub(crate) struct OverQuota {
    pub(crate) regions: Vec<String>,
    #[source]
    pub(crate) said: ApiError,
}

/// A machine of that name is there and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("an earlier machine of this attempt is not gone yet")]
pub(crate) struct NotGone;
