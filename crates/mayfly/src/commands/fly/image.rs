//! The image of `mayfly image build`, pushed to the registry of the orchestrator's app.
//!
//! What it is called there is known beforehand, since that is by its digest: so the app needs to be there, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use mayfly_image::push::{self, Client, Login, Push, PushError};
use mayfly_image::{Image, Reference, Store};
use mayfly_provider_fly::bare_token;
use mayfly_provider_fly::deploy::Look;

use crate::commands::image;
use crate::environment::Environment;
use crate::exit::Stop;
use crate::machines::fly::{registry, token};
use crate::progress::{self, Progress, TICK};

/// The user's name in Fly's registry: the token says who it is.
const USER: &str = "x";
/// How much of a digest is a tag: what has a tag is not swept away there.
const TAG_CHARS: usize = 12;

/// An image that is here, and where it is to be.
pub(super) struct Built {
    store: Store,
    image: Image,
    to: Reference,
    login: Login,
    http: Client,
}

impl Built {
    /// The one that was built last under the usual name, for this app.
    pub(super) fn find(environment: &Environment, app: &str) -> Result<Self, Stop> {
        let store = image::store(environment)?;
        let image = store.image(image::NAME)?.ok_or_else(|| {
            Stop::wrong(
                "there is no image to deploy: `mayfly image build` builds it here, or --image names one that is in a \
                 registry, by its digest",
            )
        })?;
        let tag: String = image.descriptor.sha256().unwrap_or_default().chars().take(TAG_CHARS).collect();
        let place = format!("{}/{app}:{tag}", registry(environment));
        let to = place.parse().map_err(|said| Stop::wrong(format!("`{place}`: {said}")))?;
        let login = Login { user: USER.to_owned(), password: bare_token(&token(environment).into()) };
        let http = push::client().context("no HTTP client can be made")?;
        Ok(Self { store, image, to, login, http })
    }

    /// What it is called there.
    pub(super) fn name(&self) -> String {
        self.push().name()
    }

    /// Whether it is there.
    pub(super) async fn look(&self) -> Result<Look, Stop> {
        let (name, megabytes) = (self.name(), self.image.bytes().div_ceil(1_000_000));
        Ok(match self.push().is_there().await.map_err(told)? {
            true => Look::There(format!("image {name}")),
            false => Look::Missing(self.would(megabytes)),
        })
    }

    /// What is said of it where it cannot be asked for yet.
    pub(super) fn missing(&self) -> Look {
        Look::Missing(self.would(self.image.bytes().div_ceil(1_000_000)))
    }

    fn would(&self, megabytes: u64) -> String {
        format!("push the image `{}`, {megabytes} MB, as {}", self.image.name, self.name())
    }

    /// Sends what of it is not there, and tells of that.
    pub(super) async fn send(&self) -> Result<String, Stop> {
        let push = self.push();
        let (sent, mut progress) = (Arc::clone(&push.sent), Progress::if_slow("pushing".to_owned()));
        let sending = push.send(progress::say);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                done = &mut sending => {
                    done.map_err(told)?;
                    progress.end();
                    return Ok(format!("image {}", self.name()));
                }
                () = tokio::time::sleep(TICK) => progress.tell(sent.load(Ordering::Relaxed)),
            }
        }
    }

    fn push(&self) -> Push<'_> {
        let Self { store, image, to, login, http } = self;
        Push { store, image, to, login: Some(login), http, sent: Arc::new(AtomicU64::new(0)) }
    }
}

/// With what to do, in Fly's own terms.
fn told(error: PushError) -> Stop {
    match error {
        error @ PushError::Login { .. } => anyhow::Error::new(error)
            .context(
                "the image cannot be pushed: the token has to be of the app's organisation (`fly tokens create org -o ORG -x \
                 2h`); of an app that was made just now Fly's registry may need a minute to know: run the same command \
                 again, which goes on from here",
            )
            .into(),
        error @ PushError::Blob(_) => anyhow::Error::new(error).context("`mayfly image build` makes it again").into(),
        error => anyhow::Error::new(error)
            .context("the image is not pushed yet: run the same command again, which goes on from here")
            .into(),
    }
}
