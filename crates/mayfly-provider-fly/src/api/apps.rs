//! The calls that a deployment is made with: apps, and what belongs to one.

use std::collections::BTreeMap;

use reqwest::Method;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json as value;

use super::types::lenient;
use super::{Action, Api, ApiError, Call, CreateMachine, json};

/// A volume that is to be made.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CreateVolume<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    pub(crate) size_gb: u32,
    pub(crate) encrypted: bool,
}

/// A volume.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) region: String,
    pub(crate) size_gb: u32,
}

/// An address of an app.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    pub(crate) ip: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) shared: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) network: Option<Network>,
}

/// The private network that an address is in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Addresses {
    ips: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Secrets {
    secrets: Vec<Named>,
}

#[derive(Deserialize)]
struct Minted {
    token: String,
}

/// What the machines of an app may do on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// One that is there is changed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) selector: Selector,
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
}

/// Which machines of the app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selector {
    #[serde(default)]
    pub(crate) all: bool,
}

/// What is allowed in a direction; all else is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) action: String,
    pub(crate) direction: String,
    #[serde(default)]
    pub(crate) ports: Vec<serde_json::Value>,
}

impl Api {
    /// Makes the app, on a private network of its own if one is named.
    pub(crate) async fn create_app(&self, organisation: &str, network: Option<&str>) -> Result<(), ApiError> {
        // The document and the guide differ in how it is named.
        let app = self.app();
        let mut body = value!({ "app_name": app, "name": app, "org_slug": organisation });
        if let Some(network) = network {
            body["network"] = network.into();
        }
        let call = Call { path: vec!["apps"], ..self.get("make the app", Action::CreateApp, Vec::new()) };
        self.post(call, &body).await
    }

    /// Unmakes it, with its machines, volumes and addresses.
    pub(crate) async fn destroy_app(&self) -> Result<(), ApiError> {
        let mut call = self.of_app("destroy the app", Action::DestroyApp, &[]);
        (call.method, call.query) = (Method::DELETE, vec![("force", "true".to_owned())]);
        self.ask(call, |_| Ok(())).await
    }

    /// Makes a token that is good for this app alone, and for so long.
    pub(crate) async fn deploy_token(&self, expiry: &str) -> Result<SecretString, ApiError> {
        let mut call = self.of_app("make a deploy token", Action::MintToken, &["deploy_token"]);
        call.method = Method::POST;
        call.body = Some(json(&value!({ "expiry": expiry })));
        self.json::<Minted>(call).await.map(|minted| minted.token.into())
    }

    pub(crate) async fn addresses(&self) -> Result<Vec<Address>, ApiError> {
        let call = self.of_app("list addresses", Action::Addresses, &["ip_assignments"]);
        self.json::<Addresses>(call).await.map(|addresses| addresses.ips)
    }

    /// Gives the app an address: `shared_v4`, or `private_v6` in a network.
    pub(crate) async fn assign(&self, kind: &str, network: Option<&str>) -> Result<(), ApiError> {
        let mut body = value!({ "type": kind });
        if let Some(network) = network {
            body["network"] = network.into();
        }
        self.post(self.of_app("get an address", Action::Assign, &["ip_assignments"]), &body).await
    }

    /// The names of the app's secrets; their values are Fly's alone.
    pub(crate) async fn secrets(&self) -> Result<Vec<String>, ApiError> {
        let call = self.of_app("list secrets", Action::Secrets, &["secrets"]);
        let secrets = self.json::<Secrets>(call).await?.secrets;
        Ok(secrets.into_iter().map(|secret| secret.name).collect())
    }

    /// They are in the environment of machines that start from now on.
    pub(crate) async fn set_secrets(&self, values: BTreeMap<&str, String>) -> Result<(), ApiError> {
        let mut call = self.of_app("set secrets", Action::SetSecrets, &["secrets"]);
        // The same however often it is done.
        call.method = Method::POST;
        call.body = Some(json(&value!({ "values": values })));
        self.ask(call, |_| Ok(())).await
    }

    pub(crate) async fn volumes(&self) -> Result<Vec<Volume>, ApiError> {
        self.json(self.of_app("list volumes", Action::Volumes, &["volumes"])).await
    }

    pub(crate) async fn create_volume(&self, volume: &CreateVolume<'_>) -> Result<(), ApiError> {
        self.post(self.of_app("make a volume", Action::CreateVolume, &["volumes"]), volume).await
    }

    pub(crate) async fn policies(&self) -> Result<Vec<Policy>, ApiError> {
        self.json(self.of_app("list network policies", Action::Policies, &["network_policies"])).await
    }

    pub(crate) async fn set_policy(&self, policy: &Policy) -> Result<(), ApiError> {
        self.post(self.of_app("set a network policy", Action::SetPolicy, &["network_policies"]), policy).await
    }

    /// Has a machine be as in `machine` from now on: it is stopped, and started anew.
    pub(crate) async fn update<C: Serialize>(
        &self,
        id: &str,
        machine: &CreateMachine<C>,
    ) -> Result<(), ApiError> {
        self.post(self.on("change a machine", Action::Update, id, &[]), machine).await
    }

    fn of_app<'a>(&'a self, name: &'static str, action: Action, rest: &[&'a str]) -> Call<'a> {
        let path = ["apps", self.app()].into_iter().chain(rest.iter().copied()).collect();
        self.get(name, action, path)
    }

    /// Not sent again once it may have reached Fly: whoever asks looks what became of it.
    async fn post(&self, mut call: Call<'_>, body: &impl Serialize) -> Result<(), ApiError> {
        (call.method, call.is_repeatable) = (Method::POST, false);
        call.body = Some(json(body));
        self.ask(call, |_| Ok(())).await
    }
}
