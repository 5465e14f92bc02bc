//! An image on its way to a registry.
//!
//! ```text
//! HEAD the manifest ─► there: nothing to do
//! HEAD each blob ─► not there: POST, PUT ─► all are there: PUT the manifest by its tag ─► a name by its digest
//! ```
//!
//! What is there already is not sent again: a push that broke off goes on where it did when it is begun again, and two that
//! push the same do no harm. The login goes to the registry, and to the place that this one says hands out tokens, both with TLS;
//! to no other place, wherever an upload leads. Redirects are not followed.
//!
//! Bounds: [`ANSWER_BYTES_MAX`], [`UPLOAD_MAX`].

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio_util::io::{InspectReader, ReaderStream};

use crate::oci::{Descriptor, MANIFEST};
use crate::reference::{Reference, is_here};
use crate::store::{Image, Store};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How much of what a registry says is repeated.
const SAID_CHARS_MAX: usize = 300;
/// The longest that one upload may take.
const UPLOAD_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// What a registry calls what it has stored.
const DIGEST: &str = "docker-content-digest";

/// Who pushes.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name, as the registry has it.
    pub user: String,
    /// The password, or the token that stands for one.
    pub password: SecretString,
}

/// An image, and where it is to be.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// What has it.
    pub store: &'a Store,
    /// The image.
    pub image: &'a Image,
    /// Where to.
    pub to: &'a Reference,
    /// Who pushes.
    pub login: Option<&'a Login>,
    /// A client that follows no redirects ([`client`]).
    pub http: &'a Client,
    /// Counts the bytes that have left.
    pub sent: Arc<AtomicU64>,
}

impl<'a> Push<'a> {
    /// What the image is called there, by its digest.
    pub fn name(&self) -> String {
        let Reference { host, repository, .. } = self.to;
        format!("{host}/{repository}@{}", self.image.descriptor.digest)
    }

    /// Whether it is there already, whole.
    pub async fn is_there(&self) -> Result<bool, PushError> {
        let mut registry = self.registry();
        let url = registry.url(&["manifests", &self.image.descriptor.digest]);
        let answer = registry.ask(|http| Ok(http.head(url.clone()).header(ACCEPT, MANIFEST))).await?;
        registry.said_whether("say whether the image is there", answer).await
    }

    /// Sends what is not there yet, and names it; `tell` hears of each step.
    pub async fn send(&self, mut tell: impl FnMut(&str)) -> Result<(), PushError> {
        let mut registry = self.registry();
        let Image { manifest, descriptor, .. } = self.image;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            let size = blob.size.div_ceil(1_000_000);
            if registry.has(blob).await? {
                tell(&format!("{}: {size} MB, there already", blob.digest));
            } else {
                tell(&format!("{}: {size} MB", blob.digest));
                registry.upload(blob, self.store).await?;
            }
        }
        registry.name(descriptor, self.store).await
    }

    fn registry(&self) -> Registry<'a> {
        let Self { to, login, http, .. } = *self;
        Registry { http, to, login, auth: Auth::None, sent: Arc::clone(&self.sent) }
    }
}

/// A client for pushes.
pub fn client() -> Result<Client, reqwest::Error> {
    Client::builder().redirect(reqwest::redirect::Policy::none()).build()
}

/// A registry that is asked, and how it is to be asked.
struct Registry<'a> {
    http: &'a Client,
    to: &'a Reference,
    login: Option<&'a Login>,
    auth: Auth,
    sent: Arc<AtomicU64>,
}

/// What a request has with it.
enum Auth {
    None,
    Basic,
    Bearer(SecretString),
}

impl Registry<'_> {
    /// Whether a blob is there.
    async fn has(&mut self, blob: &Descriptor) -> Result<bool, PushError> {
        let url = self.url(&["blobs", &blob.digest]);
        let answer = self.ask(|http| Ok(http.request(Method::HEAD, url.clone()))).await?;
        self.said_whether("say whether a layer is there", answer).await
    }

    async fn said_whether(&self, what: &'static str, answer: Response) -> Result<bool, PushError> {
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused(what, answer).await),
        }
    }

    /// Uploads a blob in one piece.
    async fn upload(&mut self, blob: &Descriptor, store: &Store) -> Result<(), PushError> {
        let begin = self.url(&["blobs", "uploads", ""]);
        let answer = self.ask(|http| Ok(http.post(begin.clone()).header(CONTENT_LENGTH, 0))).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.refused("begin an upload", answer).await);
        }
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| answer.url().join(location).ok());
        let mut place =
            location.filter(is_safe).ok_or_else(|| self.odd("it does not say where an upload goes"))?;
        place.query_pairs_mut().append_pair("digest", &blob.digest);
        let path = store.blob(blob.sha256().unwrap_or_default());
        let sent = Arc::clone(&self.sent);
        let put = |http: &Client| {
            let file = tokio::fs::File::from_std(File::open(&path).map_err(PushError::Blob)?);
            let put = http.put(place.clone()).timeout(UPLOAD_MAX).header(CONTENT_LENGTH, blob.size);
            let put = put.header(CONTENT_TYPE, "application/octet-stream");
            let sent = Arc::clone(&sent);
            let count = move |read: &[u8]| {
                sent.fetch_add(read.len() as u64, Ordering::Relaxed);
            };
            let stream = ReaderStream::new(InspectReader::new(file, count));
            Ok(put.body(reqwest::Body::wrap_stream(stream)))
        };
        let answer = match place.origin() == begin.origin() {
            true => self.ask(put).await?,
            // Storage of its own, which the place itself opens.
            false => self.send(put(self.http)?).await?,
        };
        match answer.status() {
            StatusCode::CREATED => self.is_stored(blob, &answer),
            _ => Err(self.refused("take a layer", answer).await),
        }
    }

    /// Names the image, all of which is there.
    async fn name(&mut self, manifest: &Descriptor, store: &Store) -> Result<(), PushError> {
        let url = self.url(&["manifests", &self.to.tag]);
        let bytes =
            std::fs::read(store.blob(manifest.sha256().unwrap_or_default())).map_err(PushError::Blob)?;
        let put =
            |http: &Client| Ok(http.put(url.clone()).header(CONTENT_TYPE, MANIFEST).body(bytes.clone()));
        let answer = self.ask(put).await?;
        match answer.status() {
            StatusCode::CREATED => self.is_stored(manifest, &answer),
            _ => Err(self.refused("take the image's manifest", answer).await),
        }
    }

    /// Checks that it has stored what it was sent, as far as it says so.
    fn is_stored(&self, sent: &Descriptor, answer: &Response) -> Result<(), PushError> {
        match answer.headers().get(DIGEST) {
            Some(digest) if digest.as_bytes() != sent.digest.as_bytes() => {
                Err(self.odd("it has stored something else than it was sent"))
            }
            _ => Ok(()),
        }
    }

    /// Asks, and once more if it wants to know who asks, or if a token is over.
    async fn ask(
        &mut self,
        request: impl Fn(&Client) -> Result<RequestBuilder, PushError>,
    ) -> Result<Response, PushError> {
        let answer = self.send(self.authorized(request(self.http)?)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || matches!(self.auth, Auth::Basic) {
            return Ok(answer);
        }
        let wanted = answer.headers().get(WWW_AUTHENTICATE).and_then(|wanted| wanted.to_str().ok());
        self.auth = match wanted.and_then(Wanted::read) {
            Some(Wanted::Basic) if self.login.is_some() => Auth::Basic,
            Some(Wanted::Bearer { realm, asks }) => Auth::Bearer(self.token(&realm, &asks).await?),
            _ => return Ok(answer),
        };
        self.send(self.authorized(request(self.http)?)).await
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match (&self.auth, self.login) {
            (Auth::Basic, Some(login)) => {
                request.basic_auth(&login.user, Some(login.password.expose_secret()))
            }
            (Auth::Bearer(token), _) => request.bearer_auth(token.expose_secret()),
            _ => request,
        }
    }

    /// A token, of the place that hands them out.
    async fn token(&self, realm: &str, asks: &[(String, String)]) -> Result<SecretString, PushError> {
        #[derive(Deserialize)]
        struct Tokens {
            token: Option<String>,
            access_token: Option<String>,
        }
        let place = Url::parse(realm).ok().filter(is_safe);
        let mut place = place.ok_or_else(|| self.odd("it has tokens handed out without TLS, or nowhere"))?;
        place.query_pairs_mut().extend_pairs(asks);
        let request = self.http.get(place);
        let request = match self.login {
            Some(login) => request.basic_auth(&login.user, Some(login.password.expose_secret())),
            None => request,
        };
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused("hand out a token", answer).await);
        }
        let tokens: Option<Tokens> = serde_json::from_slice(&read(answer).await).ok();
        let token = tokens.and_then(|tokens| tokens.token.or(tokens.access_token));
        token.map(SecretString::from).ok_or_else(|| self.odd("it hands out what is no token"))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, PushError> {
        let unreachable = |source: reqwest::Error| PushError::Unreachable {
            host: self.to.host.clone(),
            source: source.without_url(),
        };
        request.send().await.map_err(unreachable)
    }

    fn url(&self, parts: &[&str]) -> Url {
        let url = format!("{}/{}", self.to.base(), parts.join("/"));
        Url::parse(&url).expect("a reference has nothing in it that is more than a name")
    }

    /// What it says no to.
    async fn refused(&self, what: &'static str, answer: Response) -> PushError {
        let status = answer.status();
        let (reference, said) = (self.to.to_string(), said(&read(answer).await));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PushError::Login { reference, said },
            _ => PushError::Refused { reference, what, status: status.as_u16(), said },
        }
    }

    fn odd(&self, what: &'static str) -> PushError {
        PushError::Odd { host: self.to.host.clone(), what }
    }
}

/// Whether what is sent there is read by nobody else.
fn is_safe(place: &Url) -> bool {
    place.scheme() == "https" || place.scheme() == "http" && place.host_str().is_some_and(is_here)
}

/// How a registry wants to know who asks.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Basic,
    Bearer { realm: String, asks: Vec<(String, String)> },
}

impl Wanted {
    /// Reads `Basic …`, or `Bearer realm="…",service="…",scope="…"`.
    fn read(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut asks) = (None, Vec::new());
        while let Some((name, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            match name.trim_matches([',', ' ']) {
                "realm" => realm = Some(value.to_owned()),
                name @ ("service" | "scope") => asks.push((name.to_owned(), value.to_owned())),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer { realm: realm?, asks })
    }
}

/// As much of an answer as is read.
async fn read(mut answer: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            bytes.truncate(ANSWER_BYTES_MAX);
            break;
        }
    }
    bytes
}

/// What a registry says is wrong.
fn said(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Option<Errors> = serde_json::from_slice(answer).ok();
    let first = errors.and_then(|errors| errors.errors.into_iter().next());
    let text = first.map(|first| format!("{} {}", first.code, first.message));
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(answer).into_owned());
    match text.trim() {
        "" => "it said nothing more".to_owned(),
        text => text.chars().take(SAID_CHARS_MAX).collect(),
    }
}

/// Why an image is not in a registry. What was sent is there, and not sent again by the next try.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It does not let this login push there.
    #[error("the registry does not let this login push to {reference}: {said}")]
    Login {
        /// Where to.
        reference: String,
        /// What it said.
        said: String,
    },
    /// It does not do what it was asked for.
    #[error("the registry of {reference} did not {what}: {status}, {said}")]
    Refused {
        /// Where to.
        reference: String,
        /// What it was asked for.
        what: &'static str,
        /// By which number it says so.
        status: u16,
        /// What it said.
        said: String,
    },
    /// It does not speak as registries do.
    #[error("{host} is no registry that an image can be pushed to: {what}")]
    Odd {
        /// Who.
        host: String,
        /// What it does.
        what: &'static str,
    },
    /// It did not answer.
    #[error("the registry {host} does not answer: try again, and what is there already is not sent again")]
    Unreachable {
        /// Who.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A part of the image is not there any more.
    #[error("cannot read a part of the image: build it again")]
    Blob(#[source] std::io::Error),
}

#[cfg(test)]
mod tests;
