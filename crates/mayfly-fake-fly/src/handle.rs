//! One request: whose it is, whether it is as documented, what happens to it, and what it does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use mayfly_provider::clock::after;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Checks;
use crate::access::{self, Token};
use crate::apps::{self, App};
use crate::document::Document;
use crate::fault::{Fault, On};
use crate::world::{Machine, World};

/// The longest body of a request.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a check may take: what is not up yet takes connections, and answers none.
const CHECK_MAX: Duration = Duration::from_secs(1);
/// The times that may be waited for.
const WAIT_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

/// What the server answers from.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) world: Arc<World>,
    pub(crate) document: Arc<Document>,
}

/// A request, taken apart.
pub(crate) struct Asked {
    on: On,
    method: String,
    /// Below `/v1`.
    path: String,
    pub(crate) app: String,
    id: String,
    query: BTreeMap<String, String>,
    pub(crate) body: Value,
}

pub(crate) type Answer = (u16, Value);

pub(crate) async fn handle(State(api): State<Api>, request: Request) -> Response {
    let number = {
        let mut state = api.world.state();
        state.requests += 1;
        state.requests
    };
    let mut response = api.answer(request).await;
    let id = format!("01FAKE{number:020}-iad");
    response.headers_mut().insert("fly-request-id", id.parse().expect("a header"));
    response
}

pub(crate) fn error(status: u16, error: impl Into<String>) -> Answer {
    (status, json!({ "error": error.into() }))
}

impl Api {
    async fn answer(&self, request: Request) -> Response {
        let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let header = header.map(str::to_owned);
        let asked = match self.take_apart(request).await {
            Ok(asked) => asked,
            Err(why) => {
                self.complain(&why);
                return plain(error(400, format!("invalid_argument: {why}")));
            }
        };
        let token = match self.admit(&asked, header.as_deref()) {
            Ok(token) => token,
            Err(refused) => return self.checked(&asked, refused),
        };
        let fault = self.world.state().script.next(asked.on);
        match fault {
            None => {
                let answer = self.act(&asked, &token, None).await;
                self.checked(&asked, answer)
            }
            Some(fault) => self.fail(&asked, &token, fault).await,
        }
    }

    async fn take_apart(&self, request: Request) -> Result<Asked, String> {
        let (head, body) = request.into_parts();
        let method = head.method.as_str().to_owned();
        let path = head.uri.path().strip_prefix("/v1").unwrap_or_default().to_owned();
        let pairs = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs: Vec<(String, String)> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(a, b)| (a.into(), b.into()))
            .collect();
        let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| error.to_string())?;
        let body: Option<Value> = match bytes.is_empty() {
            true => None,
            false => {
                Some(serde_json::from_slice(&bytes).map_err(|error| format!("{method} {path}: {error}"))?)
            }
        };
        let wrong = |why| format!("{method} {path}: {why}");
        self.document.request(&method, &path, &pairs, body.as_ref()).map_err(wrong)?;
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (on, app, id) = match (method.as_str(), parts.as_slice()) {
            (_, ["tokens", ..]) => (On::Token, "", ""),
            (_, ["platform", ..]) => (On::Regions, "", ""),
            (_, ["apps"]) => (On::CreateApp, "", ""),
            ("DELETE", ["apps", app]) => (On::DestroyApp, *app, ""),
            ("POST", ["apps", app, "machines", id]) => (On::Update, *app, *id),
            (method, ["apps", app, what]) if *what != "machines" => (of_app(method, what), *app, ""),
            ("POST", ["apps", app, "machines"]) => (On::Create, *app, ""),
            (_, ["apps", app, "machines"]) => (On::List, *app, ""),
            ("DELETE", ["apps", app, "machines", id]) => (On::Destroy, *app, *id),
            (_, ["apps", app, "machines", id]) => (On::Get, *app, *id),
            (_, ["apps", app, "machines", id, "wait"]) => (On::Wait, *app, *id),
            (_, ["apps", app, "machines", id, _]) => (On::Events, *app, *id),
            (_, ["apps", app]) => (On::App, *app, ""),
            _ => return Err(wrong("there is no such call".to_owned())),
        };
        let (app, id) = (app.to_owned(), id.to_owned());
        let (query, body) = (pairs.into_iter().collect(), body.unwrap_or_default());
        Ok(Asked { on, method, path, app, id, query, body })
    }

    /// The token of whoever asks, if they may ask this, and so often.
    fn admit(&self, asked: &Asked, header: Option<&str>) -> Result<Token, Answer> {
        let now = self.world.clock().now();
        let token = access::token(&self.world.state().tokens, header, now).cloned();
        let Some(token) = token else { return Err(error(401, "Authenticate: token validation error")) };
        if !asked.app.is_empty() {
            self.admit_to_app(asked, &token)?;
        }
        let of = if asked.id.is_empty() { &asked.app } else { &asked.id };
        let mut state = self.world.state();
        if state.rates.allow(asked.on, of, now) {
            return Ok(token);
        }
        state.rate_refusals += 1;
        Err(error(429, "resource_exhausted: rate limit exceeded"))
    }

    fn admit_to_app(&self, asked: &Asked, token: &Token) -> Result<(), Answer> {
        let state = self.world.state();
        let Some(App { organisation, .. }) = state.apps.get(&asked.app) else {
            return Err(error(404, "not_found: app not found"));
        };
        let is_for_it = token.app.as_ref().is_none_or(|app| *app == asked.app);
        if *organisation != token.organisation || !is_for_it {
            return Err(error(403, "permission_denied: unauthorized"));
        }
        if token.is_readonly && asked.method != "GET" {
            return Err(error(403, "permission_denied: read-only token"));
        }
        Ok(())
    }

    /// What it is answered, held to the document.
    fn checked(&self, asked: &Asked, (status, body): Answer) -> Response {
        if let Err(wrong) = self.document.answer(&asked.method, &asked.path, status, &body) {
            self.complain(&format!("answer to {} {}: {wrong}", asked.method, asked.path));
        }
        plain((status, body))
    }

    fn complain(&self, complaint: &str) {
        self.world.state().complaints.push(complaint.to_owned());
    }

    /// Does it or not, and answers as the script says.
    async fn fail(&self, asked: &Asked, token: &Token, fault: Fault) -> Response {
        let done = if fault.is_done() { Some(self.act(asked, token, Some(&fault)).await) } else { None };
        let stream_of = |chunks: Vec<Result<Bytes, std::io::Error>>| stream::iter(chunks);
        match fault {
            Fault::Refused(status, body) | Fault::Done(status, body) => plain((status, body)),
            Fault::Rate(seconds) => {
                let mut response = plain(error(429, "resource_exhausted: rate limit exceeded"));
                if let Some(seconds) = seconds {
                    response.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                response
            }
            Fault::Silence => std::future::pending().await,
            Fault::Html => {
                let mut response = Response::new(Body::from("<html><body>Welcome</body></html>"));
                response.headers_mut().insert(CONTENT_TYPE, "text/html".parse().expect("a header"));
                response
            }
            Fault::Broken => {
                let cut = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
                Response::new(Body::from_stream(stream_of(vec![Ok(Bytes::from_static(b"{\"id\":")), cut])))
            }
            Fault::Slow => {
                let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{\"id\":"))]);
                Response::new(Body::from_stream(first.chain(stream::pending())))
            }
            Fault::Empty => plain((200, json!([]))),
            Fault::Stuck | Fault::Lingers => self.checked(asked, done.expect("it was done")),
        }
    }

    async fn act(&self, asked: &Asked, token: &Token, fault: Option<&Fault>) -> Answer {
        match asked.on {
            On::Token => (200, tokens(token)),
            On::App => (200, self.app(&asked.app)),
            On::Regions => {
                let regions = self.world.setup.regions.iter();
                let rows: Vec<Value> =
                    regions.map(|code| json!({ "Code": code, "Deprecated": false })).collect();
                (200, json!({ "Regions": rows, "Nearest": self.world.setup.regions.first() }))
            }
            On::Create => self.create(asked, fault),
            On::List => (200, self.list(asked).await),
            On::Get => {
                let is_healthy = self.is_healthy(&asked.app).await;
                self.on_machine(asked, |id, machine| (200, machine.shown(id, is_healthy)))
            }
            On::Events => self.on_machine(asked, |_, machine| (200, machine.events.clone().into())),
            On::Wait => self.wait(asked).await,
            On::Destroy => self.destroy(asked, fault == Some(&Fault::Lingers)),
            On::Update => self.update(asked).await,
            On::CreateApp => self.create_app(asked, token),
            On::DestroyApp => self.destroy_app(asked),
            On::MintToken => self.mint_token(asked),
            On::Addresses => self.of_app(asked, |app| json!({ "ips": app.addresses })),
            On::Assign => self.assign(asked),
            On::Secrets => self.of_app(asked, |app| json!({ "secrets": apps::shown(app) })),
            On::SetSecrets => self.set_secrets(asked),
            On::Volumes => self.of_app(asked, |app| app.volumes.clone().into()),
            On::CreateVolume => self.create_volume(asked),
            On::Policies => self.of_app(asked, |app| app.policies.clone().into()),
            On::SetPolicy => self.set_policy(asked),
        }
    }

    fn app(&self, name: &str) -> Value {
        let state = self.world.state();
        let App { organisation, network, .. } = &state.apps[name];
        let network = if network.is_empty() { "default" } else { network };
        let live = state.machines.values().filter(|machine| machine.is_live() && machine.app == name);
        let count = live.count();
        json!({ "id": format!("app-{name}"), "name": name, "network": network, "status": "deployed",
            "machine_count": count, "organization": { "name": organisation, "slug": organisation } })
    }

    fn create(&self, asked: &Asked, fault: Option<&Fault>) -> Answer {
        let (setup, request) = (&self.world.setup, &asked.body);
        let config = &request["config"];
        if config.get("guest").is_some() && config.get("size").is_some() {
            return error(400, "invalid_argument: guest and size are mutually exclusive");
        }
        let region =
            request["region"].as_str().or(setup.regions.first().map(String::as_str)).unwrap_or_default();
        if !setup.regions.iter().any(|known| known == region) {
            return error(400, format!("invalid_argument: region {region} not found"));
        }
        let image = config["image"].as_str().unwrap_or_default();
        if self.world.layers(&asked.app, image).is_none() {
            return error(400, format!("invalid_argument: failed to get manifest {image}: MANIFEST_UNKNOWN"));
        }
        let (same, count) = {
            let state = self.world.state();
            let live = || state.machines.iter().filter(|(_, machine)| machine.is_live());
            let is_same = |machine: &Machine| machine.app == asked.app && request["name"] == *machine.name;
            let same = live().find(|(_, machine)| is_same(machine)).map(|(id, _)| id.clone());
            (same, live().count())
        };
        if let Some(wrong) = self.wrong_mount(asked, region) {
            return wrong;
        }
        if let Some(id) = same {
            return error(
                409,
                format!("already_exists: unique machine name violation, machine ID {id} already exists"),
            );
        }
        if setup.machines_max.is_some_and(|max| count >= max) {
            return error(403, "you are over the allowed quota of machines, please consider other regions");
        }
        (200, self.world.make(&asked.app, request, region, fault == Some(&Fault::Stuck)))
    }

    /// A machine has to be where its volumes are.
    fn wrong_mount(&self, asked: &Asked, region: &str) -> Option<Answer> {
        let state = self.world.state();
        let app = &state.apps[&asked.app];
        let mounts = asked.body["config"]["mounts"].as_array().into_iter().flatten();
        let mut volumes = mounts.map(|mount| app.volume(mount["volume"].as_str().unwrap_or_default()));
        let is_wrong = volumes.any(|volume| volume.is_none_or(|volume| volume["region"] != region));
        is_wrong.then(|| error(400, "invalid_argument: volume not found"))
    }

    /// It starts anew, and waits for nobody.
    async fn update(&self, asked: &Asked) -> Answer {
        let (config, is_healthy) = (&asked.body["config"], self.is_healthy(&asked.app).await);
        let image = config["image"].as_str().unwrap_or_default();
        if self.world.layers(&asked.app, image).is_none() {
            return error(400, format!("invalid_argument: failed to get manifest {image}"));
        }
        let (status, answer) = self.on_machine(asked, |_, _| (200, Value::Null));
        if status != 200 {
            return (status, answer);
        }
        self.world.update(&asked.id, config);
        self.on_machine(asked, |id, machine| (200, machine.shown(id, is_healthy)))
    }

    /// Whether what listens where machines with checks listen says that all is well.
    async fn is_healthy(&self, app: &str) -> bool {
        if self.world.setup.checks == Checks::Pass {
            return true;
        }
        let port = {
            let state = self.world.state();
            let mut live = state.machines.values().filter(|machine| machine.app == app && machine.is_live());
            live.find_map(|machine| machine.config.pointer("/checks/healthz/port")?.as_u64())
        };
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return false };
        timeout(CHECK_MAX, says_well(port)).await.is_ok_and(|well| well.unwrap_or(false))
    }

    async fn list(&self, asked: &Asked) -> Value {
        let is_healthy = self.is_healthy(&asked.app).await;
        let state = self.world.state();
        let deleted = asked.query.get("include_deleted").is_some_and(|value| value == "true");
        let machines = state.machines.iter();
        machines
            .filter(|(_, machine)| machine.app == asked.app)
            .filter(|(_, machine)| machine.is_live() || (deleted && !machine.is_hidden))
            .map(|(id, machine)| machine.shown(id, is_healthy))
            .collect()
    }

    fn on_machine(&self, asked: &Asked, of: impl FnOnce(&str, &Machine) -> Answer) -> Answer {
        let (now, state) = (self.world.clock().now(), self.world.state());
        let found = state.machines.get(&asked.id);
        match found.filter(|machine| machine.app == asked.app && machine.is_there(now)) {
            Some(machine) => of(&asked.id, machine),
            None => error(404, "not_found: machine not found"),
        }
    }

    /// Until the machine is as asked for.
    async fn wait(&self, asked: &Asked) -> Answer {
        let wanted = asked.query.get("state").map_or("started", String::as_str);
        let seconds = asked.query.get("timeout").map_or(Some(60), |text| text.parse().ok());
        let Some(seconds) = seconds.filter(|seconds| WAIT_SECONDS.contains(seconds)) else {
            return error(400, "invalid_argument: timeout must be in [1s, 1m0s]");
        };
        let (clock, mut changes) = (self.world.clock(), self.world.changes());
        let deadline = after(clock.now(), Duration::from_secs(seconds));
        loop {
            let state = self.on_machine(asked, |_, machine| (200, machine.state.into()));
            let (200, Value::String(state)) = state else { return state };
            if state == wanted {
                return (200, json!({ "ok": true, "state": state }));
            }
            let late = || {
                let what = format!("machine failed to reach desired state, {wanted}, currently {state}");
                error(408, format!("deadline_exceeded: {what}"))
            };
            if clock.now() >= deadline {
                return late();
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = clock.sleep_until(deadline) => {}
            }
        }
    }

    fn destroy(&self, asked: &Asked, lingers: bool) -> Answer {
        let now = self.world.clock().now();
        let (is_forced, lingers) = {
            let mut state = self.world.state();
            let machine = state.machines.get_mut(&asked.id).filter(|machine| machine.is_there(now));
            let Some(machine) = machine else { return error(404, "not_found: machine not found") };
            let lingers = lingers || machine.lingers > 0;
            machine.lingers = machine.lingers.saturating_sub(1);
            let is_running = machine.state == "started";
            (asked.query.get("force").is_some_and(|force| force == "true") || !is_running, lingers)
        };
        if !is_forced {
            return error(412, "failed_precondition: unable to destroy machine, not currently stopped");
        }
        self.world.becomes(
            &asked.id,
            if lingers { "destroying" } else { "destroyed" },
            Some(("destroy", Value::Null)),
        );
        (200, json!({ "ok": true }))
    }
}

/// The call about an app that is not about a machine.
fn of_app(method: &str, what: &str) -> On {
    match (method, what) {
        ("POST", "deploy_token") => On::MintToken,
        ("POST", "ip_assignments") => On::Assign,
        (_, "ip_assignments") => On::Addresses,
        ("POST", "secrets") => On::SetSecrets,
        (_, "secrets") => On::Secrets,
        ("POST", "volumes") => On::CreateVolume,
        (_, "volumes") => On::Volumes,
        ("POST", _) => On::SetPolicy,
        _ => On::Policies,
    }
}

fn tokens(token: &Token) -> Value {
    let apps: Vec<&String> = token.app.iter().collect();
    json!({ "tokens": [{ "org_slug": token.organisation, "apps": apps }] })
}

/// Whether `/healthz` on a port of the loopback is answered with 200.
async fn says_well(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    Ok(&first == b"HTTP/1.1 200")
}

fn plain((status, body): Answer) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a header"));
    response
}
