//! Apps, and what belongs to one: volumes, addresses, secrets, network policies, tokens.

use std::collections::BTreeMap;

use mayfly_provider::clock::after;
use serde_json::{Value, json};

use crate::access::Token;
use crate::handle::{Answer, Api, Asked, error};
use crate::world::State;

/// An app.
#[derive(Debug, Clone, Default)]
pub(crate) struct App {
    pub(crate) organisation: String,
    /// The private network that it was made on; empty is the organisation's.
    pub(crate) network: String,
    pub(crate) volumes: Vec<Value>,
    pub(crate) addresses: Vec<Value>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) policies: Vec<Value>,
}

impl App {
    /// Whether a machine of it can reach nothing, and be reached by nobody, but by Flycast.
    pub(crate) fn is_closed(&self) -> bool {
        let denies = |direction: &str| {
            let mut rules =
                self.policies.iter().flat_map(|policy| policy["rules"].as_array().into_iter().flatten());
            let mut of_direction = rules.by_ref().filter(|rule| rule["direction"] == direction).peekable();
            of_direction.peek().is_some()
                && of_direction.all(|rule| rule["ports"].as_array().is_none_or(Vec::is_empty))
        };
        let is_of_all = self.policies.iter().all(|policy| policy["selector"]["all"] == true);
        is_of_all && denies("ingress") && denies("egress")
    }

    pub(crate) fn volume(&self, id: &str) -> Option<&Value> {
        self.volumes.iter().find(|volume| volume["id"] == id)
    }
}

/// A policy by which machines reach nothing.
pub(crate) fn shutting_in() -> Value {
    let rule = |direction: &str| json!({ "action": "allow", "direction": direction, "ports": [] });
    json!({ "id": "policy0", "name": "nothing", "selector": { "all": true }, "rules": [rule("ingress"), rule("egress")] })
}

impl Api {
    pub(crate) fn create_app(&self, asked: &Asked, token: &Token) -> Answer {
        let (body, mut state) = (&asked.body, self.world.state());
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let name = if text("name").is_empty() { text("app_name") } else { text("name") };
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if token.app.is_some() || token.is_readonly || text("org_slug") != token.organisation {
            return error(403, "permission_denied: unauthorized");
        }
        if name.is_empty() || !name.bytes().all(is_plain) {
            return error(400, "invalid_argument: app name is not valid");
        }
        if state.apps.contains_key(&name) {
            let refusal =
                json!({ "error": "already_exists: Name has already been taken", "status": "name_taken" });
            return (422, refusal);
        }
        let app = App { organisation: text("org_slug"), network: text("network"), ..App::default() };
        state.apps.insert(name.clone(), app);
        (201, json!({ "id": format!("app-{name}"), "created_at": 0 }))
    }

    pub(crate) fn destroy_app(&self, asked: &Asked) -> Answer {
        let machines: Vec<String> = {
            let state = self.world.state();
            let of_app = state.machines.iter().filter(|(_, machine)| machine.app == asked.app);
            of_app.map(|(id, _)| id.clone()).collect()
        };
        for id in machines {
            self.world.becomes(&id, "destroyed", Some(("destroy", Value::Null)));
        }
        self.world.state().apps.remove(&asked.app);
        (202, json!({}))
    }

    pub(crate) fn mint_token(&self, asked: &Asked) -> Answer {
        let hours = asked.body["expiry"].as_str().and_then(|expiry| expiry.strip_suffix('h')?.parse().ok());
        let Some(hours): Option<u64> = hours else {
            return error(400, "invalid_argument: expiry is no duration");
        };
        let until = after(self.world.clock().now(), std::time::Duration::from_secs(hours * 60 * 60));
        let mut state = self.world.state();
        let organisation = state.apps[&asked.app].organisation.clone();
        let text = format!("fm2_minted{}", state.tokens.len());
        let token = Token { until: Some(until), ..Token::deploy(&text, &organisation, &asked.app) };
        state.tokens.push(token);
        (200, json!({ "token": format!("FlyV1 {text}") }))
    }

    pub(crate) fn assign(&self, asked: &Asked) -> Answer {
        let mut state = self.world.state();
        let network = asked.body["network"].as_str().unwrap_or_default().to_owned();
        let address = match asked.body["type"].as_str() {
            Some("shared_v4") => json!({ "ip": "192.0.2.1", "region": "global", "shared": true }),
            Some("private_v6") if state.apps.values().any(|app| app.network == network) => {
                let ip = self.world.setup.flycast.to_string();
                let network = json!({ "name": network, "org_slug": "" });
                json!({ "ip": ip, "region": "global", "shared": false, "network": network })
            }
            Some("private_v6") => return error(400, "invalid_argument: network not found"),
            _ => return error(400, "invalid_argument: type"),
        };
        app_of(&mut state, asked).addresses.push(address.clone());
        (200, address)
    }

    pub(crate) fn set_secrets(&self, asked: &Asked) -> Answer {
        let mut state = self.world.state();
        let app = app_of(&mut state, asked);
        for (name, value) in asked.body["values"].as_object().into_iter().flatten() {
            app.secrets.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        (200, json!({ "version": 1, "secrets": shown(app) }))
    }

    pub(crate) fn create_volume(&self, asked: &Asked) -> Answer {
        let (body, mut state) = (&asked.body, self.world.state());
        if !self.world.setup.regions.iter().any(|region| body["region"] == *region) {
            return error(400, format!("invalid_argument: region {} not found", body["region"]));
        }
        let app = app_of(&mut state, asked);
        let volume = json!({ "id": format!("vol_{}_{}", asked.app, app.volumes.len()), "name": body["name"],
            "region": body["region"], "size_gb": body["size_gb"], "encrypted": body["encrypted"], "state": "created" });
        app.volumes.push(volume.clone());
        (200, volume)
    }

    pub(crate) fn set_policy(&self, asked: &Asked) -> Answer {
        let mut policy = asked.body.clone();
        let mut state = self.world.state();
        let policies = &mut app_of(&mut state, asked).policies;
        match policies.iter_mut().find(|known| !policy["id"].is_null() && known["id"] == policy["id"]) {
            Some(known) => known.clone_from(&policy),
            None if !policy["id"].is_null() => return error(404, "not_found: policy not found"),
            None => {
                policy["id"] = format!("policy{}", policies.len()).into();
                policies.push(policy.clone());
            }
        }
        (200, policy)
    }

    /// What is asked for as a list.
    pub(crate) fn of_app(&self, asked: &Asked, list: impl Fn(&App) -> Value) -> Answer {
        (200, list(&self.world.state().apps[&asked.app]))
    }
}

fn app_of<'a>(state: &'a mut State, asked: &Asked) -> &'a mut App {
    state.apps.get_mut(&asked.app).expect("whoever asks was let in to it")
}

/// Without their values.
pub(crate) fn shown(app: &App) -> Value {
    app.secrets.keys().map(|name| json!({ "name": name, "digest": "0" })).collect()
}
