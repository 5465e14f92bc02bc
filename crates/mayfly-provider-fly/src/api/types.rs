//! What goes to the Machines API and what comes from it: no more than is needed here.
//!
//! Fly adds states and fields without notice, and its document makes every field optional. So what is missing has a
//! default, what is unknown is kept or left aside, and nothing here fails to be read for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// `POST /apps/{app}/machines`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CreateMachine<C = Config> {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) skip_launch: bool,
    /// Whether it gets none of its app's secrets.
    pub(crate) skip_secrets: bool,
    pub(crate) config: C,
}

/// How a machine is to be that others reach, and that stays.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServiceConfig {
    pub(crate) image: String,
    pub(crate) guest: Guest,
    pub(crate) restart: Restart,
    pub(crate) init: Init,
    pub(crate) stop_config: StopConfig,
    pub(crate) env: BTreeMap<&'static str, String>,
    pub(crate) metadata: BTreeMap<&'static str, String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) services: Vec<Service>,
    pub(crate) checks: BTreeMap<&'static str, Check>,
    pub(crate) files: Vec<File>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mount {
    pub(crate) volume: String,
    pub(crate) path: &'static str,
}

/// What is reached by Fly's proxy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Service {
    pub(crate) protocol: &'static str,
    pub(crate) internal_port: u16,
    pub(crate) autostop: &'static str,
    pub(crate) autostart: bool,
    pub(crate) min_machines_running: u32,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) handlers: Vec<&'static str>,
}

/// How Fly sees whether it is well.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) port: u16,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interval: &'static str,
    pub(crate) timeout: &'static str,
    pub(crate) grace_period: &'static str,
}

/// How a machine is to be.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are Fly's")]
pub(crate) struct Config {
    pub(crate) image: String,
    pub(crate) guest: Guest,
    pub(crate) auto_destroy: bool,
    pub(crate) restart: Restart,
    pub(crate) init: Init,
    pub(crate) stop_config: StopConfig,
    pub(crate) rootfs: RootFs,
    pub(crate) dns: Dns,
    pub(crate) metadata: BTreeMap<&'static str, String>,
    pub(crate) files: Vec<File>,
}

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// `shared` or `performance`.
    pub cpu_kind: String,
    /// How many processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Restart {
    pub(crate) policy: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Init {
    pub(crate) exec: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct StopConfig {
    pub(crate) signal: &'static str,
    pub(crate) timeout: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RootFs {
    pub(crate) size_gb: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Dns {
    pub(crate) skip_registration: bool,
}

#[derive(Clone, Serialize)]
pub(crate) struct File {
    pub(crate) guest_path: &'static str,
    /// In base64.
    pub(crate) raw_value: String,
    pub(crate) mode: u32,
}

/// Without what is in it.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("guest_path", &self.guest_path).finish_non_exhaustive()
    }
}

/// A machine, as Fly sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) region: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) created_at: Option<Timestamp>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) host_status: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) config: Option<Seen>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) events: Option<Vec<Event>>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) checks: Option<Vec<Checked>>,
}

/// How a check went.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Checked {
    pub(crate) status: String,
}

/// What of a machine's configuration is looked at again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Seen {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) image: String,
}

/// Where a machine stands. The list is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum State {
    /// Being made: room is reserved, the image fetched, the VM booted.
    Booting(String),
    /// It runs, or is about to end.
    Running(String),
    /// It does not run, and is not to be started again.
    Ended(String),
    /// Nothing of it is left.
    #[default]
    Gone,
    /// Fly has a new word.
    Unknown(String),
}

impl From<String> for State {
    fn from(state: String) -> Self {
        match state.as_str() {
            "created" | "creating" | "starting" => Self::Booting(state),
            "started" | "stopping" | "suspending" | "updating" | "replacing" | "restarting" => {
                Self::Running(state)
            }
            "stopped" | "suspended" | "failed" | "launch_failed" | "destroying" | "migrated" | "replaced" => {
                Self::Ended(state)
            }
            "destroyed" => Self::Gone,
            _ => Self::Unknown(state),
        }
    }
}

impl State {
    /// Fly's word.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Booting(word) | Self::Running(word) | Self::Ended(word) | Self::Unknown(word) => word,
            Self::Gone => "destroyed",
        }
    }
}

/// Something that happened to a machine; the newest comes first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) timestamp: Option<i64>,
    /// `null` for some, and of a form of its own for each type.
    pub(crate) request: Value,
}

/// `GET …/machines/{id}/wait`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waited {
    pub(crate) ok: bool,
}

/// `GET /tokens/current`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<TokenInfo>,
}

/// What a token is good for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TokenInfo {
    #[serde(deserialize_with = "lenient")]
    pub(crate) org_slug: Option<String>,
}

/// `GET /apps/{app}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct App {
    pub(crate) network: String,
}

/// `GET /platform/regions`; its names are written with capitals on the wire, and without in the document.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Regions {
    #[serde(alias = "Regions", deserialize_with = "lenient")]
    pub(crate) regions: Option<Vec<Region>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Region {
    #[serde(alias = "Code")]
    pub(crate) code: String,
    #[serde(alias = "Deprecated", deserialize_with = "lenient")]
    pub(crate) deprecated: Option<bool>,
}

/// What is not of its form counts as missing.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    value: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(value)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_or_missing_or_null_keeps_no_machine_from_being_read() {
        let json = r#"[
            {"id":"1","name":"a","state":"hibernating","new":{"x":[1]},"created_at":"soon","events":null},
            {"id":"2","state":"started","host_status":null,"config":{"metadata":null,"image":1}},
            {"id":"3","state":"created","created_at":"2026-01-01T00:00:00Z",
             "events":[{"type":"launch","request":null,"timestamp":"x"}]}
        ]"#;
        let machines: Vec<Machine> = serde_json::from_str(json).unwrap();
        assert_eq!(machines[0].state, State::Unknown("hibernating".to_owned()));
        assert!(machines[0].created_at.is_none() && machines[1].config.is_none());
        assert_eq!(machines[2].events.as_ref().unwrap()[0].kind, "launch");
        assert!(machines[2].created_at.is_some());
    }

    #[test]
    fn regions_are_read_as_written_on_the_wire_and_as_documented() {
        for json in [
            r#"{"Regions":[{"Code":"iad"}]}"#,
            r#"{"regions":[{"code":"iad"}]}"#,
            r#"{"Regions":[{"code":"iad","deprecated":null}],"Nearest":"iad"}"#,
        ] {
            let regions: Regions = serde_json::from_str(json).unwrap();
            assert_eq!(regions.regions.unwrap()[0].code, "iad", "{json}");
        }
    }
}
