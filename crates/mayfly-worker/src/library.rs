//! What a machine gets of the library: fetched by content, checked, and written where the CLI looks for it.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;
use http::Method;
use http_body_util::Empty;
use mayfly_library::pack::{self, BadArchive};
use mayfly_library::resolve::BYTES_MAX;
use mayfly_library::{Compiled, Lock, Locked, Problems, Resolution, Resource, Secrets, compile};
use mayfly_wire::worker::{OrderedLibrary, RESOURCE_PATH, WorkOrder};

use crate::claude::command::config_dir;
use crate::exchange::{Exchange, ExchangeError};

/// Why a machine does not have what its task is to run with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    /// The orchestrator's lock is none.
    #[error("the lock cannot be read")]
    Lock(#[source] serde_json::Error),
    /// There is more than a task can have.
    #[error("the lock has more than {BYTES_MAX} bytes")]
    Large,
    /// It cannot be fetched.
    #[error("{id} cannot be fetched")]
    Fetch {
        /// Which resource.
        id: String,
        /// Why.
        #[source]
        source: ExchangeError,
    },
    /// It is not what the lock says.
    #[error("{id} is not what was locked")]
    Archive {
        /// Which resource.
        id: String,
        /// Why.
        #[source]
        source: BadArchive,
    },
    /// It was good when it was locked.
    #[error("{0}")]
    Resource(#[from] Problems),
    /// There is no room for it.
    #[error("it cannot be written")]
    Write(#[from] io::Error),
}

/// Makes ready what `claude` finds of the library.
pub(crate) async fn prepare(
    order: &WorkOrder,
    exchange: &Exchange<'_>,
    home: &Path,
) -> Result<Compiled, LibraryError> {
    let Some(library) = &order.library else { return Ok(Compiled::default()) };
    let resolution = fetch(library, exchange).await?;
    let config = config_dir(home);
    let compiled = compile(&resolution, &config.to_string_lossy(), &Secrets::new());
    for file in &compiled.files {
        write(&config.join(&file.path), &file.bytes, file.executable)?;
    }
    Ok(compiled)
}

async fn fetch(library: &OrderedLibrary, exchange: &Exchange<'_>) -> Result<Resolution, LibraryError> {
    let lock: Lock = serde_json::from_str(&library.lock).map_err(LibraryError::Lock)?;
    let (mut resources, mut bytes) = (Vec::new(), 0);
    for Locked { id, sha256, from, .. } in lock.resources {
        let path = format!("{RESOURCE_PATH}{sha256}");
        let ask = || async {
            let request = exchange.head(Method::GET, &path).body(Empty::<Bytes>::new());
            exchange.once(request.expect("digits are a path"), pack::ARCHIVE_BYTES_MAX).await
        };
        let fetched = exchange.until_answered(&path, ask).await;
        let archive = fetched.map_err(|source| LibraryError::Fetch { id: id.to_string(), source })?;
        let files = pack::unpack(&archive, &sha256);
        let files = files.map_err(|source| LibraryError::Archive { id: id.to_string(), source })?;
        let resource = Resource::read(id, files)?;
        bytes += resource.bytes();
        if bytes > BYTES_MAX {
            return Err(LibraryError::Large);
        }
        resources.push((resource, from));
    }
    Ok(Resolution { project: lock.project, agent: lock.agent, resources, shadowed: Vec::new() })
}

/// Writes a file of the CLI's folder that is not there yet: nobody else can have touched it.
pub(crate) fn write(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mode = if executable { 0o700 } else { 0o600 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    // Whatever the process's own mask is.
    file.set_permissions(fs::Permissions::from_mode(mode))
}
