//! The data folder: who may have it, its lock and its key.
//!
//! ```text
//! mayfly-data   says that the folder is ours (`adopt`); there before anything else
//! lock          held while an orchestrator has the folder; the process id of the last holder is in it
//! key           32 random bytes, made once; the tokens of all attempts come from it
//! token         what opens the API on a port for programs of this machine; a new one once it is revoked
//! tls.pem       the key and the certificate that signed itself, made when it is first asked for
//! mayfly.db     the store
//! workspaces/   <sha256>.bundle, <sha256>.part of one that is still coming, <sha256>.setup: what set-up commands made
//! library/      what tasks share, unless the configuration has it elsewhere; its owner's to edit
//! resources/    <sha256>.tar: what tasks had of it, by content
//! tools/        <sha256>/: what servers run that were locked
//! mirrors/      repositories elsewhere that tasks began with, if this user's `mayfly run` fetched any
//! results/      <task>/<attempt>/bundle, <task>/<attempt>/transcript, and <task>/<attempt>/checkpoints/ while it runs
//! incoming/     files that are still arriving, on the same file system; emptied at each start
//! way-out/      the machines' doors: <attempt>/orchestrator.sock
//! api.sock      the owner's socket
//! ```
//!
//! All of it is the owner's alone, and none of its files is a link. Each machine sees its own folder in `way-out`, through a mount of that one.

mod error;
mod lock;
mod secret;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use self::lock::{LOCK, lock};
use self::secret::{KEY, KEY_BYTES, TLS, known_secret, random, secret, token_in, token_line};
use crate::adopt::{self, make_data_folder};

pub(crate) use self::error::io_error;
pub use self::error::{BadSecret, DataError};
pub use self::lock::{holder_of, wait_until_had_by_none};
pub use self::secret::new_token;
pub use self::secret::{NO_LINK, write_private};
pub(crate) use self::secret::{TOKEN, renew_token, sync_folder, token_at};

/// The name of the store's file.
pub(crate) const STORE: &str = "mayfly.db";

/// The name of the folder of resources.
pub(crate) const RESOURCES: &str = "resources";

/// A data folder that is ours while this value lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, checks whose it is, and takes its lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DataError> {
        make_data_folder(root)?;
        check_files(root)?;
        let lock = lock(root)?;
        let data = Self { root: root.to_owned(), _lock: lock };
        let _ = fs::remove_dir_all(data.incoming());
        for private in [data.workspaces(), data.resources(), data.results(), data.incoming(), data.way_out()]
        {
            adopt::private(&private)?;
        }
        Ok(data)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }

    pub(crate) fn workspaces(&self) -> PathBuf {
        self.root.join("workspaces")
    }

    pub(crate) fn resources(&self) -> PathBuf {
        self.root.join(RESOURCES)
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    pub(crate) fn way_out(&self) -> PathBuf {
        self.root.join("way-out")
    }

    /// The key, made at the first start, and whole on disk before anything can depend on it. It is not made anew
    /// where `unfinished` tasks would be lost with that.
    pub(crate) fn key(&self, unfinished: usize) -> Result<[u8; KEY_BYTES], DataError> {
        check_key_kept(&self.root, unfinished)?;
        let path = self.root.join(KEY);
        let key = secret(&path, || Ok(random()?.to_vec()))?;
        key.try_into().map_err(|_| DataError::Secret { path, reason: BadSecret::NoKey })
    }

    /// The file of the token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.root.join(TOKEN)
    }

    /// What opens the API on a port for programs of this machine, made at the first start.
    pub(crate) fn token(&self) -> Result<String, DataError> {
        let path = self.token_file();
        secret(&path, token_line)?;
        token_at(&path)
    }

    /// The file of the certificate that signed itself, and what is in it; `make` gives that at the first time.
    pub(crate) fn tls(
        &self,
        make: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<(PathBuf, Vec<u8>), DataError> {
        let path = self.root.join(TLS);
        let pem = secret(&path, make)?;
        Ok((path, pem))
    }
}

/// Checks a data folder and what is in it, and makes and changes nothing: whose it is, that its files are files, and
/// that its secrets are ours and for us alone. One that is not there is to be made.
///
/// # Errors
/// What an orchestrator would refuse to start for.
pub fn check_data_folder(path: &Path) -> Result<(), DataError> {
    adopt::look(path)?;
    check_files(path)?;
    let wrong = |name: &str, reason| DataError::Secret { path: path.join(name), reason };
    match known_secret(&path.join(KEY))? {
        Some(key) if key.len() != KEY_BYTES => return Err(wrong(KEY, BadSecret::NoKey)),
        _ => {}
    }
    match known_secret(&path.join(TOKEN))? {
        Some(text) if token_in(&text).is_none() => return Err(wrong(TOKEN, BadSecret::NoToken)),
        _ => {}
    }
    known_secret(&path.join(TLS)).map(drop)
}

/// Checks that the key is there if `unfinished` tasks of the folder depend on it.
pub(crate) fn check_key_kept(root: &Path, unfinished: usize) -> Result<(), DataError> {
    let path = root.join(KEY);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && unfinished > 0 => {
            Err(DataError::LostKey { path, tasks: unfinished })
        }
        _ => Ok(()),
    }
}

/// What we open by its name in the folder is a file, if it is there.
fn check_files(root: &Path) -> Result<(), DataError> {
    for path in [LOCK, KEY, TOKEN, TLS, STORE].map(|name| root.join(name)) {
        match fs::symlink_metadata(&path) {
            Ok(is) if !is.is_file() => return Err(DataError::NoFile { path }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
