//! Whom the gateway lets out: the engine's tokens, in the gateway's words.

use async_trait::async_trait;
use mayfly_core::AttemptId;
use mayfly_engine::{ModelAccess, NoModel};
use mayfly_gateway::{Admission, Admitted, CredentialKind, Denied, Gate, Refusal, Upstream, Used};
use mayfly_wire::api;

use super::entry::Entry;

/// Where a credential goes that names no place.
const ANTHROPIC_URL: &str = "https://api.anthropic.com";

/// Asks the engine, for one door.
#[derive(Debug)]
pub(super) struct Tokens(pub(super) Entry);

#[async_trait]
impl Admission for Tokens {
    async fn admit(&self, token: &str) -> Result<Admitted, Refusal> {
        let ModelAccess { attempt, credential, redactor, bounds, gate } =
            self.0.admit_model(token).await.map_err(|error| match error {
                NoModel::Denied(_) => Denied.into(),
                why @ (NoModel::Credential(_) | NoModel::Bounds) => Refusal::NoCredential(why.to_string()),
            })?;
        let gate = Box::new(EngineGate(gate));
        let upstream = upstream(credential).ok_or(Denied)?;
        Ok(Admitted { attempt, upstream, redactor, bounds, gate })
    }

    async fn refused(&self, attempt: AttemptId) {
        self.0.credential_refused(attempt).await;
    }

    fn count(&self, attempt: AttemptId, used: Used) {
        self.0.count(attempt, stored(used));
    }
}

fn stored(used: Used) -> mayfly_engine::Used {
    mayfly_engine::Used {
        model: used.model,
        requests: 1,
        turns: used.turn.into(),
        input_tokens: used.input_tokens,
        output_tokens: used.output_tokens,
        cache_read_tokens: used.cache_read_tokens,
        cache_write_tokens: used.cache_write_tokens,
    }
}

/// Where a credential goes. `None`: it is none for the model.
pub(super) fn upstream(credential: api::Credential) -> Option<Upstream> {
    let kind = match credential.kind {
        api::CredentialKind::OauthToken => CredentialKind::OauthToken,
        api::CredentialKind::ApiKey => CredentialKind::ApiKey,
        api::CredentialKind::Bearer => CredentialKind::Bearer,
        api::CredentialKind::Secret => return None,
    };
    let base_url = credential.base_url.unwrap_or_else(|| ANTHROPIC_URL.to_owned());
    Some(Upstream { base_url, kind, secret: credential.secret.expose().to_owned().into() })
}

#[derive(Debug)]
struct EngineGate(mayfly_engine::Gate);

#[async_trait]
impl Gate for EngineGate {
    async fn opened(&mut self) -> Result<(), Denied> {
        self.0.opened().await.map_err(|_| Denied)
    }

    async fn over(&mut self) {
        self.0.over().await;
    }
}
