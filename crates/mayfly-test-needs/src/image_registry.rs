//! A registry for images of a test's own: as strict as the distribution specification allows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
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

/// What a login is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// To push to the repository that was named.
    Good,
    /// For others than that.
    Elsewhere,
    /// Nothing.
    Unknown,
}

/// Says so, of a user, a password and a repository.
pub type Admits = Box<dyn Fn(&str, &str, &str) -> Login + Send>;

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

struct World {
    wants: Wants,
    admits: Admits,
    address: String,
    /// By repository and digest, as the two that follow.
    blobs: BTreeMap<(String, String), Bytes>,
    manifests: BTreeMap<(String, String), Bytes>,
    tags: BTreeMap<(String, String), String>,
    uploads: BTreeSet<u64>,
    token: u64,
    begun: u64,
    puts: usize,
    trouble: Option<Trouble>,
    complaints: Vec<String>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("tags", &self.tags).finish_non_exhaustive()
    }
}

impl ImageRegistry {
    /// One that takes pushes to one repository, of one login.
    ///
    /// # Panics
    ///
    /// If the loopback has no port.
    pub async fn start(wants: Wants, repository: &str, user: &str, password: &str) -> Self {
        let known = [user, password, repository].map(str::to_owned);
        let admits =
            move |user: &str, password: &str, repository: &str| match known == [user, password, repository] {
                true => Login::Good,
                false if known[..2] == [user, password] => Login::Elsewhere,
                false => Login::Unknown,
            };
        Self::admitting(wants, Box::new(admits)).await
    }

    /// One that takes pushes of whom this admits.
    ///
    /// # Panics
    ///
    /// If the loopback has no port.
    pub async fn admitting(wants: Wants, admits: Admits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let world = Arc::new(Mutex::new(World {
            wants,
            admits,
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
        let world = lock(&self.world);
        world.tags.iter().find(|((_, is), _)| is == tag).map(|(_, digest)| digest.clone())
    }

    /// The layers of an image that is there, the lowest first.
    pub fn layers(&self, repository: &str, digest: &str) -> Option<Vec<Bytes>> {
        let world = lock(&self.world);
        let manifest = world.manifests.get(&(repository.to_owned(), digest.to_owned()))?;
        let manifest: Value = serde_json::from_slice(manifest).ok()?;
        let layers = manifest["layers"].as_array()?.iter();
        layers.map(|layer| world.blob(repository, layer["digest"].as_str()?).cloned()).collect()
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
            let is_expected = [
                StatusCode::UNAUTHORIZED,
                StatusCode::FORBIDDEN,
                StatusCode::NOT_FOUND,
                StatusCode::SERVICE_UNAVAILABLE,
            ];
            if !is_expected.contains(&status) {
                let complaint = format!("{} {}: {code} {message}", asked.method, asked.uri);
                world.complaints.push(complaint);
            }
            let errors = json!({"errors": [{"code": code, "message": message}]});
            let mut answer =
                Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
            if status == StatusCode::UNAUTHORIZED {
                answer = answer.header(header::WWW_AUTHENTICATE, world.challenge(&asked));
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

    /// The repository that is asked for, and what of it.
    fn parts(&self) -> Option<(&str, Vec<&str>)> {
        let path = self.uri.path().strip_prefix("/v2/")?;
        let end = ["/blobs/", "/manifests/"].iter().find_map(|part| path.find(part))?;
        Some((&path[..end], path[end + 1..].split('/').collect()))
    }

    /// The login that came with it.
    fn login(&self) -> Option<(String, String)> {
        use base64::Engine as _;
        let basic = self.header(header::AUTHORIZATION)?.strip_prefix("Basic ")?;
        let login = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(basic).ok()?).ok()?;
        let (user, password) = login.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
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
        let (repository, parts) = asked.parts().ok_or_else(|| bad("UNSUPPORTED", "no such path"))?;
        self.check_login(asked, repository)?;
        match (asked.method.as_str(), &parts[..]) {
            ("HEAD", ["blobs", digest]) => match self.blob(repository, digest) {
                Some(_) => Ok(empty(StatusCode::OK, &[("docker-content-digest", digest)])),
                None => Err((StatusCode::NOT_FOUND, "BLOB_UNKNOWN", (*digest).to_owned())),
            },
            ("HEAD", ["manifests", digest]) => self.is_named(asked, repository, digest),
            ("POST", ["blobs", "uploads", ""]) => self.begin(asked, repository),
            ("PUT", ["blobs", "uploads", upload]) => self.upload(asked, repository, upload),
            ("PUT", ["manifests", tag]) => self.name(asked, repository, tag),
            _ => Err(bad("UNSUPPORTED", "no such request")),
        }
    }

    fn blob(&self, repository: &str, digest: &str) -> Option<&Bytes> {
        self.blobs.get(&(repository.to_owned(), digest.to_owned()))
    }

    fn is_named(&self, asked: &Asked, repository: &str, digest: &str) -> Result<Response, Refusal> {
        let manifest = self.manifests.get(&(repository.to_owned(), digest.to_owned()));
        let manifest = manifest.ok_or((StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", digest.to_owned()))?;
        let manifest: Value = serde_json::from_slice(manifest).expect("it was taken as JSON");
        match asked.header(header::ACCEPT) == manifest["mediaType"].as_str() {
            true => Ok(empty(StatusCode::OK, &[("docker-content-digest", digest)])),
            false => Err(bad("MANIFEST_INVALID", "it is not of the kind that is accepted")),
        }
    }

    fn challenge(&self, asked: &Asked) -> String {
        let repository = asked.parts().map_or("", |(repository, _)| repository);
        match self.wants {
            Wants::Basic => "Basic realm=\"images\"".to_owned(),
            Wants::Bearer => format!(
                "Bearer realm=\"http://{}/token\",service=\"images\",scope=\"repository:{repository}:pull,push\"",
                self.address
            ),
        }
    }

    /// Whether the login that came with a request is for this.
    fn is_login(&self, asked: &Asked, repository: &str) -> Result<(), Refusal> {
        let unknown = || (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who are you?".to_owned());
        let (user, password) = asked.login().ok_or_else(unknown)?;
        match (self.admits)(&user, &password, repository) {
            Login::Good => Ok(()),
            Login::Elsewhere => {
                Err((StatusCode::FORBIDDEN, "DENIED", "this login is for another repository".to_owned()))
            }
            Login::Unknown => Err(unknown()),
        }
    }

    /// The token of now for a repository.
    fn token(&self, repository: &str) -> String {
        format!("token-{}-{repository}", self.token)
    }

    fn check_login(&self, asked: &Asked, repository: &str) -> Result<(), Refusal> {
        if self.wants == Wants::Basic {
            return self.is_login(asked, repository);
        }
        let token = format!("Bearer {}", self.token(repository));
        match asked.header(header::AUTHORIZATION) == Some(&token) {
            true => Ok(()),
            false => Err((StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "who are you?".to_owned())),
        }
    }

    fn hand_out(&self, asked: &Asked) -> Result<Response, Refusal> {
        let scope = asked.query("scope").unwrap_or_default();
        let repository = scope.strip_prefix("repository:").and_then(|rest| rest.strip_suffix(":pull,push"));
        let repository = repository.filter(|_| asked.query("service").as_deref() == Some("images"));
        let repository = repository.ok_or_else(|| bad("UNSUPPORTED", "a token is for what was named"))?;
        self.is_login(asked, repository)?;
        Ok(Response::new(Body::from(json!({"token": self.token(repository)}).to_string())))
    }

    fn begin(&mut self, asked: &Asked, repository: &str) -> Result<Response, Refusal> {
        if asked.header(header::CONTENT_LENGTH) != Some("0") || !asked.body.is_empty() {
            return Err(bad("SIZE_INVALID", "an upload begins with nothing"));
        }
        self.begun += 1;
        self.uploads.insert(self.begun);
        // The place has a word of its own in it, which is to come back.
        let place = format!("/v2/{repository}/blobs/uploads/{}?state=of-{}", self.begun, self.begun);
        let place = match self.trouble.take_if(|trouble| *trouble == Trouble::Elsewhere) {
            Some(_) => format!("http://registry.example{place}"),
            None => place,
        };
        Ok(empty(StatusCode::ACCEPTED, &[("location", &place)]))
    }

    fn upload(&mut self, asked: &Asked, repository: &str, upload: &str) -> Result<Response, Refusal> {
        self.puts += 1;
        let number: u64 = upload.parse().map_err(|_| bad("BLOB_UPLOAD_UNKNOWN", upload))?;
        match self.trouble.take_if(|trouble| *trouble != Trouble::OtherDigest) {
            Some(Trouble::Unavailable) => {
                return Err((StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "try again".to_owned()));
            }
            Some(Trouble::Expired) => {
                self.token += 1;
                return self.check_login(asked, repository).map(|()| unreachable!("the token is over"));
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
        self.blobs.insert((repository.to_owned(), digest.clone()), asked.body.clone());
        let said = match self.trouble.take() {
            Some(Trouble::OtherDigest) => format!("sha256:{}", "0".repeat(64)),
            _ => digest,
        };
        Ok(empty(StatusCode::CREATED, &[("docker-content-digest", &said), ("location", "/v2/x")]))
    }

    fn name(&mut self, asked: &Asked, repository: &str, tag: &str) -> Result<Response, Refusal> {
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
            let there = blob["digest"].as_str().and_then(|digest| self.blob(repository, digest));
            if there.is_none_or(|bytes| blob["size"] != bytes.len()) {
                return Err(bad("MANIFEST_BLOB_UNKNOWN", &blob.to_string()));
            }
        }
        let digest = digest(&asked.body);
        self.manifests.insert((repository.to_owned(), digest.clone()), asked.body.clone());
        self.tags.insert((repository.to_owned(), tag.to_owned()), digest.clone());
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
