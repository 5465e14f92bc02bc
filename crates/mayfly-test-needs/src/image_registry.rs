//! A registry for images of a test's own: as strict as the distribution specification allows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::{Router, serve};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How a registry wants to know who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// The login with each request.
    Basic,
    /// A token, for the login.
    Bearer,
}

/// What goes wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// An upload is answered by 503, and not kept.
    Unavailable,
    /// The tokens that were handed out are over when an upload arrives.
    Expired,
    /// It says that it has stored something else.
    OtherDigest,
    /// An upload is to go to a place without TLS that is not this machine.
    Elsewhere,
}

/// A registry on the loopback, which ends when it is dropped.
#[derive(Debug)]
pub struct ImageRegistry {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct World {
    wants: Wants,
    user: String,
    password: String,
    repository: String,
    address: String,
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, Bytes>,
    tags: BTreeMap<String, String>,
    uploads: BTreeSet<u64>,
    token: u64,
    begun: u64,
    puts: usize,
    trouble: Option<Trouble>,
    complaints: Vec<String>,
}

impl ImageRegistry {
    /// One that takes pushes to one repository, of one login.
    ///
    /// # Panics
    ///
    /// If the loopback has no port.
    pub async fn start(wants: Wants, repository: &str, user: &str, password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let world = Arc::new(Mutex::new(World {
            wants,
            user: user.to_owned(),
            password: password.to_owned(),
            repository: repository.to_owned(),
            address: address.to_string(),
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            tags: BTreeMap::new(),
            uploads: BTreeSet::new(),
            token: 1,
            begun: 0,
            puts: 0,
            trouble: None,
            complaints: Vec::new(),
        }));
        let app =
            Router::new().fallback(handle).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&world));
        let task = tokio::spawn(async move { serve(listener, app).await.expect("it serves") });
        Self { address, world, task }
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Has this go wrong once.
    pub fn trouble(&self, trouble: Trouble) {
        lock(&self.world).trouble = Some(trouble);
    }

    /// The digest that a tag names.
    pub fn tag(&self, tag: &str) -> Option<String> {
        lock(&self.world).tags.get(tag).cloned()
    }

    /// How many uploads arrived.
    pub fn uploads(&self) -> usize {
        lock(&self.world).puts
    }

    /// What was asked for that the specification does not allow.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.world).complaints.clone()
    }
}

impl Drop for ImageRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is said no to, and why.
type Refusal = (StatusCode, &'static str, String);

async fn handle(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut world = lock(&world);
    let asked = Asked { method, uri, headers, body };
    match world.answer(&asked) {
        Ok(answer) => answer,
        Err((status, code, message)) => {
            // Whoever asks need not know who is wanted, and may be early; all else is a mistake of theirs.
            let is_expected =
                [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
            if !is_expected.contains(&status) {
                let complaint = format!("{} {}: {code} {message}", asked.method, asked.uri);
                world.complaints.push(complaint);
            }
            let errors = json!({"errors": [{"code": code, "message": message}]});
            let mut answer =
                Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
            if status == StatusCode::UNAUTHORIZED {
                answer = answer.header(header::WWW_AUTHENTICATE, world.challenge());
            }
            answer.body(Body::from(errors.to_string())).expect("an answer")
        }
    }
}

struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn query(&self, name: &str) -> Option<String> {
        let query = self.uri.query()?;
        let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(is, _)| *is == name)?.1;
        Some(value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
    }
}

impl World {
    fn answer(&mut self, asked: &Asked) -> Result<Response, Refusal> {
        if asked.uri.path() == "/token" {
            return self.hand_out(asked);
        }
        self.check_login(asked)?;
        let path = asked.uri.path().strip_prefix("/v2/").ok_or_else(|| bad("UNSUPPORTED", "no such path"))?;
        let path = path.strip_prefix(&format!("{}/", self.repository)).ok_or_else(|| {
            (StatusCode::FORBIDDEN, "DENIED", "this login is for another repository".to_owned())
        })?;
        let parts: Vec<&str> = path.split('/').collect();
        match (asked.method.as_str(), &parts[..]) {
            ("HEAD", ["blobs", digest]) => match self.blobs.contains_key(*digest) {
                true => Ok(empty(StatusCode::OK, &[("docker-content-digest", digest)])),
                false => Err((StatusCode::NOT_FOUND, "BLOB_UNKNOWN", (*digest).to_owned())),
            },
            ("POST", ["blobs", "uploads", ""]) => self.begin(asked),
            ("PUT", ["blobs", "uploads", upload]) => self.upload(asked, upload),
            ("PUT", ["manifests", tag]) => self.name(asked, tag),
            _ => Err(bad("UNSUPPORTED", "no such request")),
        }
    }

    fn challenge(&self) -> String {
        match self.wants {
            Wants::Basic => "Basic realm=\"images\"".to_owned(),
            Wants::Bearer => format!(
                "Bearer realm=\"http://{}/token\",service=\"images\",scope=\"repository:{}:pull,push\"",
                self.address, self.repository
            ),
        }
    }

    fn is_login(&self, asked: &Asked) -> bool {
        use base64::Engine as _;
        let login = format!("{}:{}", self.user, self.password);
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
        asked.header(header::AUTHORIZATION) == Some(&basic)
    }

    fn check_login(&self, asked: &Asked) -> Result<(), Refusal> {
        let is_known = match self.wants {
            Wants::Basic => self.is_login(asked),
            Wants::Bearer => {
                asked.header(header::AUTHORIZATION) == Some(&format!("Bearer token-{}", self.token))
            }
        };
        match is_known {
            true => Ok(()),
            false => Err((StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who are you?".to_owned())),
        }
    }

    fn hand_out(&self, asked: &Asked) -> Result<Response, Refusal> {
        let scope = format!("repository:{}:pull,push", self.repository);
        if asked.query("service").as_deref() != Some("images") || asked.query("scope") != Some(scope) {
            return Err(bad("UNSUPPORTED", "a token is for what was named"));
        }
        match self.is_login(asked) {
            true => {
                Ok(Response::new(Body::from(json!({"token": format!("token-{}", self.token)}).to_string())))
            }
            false => Err((StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "wrong password".to_owned())),
        }
    }

    fn begin(&mut self, asked: &Asked) -> Result<Response, Refusal> {
        if asked.header(header::CONTENT_LENGTH) != Some("0") || !asked.body.is_empty() {
            return Err(bad("SIZE_INVALID", "an upload begins with nothing"));
        }
        self.begun += 1;
        self.uploads.insert(self.begun);
        // The place has a word of its own in it, which is to come back.
        let place = format!("/v2/{}/blobs/uploads/{}?state=of-{}", self.repository, self.begun, self.begun);
        let place = match self.trouble.take_if(|trouble| *trouble == Trouble::Elsewhere) {
            Some(_) => format!("http://registry.example{place}"),
            None => place,
        };
        Ok(empty(StatusCode::ACCEPTED, &[("location", &place)]))
    }

    fn upload(&mut self, asked: &Asked, upload: &str) -> Result<Response, Refusal> {
        self.puts += 1;
        let number: u64 = upload.parse().map_err(|_| bad("BLOB_UPLOAD_UNKNOWN", upload))?;
        match self.trouble.take_if(|trouble| *trouble != Trouble::OtherDigest) {
            Some(Trouble::Unavailable) => {
                return Err((StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "try again".to_owned()));
            }
            Some(Trouble::Expired) => {
                self.token += 1;
                return self.check_login(asked).map(|()| unreachable!("the token is over"));
            }
            _ => {}
        }
        if !self.uploads.remove(&number) || asked.query("state") != Some(format!("of-{number}")) {
            return Err(bad("BLOB_UPLOAD_UNKNOWN", upload));
        }
        let is_typed = asked.header(header::CONTENT_TYPE) == Some("application/octet-stream");
        let is_long = asked.header(header::CONTENT_LENGTH) == Some(&asked.body.len().to_string());
        if !is_typed || !is_long {
            return Err(bad("SIZE_INVALID", "a blob comes in one piece, of a length that is said"));
        }
        let digest = digest(&asked.body);
        if asked.query("digest").as_ref() != Some(&digest) {
            return Err(bad("DIGEST_INVALID", &digest));
        }
        self.blobs.insert(digest.clone(), asked.body.clone());
        let said = match self.trouble.take() {
            Some(Trouble::OtherDigest) => format!("sha256:{}", "0".repeat(64)),
            _ => digest,
        };
        Ok(empty(StatusCode::CREATED, &[("docker-content-digest", &said), ("location", "/v2/x")]))
    }

    fn name(&mut self, asked: &Asked, tag: &str) -> Result<Response, Refusal> {
        let manifest: Value = serde_json::from_slice(&asked.body)
            .map_err(|error| bad("MANIFEST_INVALID", &error.to_string()))?;
        if manifest["mediaType"].as_str().is_none()
            || asked.header(header::CONTENT_TYPE) != manifest["mediaType"].as_str()
        {
            return Err(bad("MANIFEST_INVALID", "it is not what it is said to be"));
        }
        let layers =
            manifest["layers"].as_array().ok_or_else(|| bad("MANIFEST_INVALID", "it has no layers"))?;
        for blob in layers.iter().chain([&manifest["config"]]) {
            let there = blob["digest"].as_str().and_then(|digest| self.blobs.get(digest));
            if there.is_none_or(|bytes| blob["size"] != bytes.len()) {
                return Err(bad("MANIFEST_BLOB_UNKNOWN", &blob.to_string()));
            }
        }
        let digest = digest(&asked.body);
        self.manifests.insert(digest.clone(), asked.body.clone());
        self.tags.insert(tag.to_owned(), digest.clone());
        Ok(empty(StatusCode::CREATED, &[("docker-content-digest", &digest)]))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn bad(code: &'static str, message: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, code, message.to_owned())
}

fn empty(status: StatusCode, headers: &[(&str, &str)]) -> Response {
    let answer = headers
        .iter()
        .fold(Response::builder().status(status), |answer, (name, value)| answer.header(*name, *value));
    answer.body(Body::empty()).expect("an answer")
}
