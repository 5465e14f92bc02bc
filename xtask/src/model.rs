//! The model that the checks are run on: a script, and a credential that opens it and nothing else.

use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_wire::api::{Credential, CredentialKind};

/// Starts one on any free port, with a credential that was made up for it.
pub(crate) async fn scripted_model() -> anyhow::Result<(ScriptedApi, Credential)> {
    let secret = format!("made-up-{}", uuid::Uuid::now_v7());
    let api = ScriptedApi::start("127.0.0.1:0".parse()?, Accepted::Oauth(secret.clone())).await?;
    let base_url = Some(api.base_url());
    Ok((api, Credential::new(CredentialKind::OauthToken, secret.into(), base_url)))
}
