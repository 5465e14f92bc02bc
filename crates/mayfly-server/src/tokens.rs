//! The tokens of owners: which are good, and what ends when one is revoked.
//!
//! ```text
//! add    ──► store: name and hash ──► known here ──► shown, this once
//! revoke ──► store: forgotten ──────► not known here ──► `Key::revoked`: each connection that came with it ends
//! ```
//!
//! A token is found by its SHA-256, so that how long it takes says nothing about the good ones. The one in the file
//! of the data folder is called [`LOCAL`]: it is for programs of this machine, and where it is revoked, the file gets
//! a new one.
//!
//! Bound: [`TOKENS_MAX`].

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use mayfly_core::Secrets;
use mayfly_engine::Clock;
use mayfly_store::{Store, StoreError};
use mayfly_wire::Secret;
use mayfly_wire::api::{NewToken, OwnerToken, TOKEN_NAME_BYTES_MAX, check_token_name};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::data::{DataError, DataFolder, new_token, renew_token, token_at};

/// The name of the token in the data folder's file.
const LOCAL: &str = "local";
/// The name of the one that whoever started the orchestrator has.
const GIVEN: &str = "environment";
/// Who knows the tokens among the secrets: of one that was made before, only its hash is left.
const SECRETS: &str = "owner-tokens";
/// The most tokens.
const TOKENS_MAX: usize = 1000;

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(
        "a token's name is 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, and begins with a letter or digit"
    )]
    Name,
    #[error("there is a token of this name already: choose another name, or revoke that one first")]
    Taken,
    #[error("there are {TOKENS_MAX} tokens already: revoke one that nobody needs")]
    TooMany,
    #[error("no token has this name: `mayfly token ls` lists them")]
    Unknown,
    #[error("this token is MAYFLY_OWNER_TOKEN of the orchestrator: it ends when one is started without it")]
    Given,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("no random bytes can be had")]
    Random(#[source] std::io::Error),
}

/// A token that is good, or was.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    about: OwnerToken,
    /// Ends with the token.
    pub(crate) revoked: CancellationToken,
}

/// All that are good. Cheap to clone.
#[derive(Clone)]
pub(crate) struct OwnerTokens(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    file: PathBuf,
    secrets: Secrets,
    /// By their hashes.
    known: RwLock<HashMap<[u8; 32], Key>>,
    /// Held while one is added or revoked.
    changing: Mutex<()>,
}

impl fmt::Debug for OwnerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerTokens(…)")
    }
}

impl OwnerTokens {
    /// Those in the store, the one of the data folder, and the one that was given, if any was.
    pub(crate) async fn open(
        store: Store,
        data: &DataFolder,
        given: Option<&Secret>,
        clock: Arc<dyn Clock>,
        secrets: Secrets,
    ) -> Result<Self, TokenError> {
        let mut known = HashMap::new();
        for kept in store.owner_tokens().await? {
            known.insert(kept.hash, Key::new(kept.name, kept.created));
        }
        let (local, file) = (data.token()?, data.token_file());
        secrets.add(SECRETS, &local);
        known.insert(hash(&local), Key::new(LOCAL.to_owned(), made(&file)));
        if let Some(given) = given {
            secrets.add(SECRETS, given.expose());
            known.insert(hash(given.expose()), Key::new(GIVEN.to_owned(), clock.now()));
        }
        let (known, changing) = (RwLock::new(known), Mutex::default());
        Ok(Self(Arc::new(Inner { store, clock, file, secrets, known, changing })))
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<OwnerToken> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<OwnerToken> = known.values().map(|key| key.about.clone()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Makes one.
    pub(crate) async fn add(&self, name: String) -> Result<NewToken, TokenError> {
        if !check_token_name(&name) {
            return Err(TokenError::Name);
        }
        let _changing = self.0.changing.lock().await;
        let known = self.list();
        if known.iter().any(|other| other.name == name) {
            return Err(TokenError::Taken);
        }
        if known.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let token = new_token().map_err(TokenError::Random)?;
        let kept = mayfly_store::OwnerToken { name, hash: hash(&token), created: self.0.clock.now() };
        let (name, created_at) = (kept.name.clone(), kept.created);
        if !self.0.store.add_owner_token(kept).await? {
            return Err(TokenError::Taken);
        }
        self.know(&token, Key::new(name.clone(), created_at));
        tracing::info!(name, "a token was made");
        Ok(NewToken { name, created_at, token: token.into() })
    }

    /// Ends one, and what came in with it. In the place of the file's there is then a new one.
    pub(crate) async fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let _changing = self.0.changing.lock().await;
        let is_given = self.list().iter().any(|known| known.name == GIVEN);
        if name == GIVEN && is_given {
            return Err(TokenError::Given);
        }
        if name == LOCAL {
            let renewed = renew_token(&self.0.file);
            // Also after an error: what is in the file is good, and nothing else is.
            let token = token_at(&self.0.file)?;
            self.end(name);
            self.know(&token, Key::new(name.to_owned(), made(&self.0.file)));
            renewed?;
        } else {
            if !self.0.store.remove_owner_token(name.to_owned()).await? {
                return Err(TokenError::Unknown);
            }
            self.end(name);
        }
        tracing::info!(name, "a token was revoked");
        Ok(())
    }

    fn know(&self, token: &str, key: Key) {
        self.0.secrets.add(SECRETS, token);
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(hash(token), key);
    }

    fn end(&self, name: &str) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        for (_, key) in known.extract_if(|_, key| key.about.name == name) {
            key.revoked.cancel();
        }
    }
}

/// Which token is good.
pub(crate) trait Keys: Clone + Send + Sync + 'static {
    /// The key that `token` is, if it is good.
    fn find(&self, token: &str) -> Option<Key>;
}

impl Keys for OwnerTokens {
    fn find(&self, token: &str) -> Option<Key> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&hash(token)).cloned()
    }
}

/// The one in the data folder's file, where there are no others.
#[derive(Clone)]
pub(crate) struct FileToken {
    hash: [u8; 32],
    key: Key,
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileToken(…)")
    }
}

impl FileToken {
    pub(crate) fn of(data: &DataFolder) -> Result<Self, DataError> {
        let key = Key::new(LOCAL.to_owned(), made(&data.token_file()));
        Ok(Self { hash: hash(&data.token()?), key })
    }
}

impl Keys for FileToken {
    fn find(&self, token: &str) -> Option<Key> {
        (hash(token) == self.hash).then(|| self.key.clone())
    }
}

impl Key {
    fn new(name: String, created_at: Timestamp) -> Self {
        Self { about: OwnerToken { name, created_at }, revoked: CancellationToken::new() }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// When a file was made: ours are never changed.
fn made(file: &std::path::Path) -> Timestamp {
    let modified = std::fs::metadata(file).and_then(|is| is.modified()).ok();
    modified.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}
